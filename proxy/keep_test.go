package proxy

import (
	"slices"
	"strings"
	"testing"
	"time"

	"sluice/proxy/relay"
)

// keeping lets a rig keep onward sessions for d.
func keeping(d time.Duration) func(*rig) {
	return func(r *rig) {
		r.cfg.Dialer = relay.NewDialer(relay.Options{Keep: d, Own: ownDialer{src: make(chan string, 100)}})
	}
}

// mail sends one good message in a session of its own, to its very end.
func (r *rig) mail(answer string) {
	r.t.Helper()
	p := r.hello()
	p.envelope()
	p.send(goodMail, answer)
	p.cmd("QUIT", "221")
	p.nc.Close()
	r.quiet()
}

// quiet waits until no session is open.
func (r *rig) quiet() {
	r.t.Helper()
	for end := time.Now().Add(wait); r.srv.Sessions() > 0; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			r.t.Fatal("the session does not end")
		}
	}
}

// sessions returns what the destination heard, by connection.
func (r *remote) sessions() []string {
	out := []string{}
	for _, s := range r.commands() {
		n := int(s[0] - '1')
		for len(out) <= n {
			out = append(out, "")
		}
		verb, _, _ := strings.Cut(s[2:], " ")
		out[n] += verb + " "
	}
	return out
}

const oneMail = "MAIL RCPT DATA . "

// TestOnwardSessionsAreReused: a client's mail goes on by the session that the user's last one left, and nobody else's.
func TestOnwardSessionsAreReused(t *testing.T) {
	t.Parallel()
	mx := newRemote(t)
	r := newRig(t, mx.addr(), keeping(wait))
	r.mail("250")
	r.mail("250")
	r.user.Store(1)
	r.mail("250")
	r.user.Store(0)
	r.mail("250")
	if got, want := mx.sessions(), []string{"EHLO " + oneMail + oneMail + oneMail, "EHLO " + oneMail}; !slices.Equal(got, want) {
		t.Errorf("the destination heard %q, want %q", got, want)
	}
	r.locks.lock("T1")
	p := r.hello()
	mx.await(t, "QUIT") // whoever is locked keeps nothing
	p.nc.Close()
}

// TestKeptSessionsEnd: after their time, and with the server.
func TestKeptSessionsEnd(t *testing.T) {
	t.Parallel()
	mx := newRemote(t)
	newRig(t, mx.addr(), keeping(20*time.Millisecond)).mail("250")
	mx.await(t, "QUIT")
	r := newRig(t, mx.addr(), keeping(wait))
	r.mail("250")
	must(t, r.srv.Shutdown(t.Context()))
	mx.await(t, "QUIT")
}

// TestWhatIsNotReused: a session that went wrong in any way, or in which somebody authenticated, is nobody's afterwards.
func TestWhatIsNotReused(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		change func(*remote)
		first  func(r *rig)
	}{
		"refused recipient, then RSET": {reply("RCPT", "550 5.1.1 nobody", "250 ok"), func(r *rig) {
			p := r.hello()
			p.cmd("MAIL FROM:<a@client.example>", "250")
			p.cmd("RCPT TO:<b@sink.example>", "550")
			p.cmd("RSET", "250")
			p.cmd("QUIT", "221")
			p.nc.Close()
		}},
		"421 after the message": {reply(".", "250 ok", "421 4.3.2 enough", "250 ok"), func(r *rig) {
			r.mail("250")
			p := r.hello()
			p.envelope()
			p.send(goodMail, "421")
			p.closed()
		}},
		"refused DATA": {reply("DATA", "451 4.3.0 later", "354 go"), func(r *rig) {
			p := r.hello()
			p.envelope()
			p.send(goodMail, "451")
			p.nc.Close()
		}},
		"authenticated": {submission("PLAIN", reply("AUTH", "235 2.7.0 ok"))[1], func(r *rig) {
			p := r.hello()
			p.cmd("AUTH PLAIN AHVzZXIAcGFzcw==", "235")
			p.envelope()
			p.send(goodMail, "250")
			p.cmd("QUIT", "221")
			p.nc.Close()
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			mx := newRemote(t, c.change, reply("AUTH", "235 2.7.0 ok"))
			r := newRig(t, mx.addr(), keeping(wait))
			c.first(r)
			r.quiet()
			before := len(mx.sessions())
			r.mail("250")
			if after := mx.sessions(); len(after) != before+1 || !strings.HasPrefix(after[before], "EHLO MAIL RCPT DATA .") {
				t.Errorf("the destination heard %q", after)
			}
		})
	}
}

// TestDeadKeptSessionIsReplacedUnseen: the destination may close or speak between two mails; the client does not notice.
func TestDeadKeptSessionIsReplacedUnseen(t *testing.T) {
	t.Parallel()
	for name, last := range map[string]string{"closes": closeNow, "421": "421 4.4.2 timeout\r\n"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			mx := newRemote(t, reply("MAIL", "250 ok", last, "250 ok"))
			r := newRig(t, mx.addr(), keeping(wait))
			r.mail("250")
			r.mail("250 2.0.0 queued")
			if got := mx.sessions(); len(got) != 2 {
				t.Errorf("the destination heard %q", got)
			}
		})
	}
}

// TestWhoAnswersTwiceGetsTheNextMailAnew: what a destination has said beyond its answer counts for nothing in the next mail, of the
// same client or of another, which goes by a session of its own.
func TestWhoAnswersTwiceGetsTheNextMailAnew(t *testing.T) {
	t.Parallel()
	for _, sameClient := range []bool{true, false} {
		mx := newRemote(t, reply(".", "250 2.0.0 queued\r\n250 2.0.0 once more", "250 2.0.0 queued"))
		r := newRig(t, mx.addr(), keeping(wait))
		if sameClient {
			p := r.hello()
			for range 2 {
				p.envelope()
				p.send(goodMail, "250 2.0.0 queued")
			}
			p.cmd("QUIT", "221")
		} else {
			r.mail("250 2.0.0 queued")
			r.mail("250 2.0.0 queued")
		}
		if got := mx.sessions(); len(got) != 2 || !strings.HasPrefix(got[0], "EHLO "+oneMail) || strings.Count(got[0], "MAIL") != 1 || !strings.HasPrefix(got[1], "EHLO "+oneMail) {
			t.Errorf("one client %t: the destination heard %q", sameClient, got)
		}
		for _, rec := range r.log.wait(t, 2) {
			if rec.Status != Delivered {
				t.Errorf("one client %t: a message is %v", sameClient, rec.Status)
			}
		}
	}
}
