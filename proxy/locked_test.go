package proxy

import (
	"bufio"
	"crypto/tls"
	"io"
	"strings"
	"testing"
	"time"

	"sluice/filter"
	"sluice/filter/message"
)

const lockedNow = "421 4.7.1 gw.example: [LOCKED] sending is locked, ticket T1, contact abuse@gw.example; reason: sent a virus; see https://gw.example/why/LOCKED"

// lock locks the rig's user, and tells the server as the daemon does.
func (r *rig) lock() {
	r.locks.why = "sent a virus"
	r.locks.lock("T1")
	r.srv.Locked(7)
}

// until waits until the rig's only session is in a state.
func (r *rig) until(state string) {
	r.t.Helper()
	for end := time.Now().Add(wait); ; time.Sleep(time.Millisecond) {
		live := r.srv.Flows()
		if len(live) == 1 && live[0].State == state {
			return
		}
		if time.Now().After(end) {
			r.t.Fatalf("sessions are %+v, want one that is %s", live, state)
		}
	}
}

// TestLockEndsOpenSessions goes through the states in which a lock, with and without a cut, can meet a session.
func TestLockEndsOpenSessions(t *testing.T) {
	t.Parallel()
	mail := func(p *peer) { p.hello(); p.cmd("MAIL FROM:<a@client.example>", "250") }
	body := func(p *peer) { p.hello(); p.envelope(); p.cmd("DATA", "354"); p.write(goodMail[:20]) }
	for name, c := range map[string]struct {
		to      func(p *peer) // leads the session to its state
		state   string
		say     string   // after the lock
		answers []string // to that; then the end
		cut     []string // the same where the lock cuts
		arrives bool
		status  Status
	}{
		"greeted":             {to: func(*peer) {}, state: "idle", answers: []string{lockedNow}, cut: []string{lockedNow}, status: NoMessage},
		"idle":                {to: (*peer).hello, state: "idle", answers: []string{lockedNow}, cut: []string{lockedNow}, status: NoMessage},
		"after a message":     {to: func(p *peer) { p.hello(); p.envelope(); p.send(goodMail, "250") }, state: "idle", answers: []string{lockedNow}, cut: []string{lockedNow}, arrives: true, status: Delivered},
		"after MAIL":          {to: mail, state: "envelope", say: "RCPT TO:<b@sink.example>\r\n", answers: []string{lockedNow}, status: Deferred},
		"after RCPT":          {to: func(p *peer) { p.hello(); p.envelope() }, state: "envelope", say: "DATA\r\n", answers: []string{lockedNow}, status: Deferred},
		"pipelined":           {to: mail, state: "envelope", say: "RCPT TO:<b@sink.example>\r\nDATA\r\nRSET\r\n", answers: []string{lockedNow}, status: Deferred},
		"within good mail":    {to: body, state: "data", say: goodMail[20:] + ".\r\n", answers: []string{"451 4.7.1 gw.example: [LOCKED] sending is locked, ticket T1", lockedNow}, status: Deferred},
		"between chunks":      {to: func(p *peer) { p.hello(); p.envelope(); p.write("BDAT 6\r\nSPAMWO"); p.want("250") }, state: "data", say: "BDAT 4 LAST\r\nRD\r\n", answers: []string{"550 5.7.1 gw.example: [WORD]", lockedNow}, status: Refused},
		"within bad mail":     {to: body, state: "data", say: "SPAMWORD\r\n.\r\n", answers: []string{"550 5.7.1 gw.example: [WORD]", lockedNow}, status: Refused},
		"behind mail":         {to: body, state: "data", say: goodMail[20:] + ".\r\nQUIT\r\n", answers: []string{"451 4.7.1 gw.example: [LOCKED]", lockedNow}, status: Deferred},
		"after the final dot": {to: func(p *peer) { body(p); p.write(goodMail[20:] + ".\r\n") }, state: "sent", answers: []string{"250 2.0.0 queued", lockedNow}, cut: []string{"250 2.0.0 queued", lockedNow}, arrives: true, status: Delivered},
	} {
		for _, cut := range []bool{false, true} {
			t.Run(name+map[bool]string{true: ", cut"}[cut], func(t *testing.T) {
				t.Parallel()
				answer := make(chan struct{})
				mx := newRemote(t, func(m *remote) {
					if c.state == "sent" {
						m.hold = answer
					}
				})
				r := newRig(t, mx.addr(), steps(spamStep()))
				p := r.dial()
				c.to(p)
				r.until(c.state)
				r.lock()
				answers := c.answers
				if cut {
					answers = c.cut
					if left := r.srv.Cut(7); (c.state == "sent") != (left == 1) {
						t.Errorf("%d sessions were left", left)
					}
				} else if c.say != "" {
					p.write(c.say)
				}
				close(answer)
				for _, want := range answers {
					p.want(want)
				}
				p.closed()
				if got := len(mx.messages()); got != map[bool]int{true: 1}[c.arrives] {
					t.Errorf("%d messages arrived", got)
				}
				if rec := r.log.wait(t, 1)[0]; !cut && (rec.Status != c.status || rec.Ticket != map[bool]string{true: "T1"}[rec.Status == Deferred || rec.Status == NoMessage]) {
					t.Errorf("the log says %v, ticket %q; want %v", rec.Status, rec.Ticket, c.status)
				}
			})
		}
	}
}

