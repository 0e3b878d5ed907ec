//go:build labtest

package lab

import (
	"context"
	"crypto/tls"
	"slices"
	"strings"
	"testing"
	"time"
)

// requires scripts a peer to offer REQUIRETLS, under TLS alone (RFC 8689 2).
func (p *protectLab) requires(t *testing.T, n int, cfg *tls.Config) (s *Sink, domain, address string) {
	t.Helper()
	s, domain, address = p.peer(t, n)
	s.Encrypt(cfg)
	if err := s.Script(`ehlo#2: reply 250-mx.` + domain + `\n250-PIPELINING\n250-8BITMIME\n250 REQUIRETLS`); err != nil {
		t.Fatal(err)
	}
	return s, domain, address
}

// offered begins a session under TLS and tells whether REQUIRETLS is offered in it.
func (p *protectLab) offered(ctx context.Context, t *testing.T, address string) (*Client, bool) {
	t.Helper()
	c, _, err := underTLS(ctx, t, p.l, "alice", address+":25", anyCertificate)
	if err != nil {
		t.Fatal(err)
	}
	r, err := c.Cmd("EHLO mail.alice.example")
	if err != nil || r.Code != 250 {
		t.Fatalf("EHLO is answered %v, %v", r, err)
	}
	return c, slices.Contains(r.Lines, "REQUIRETLS")
}

// requireTLS says MAIL with REQUIRETLS and the recipients, then sends a message, where there is one, and gives what the client hears.
func requireTLS(t *testing.T, c *Client, message string, to ...string) (heard []string) {
	t.Helper()
	say := func(line string) Reply {
		r, err := c.Cmd(line)
		if err != nil {
			t.Fatalf("%s: after %q: %v", line, heard, err)
		}
		heard = append(heard, r.String())
		return r
	}
	if say("MAIL FROM:<r@alice.example> REQUIRETLS").Code != 250 {
		return heard
	}
	for _, a := range to {
		say("RCPT TO:<" + a + ">")
	}
	if message == "" {
		say("RSET")
	} else if say("DATA").Code == 354 {
		say("Subject: " + message + "\r\n\r\nx\r\n.")
	}
	return heard
}

// matches tells whether each text begins as it is to.
func matches(got, want []string) bool {
	return slices.EqualFunc(got, want, strings.HasPrefix)
}

// heardRequired are the lines with REQUIRETLS that a peer heard.
func heardRequired(s *Sink) (lines []string) {
	for _, x := range s.Sessions() {
		for _, line := range x.Lines {
			if strings.HasPrefix(line, "C: ") && strings.Contains(line, "REQUIRETLS") {
				lines = append(lines, line)
			}
		}
	}
	return lines
}

// The beginnings of what a client hears of REQUIRETLS that cannot be kept.
const (
	notOffered  = "555 5.5.4 gw.example: "
	unproven    = "550 5.7.30 gw.example: REQUIRETLS cannot be kept: "
	notAsWanted = "451 4.7.5 gw.example: the destination's certificate is not what is required: "
	notKept     = "451 4.7.30 gw.example: the destination does not keep REQUIRETLS any more"
)

// TestREQUIRETLSOfIntercepted: a client that is encrypted is offered REQUIRETLS where the destination offers it, and what its
// domain publishes proves it; the mail then goes there as it must. Everything else is told, and nothing leaves.
func TestREQUIRETLSOfIntercepted(t *testing.T) {
	t.Parallel()
	p := startProtectLab(t)
	for name, test := range map[string]func(*protectLab, context.Context, *testing.T){
		"DANE": requiredByDANE, "MTA-STS": requiredByMTASTS, "go-smtp": requiredOfGoSMTP, "not to be had": requiredInVain, "not any more": requiredNoMore,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(p, testContext(t), t)
		})
	}
}

