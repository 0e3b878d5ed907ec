package proxy

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"

	"sluice/filter/policy"
	"sluice/proxy/cert"
	"sluice/proxy/relay"
	"sluice/proxy/tlspolicy"
)

// fakeOnward has terms by domain.
type fakeOnward struct {
	mu     sync.Mutex
	terms  map[string]*tlspolicy.Policy
	report tlspolicy.Report
	judged []string
}

func (o *fakeOnward) Terms(_ context.Context, _ *policy.Settings, _ netip.AddrPort, domain string) (*tlspolicy.Policy, error) {
	if domain == "unknown.example" {
		return nil, errors.New("no answer")
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.terms[domain], nil
}

func (o *fakeOnward) Proof(ctx context.Context, _ netip.AddrPort, domain string) (*tlspolicy.Policy, error) {
	return o.Terms(ctx, nil, netip.AddrPort{}, domain)
}

func (o *fakeOnward) Judge(domain string, _ netip.Addr, leg *tlspolicy.Leg) (tlspolicy.Report, bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if leg.State != nil {
		domain += " encrypted"
	}
	o.judged = append(o.judged, domain)
	return o.report, len(o.judged) > 1
}

func encrypted(t testing.TB) func(*remote) {
	c, err := cert.New(cert.Options{Name: "mx.sink.example"})
	must(t, err)
	return func(r *remote) {
		r.tls, r.ehlo = c.Config(), append(r.ehlo, "STARTTLS")
	}
}

func TestOnwardLegIsWhatItMustBe(t *testing.T) {
	t.Parallel()
	required := &tlspolicy.Policy{Level: tlspolicy.Encrypt, Source: tlspolicy.Setting}
	verified := &tlspolicy.Policy{Level: tlspolicy.Verify, Source: tlspolicy.Setting, Names: []string{"mx.sink.example"}}
	ancient := func(r *remote) { r.tls = r.tls.Clone(); r.tls.MaxVersion = tls.VersionTLS11 }
	for _, c := range []struct {
		name   string
		terms  *tlspolicy.Policy
		change []func(*remote)
		want   string // of RCPT
		note   string
	}{
		{"required and there", required, []func(*remote){encrypted(t)}, "250", ""},
		{"required, not offered", required, nil, "451 4.7.5 gw.example: encryption is required, and the destination does not offer it", ""},
		{"required, refused", required, []func(*remote){encrypted(t), reply("STARTTLS", "454 4.7.0 not now")}, "451 4.7.5 gw.example: encryption is required, and the destination refuses it", ""},
		{"required, TLS 1.1", required, []func(*remote){encrypted(t), ancient}, "451 4.7.5 gw.example: encryption is required, and the handshake with the destination fails", "protocol version"},
		{"verified, self-signed", verified, []func(*remote){encrypted(t)}, "451 4.7.5 gw.example: the destination's certificate is not what is required: the certificate is self-signed", ""},
		{"opportunistic, TLS 1.1", nil, []func(*remote){encrypted(t), ancient}, "250", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			remote := newRemote(t, c.change...)
			r := newRig(t, remote.addr(), withTLS, func(r *rig) {
				r.cfg.Onward = &fakeOnward{terms: map[string]*tlspolicy.Policy{"sink.example": c.terms}}
			})
			for range 2 { // known, the second time
				p := r.dial()
				ehlo := p.cmd("EHLO client.example", "250")
				if able := strings.HasPrefix(c.want, "250") && c.terms != nil || c.terms == verified; strings.Contains(ehlo, "STARTTLS") != able {
					t.Errorf("EHLO is not honest: %q", ehlo)
				}
				p.cmd("MAIL FROM:<a@client.example>", "250")
				p.cmd("RCPT TO:<b@sink.example>", c.want)
				if strings.HasPrefix(c.want, "250") {
					p.send(goodMail, "250")
				} else {
					p.cmd("DATA", "451 4.7.5")
				}
				p.cmd("MAIL FROM:<a@client.example>", "250")
				p.cmd("RCPT TO:<b@elsewhere.example>", "250") // no terms: it goes as it can
				p.cmd("QUIT", "221")
			}
			recs := r.log.wait(t, 4)
			if c.terms != nil && !strings.HasSuffix(recs[0].Terms, "(setting)") || !strings.Contains(recs[0].Note, c.note) {
				t.Errorf("terms %q, note %q", recs[0].Terms, recs[0].Note)
			}
			for _, line := range remote.commands() {
				if !strings.HasPrefix(c.want, "250") && strings.Contains(line, "b@sink.example") {
					t.Errorf("the recipient went onward: %q", line)
				}
			}
		})
	}
}

