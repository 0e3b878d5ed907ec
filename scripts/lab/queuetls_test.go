//go:build labtest

package lab

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"
)

// keptTo is a message for a domain that publishes how its mail is to be protected, and what comes of it in the queue.
type keptTo struct {
	name  string
	proof func(*protectLab, context.Context, *testing.T, string, string) // publishes what holds, or does not
	tls   bool                                                           // offered
	why   string                                                         // it is not delivered; "": it is
}

// TestTheQueueKeepsToWhatDomainsPublish: what DANE and MTA-STS ask for is met, or the mail stays here and the destination hears
// nothing of it, but where its sender would rather have it arrive. REQUIRETLS goes where it is proven to be kept, or comes back.
func TestTheQueueKeepsToWhatDomainsPublish(t *testing.T) {
	t.Parallel()
	p := startProtectLab(t, strings.Replace(strings.TrimPrefix(smarthostConfig, GatewayConfig), "callout = true\n", "", 1)) // nobody asks before
	dane := func(p *protectLab, ctx context.Context, t *testing.T, domain, address string) {
		p.tlsa(ctx, t, domain, address)
	}
	wrong := func(p *protectLab, _ context.Context, t *testing.T, domain, _ string) {
		p.pub.Sign(domain)
		p.records(t, tlsaOf("mx."+domain, p.ca.cert))
	}
	sts := func(p *protectLab, _ context.Context, t *testing.T, domain, _ string) { p.sts(t, domain, "mx."+domain) }
	for i, c := range []keptTo{
		{"DANE", dane, true, ""},
		{"DANE, another key", wrong, true, "no TLSA record matches"},
		{"DANE, no TLS", wrong, false, "does not offer it"},
		{"MTA-STS, an unknown authority", sts, true, "self-signed"},
		{"MTA-STS, no TLS", sts, false, "does not offer it"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			ctx := testContext(t)
			s, domain, address := p.peer(t, i+1)
			if c.tls {
				s.Encrypt(nil)
			}
			c.proof(p, ctx, t, domain, address)
			p.handIn(ctx, t, "TLS-Required: No\r\n", "waived@"+domain)
			if m := messageOf(ctx, t, s, "waived@"+domain); m.TLS != c.tls {
				t.Errorf("what need not be protected arrives under TLS: %v", m.TLS)
			}
			p.handIn(ctx, t, "", "u@"+domain)
			if c.why == "" {
				if !messageOf(ctx, t, s, "u@"+domain).TLS {
					t.Error("it arrived in plain text")
				}
				return
			}
			q := untilQueue(ctx, t, p.g, "a try at "+domain, func(q map[string]queued) bool { return q[domain].Tries > 0 && !q[domain].Trying })[domain]
			if !strings.Contains(q.Note, c.why) {
				t.Errorf("it stays for %q, not for %q", q.Note, c.why)
			}
			if n := len(s.Messages()); n != 1 {
				t.Errorf("%d messages arrived, want the one", n)
			}
		})
	}
	const offered, lacking = `ehlo#2: reply 250-mx\n250-PIPELINING\n250 REQUIRETLS`, `ehlo#2: reply 250-mx\n250 PIPELINING`
	for _, c := range []struct {
		name  string
		peer  int      // the first of the domain's exchangers
		rules []string // of each, in order
		at    int      // which of them takes it; -1: it comes back
	}{
		{"REQUIRETLS", 6, []string{offered}, 0},
		{"REQUIRETLS that is not offered", 7, []string{lacking}, -1},
		{"REQUIRETLS that the second offers", 8, []string{lacking, offered}, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			ctx := testContext(t)
			domain, all := "", []*Sink(nil)
			for k, rule := range c.rules {
				s, d, address := p.peer(t, c.peer+k)
				s.Encrypt(nil)
				p.tlsa(ctx, t, d, address)
				if err := s.Script(rule); err != nil {
					t.Fatal(err)
				}
				if all = append(all, s); k == 0 {
					domain = d
				} else {
					p.records(t, domain+". 60 IN MX 20 mx."+d+".")
				}
			}
			p.required(ctx, t, "u@"+domain)
			if c.at < 0 {
				p.comesBack(ctx, t, "u@"+domain, "5.7.30")
			} else if m := messageOf(ctx, t, all[c.at], "u@"+domain); !m.TLS || !strings.Contains(m.Mail, "REQUIRETLS") {
				t.Errorf("it arrived as %+v", m)
			}
			if c.at == 0 { // the same server takes the mail of a domain of whose exchangers nobody knows for sure
				p.records(t, "bare.example. 60 IN MX 10 mx."+domain+".")
				p.required(ctx, t, "u@bare.example")
				p.comesBack(ctx, t, "u@bare.example", "5.7.30")
			}
			for k, s := range all {
				if n := len(heardRequired(s)); (n == 1) != (k == c.at) {
					t.Errorf("exchanger %d heard of it %d times", k, n)
				}
			}
		})
	}
}

// required hands in a message with REQUIRETLS.
func (p *protectLab) required(ctx context.Context, t *testing.T, to string) {
	t.Helper()
	x, _, err := underTLS(ctx, t, p.l, "alice", "203.0.113.1:587", anyCertificate)
	if err != nil {
		t.Fatal(err)
	}
	defer x.Close()
	if got := requireTLS(t, x, "required", to); !matches(got, []string{"250 ", "250 ", "354 ", "250 "}) {
		t.Fatalf("the client hears %q", got)
	}
}

// comesBack waits until mail to somebody is given up.
func (p *protectLab) comesBack(ctx context.Context, t *testing.T, to, code string) {
	t.Helper()
	var all []struct{ To []struct{ Reply string } }
	if !eventually(ctx, func() bool {
		all = nil
		return sluiceJSON(ctx, p.g, &all, "log", "--to", to, "--status", "refused") != nil || len(all) > 0
	}) || len(all) == 0 || !strings.Contains(all[0].To[0].Reply, code) {
		t.Errorf("the log says of %s: %+v", to, all)
	}
}

// handIn gives the smarthost a message with one more field, which it is to take for all recipients.
func (p *protectLab) handIn(ctx context.Context, t *testing.T, field string, to ...string) {
	t.Helper()
	x, err := p.l.Hello(ctx, "alice", "", "203.0.113.1:587")
	if err != nil {
		t.Fatal(err)
	}
	defer x.Close()
	x.Timeout(time.Minute)
	rcpts, last, err := x.Send("a@alice.example", to, append([]byte(field), letter("alice", to[0])...))
	if err != nil || last.Code != 250 || slices.ContainsFunc(rcpts, func(r Reply) bool { return r.Code != 250 }) {
		t.Fatalf("the message to %s hears %v, %s, %v", to, rcpts, last, err)
	}
}