// kept sends a mail with REQUIRETLS and expects it at the destination, with the parameter, under TLS.
func (p *protectLab) kept(ctx context.Context, t *testing.T, s *Sink, address, to string) {
	t.Helper()
	c, is := p.offered(ctx, t, address)
	defer c.Close()
	if !is {
		t.Fatal("REQUIRETLS is not offered")
	}
	if got := requireTLS(t, c, "required", to); !matches(got, []string{"250 ", "250 ", "354 ", "250 "}) {
		t.Fatalf("the client hears %q", got)
	}
	if err := c.Quit(); err != nil {
		t.Error(err)
	}
	var came *Message
	for _, m := range s.Messages() {
		if strings.Contains(m.Mail, "REQUIRETLS") {
			came = m
		}
	}
	if came == nil || !came.TLS || came.Sender() != "r@alice.example" || !strings.Contains(string(came.Data), "Subject: required\r\n") || !DeliveryV4.Contains(came.Peer.Addr()) {
		t.Errorf("it arrived as %+v", came)
	}
	plain, err := p.l.SMTP(ctx, "bob", "", address+":25")
	if err != nil {
		t.Fatal(err)
	}
	defer plain.Close()
	if r, err := plain.Cmd("EHLO mail.bob.example"); err != nil || slices.Contains(r.Lines, "REQUIRETLS") || !slices.Contains(r.Lines, "STARTTLS") {
		t.Errorf("in plain text EHLO is answered %v, %v", r, err)
	}
	before := len(heardRequired(s))
	if got := requireTLS(t, plain, "", to); !matches(got, []string{notOffered}) {
		t.Errorf("in plain text the client hears %q", got)
	}
	if n := len(heardRequired(s)); n != before {
		t.Errorf("it went onward: %q", heardRequired(s))
	}
}

// tlsa publishes, signed, the key of the certificate that a server shows.
func (p *protectLab) tlsa(ctx context.Context, t *testing.T, domain, address string) {
	t.Helper()
	st, err := p.l.Certificate(ctx, HostInternet, address+":25")
	if err != nil {
		t.Fatal(err)
	}
	p.pub.Sign(domain)
	p.records(t, tlsaOf("mx."+domain, st.PeerCertificates[0]))
}

func requiredByDANE(p *protectLab, ctx context.Context, t *testing.T) {
	s, domain, address := p.requires(t, 1, nil)
	p.tlsa(ctx, t, domain, address)
	c, is := p.offered(ctx, t, address)
	if is {
		t.Error("offered before anything is known of the destination")
	}
	if got := requireTLS(t, c, "", "u@"+domain); !matches(got, []string{notOffered}) {
		t.Errorf("before anything is known the client hears %q", got)
	}
	if err := c.Quit(); err != nil {
		t.Error(err)
	}
	p.want(ctx, t, address, "u@"+domain, "dane", "ok", "self-signed")
	p.kept(ctx, t, s, address, "v@"+domain)
	if l := p.last(ctx, t, "v@"+domain); !strings.HasPrefix(l.TLSTerms, "dane") || l.Status != "delivered" {
		t.Errorf("the log says %+v", l)
	}
	// Other domains whose mail goes to the same server, and what it would be proven by.
	p.records(t, "bare.example. 60 IN MX 10 mx."+domain+".",
		"wrongly.example. 60 IN MX 10 mx.wrongly.example.", "mx.wrongly.example. 60 IN A "+address, tlsaOf("mx.wrongly.example", p.ca.cert),
		"elsewhere.example. 60 IN MX 10 mx.elsewhere.example.", "mx.elsewhere.example. 60 IN A 198.51.100.20")
	p.pub.Sign("wrongly.example")
	p.pub.Sign("elsewhere.example")
	p.pub.Forge("forged.example")
	had := len(heardRequired(s))
	for to, want := range map[string]string{
		"u@bare.example":      unproven, // DNSSEC does not tell that this is its exchanger
		"u@elsewhere.example": unproven, // it does, and it is another
		"u@nothing.example":   unproven,
		"u@wrongly.example":   notAsWanted + "no TLSA record matches",
		"u@forged.example":    "451 4.7.5 gw.example: could not find out how this recipient's mail must be protected",
	} {
		c, is := p.offered(ctx, t, address)
		if got := requireTLS(t, c, "in vain", to); !is || !matches(got, []string{"250 ", want, want[:3]}) && !matches(got, []string{"250 ", want, "554 5.5.1 "}) {
			t.Errorf("%s: offered %v, the client hears %q", to, is, got)
		}
		_ = c.Close()
	}
	if got := heardRequired(s)[had:]; len(got) > 0 {
		t.Errorf("it went onward: %q", got)
	}
	// One that can be kept, beside one that cannot.
	c, _ = p.offered(ctx, t, address)
	defer c.Close()
	if got := requireTLS(t, c, "for one", "w@"+domain, "u@bare.example"); !matches(got, []string{"250 ", "250 ", unproven, "354 ", "250 "}) {
		t.Errorf("for two the client hears %q", got)
	}
	all := s.Messages()
	if m := all[len(all)-1]; len(m.Rcpts) != 1 || m.Recipients()[0] != "w@"+domain || !m.TLS || !strings.Contains(m.Mail, "REQUIRETLS") {
		t.Errorf("for one of two arrived %+v", m)
	}
}