func TestRecipientsOfOtherTermsComeApart(t *testing.T) {
	t.Parallel()
	remote := newRemote(t, encrypted(t))
	required := &tlspolicy.Policy{Level: tlspolicy.Encrypt}
	on := &fakeOnward{terms: map[string]*tlspolicy.Policy{"safe.example": required, "safe2.example": required, "other.example": {Level: tlspolicy.Verify}}}
	r := newRig(t, remote.addr(), func(r *rig) { r.cfg.Onward = on })
	p := r.hello()
	p.cmd("MAIL FROM:<a@client.example>", "250")
	p.cmd("RCPT TO:<b@any.example>", "250")
	p.cmd("RCPT TO:<b@safe.example>", "452 4.5.3 gw.example: this recipient's mail needs a better protected way")
	p.cmd("RCPT TO:<b@unknown.example>", "451 4.7.5 gw.example: could not find out")
	p.cmd("RCPT TO:<c@any.example>", "250")
	p.send(goodMail, "250")
	p.cmd("MAIL FROM:<a@client.example>", "250")
	p.write("RCPT TO:<b@safe.example>\r\nRCPT TO:<b@safe2.example>\r\nRCPT TO:<b@other.example>\r\nRCPT TO:<b@any.example>\r\n")
	p.want("250")
	p.want("250")
	p.want("452 4.5.3")
	p.want("250")
	p.send(goodMail, "250")
	recs := r.log.wait(t, 2)
	if len(recs[0].To) != 4 || recs[0].To[1].Code != 452 || recs[0].To[2].Code != 451 || recs[1].To[2].Code != 452 {
		t.Errorf("recorded %+v and %+v", recs[0].To, recs[1].To)
	}
}

func TestReportStandsInTheRecord(t *testing.T) {
	t.Parallel()
	for _, plain := range []bool{false, true} {
		change := []func(*remote){}
		want := "sink.example"
		if !plain {
			change, want = append(change, encrypted(t)), want+" encrypted"
		}
		remote := newRemote(t, change...)
		on := &fakeOnward{report: tlspolicy.Report{Policy: "dane", Result: "no TLSA record matches the certificate"}}
		r := newRig(t, remote.addr(), func(r *rig) { r.cfg.Onward = on })
		p := r.hello()
		p.envelope()
		p.send(goodMail, "250")
		if rec := r.log.wait(t, 1)[0]; rec.Asks != on.report || rec.Terms != "" || (rec.Out.Version == "") != plain {
			t.Errorf("recorded %+v, terms %q, %+v", rec.Asks, rec.Terms, rec.Out)
		}
		if on.judged[0] != want {
			t.Errorf("judged %q, want %q", on.judged, want)
		}
	}
}

func TestKeptSessionIsNotUsedUnderOtherTerms(t *testing.T) {
	t.Parallel()
	remote := newRemote(t)
	required := &tlspolicy.Policy{Level: tlspolicy.Encrypt}
	on := &fakeOnward{terms: map[string]*tlspolicy.Policy{"sink.example": nil}}
	r := newRig(t, remote.addr(), keeping(wait), func(r *rig) { r.cfg.Onward = on })
	r.mail("250")
	on.mu.Lock()
	on.terms["sink.example"] = required
	on.mu.Unlock()
	remote.mu.Lock()
	encrypted(t)(remote)
	remote.mu.Unlock()
	r.mail("250")
	if rec := r.log.wait(t, 2)[1]; rec.Out.Version == "" {
		t.Errorf("it went in plain text: %+v", rec)
	}
}

