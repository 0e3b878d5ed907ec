package delivery

import (
	"errors"
	"net/netip"
	"strings"
	"testing"

	"sluice/proxy/relay"
	"sluice/proxy/smtp"
	"sluice/proxy/tlspolicy"
)

// vouched tells of each server that some domain vouches for it.
type vouched struct{ p *tlspolicy.Policy }

func (v *vouched) PolicyAt(netip.Addr) (*tlspolicy.Policy, bool) { return v.p, v.p != nil }

// TestREQUIRETLSLooksAtEachExchanger (RFC 8689 4.2.1): the message goes to the first that proves to be the domain's and keeps it. It comes
// back where there is none, and waits where there may be one.
func TestREQUIRETLSLooksAtEachExchanger(t *testing.T) {
	t.Parallel()
	const waits = "waits"
	for _, c := range []struct{ hosts, want string }{
		{"keeps", "keeps"},
		{"lacks keeps", "keeps"},
		{"plain keeps", "keeps"},
		{"unproven keeps", "keeps"},
		{"other keeps", "keeps"},
		{"dead keeps", "keeps"},
		{"forged keeps", "keeps"},
		{"lacks", ""},
		{"unproven", ""}, // some domain vouches for it, and not the recipient's
		{"lacks unproven other plain", ""},
		{"lacks dead", waits},
		{"dead lacks", waits},
		{"lacks forged", waits},
	} {
		t.Run(c.hosts, func(t *testing.T) {
			t.Parallel()
			v := &vouched{}
			w := newWorld(t, func(o *Options) { o.Dialer = relay.NewDialer(relay.Options{Servers: v}) })
			hosts := strings.Fields(c.hosts)
			addrs := []string{"127.0.0.2", "127.0.0.3", "127.0.0.4", "127.0.0.5"}[:len(hosts)]
			w.host("one.example", addrs...)
			mxs := map[string]*safe{}
			for i, kind := range hosts {
				h := &w.domains["one.example"].Hosts[i]
				proof := func(r tlspolicy.TLSA) *tlspolicy.Policy {
					return &tlspolicy.Policy{Level: tlspolicy.DANE, Source: tlspolicy.TLSAs, TLSA: []tlspolicy.TLSA{r}, SNI: h.Host}
				}
				skill := "REQUIRETLS"
				switch kind {
				case "dead":
					continue
				case "forged":
					h.Err = errors.New("SERVFAIL")
					continue
				case "plain":
					w.serve(addrs[i], nil).caps = "250-mx\r\n250 REQUIRETLS"
					h.Proof = proof(tlspolicy.TLSA{Usage: 3, Matching: 1, Data: make([]byte, 32)})
					continue
				case "lacks":
					skill = "8BITMIME"
				}
				mx := w.serveTLS(addrs[i], skill)
				switch mxs[kind] = mx; kind {
				case "unproven":
					v.p = proof(mx.tlsa)
				case "other":
					h.Proof = proof(tlspolicy.TLSA{Usage: 3, Matching: 1, Data: make([]byte, 32)})
				default:
					h.Proof = proof(mx.tlsa)
				}
			}
			env := w.mail("x@one.example")
			env.RequireTLS = true
			w.send(env, text)
			r := w.next()
			o := r.Rcpts[0]
			switch {
			case c.want == "" && (o.Fate != Failed || o.Reply.Enh != smtp.Enhanced{5, 7, 30}):
				t.Errorf("it does not come back: %+v", o)
			case c.want == waits && (o.Fate != Deferred || o.Reply.Enh != smtp.Enhanced{4, 7, 30}):
				t.Errorf("it does not wait: %+v", o)
			case c.want == "keeps" && o.Fate != Delivered:
				t.Errorf("it does not arrive: %+v", o)
			}
			for kind, mx := range mxs {
				want := int32(0)
				if kind == c.want {
					want = 1
				}
				if got, with := mx.messages.Load(), mx.required.Load(); got != want || with != want {
					t.Errorf("%q took %d messages, MAIL with REQUIRETLS %d times", kind, got, with)
				}
			}
			for _, l := range w.q.Lanes() {
				if l.Domain == "one.example" && l.Misses > 0 {
					t.Errorf("the destination, which was reached, is held for dead: %+v", l)
				}
			}
		})
	}
}

// TestREQUIRETLSByARelay: one that the operator names, and has verified, needs nothing that is published.
func TestREQUIRETLSByARelay(t *testing.T) {
	t.Parallel()
	for _, verified := range []bool{true, false} {
		up := &Upstream{Host: "127.0.0.2"}
		w := newWorld(t, func(o *Options) {
			o.Upstream = func(uint32, string, string) *Upstream { return up }
		})
		up.Port = w.port
		mx := w.serveTLS("127.0.0.2", "REQUIRETLS")
		if verified {
			up.Policy = &tlspolicy.Policy{Level: tlspolicy.DANE, Source: tlspolicy.Setting, TLSA: []tlspolicy.TLSA{mx.tlsa}}
		}
		env := w.mail("x@one.example")
		env.RequireTLS = true
		w.send(env, text)
		o := w.next().Rcpts[0]
		if is := o.Fate == Delivered && mx.required.Load() == 1; is != verified || !verified && (o.Reply.Enh != smtp.Enhanced{5, 7, 30} || mx.messages.Load() > 0) {
			t.Errorf("verified %t: %+v", verified, o)
		}
	}
}