// hello says EHLO on a session that was greeted.
func (p *peer) hello() { p.cmd("EHLO client.example", "250") }

func TestLockEndsEncryptedSessions(t *testing.T) {
	t.Parallel()
	r := newRig(t, newRemote(t, remoteTLS(t)).addr(), withTLS)
	p := r.hello()
	p.startTLS()
	p.hello()
	r.until("idle")
	r.lock()
	p.want(lockedNow)
	p.closed()
}

// The spammer's own answer comes first, other sessions of his hear of the lock at once, and other users of nothing.
func TestVerdictThatLocksEndsTheSession(t *testing.T) {
	t.Parallel()
	r := newRig(t, newRemote(t).addr(), steps(spamStep()))
	r.locks.onSpam, r.locks.why = true, "sent a virus"
	p, idle := r.hello(), r.hello()
	p.envelope()
	p.send(spamMail, "550 5.7.1 gw.example: [WORD]")
	p.want(lockedNow)
	p.closed()
	r.srv.Locked(8)
	idle.cmd("NOOP", lockedNow) // nobody has woken it
	idle.closed()
	// A new session is where the lock is explained: it goes on, and another lock event does not end it.
	p = r.hello()
	p.envelope()
	p.send(goodMail, "451 4.7.1 gw.example: [LOCKED]")
	r.srv.Locked(7)
	p.envelope()
	p.send(spamMail, "550")
	r.locks.unlock()
	p.envelope()
	p.send(goodMail, "250")
	r.lock()
	p.want(lockedNow)
}

// A lock that is lifted before the session has noticed it ends the session with a reply that blames nobody.
func TestLockLiftedAtOnce(t *testing.T) {
	t.Parallel()
	r := newRig(t, newRemote(t).addr())
	p := r.hello()
	r.until("idle")
	r.srv.Locked(7)
	p.want("421 4.3.2 gw.example: please connect again")
	p.closed()
}

// A cut that meets the moment before the final dot keeps the dot from leaving.
func TestCutBeforeTheFinalDot(t *testing.T) {
	t.Parallel()
	var r *rig
	mx := newRemote(t, func(m *remote) {
		m.before = func(verb string) {
			if verb == "DATA" {
				r.srv.Cut(7)
			}
		}
	})
	r = newRig(t, mx.addr())
	p := r.hello()
	p.envelope()
	p.cmd("DATA", "354")
	p.write(goodMail + ".\r\n")
	p.closed()
	if rec := r.log.wait(t, 1)[0]; rec.Status == Delivered || rec.Status == Ambiguous || len(mx.messages()) != 0 {
		t.Errorf("the log says %v, %d messages arrived; want none", rec.Status, len(mx.messages()))
	}
}

// A lock that comes between a good verdict and the final dot keeps the dot from leaving, and the client hears why.
func TestLockBeforeTheFinalDot(t *testing.T) {
	t.Parallel()
	var r *rig
	mx := newRemote(t, func(m *remote) {
		m.before = func(verb string) {
			if verb == "DATA" {
				r.lock()
			}
		}
	})
	r = newRig(t, mx.addr())
	p := r.hello()
	p.envelope()
	p.cmd("DATA", "354")
	p.write(goodMail + ".\r\n")
	p.want("451 4.7.1 gw.example: [LOCKED] sending is locked, ticket T1")
	p.want(lockedNow)
	p.closed()
	if rec := r.log.wait(t, 1)[0]; rec.Status != Deferred || rec.Ticket != "T1" || len(mx.messages()) != 0 {
		t.Errorf("the log says %v, ticket %q, %d messages arrived; want none", rec.Status, rec.Ticket, len(mx.messages()))
	}
}

// What the locks stop although its sender is not locked as a whole is answered with their own words, but for mail to the
// administrator.
func TestLocksStopOneMessage(t *testing.T) {
	t.Parallel()
	mx := newRemote(t)
	r := newRig(t, mx.addr())
	r.locks.atJudge = func(_ *message.Message, v *filter.Verdict) {
		*v = filter.Judge([]filter.Hit{{Check: "lock", Code: "LOCKED", Class: filter.Policy, Action: filter.Defer, Text: "shop is locked, ticket T9"}})
		v.Ticket = "T9"
	}
	p := r.hello()
	p.envelope()
	p.send(goodMail, "451 4.7.1 gw.example: [LOCKED] shop is locked, ticket T9")
	if rec := r.log.wait(t, 1)[0]; rec.Status != Deferred || rec.Ticket != "T9" {
		t.Errorf("the log says %v, ticket %q", rec.Status, rec.Ticket)
	}
	p.cmd("MAIL FROM:<a@client.example>", "250")
	p.cmd("RCPT TO:<postmaster@gw.example>", "250")
	p.send(goodMail, "250")
}

