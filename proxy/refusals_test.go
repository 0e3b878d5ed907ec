package proxy

import (
	"bufio"
	"context"
	"crypto/tls"
	"net"
	"slices"
	"strings"
	"testing"

	"sluice/filter/policy"
	"sluice/intercept/flow"
	"sluice/proxy/distrust"
)

// refusals remembers what it is told, and lets pass as much as it has.
type refusals struct {
	told  chan string
	may   bool
	conns int
	bytes int
}

func (x *refusals) Refused(f *flow.Flow, how distrust.Way, text string) {
	x.told <- [...]string{"alert", "shake", "after", "wanted"}[how] + " " + text
}
func (x *refusals) Trusted(*flow.Flow) { x.told <- "trusted" }
func (x *refusals) MayPass(*flow.Flow) string {
	if x.may {
		return "the client refuses the gateway's certificate"
	}
	return ""
}
func (x *refusals) Pass(*flow.Flow) (func(int) bool, bool) {
	x.conns--
	return func(n int) bool { x.bytes -= n; return x.bytes >= 0 }, x.conns >= 0
}

// shake ends the peer's plain part with STARTTLS and tries a handshake.
func (p *peer) shake(c *tls.Config) error {
	p.cmd("STARTTLS", "220")
	tc := tls.Client(p.nc, c)
	if err := tc.Handshake(); err != nil {
		return err
	}
	p.nc, p.br = tc, bufio.NewReader(tc)
	return nil
}

// closesAtCertificate is a client that leaves without a word when it sees the certificate.
func closesAtCertificate(version uint16) func(*testing.T, *peer) {
	return func(_ *testing.T, p *peer) {
		_ = p.shake(&tls.Config{InsecureSkipVerify: true, MaxVersion: version, VerifyConnection: func(tls.ConnectionState) error {
			p.nc.Close()
			return net.ErrClosed
		}}) // it fails, as it must
	}
}

// TestRefusalsAreTold: each way in which a client shows that it does not want our certificate is told apart.
func TestRefusalsAreTold(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		do   func(t *testing.T, p *peer)
		want string
	}{
		"alert, TLS 1.3": {func(t *testing.T, p *peer) {
			if p.shake(&tls.Config{ServerName: "mx.sink.example"}) == nil {
				t.Error("the client takes it")
			}
		}, "alert remote error: tls: "},
		"alert, TLS 1.2": {func(t *testing.T, p *peer) {
			if p.shake(&tls.Config{ServerName: "mx.sink.example", MaxVersion: tls.VersionTLS12}) == nil {
				t.Error("the client takes it")
			}
		}, "alert remote error: tls: "},
		"closes when it sees it, TLS 1.3": {closesAtCertificate(tls.VersionTLS13), "shake "},
		"closes when it sees it, TLS 1.2": {closesAtCertificate(tls.VersionTLS12), "shake "},
		"closes before it sees it": {func(_ *testing.T, p *peer) {
			p.cmd("STARTTLS", "220")
			p.nc.Close()
		}, ""},
		"too old for us": {func(t *testing.T, p *peer) {
			if p.shake(&tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}) == nil {
				t.Error("TLS 1.1 is taken")
			}
			p.nc.Close()
		}, ""},
		"nonsense": {func(_ *testing.T, p *peer) {
			p.cmd("STARTTLS", "220")
			p.write("this is no handshake\r\n\r\n\r\n")
			p.nc.(*net.TCPConn).CloseWrite()
		}, ""},
		"quits under TLS": {func(_ *testing.T, p *peer) {
			p.startTLS()
			p.cmd("EHLO client.example", "250")
			p.cmd("QUIT", "221")
		}, "after "},
		"closes under TLS": {func(_ *testing.T, p *peer) {
			p.startTLS()
			p.nc.Close()
		}, "after "},
		"sends mail": {func(_ *testing.T, p *peer) {
			p.startTLS()
			p.cmd("EHLO client.example", "250")
			p.envelope()
			p.send(goodMail, "250")
			p.cmd("QUIT", "221")
		}, "trusted"},
		"in plain text": {func(_ *testing.T, p *peer) { p.cmd("QUIT", "221") }, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			mx, x := newRemote(t, remoteTLS(t)), &refusals{told: make(chan string, 10)}
			r := newRig(t, mx.addr(), withTLS, func(r *rig) { r.cfg.Refusals = x })
			tc.do(t, r.hello())
			r.log.wait(t, 1)
			must(t, r.srv.Shutdown(context.Background()))
			close(x.told)
			var all []string
			for s := range x.told {
				all = append(all, s)
			}
			if strings.HasPrefix(name, "closes under") {
				if rec := r.log.wait(t, 1)[0]; rec.Obstacle != NoHandshake || !strings.Contains(rec.Note, "may refuse the certificate") {
					t.Errorf("record %+v", rec)
				}
			}
			if tc.want == "" && len(all) > 0 || tc.want != "" && (len(all) != 1 || !strings.HasPrefix(all[0], tc.want)) {
				t.Errorf("told %q, want %q", all, tc.want)
			}
		})
	}
}