// TestNoPasswordInPlainTextWhereEncryptionIsRequired: AUTH comes before a recipient whose domain could say so.
func TestNoPasswordInPlainTextWhereEncryptionIsRequired(t *testing.T) {
	t.Parallel()
	required := &tlspolicy.Policy{Level: tlspolicy.Encrypt, Source: tlspolicy.Setting}
	on := &fakeOnward{terms: map[string]*tlspolicy.Policy{"": required, "sink.example": required}}
	for _, there := range []bool{true, false} {
		change := submission("PLAIN LOGIN")
		if there {
			change = append(change, encrypted(t))
		}
		change = append(change, reply("AUTH", "235 2.7.0 welcome"))
		mx := newRemote(t, change...)
		var tried attempts
		r := newRig(t, mx.addr(), withAuth(&tried), func(r *rig) { r.cfg.Onward = on })
		p := r.dial()
		if got := p.cmd("EHLO client.example", "250"); strings.Contains(got, "AUTH") != there {
			t.Errorf("encrypted onward %v: %q", there, got)
		}
		if !there {
			p.cmd("AUTH PLAIN AHVzZXIAcGFzcw==", "502 5.5.1")
			continue
		}
		mx.mu.Lock()
		mx.ehlo = slices.DeleteFunc(mx.ehlo, func(s string) bool { return s == "STARTTLS" }) // it was so when it was asked
		mx.mu.Unlock()
		p.cmd("AUTH PLAIN AHVzZXIAcGFzcw==", "451 4.7.5 gw.example: encryption is required, and the destination does not offer it")
		for _, line := range mx.commands() {
			if strings.Contains(line, "AHVzZXIAcGFzcw==") {
				t.Errorf("the password went by in plain text: %q", line)
			}
		}
	}
}

// oneServer is what is known of every server.
type oneServer struct{ p *tlspolicy.Policy }

func (o oneServer) PolicyAt(netip.Addr) (*tlspolicy.Policy, bool) { return o.p, true }

// TestREQUIRETLSGoesOnlyToWhoProvesToBeTheDomains (RFC 8689 4.2.1).
func TestREQUIRETLSGoesOnlyToWhoProvesToBeTheDomains(t *testing.T) {
	t.Parallel()
	mx := newRemote(t, encrypted(t), func(r *remote) { r.ehlo = append(r.ehlo, "REQUIRETLS") })
	shown, err := mx.tls.GetCertificate(&tls.ClientHelloInfo{ServerName: "mx.sink.example"})
	must(t, err)
	sum := sha256.Sum256(shown.Certificate[0])
	right := &tlspolicy.Policy{Level: tlspolicy.DANE, Source: tlspolicy.TLSAs, TLSA: []tlspolicy.TLSA{{Usage: 3, Matching: 1, Data: sum[:]}}}
	wrong := &tlspolicy.Policy{Level: tlspolicy.DANE, Source: tlspolicy.TLSAs, TLSA: []tlspolicy.TLSA{{Usage: 3, Matching: 1, Data: make([]byte, 32)}}}
	r := newRig(t, mx.addr(), withTLS, func(r *rig) {
		r.cfg.Onward = &fakeOnward{terms: map[string]*tlspolicy.Policy{"sink.example": right, "wrong.example": wrong}}
		r.cfg.Dialer = relay.NewDialer(relay.Options{Servers: oneServer{right}})
	})
	p := r.hello()
	p.startTLS()
	if got := p.cmd("EHLO client.example", "250"); !strings.Contains(got, "REQUIRETLS") {
		t.Fatalf("offered %q", got)
	}
	for to, want := range map[string]string{
		"b@sink.example":    "250",
		"b@wrong.example":   "451 4.7.5 gw.example: the destination's certificate is not what is required: no TLSA record matches",
		"b@other.example":   "550 5.7.30 gw.example: REQUIRETLS cannot be kept",
		"b@unknown.example": "451 4.7.5",
	} {
		p.cmd("MAIL FROM:<a@client.example> REQUIRETLS", "250")
		p.cmd("RCPT TO:<"+to+">", want)
		p.cmd("RSET", "250")
	}
	p.cmd("MAIL FROM:<a@client.example> REQUIRETLS", "250")
	p.cmd("RCPT TO:<b@sink.example>", "250")
	p.send(goodMail, "250")
	for _, line := range mx.commands() {
		if strings.Contains(line, "RCPT") && !strings.Contains(line, "b@sink.example") {
			t.Errorf("it went onward: %q", line)
		}
	}
	if !slices.ContainsFunc(mx.commands(), func(s string) bool { return strings.HasSuffix(s, "MAIL FROM:<a@client.example> REQUIRETLS") }) {
		t.Errorf("the destination is not told: %q", mx.commands())
	}
}
