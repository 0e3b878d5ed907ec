package proxy

import (
	"crypto/tls"
	"slices"
	"strings"
	"testing"
	"time"

	"sluice/proxy/relay"
)

// shift changes how a destination behaves from now on; sessions that are open go on.
func (r *remote) shift(f func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f()
}

// heardInPlain lists the MAIL commands that a destination heard outside of TLS.
func heardInPlain(said []string) (plain []string) {
	inside := map[string]bool{}
	for _, s := range said {
		conn, line, _ := strings.Cut(s, " ")
		switch {
		case line == "STARTTLS":
			inside[conn] = true // whoever fails the handshake says no more
		case strings.HasPrefix(line, "MAIL") && !inside[conn]:
			plain = append(plain, s)
		}
	}
	return plain
}

// TestNeverPlainAfterSTARTTLS: whatever becomes of the onward leg once a client has encrypted its own, nothing of its mail
// goes on in plain text or under a TLS that is too old: it hears 451 4.7.5, or what the destination said.
func TestNeverPlainAfterSTARTTLS(t *testing.T) {
	t.Parallel()
	old := func(version uint16) func(*remote) {
		return func(r *remote) {
			r.tls = r.tls.Clone()
			r.tls.MinVersion, r.tls.MaxVersion = tls.VersionTLS10, version
		}
	}
	noTLS := func(r *remote) { r.ehlo = []string{"PIPELINING"} }
	type step func(t *testing.T, r *rig, mx *remote) (p *peer, want string)
	// The client learns that the destination encrypts, and only then it changes.
	remembered := func(change func(*remote)) step {
		return func(_ *testing.T, r *rig, mx *remote) (*peer, string) {
			r.hello().cmd("QUIT", "221")
			mx.await(t, "QUIT")
			mx.shift(func() { change(mx) })
			p := r.hello()
			p.startTLS()
			return p, "451 4.7.5"
		}
	}
	for name, do := range map[string]step{
		"what is remembered is wrong":       remembered(noTLS),
		"STARTTLS is refused":               remembered(reply("STARTTLS", "454 4.7.0 TLS not available")),
		"STARTTLS is not known":             remembered(reply("STARTTLS", "502 5.5.1 what?")),
		"the handshake fails":               remembered(func(r *remote) { r.tls = &tls.Config{} }),
		"TLS 1.0 only":                      remembered(old(tls.VersionTLS10)),
		"TLS 1.1 only":                      remembered(old(tls.VersionTLS11)),
		"it is not seen between the legs":   changesAfterEHLO(noTLS),
		"the handshake fails between":       changesAfterEHLO(func(r *remote) { r.tls = &tls.Config{} }),
		"replaced between two messages":     replaced(noTLS),
		"replaced, and too old":             replaced(old(tls.VersionTLS11)),
		"replaced during an upload":         uploading(noTLS),
		"replaced during an upload, broken": uploading(func(r *remote) { r.tls = &tls.Config{} }),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			mx := newRemote(t, remoteTLS(t))
			r := newRig(t, mx.addr(), withTLS, func(r *rig) { r.cfg.Settings.Timeouts.Noop = 50 * time.Millisecond })
			p, want := do(t, r, mx)
			if want != "" {
				p.cmd("EHLO client.example", "250")
				p.cmd("MAIL FROM:<secret@client.example>", "250")
				p.cmd("RCPT TO:<b@sink.example>", want)
				p.cmd("DATA", "451 4.7.5")
				p.cmd("QUIT", "221")
			}
			if plain := heardInPlain(mx.commands()); len(plain) > 0 {
				t.Errorf("in plain text went %q", plain)
			}
			for _, m := range mx.messages() {
				if strings.Contains(m, "secret") {
					t.Errorf("the message arrived")
				}
			}
		})
	}
}

// changesAfterEHLO lets the destination change between the client's EHLO under TLS and its mail, and leave.
func changesAfterEHLO(change func(*remote)) func(*testing.T, *rig, *remote) (*peer, string) {
	return func(t *testing.T, r *rig, mx *remote) (*peer, string) {
		p := r.hello()
		p.startTLS()
		p.cmd("EHLO client.example", "250")
		mx.shift(func() { change(mx); mx.on["MAIL"] = []string{closeNow} }) // the session at hand dies unseen
		return p, "451"
	}
}

// replaced sends one message, and then the destination's session ends and its next one does not encrypt.
func replaced(change func(*remote)) func(*testing.T, *rig, *remote) (*peer, string) {
	return func(t *testing.T, r *rig, mx *remote) (*peer, string) {
		p := r.hello()
		p.startTLS()
		p.cmd("EHLO client.example", "250")
		p.envelope()
		p.send(goodMail, "250")
		mx.shift(func() { change(mx); mx.on["RSET"], mx.on["MAIL"] = []string{closeNow}, []string{closeNow} })
		p.cmd("MAIL FROM:<secret@client.example>", "250")
		p.cmd("RCPT TO:<b@sink.example>", "451 4.7.5")
		p.cmd("QUIT", "221")
		return p, ""
	}
}

// uploading has the destination leave during the upload: the envelope would be replayed in a session that is plain.
func uploading(change func(*remote)) func(*testing.T, *rig, *remote) (*peer, string) {
	return func(t *testing.T, r *rig, mx *remote) (*peer, string) {
		p := r.hello()
		p.startTLS()
		p.cmd("EHLO client.example", "250")
		p.cmd("MAIL FROM:<secret@client.example>", "250")
		p.cmd("RCPT TO:<b@sink.example>", "250")
		p.cmd("DATA", "354")
		mx.shift(func() { change(mx); mx.on["NOOP"] = []string{closeNow} })
		p.write("Subject: secret\r\n\r\n")
		mx.await(t, "NOOP")
		p.cmd(".", "451 4.7.5")
		p.cmd("QUIT", "221")
		return p, ""
	}
}

// TestKeptPlainSessionIsNotUsedUnderTLS: a session that stands from a mail in plain text serves no client who encrypts,
// though the destination would encrypt now.
func TestKeptPlainSessionIsNotUsedUnderTLS(t *testing.T) {
	t.Parallel()
	mx := newRemote(t, remoteTLS(t))
	with := slices.Clone(mx.ehlo)
	mx.ehlo = []string{"PIPELINING"}
	r := newRig(t, mx.addr(), withTLS, keeping(wait))
	early := r.hello() // its onward session stays plain, and is left for the next
	early.envelope()
	early.send(goodMail, "250")
	mx.shift(func() { mx.ehlo = with })
	route := relay.Route{Target: mx.addr(), Source: addrPort("127.0.0.9:0").Addr(), Helo: "out.gw.example"}
	r.cfg.Dialer.Forget(&route)
	p := r.dial() // has one of its own by now, or asks: encrypted
	if got := p.cmd("EHLO client.example", "250"); !strings.Contains(got, "STARTTLS") {
		t.Fatalf("EHLO is answered %q", got)
	}
	p.startTLS()
	p.cmd("EHLO client.example", "250")
	early.cmd("QUIT", "221")
	early.nc.Close()
	for end := time.Now().Add(wait); r.srv.Sessions() > 1; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the first session does not end")
		}
	}
	before := len(mx.messages())
	p.cmd("MAIL FROM:<secret@client.example>", "250")
	p.cmd("RCPT TO:<b@sink.example>", "250")
	p.send(goodMail, "250")
	for _, s := range heardInPlain(mx.commands()) {
		if strings.Contains(s, "secret") {
			t.Errorf("in plain text went %q", s)
		}
	}
	if n := len(mx.messages()); n != before+1 {
		t.Errorf("%d messages arrived", n-before)
	}
}
