package proxy

import (
	"crypto/tls"
	"net/netip"
	"strings"
	"testing"

	"sluice/filter/policy"
	"sluice/proxy/cert"
	"sluice/proxy/distrust"
	"sluice/proxy/pool"
)

// noDisk is a store of what is learnt that keeps nothing.
type noDisk struct{}

func (noDisk) Refusals() ([]distrust.Entry, error)                 { return nil, nil }
func (noDisk) PutRefusals([]distrust.Entry, []distrust.Pair) error { return nil }

// learning has the rig learn as the daemon does, with or without grants that no person gives.
func learning(t *testing.T, byItself bool) (*distrust.Ledger, func(*rig)) {
	l, err := distrust.New(distrust.Options{Store: noDisk{}, ByItself: func() bool { return byItself }})
	must(t, err)
	return l, func(r *rig) { r.cfg.Refusals = l }
}

// asks has a destination ask for a certificate in the handshake.
func asks(how tls.ClientAuthType, version uint16) func(*remote) {
	return func(r *remote) { r.tls.ClientAuth, r.tls.MaxVersion = how, version }
}

// showing are the settings of a client with a certificate of its own.
func showing(t *testing.T) *tls.Config {
	c, err := cert.New(cert.Options{Name: "mail.client.example"})
	must(t, err)
	mine, err := c.Certificate(&tls.ClientHelloInfo{})
	must(t, err)
	return &tls.Config{InsecureSkipVerify: true, Certificates: []tls.Certificate{*mine}}
}

// leave says QUIT; the one who answers may be the destination.
func (p *peer) leave() {
	p.write("QUIT\r\n")
	p.reply()
	must(p.t, p.nc.Close())
}

// mailUnder sends one message under the TLS that follows STARTTLS, and gives whose certificate the client was shown.
func (p *peer) mailUnder(cfg *tls.Config) string {
	p.t.Helper()
	must(p.t, p.shake(cfg))
	p.cmd("EHLO client.example", "250")
	p.envelope()
	p.send(goodMail, "250")
	p.leave()
	return p.nc.(*tls.Conn).ConnectionState().PeerCertificates[0].DNSNames[0]
}

// TestDestinationThatNeedsACertificate: where the destination goes on with nobody who has no certificate, the client's own
// handshake passes, in the same session in which that shows, and in later ones; for a client without one as well.
func TestDestinationThatNeedsACertificate(t *testing.T) {
	t.Parallel()
	for name, script := range map[string][]func(*remote){
		"TLS 1.2": {asks(tls.RequireAnyClientCert, tls.VersionTLS12)},
		"TLS 1.3": {asks(tls.RequireAnyClientCert, tls.VersionTLS13)},
		"refuses EHLO under TLS": {asks(tls.RequestClientCert, tls.VersionTLS13),
			reply("EHLO", "250-mx.sink.example\r\n250 STARTTLS", "421 4.7.1 Client not trusted",
				"250-mx.sink.example\r\n250 STARTTLS", "250-mx.sink.example\r\n250 STARTTLS", "250-mx.sink.example\r\n250 8BITMIME")},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			mx := newRemote(t, append([]func(*remote){remoteTLS(t)}, script...)...)
			l, learns := learning(t, true)
			r := newRig(t, mx.addr(), withTLS, passing(policy.Terminate), learns)
			for n := range 2 {
				if n > 0 && strings.HasPrefix(name, "refuses") {
					break // its script is over
				}
				if who := r.hello().mailUnder(showing(t)); who != "mx.sink.example" {
					t.Errorf("session %d: the client was shown the certificate of %s", n, who)
				}
				if rec := r.log.wait(t, n+1)[n]; rec.In.Version != Opaque || !strings.Contains(rec.Note, "the destination wants the client's certificate") {
					t.Errorf("session %d: record %+v", n, rec)
				}
			}
			if all := l.List(); len(all) != 1 || all[0].Wanted != 1 || all[0].Grant.By != "" || all[0].Grant.Why != "the destination wants the client's certificate" {
				t.Errorf("learnt is %+v", all)
			}
			if n := len(mx.messages()); n == 0 {
				t.Error("nothing has arrived")
			}
		})
	}
}

