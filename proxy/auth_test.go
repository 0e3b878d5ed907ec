package proxy

import (
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"sluice/intercept/flow"
	"sluice/proxy/relay"
)

// attempts counts what a Guard hears.
type attempts struct{ accepted, refused atomic.Int32 }

func (a *attempts) Authenticated(_ *flow.Flow, ok bool) {
	if ok {
		a.accepted.Add(1)
	} else {
		a.refused.Add(1)
	}
}

// withAuth lets a rig deliver from the client's own address and count attempts.
func withAuth(a *attempts) func(*rig) {
	return func(r *rig) {
		r.cfg.Guard = a
		r.cfg.Dialer = relay.NewDialer(relay.Options{Own: ownDialer{src: make(chan string, 100)}})
	}
}

// submission is a destination where one may authenticate.
func submission(list string, change ...func(*remote)) []func(*remote) {
	return append(change, func(r *remote) { r.ehlo = append([]string{"PIPELINING", "AUTH " + list}, r.ehlo...) })
}

// TestAuthIsRelayed: the dialogue goes through as it is, from the customer's own address, and mail follows in the same
// onward session.
func TestAuthIsRelayed(t *testing.T) {
	t.Parallel()
	mx := newRemote(t, submission("PLAIN LOGIN SCRAM-SHA-1", func(r *remote) {
		r.ehlo = nil
		r.on["AUTH"] = []string{"334 VXNlcm5hbWU6", "535 5.7.8 no", "235 2.7.0 welcome"}
		r.on["BM9IB2R5"] = []string{"334 UGFzc3dvcmQ6"}
		r.on["CGFZCW=="] = []string{"535 5.7.8 no"}
	})...)
	var tried attempts
	r := newRig(t, mx.addr(), withAuth(&tried))
	p := r.dial()
	if got := p.cmd("EHLO client.example", "250"); !strings.Contains(got, "AUTH PLAIN LOGIN SCRAM-SHA-1") {
		t.Fatalf("offered %q", got)
	}
	p.cmd("AUTH LOGIN", "334 VXNlcm5hbWU6")
	p.cmd("bm9ib2R5", "334 UGFzc3dvcmQ6")
	p.cmd("cGFzcw==", "535 5.7.8 no")
	p.cmd("AUTH PLAIN AG5vYm9keQ==", "535 5.7.8 no")
	p.cmd("AUTH PLAIN AHVzZXIAcGFzcw==", "235 2.7.0 welcome")
	p.cmd("AUTH PLAIN AHVzZXIAcGFzcw==", "503 5.5.1")
	p.cmd("STARTTLS", "502 5.5.1")
	p.envelope()
	p.send(goodMail, "250")
	p.cmd("QUIT", "221")
	said := mx.commands()
	i := slices.IndexFunc(said, func(s string) bool { return strings.Contains(s, "AUTH LOGIN") })
	if i >= 0 { // other sessions end meanwhile
		own := said[i][:2]
		said = slices.DeleteFunc(said, func(s string) bool { return !strings.HasPrefix(s, own) })
		i = slices.IndexFunc(said, func(s string) bool { return strings.Contains(s, "AUTH LOGIN") })
	}
	if i < 1 || said[i-1] != said[i][:2]+"EHLO client.example" {
		t.Fatalf("the dialogue does not begin in a session of the customer's name: %q", said)
	}
	want := []string{"AUTH LOGIN", "bm9ib2R5", "cGFzcw==", "AUTH PLAIN AG5vYm9keQ==", "AUTH PLAIN AHVzZXIAcGFzcw==", "MAIL FROM:<a@client.example>"}
	for j, w := range want {
		if said[i+j] != said[i][:2]+w {
			t.Errorf("the destination heard %q, want %q", said[i+j], w)
		}
	}
	if a, b := tried.accepted.Load(), tried.refused.Load(); a != 1 || b != 2 {
		t.Errorf("%d accepted and %d refused were counted, want 1 and 2", a, b)
	}
	for _, rec := range r.log.wait(t, 1) {
		if all := rec.Reply + rec.Remote + rec.Note; strings.Contains(all, "cGFzcw") || strings.Contains(all, "AHVzZXIA") || rec.Source.String() != "127.0.0.1" {
			t.Errorf("record %+v", rec)
		}
	}
}