// TestLearntClientPasses: a client that may pass has its handshake with the destination, until there is no room.
func TestLearntClientPasses(t *testing.T) {
	t.Parallel()
	mx := newRemote(t, remoteTLS(t))
	x := &refusals{told: make(chan string, 10), may: true, conns: 1, bytes: 1 << 20}
	r := newRig(t, mx.addr(), withTLS, passing(policy.Terminate), func(r *rig) { r.cfg.Refusals = x })
	if st := r.hello().throughTLS(t); !slices.Contains(st.PeerCertificates[0].DNSNames, "mx.sink.example") {
		t.Errorf("the handshake is with %v", st.PeerCertificates[0].DNSNames)
	}
	if rec := r.log.wait(t, 1)[0]; rec.In.Version != Opaque || !strings.Contains(rec.Note, "refuses the gateway's certificate") {
		t.Errorf("record %+v", rec)
	}
	if st := r.hello().throughTLS(t); !slices.Contains(st.PeerCertificates[0].DNSNames, "gw.example") {
		t.Errorf("without a connection left the handshake is with %v", st.PeerCertificates[0].DNSNames)
	}
	if rec := r.log.wait(t, 2)[1]; rec.Status != Delivered || rec.In.Version == "" || rec.Out.Version == "" {
		t.Errorf("record %+v", rec)
	}
}

// TestLearntClientIsBounded: a connection whose source has used up its bytes ends, and not one byte more goes on.
func TestLearntClientIsBounded(t *testing.T) {
	t.Parallel()
	mx := newRemote(t, remoteTLS(t))
	x := &refusals{told: make(chan string, 10), may: true, conns: 9, bytes: 64 << 10}
	r := newRig(t, mx.addr(), withTLS, passing(policy.Terminate), func(r *rig) { r.cfg.Refusals = x })
	p := r.hello()
	p.startTLS()
	p.cmd("EHLO client.example", "250")
	p.envelope()
	p.cmd("DATA", "354")
	for range 100 {
		if _, err := p.nc.Write([]byte(strings.Repeat("x", 998) + "\r\n")); err != nil {
			break
		}
	}
	if b, err := p.br.ReadByte(); err == nil {
		t.Errorf("got %q", b)
	}
	if rec := r.log.wait(t, 1)[0]; rec.Note != spentNote || rec.Unread.Out+rec.Unread.In > 64<<10 || rec.Unread.Out < 10<<10 {
		t.Errorf("record %+v", rec)
	}
	if n := len(mx.messages()); n != 0 {
		t.Errorf("%d messages arrived", n)
	}
}

// TestDestinationRuleOutlivesAGrant: what a person said about a destination is stronger than what was learnt.
func TestDestinationRuleOutlivesAGrant(t *testing.T) {
	t.Parallel()
	mx := newRemote(t, remoteTLS(t))
	x := &refusals{told: make(chan string, 10), may: true, conns: 9, bytes: 1 << 20}
	r := newRig(t, mx.addr(), withTLS, passing(policy.Terminate), func(r *rig) {
		r.cfg.Refusals = x
		r.cfg.StartTLS = ruled{mx.addr(), policy.Terminate}
	})
	if st := r.hello().startTLS(); !slices.Contains(st.PeerCertificates[0].DNSNames, "gw.example") {
		t.Errorf("the handshake is with %v", st.PeerCertificates[0].DNSNames)
	}
}
