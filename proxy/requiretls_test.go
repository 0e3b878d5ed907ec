package proxy

import (
	"crypto/sha256"
	"crypto/tls"
	"slices"
	"strings"
	"testing"

	"sluice/proxy/relay"
	"sluice/proxy/tlspolicy"
)

// TestREQUIRETLSThatIsNotKeptAnyMore: the destination was remembered with it, and now lacks it, or TLS, or shows another
// certificate. The message stays with the client, and the next one is promised nothing.
func TestREQUIRETLSThatIsNotKeptAnyMore(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(t *testing.T) func(*remote){
		"no REQUIRETLS":       func(*testing.T) func(*remote) { return offering("8BITMIME", "STARTTLS") },
		"no TLS":              func(*testing.T) func(*remote) { return offering("8BITMIME", "REQUIRETLS") },
		"another certificate": func(t *testing.T) func(*remote) { return remoteTLS(t) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			mx := newRemote(t, remoteTLS(t), offering("8BITMIME", "STARTTLS", "REQUIRETLS"))
			shown, err := mx.tls.GetCertificate(&tls.ClientHelloInfo{ServerName: "mx.sink.example"})
			must(t, err)
			sum := sha256.Sum256(shown.Certificate[0])
			p := &tlspolicy.Policy{Level: tlspolicy.DANE, Source: tlspolicy.TLSAs, TLSA: []tlspolicy.TLSA{{Usage: 3, Matching: 1, Data: sum[:]}}}
			r := newRig(t, mx.addr(), withTLS, func(r *rig) {
				r.cfg.Onward = &fakeOnward{terms: map[string]*tlspolicy.Policy{"sink.example": p}}
				r.cfg.Dialer = relay.NewDialer(relay.Options{Servers: oneServer{p}})
			})
			c := r.hello()
			c.startTLS()
			c.cmd("EHLO client.example", "250")
			c.cmd("QUIT", "221")
			mx.await(t, "QUIT")
			mx.change(change(t))
			c = r.hello()
			c.startTLS()
			if !slices.Contains(c.lines("EHLO client.example"), "REQUIRETLS") {
				t.Fatal("not remembered")
			}
			c.cmd("MAIL FROM:<a@client.example> REQUIRETLS", "250")
			if got := c.cmd("RCPT TO:<b@sink.example>", "451 4.7."); !strings.Contains(got, "gw.example: ") {
				t.Errorf("answered %q", got)
			}
			c.cmd("QUIT", "221")
			for _, s := range mx.envelopes() {
				t.Errorf("the destination heard %q", s)
			}
		})
	}
}