func TestCutSessionDoesNotWaitForItsGreeting(t *testing.T) {
	t.Parallel()
	r := newRig(t, newRemote(t).addr(), func(r *rig) { r.cfg.Gate = &fakeGate{} })
	p := r.connect()
	r.until("waiting")
	if n, left := r.srv.Open(7), r.srv.Cut(7); n != 1 || left != 0 {
		t.Errorf("%d sessions were open, %d left", n, left)
	}
	p.closed()
	for end := time.Now().Add(wait); r.srv.Sessions() > 0; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the session still waits")
		}
	}
}

// TestLockEndsShadow: what is overheard ends too, and no message is halved or left without its answer.
func TestLockEndsShadow(t *testing.T) {
	t.Parallel()
	envelope := func(p *peer) { p.cmd("EHLO client.example", "250"); p.envelope() }
	body := func(p *peer) { envelope(p); p.cmd("DATA", "354"); p.write("half") }
	for name, c := range map[string]struct {
		to      func(p *peer)
		state   string
		say     string
		answers []string
		cut     []string
		arrives bool
	}{
		"idle":                {to: func(p *peer) { p.cmd("EHLO client.example", "250") }, state: "idle", answers: []string{lockedNow}, cut: []string{lockedNow}},
		"within the envelope": {to: envelope, state: "envelope", say: "DATA\r\n", answers: []string{lockedNow}},
		"within the body":     {to: body, state: "envelope", say: " and the rest\r\n.\r\n", answers: []string{lockedNow}},
		"after the final dot": {to: func(p *peer) { body(p); p.write("\r\n.\r\n") }, state: "sent", answers: []string{"250 2.0.0 queued", lockedNow}, cut: []string{"250 2.0.0 queued", lockedNow}, arrives: true},
		"behind the dot":      {to: func(p *peer) { body(p); p.write("\r\n.\r\n") }, state: "sent", say: "QUIT\r\n", answers: []string{"250 2.0.0 queued"}, cut: []string{"250 2.0.0 queued"}, arrives: true},
	} {
		for _, cut := range []bool{false, true} {
			t.Run(name+map[bool]string{true: ", cut"}[cut], func(t *testing.T) {
				t.Parallel()
				answer := make(chan struct{})
				mx := newRemote(t, func(m *remote) {
					if c.state == "sent" {
						m.hold = answer
					}
				})
				r := newShadow(t, mx.addr(), &shadowDialer{})
				p := r.connect()
				p.want("220 mx")
				c.to(p)
				r.until(c.state)
				r.lock()
				answers := c.answers
				if cut {
					answers = c.cut
					r.srv.Cut(7)
				}
				if !cut || c.state == "sent" {
					p.write(c.say)
				}
				close(answer)
				for _, want := range answers {
					p.want(want)
				}
				if cut && c.cut == nil { // what the cut met in the wire may have been answered
					if b, _ := io.ReadAll(p.br); len(b) > 0 && !strings.HasPrefix(string(b), lockedNow) {
						t.Errorf("the client heard %q", b)
					}
				} else if c.say != "QUIT\r\n" { // then the destination's own goodbye may or may not come through
					p.closed()
				} else if b, err := io.ReadAll(p.br); err == nil && !strings.HasPrefix(string(b), "421") && !strings.HasPrefix(string(b), "250") {
					t.Errorf("after the answer the client heard %q", b)
				}
				if got := len(mx.messages()); got != map[bool]int{true: 1}[c.arrives] {
					t.Errorf("%d messages arrived", got)
				}
			})
		}
	}
}

// Within TLS nothing can be said; the connection ends with the client's next bytes, and what it sent is no message.
func TestLockEndsEncryptedShadow(t *testing.T) {
	t.Parallel()
	x := newRemote(t, remoteTLS(t))
	r := newShadow(t, x.addr(), &shadowDialer{})
	p := r.connect()
	p.want("220 mx")
	p.cmd("EHLO client.example", "250")
	p.cmd("STARTTLS", "220")
	c := tls.Client(p.nc, &tls.Config{InsecureSkipVerify: true})
	must(t, c.Handshake())
	p.nc, p.br = c, bufio.NewReader(c)
	p.cmd("EHLO client.example", "250")
	p.envelope()
	p.cmd("DATA", "354")
	r.lock()
	_, err := p.nc.Write([]byte(goodMail + ".\r\n"))
	must(t, err)
	p.closed()
	if n := len(x.messages()); n != 0 {
		t.Errorf("%d messages arrived", n)
	}
	if rec := r.log.wait(t, 1)[0]; rec.Ticket != "T1" || rec.Status != NoMessage {
		t.Errorf("the log says %v, ticket %q", rec.Status, rec.Ticket)
	}
}

func TestReasonsAreOneLineOfASCII(t *testing.T) {
	t.Parallel()
	set := &resolved{Settings: Settings{Name: "gw.example"}}
	a := lockedAnswer(set, "T1", "böse\r\n250 ok "+strings.Repeat("x", 500))
	if want := "[LOCKED] sending is locked, ticket T1; reason: b?se??250 ok " + strings.Repeat("x", mostReason-13); a.text != want {
		t.Errorf("the answer is %q, want %q", a.text, want)
	}
}