// TestAuthAsTheLegsAllow: what is offered depends on where the encryption ends.
func TestAuthAsTheLegsAllow(t *testing.T) {
	t.Parallel()
	mx := newRemote(t, submission("PLAIN LOGIN SCRAM-SHA-256 SCRAM-SHA-256-PLUS EXTERNAL NTLM GSSAPI XOAUTH2", remoteTLS(t))...)
	r := newRig(t, mx.addr(), withTLS, withAuth(new(attempts)))
	p := r.dial()
	offered := func() string {
		for l := range strings.SplitSeq(p.cmd("EHLO client.example", "250"), "\n") {
			if _, list, ok := strings.Cut(l, "AUTH "); ok {
				return list
			}
		}
		return ""
	}
	if got := offered(); got != "PLAIN LOGIN XOAUTH2" {
		t.Errorf("in plain text to an encrypted leg: %q", got)
	}
	p.cmd("AUTH SCRAM-SHA-256 biwsbj11c2VyLHI9eA==", "504 5.5.4 gw.example: ")
	p.startTLS()
	if got := offered(); got != "PLAIN LOGIN XOAUTH2" {
		t.Errorf("under TLS: %q", got)
	}
	p.cmd("MAIL FROM:<a@client.example>", "250")
	p.cmd("AUTH PLAIN AHVzZXIAcGFzcw==", "503 5.5.1 gw.example: ")
	p.cmd("RSET", "250")

	r = newRig(t, mx.addr(), withTLS, withAuth(new(attempts)), func(r *rig) { r.policy.RefuseAuth = true })
	p = r.dial()
	if got := offered(); got != "" {
		t.Errorf("offered %q though the policy refuses", got)
	}
	p.cmd("AUTH PLAIN AHVzZXIAcGFzcw==", "502 5.5.1")
}

// TestAuthenticatedSessionHasNoSuccessor: when the destination leaves, nothing goes on in somebody's name.
func TestAuthenticatedSessionHasNoSuccessor(t *testing.T) {
	t.Parallel()
	mx := newRemote(t, submission("PLAIN", func(r *remote) {
		r.on["AUTH"] = []string{"235 2.7.0 welcome"}
		r.on["RCPT"] = []string{closeNow, "250 ok"}
	})...)
	p := newRig(t, mx.addr(), withAuth(new(attempts))).hello()
	p.cmd("AUTH PLAIN AHVzZXIAcGFzcw==", "235")
	p.cmd("MAIL FROM:<a@client.example>", "250")
	p.cmd("RCPT TO:<b@sink.example>", "421 4.4.2 gw.example: the connection to the destination, where you authenticated")
	p.closed()
	if n := len(mx.messages()); n != 0 {
		t.Errorf("%d messages arrived", n)
	}
}

// TestAuthDialogueBroken: a client that leaves in the midst, a line that is too long, a cancelled dialogue.
func TestAuthDialogueBroken(t *testing.T) {
	t.Parallel()
	mx := newRemote(t, submission("LOGIN", func(r *remote) {
		r.on["AUTH"] = []string{"334 VXNlcm5hbWU6"}
		r.on["*"] = []string{"501 5.7.0 cancelled"}
	})...)
	var tried attempts
	r := newRig(t, mx.addr(), withAuth(&tried))
	p := r.hello()
	p.cmd("AUTH LOGIN", "334")
	p.cmd("*", "501 5.7.0 cancelled")
	p.cmd("AUTH LOGIN", "334")
	p.cmd(strings.Repeat("A", 20_000), "500 5.5.6")
	p.envelope()
	p.send(goodMail, "250")
	r.log.wait(t, 1)
	p = r.hello()
	p.cmd("AUTH LOGIN", "334")
	p.nc.Close()
	rec := r.log.wait(t, 2)[1]
	if rec.Status != NoMessage {
		t.Errorf("record %+v", rec)
	}
}

// TestAuthWithinNoTransaction: what the destination still holds of an abandoned mail is forgotten before AUTH.
func TestAuthWithinNoTransaction(t *testing.T) {
	t.Parallel()
	mx := newRemote(t, submission("PLAIN", func(r *remote) {
		r.on["AUTH"] = []string{"535 5.7.8 no", "235 2.7.0 welcome"}
		r.on["RCPT"] = []string{"550 5.1.1 nobody", "250 ok"}
	})...)
	p := newRig(t, mx.addr(), withAuth(new(attempts))).hello()
	p.cmd("AUTH PLAIN AHVzZXIAbm8=", "535")
	p.cmd("MAIL FROM:<a@client.example>", "250")
	p.cmd("RCPT TO:<b@sink.example>", "550")
	p.cmd("RSET", "250")
	p.cmd("AUTH PLAIN AHVzZXIAcGFzcw==", "235")
	p.envelope()
	p.send(goodMail, "250")
	said := mx.commands()
	i := slices.IndexFunc(said, func(s string) bool { return strings.HasSuffix(s, "cGFzcw==") })
	if i < 1 || !strings.HasSuffix(said[i-1], " RSET") {
		t.Errorf("the destination heard %q", said)
	}
}

// TestEncryptionAfterAuthIsRefused: who authenticated in the clear cannot go on under TLS as if he had done so there.
func TestEncryptionAfterAuthIsRefused(t *testing.T) {
	t.Parallel()
	mx := newRemote(t, submission("PLAIN", remoteTLS(t), reply("AUTH", "235 2.7.0 welcome"))...)
	p := newRig(t, mx.addr(), withTLS, withAuth(new(attempts))).hello()
	p.cmd("AUTH PLAIN AHVzZXIAcGFzcw==", "235")
	p.cmd("STARTTLS", "502 5.5.1")
}