// TestNeededCertificateOnlyByAPerson: where nothing passes by itself, that it would have to is known, and the client is
// offered what the onward leg gives.
func TestNeededCertificateOnlyByAPerson(t *testing.T) {
	t.Parallel()
	mx := newRemote(t, remoteTLS(t), asks(tls.RequireAnyClientCert, tls.VersionTLS13))
	l, learns := learning(t, false)
	r := newRig(t, mx.addr(), withTLS, passing(policy.Terminate), learns)
	p := r.dial()
	if got := p.cmd("EHLO client.example", "250"); strings.Contains(got, "STARTTLS") {
		t.Errorf("offered is %q", got)
	}
	p.envelope()
	p.send(goodMail, "250") // this one takes plain text
	p.cmd("QUIT", "221")
	all := l.List()
	if len(all) != 1 || all[0].Wanted != 1 || all[0].Grant != (distrust.Grant{}) {
		t.Fatalf("learnt is %+v", all)
	}
	_, err := l.Allow(all[0].Pair, distrust.Grant{By: "carol", Why: "ticket 4711"}, "alice")
	must(t, err)
	if who := r.hello().mailUnder(showing(t)); who != "mx.sink.example" {
		t.Errorf("allowed, and the client was shown the certificate of %s", who)
	}
}

// TestOptionalCertificate: who asks for a certificate and takes mail without is read as ever; a relay, which is nobody's
// exchanger, that takes none without is passed from the next session on. An exchanger that will not relay is not: else two
// words of a client would buy it a tunnel to every large receiver, all of which ask.
func TestOptionalCertificate(t *testing.T) {
	t.Parallel()
	here, elsewhere := netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("192.0.2.1")
	for _, tc := range []struct {
		name      string
		exchanger netip.Addr
		rcpt      string
		learns    bool
	}{
		{"taken by an exchanger", here, "250 2.1.5 fine", false},
		{"taken by a relay", elsewhere, "250 2.1.5 fine", false},
		{"denied by a relay", elsewhere, "554 5.7.1 <b@sink.example>: Relay access denied", true},
		{"denied by an old relay", elsewhere, "550 relaying is not allowed", true},
		{"denied for now by a relay", elsewhere, "454 4.7.1 <b@sink.example>: Relay access denied", true},
		{"wants to know who it is", elsewhere, "530 5.7.0 Authentication required", true},
		{"denied by an exchanger", here, "550 5.7.64 TenantAttribution; Relay Access Denied", false},
		{"unknown at a relay", elsewhere, "550 5.1.1 nobody of that name", false},
		{"put off by a relay", elsewhere, "454 4.7.1 not now", false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			mx := newRemote(t, remoteTLS(t), asks(tls.RequestClientCert, tls.VersionTLS13), reply("RCPT", tc.rcpt))
			l, learns := learning(t, true)
			r := newRig(t, mx.addr(), withTLS, auto(tc.exchanger, pool.Allowed), learns)
			p := r.hello()
			must(t, p.shake(showing(t)))
			p.cmd("EHLO client.example", "250")
			p.cmd("MAIL FROM:<a@client.example>", "250")
			p.cmd("RCPT TO:<b@sink.example>", tc.rcpt)
			p.cmd("QUIT", "221")
			r.log.wait(t, 1)
			if n := len(l.List()); (n == 1) != tc.learns {
				t.Fatalf("learnt is %+v", l.List())
			}
			p = r.hello()
			must(t, p.shake(showing(t)))
			who, want := p.nc.(*tls.Conn).ConnectionState().PeerCertificates[0].DNSNames[0], "gw.example"
			if tc.learns {
				want = "mx.sink.example"
			}
			if who != want {
				t.Errorf("the next session's certificate is that of %s, want %s", who, want)
			}
			p.leave()
		})
	}
}