func requiredByMTASTS(p *protectLab, ctx context.Context, t *testing.T) {
	s, domain, address := p.requires(t, 2, p.ca.server(t, "mx.peer02.example", time.Hour))
	p.sts(t, domain, "mx."+domain)
	p.want(ctx, t, address, "u@"+domain, "mta-sts enforce", "ok", "trusted for mx."+domain)
	p.kept(ctx, t, s, address, "v@"+domain)
}

// requiredOfGoSMTP: a server that this project did not write.
func requiredOfGoSMTP(p *protectLab, ctx context.Context, t *testing.T) {
	const domain, address = "gosmtp.example", "198.51.100.24"
	p.records(t, domain+". 60 IN MX 10 mx."+domain+".", "mx."+domain+". 60 IN A "+address)
	p.tlsa(ctx, t, domain, address)
	p.want(ctx, t, address, "u@"+domain, "dane", "ok", "")
	p.kept(ctx, t, p.l.Sink("gosmtp"), address, "v@"+domain)
}

// requiredInVain: the certificate is another than that of the records, nothing is published, REQUIRETLS is not offered.
func requiredInVain(p *protectLab, ctx context.Context, t *testing.T) {
	wrong, domain3, address3 := p.requires(t, 3, nil)
	p.pub.Sign(domain3)
	p.records(t, tlsaOf("mx."+domain3, p.ca.cert))
	p.want(ctx, t, address3, "u@"+domain3, "dane", "no TLSA record matches", "self-signed")
	bare, domain4, address4 := p.requires(t, 4, nil)
	p.want(ctx, t, address4, "u@"+domain4, "none", "", "self-signed")
	without, domain5, address5 := p.peer(t, 5)
	without.Encrypt(nil)
	p.tlsa(ctx, t, domain5, address5)
	p.want(ctx, t, address5, "u@"+domain5, "dane", "ok", "self-signed")
	for _, d := range []struct {
		s               *Sink
		domain, address string
	}{{wrong, domain3, address3}, {bare, domain4, address4}, {without, domain5, address5}} {
		for range 3 { // by the session that is kept, and by what is remembered
			c, is := p.offered(ctx, t, d.address)
			if got := requireTLS(t, c, "in vain", "v@"+d.domain); is || !matches(got, []string{notOffered}) {
				t.Errorf("%s: offered %v, the client hears %q", d.domain, is, got)
			}
			if err := c.Quit(); err != nil {
				t.Error(err)
			}
		}
		if got := heardRequired(d.s); len(got) > 0 {
			t.Errorf("%s: it went onward: %q", d.domain, got)
		}
	}
}

// requiredNoMore: a destination that was proven breaks off at MAIL, and is another one when it is asked again.
func requiredNoMore(p *protectLab, ctx context.Context, t *testing.T) {
	for _, c := range []struct {
		peer       int
		name, ehlo string
		another    bool // certificate
		want       string
	}{
		{6, "another certificate", `ehlo#2: reply 250-mx.peer06.example\n250-PIPELINING\n250 REQUIRETLS`, true, notAsWanted},
		{7, "no REQUIRETLS", `ehlo#2: reply 250-mx.peer07.example\n250 PIPELINING`, false, notKept},
		{8, "no TLS", `ehlo: reply 250-mx.peer08.example\n250-PIPELINING\n250 REQUIRETLS`, false, "451 4.7.5 gw.example: encryption is required, and the destination does not offer it"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s, domain, address := p.requires(t, c.peer, nil)
			p.tlsa(ctx, t, domain, address)
			p.want(ctx, t, address, "u@"+domain, "dane", "ok", "self-signed")
			x, is := p.offered(ctx, t, address)
			if !is {
				t.Fatal("not offered")
			}
			if c.another {
				s.Encrypt(p.ca.server(t, "mx."+domain, time.Hour))
			}
			if err := s.Script(c.ehlo, "mail: close"); err != nil {
				t.Fatal(err)
			}
			before, sessions := len(s.Messages()), len(s.Sessions())
			if got := requireTLS(t, x, "no more", "v@"+domain); len(got) < 2 || !strings.HasPrefix(got[1], c.want) {
				t.Errorf("the client hears %q", got)
			}
			if err := x.Quit(); err != nil {
				t.Error(err)
			}
			all := s.Sessions()
			if len(all) == sessions {
				t.Error("it was not asked again")
			}
			for _, x := range all[sessions:] {
				if strings.Contains(strings.Join(x.Lines, "\n"), "C: MAIL") {
					t.Errorf("after that it heard %q", x.Lines)
				}
			}
			if n := len(s.Messages()); n != before {
				t.Errorf("%d messages arrived", n-before)
			}
		})
	}
}
