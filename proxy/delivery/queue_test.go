package delivery

import (
	"context"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"sluice/proxy/smtp"
	"sluice/proxy/spool"
	"sluice/proxy/tlspolicy"
)

func TestDelivers(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.host("one.example", "127.0.0.2")
	mx := w.serve("127.0.0.2", nil)
	w.send(w.mail("x@one.example", "y@one.example"), text)
	r := w.next()
	if len(r.Rcpts) != 2 || r.Rcpts[0].Fate != Delivered || r.Rcpts[1].Fate != Delivered || r.Host != "mx1.one.example" || r.Tries != 1 {
		t.Errorf("the result is %+v", r)
	}
	w.empty()
	if got := mx.taken(); len(got) != 1 || got[0] != text {
		t.Errorf("taken: %q", got)
	}
}

func TestEachRecipientHasItsOwnFate(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.host("one.example", "127.0.0.2")
	w.host("sender.example", "127.0.0.3")
	answer := map[string]string{"RCPT TO:<no@one.example>": "550 5.1.1 no such user", "RCPT TO:<later@one.example>": "450 4.2.1 mailbox busy"}
	var mu sync.Mutex
	mx := w.serve("127.0.0.2", func(cmd string) string {
		mu.Lock()
		defer mu.Unlock()
		return answer[cmd]
	})
	back := w.serve("127.0.0.3", nil)
	id := w.send(w.mail("yes@one.example", "no@one.example", "later@one.example"), text)[0]
	r := w.next()
	if f := [3]Fate{r.Rcpts[0].Fate, r.Rcpts[1].Fate, r.Rcpts[2].Fate}; f != [3]Fate{Delivered, Failed, Deferred} || r.Notice == 0 || r.Next.Sub(w.now()) < 15*time.Minute {
		t.Errorf("fates %v, result %+v", f, r)
	}
	if n := w.next(); n.Delivery != r.Notice || n.Rcpts[0].Fate != Delivered {
		t.Errorf("the notice: %+v", n)
	}
	notice := back.taken()
	if len(notice) != 1 || !strings.Contains(notice[0], "Final-Recipient: rfc822; no@one.example\r\nAction: failed\r\nStatus: 5.1.1\r\nRemote-MTA: dns; mx1.one.example\r\nDiagnostic-Code: smtp; 550 no such user") ||
		strings.Contains(notice[0], "later@") || !strings.Contains(notice[0], "Subject: hello") {
		t.Errorf("the notice is %q", notice)
	}
	mu.Lock()
	delete(answer, "RCPT TO:<later@one.example>")
	mu.Unlock()
	if l, _, err := w.q.List(Filter{ID: id}, 0, 1); err != nil || l[0].Rcpts != 1 || l[0].State.Replies[0].Code != 450 {
		t.Errorf("%v, %+v", err, l)
	}
	w.pass(17 * time.Minute)
	if r := w.next(); len(r.Rcpts) != 1 || r.Rcpts[0].Rcpt.Address != "later@one.example" || r.Rcpts[0].Fate != Delivered || r.Tries != 2 {
		t.Errorf("the second try: %+v", r)
	}
	w.empty()
	if n := len(mx.taken()); n != 2 {
		t.Errorf("taken %d times", n)
	}
}

func TestDeadDestinationDelaysNoOther(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(o *Options) { o.AtOnce = 3 })
	w.host("dead.example", "127.0.0.4") // nothing listens there
	w.host("good.example", "127.0.0.2")
	mx := w.serve("127.0.0.2", nil)
	for range 20 {
		w.send(w.mail("x@dead.example"), text)
	}
	for range 20 {
		w.send(w.mail("x@good.example"), text)
	}
	dead, good := 0, 0
	for good < 20 {
		if r := w.next(); r.Rcpts[0].Fate == Delivered {
			good++
		} else {
			dead++
		}
	}
	if dead > 3 || len(mx.taken()) != 20 {
		t.Errorf("%d tries at the dead one, %d taken", dead, len(mx.taken()))
	}
	lanes := w.q.Lanes()
	if lanes[0].Domain != "dead.example" || lanes[0].Misses == 0 || !strings.Contains(lanes[0].Why, "refused") {
		t.Errorf("lanes are %+v", lanes)
	}
	// After five days all senders hear of it, though only one is tried.
	w.host("sender.example", "127.0.0.3")
	w.serve("127.0.0.3", nil)
	w.pass(5*24*time.Hour + time.Minute)
	expired := 0
	for expired < 20 {
		if r := w.next(); r.Envelope.From == "" {
			continue
		} else if r.Rcpts[0].Fate == Expired && r.Notice != 0 {
			expired++
		} else {
			t.Fatalf("the result is %+v", r)
		}
	}
	w.empty()
}

func TestNextExchangerIsTried(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.host("one.example", "127.0.0.4", "127.0.0.5", "127.0.0.2")
	w.serve("127.0.0.5", func(cmd string) string {
		if cmd == "connect" {
			return "554 not here"
		}
		return ""
	})
	w.serve("127.0.0.2", nil)
	w.send(w.mail("x@one.example"), text)
	if r := w.next(); r.Rcpts[0].Fate != Delivered || r.Host != "mx3.one.example" {
		t.Errorf("the result is %+v", r)
	}
}

// TestOurOwnEndIsNoTry: what is cut by the end of the program, before a destination was reached, is due at once when it is
// back, and nobody hears of a try.
func TestOurOwnEndIsNoTry(t *testing.T) {
	t.Parallel()
	began := make(chan struct{})
	w := newWorld(t, func(o *Options) {
		o.Terms = func(ctx context.Context, _ uint32, _ netip.AddrPort, _ string) (*tlspolicy.Policy, error) {
			close(began)
			<-ctx.Done()
			return nil, ctx.Err()
		}
	})
	w.host("one.example", "127.0.0.2")
	id := w.send(w.mail("x@one.example"), text)[0]
	<-began
	w.stop()
	w.q.Stop(context.Background())
	d, err := w.s.Get(id)
	if err != nil {
		t.Fatal(err)
	}
	if d.Attempts != 0 || d.Leased || d.Due.After(w.now()) || len(w.results) != 0 {
		t.Errorf("%d tries, leased %v, due in %v, %d results", d.Attempts, d.Leased, d.Due.Sub(w.now()), len(w.results))
	}
}

func TestRoutesThatLeadNowhere(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(o *Options) { o.Self = func(a netip.Addr) bool { return a == netip.MustParseAddr("127.0.0.9") } })
	w.domains["null.example"] = &tlspolicy.Domain{Name: "null.example", Null: true}
	w.host("nothing.example", "")
	w.host("self.example", "127.0.0.9", "127.0.0.2")
	w.host("sender.example", "127.0.0.3")
	w.serve("127.0.0.3", nil)
	for domain, want := range map[string]smtp.Enhanced{
		"null.example": {5, 1, 10}, "nothing.example": {5, 1, 2}, "self.example": {5, 4, 6}, "[192.0.2.300]": {5, 1, 3}, "[127.0.0.9]": {5, 4, 6}, "unknown.example": {4, 4, 3},
	} {
		w.send(w.mail("x@"+domain), text)
		for {
			r := w.next()
			if r.Envelope.From == "" {
				continue
			}
			if got := r.Rcpts[0]; got.Reply.Enh != want || (got.Fate == Failed) != (want[0] == 5) {
				t.Errorf("%s: %+v, want %v", domain, got, want)
			}
			break
		}
	}
	// A better exchanger than the gateway itself is used.
	w.host("behind.example", "127.0.0.2", "127.0.0.9")
	w.serve("127.0.0.2", nil)
	w.send(w.mail("x@behind.example"), text)
	for r := w.next(); r.Envelope.From != "" || r.Rcpts[0].Fate != Delivered; r = w.next() {
		if r.Envelope.From != "" && r.Host == "mx1.behind.example" && r.Rcpts[0].Fate == Delivered {
			break
		}
	}
}

func TestNoticesGoWhereTheyMay(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.host("one.example", "127.0.0.2")
	w.serve("127.0.0.2", func(cmd string) string {
		if strings.HasPrefix(cmd, "RCPT") {
			return "550 5.1.1 no"
		}
		return ""
	})
	for name, change := range map[string]func(*spool.Envelope){
		"null sender":       func(e *spool.Envelope) { e.From = "" },
		"unverified sender": func(e *spool.Envelope) { e.Verified = false },
		"NOTIFY=NEVER":      func(e *spool.Envelope) { e.Rcpts[0].Notify = smtp.NotifyNever },
		"NOTIFY=DELAY":      func(e *spool.Envelope) { e.Rcpts[0].Notify = smtp.NotifyDelay },
		"a notice":          func(e *spool.Envelope) { e.Class = "notice" },
	} {
		env := w.mail("x@one.example")
		change(env)
		w.send(env, text)
		if r := w.next(); r.Notice != 0 || r.Rcpts[0].Fate != Failed {
			t.Errorf("%s: %+v", name, r)
		}
		w.empty()
	}
}

func TestDelayAndSuccessAreTold(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.host("one.example", "127.0.0.2")
	w.host("sender.example", "127.0.0.3")
	back := w.serve("127.0.0.3", nil)
	var mu sync.Mutex
	busy := true
	w.serve("127.0.0.2", func(cmd string) string {
		mu.Lock()
		defer mu.Unlock()
		if busy && strings.HasPrefix(cmd, "RCPT") {
			return "450 4.2.0 greylisted"
		}
		return ""
	})
	env := w.mail("x@one.example")
	env.Rcpts[0].Notify, env.EnvID = smtp.NotifyDelay|smtp.NotifySuccess, "q+2B1"
	w.send(env, text)
	if r := w.next(); r.Notice != 0 {
		t.Errorf("a notice at once: %+v", r)
	}
	w.pass(4*time.Hour + time.Minute)
	if r := w.next(); r.Notice == 0 || r.Rcpts[0].Fate != Deferred {
		t.Errorf("after four hours: %+v", r)
	}
	w.next() // the notice
	w.pass(time.Hour)
	if r := w.next(); r.Notice != 0 {
		t.Errorf("told twice: %+v", r)
	}
	mu.Lock()
	busy = false
	mu.Unlock()
	w.pass(3 * time.Hour)
	if r := w.next(); r.Notice == 0 || r.Rcpts[0].Fate != Relayed {
		t.Errorf("in the end: %+v", r)
	}
	w.next()
	got := back.taken()
	if len(got) != 2 || !strings.Contains(got[0], "Action: delayed\r\nStatus: 4.2.0") || !strings.Contains(got[0], "Will-Retry-Until:") ||
		!strings.Contains(got[0], "Original-Envelope-Id: q+1\r\n") || !strings.Contains(got[1], "Action: relayed\r\nStatus: 2.") {
		t.Errorf("notices are %q", got)
	}
}

func TestOperatorsCommands(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.host("dead.example", "127.0.0.4")
	w.host("one.example", "127.0.0.2")
	w.send(w.mail("x@dead.example"), text)
	w.next()
	bob := w.mail("y@dead.example")
	bob.UserName, bob.From, bob.User = "bob", "b@other.example", 8
	w.send(bob, text)
	if n, err := w.q.Hold(Filter{User: "bob"}, "under suspicion"); n != 1 || err != nil {
		t.Errorf("held %d, %v", n, err)
	}
	held := true
	if l, next, err := w.q.List(Filter{Held: &held}, 0, 10); err != nil || next != 0 || len(l) != 1 || l[0].State.Hold != "under suspicion" || l[0].Envelope.UserName != "bob" {
		t.Errorf("%v %d %+v", err, next, l)
	}
	if l, _, err := w.q.List(Filter{Sender: "sender.example"}, 0, 10); err != nil || len(l) != 1 || l[0].Attempts != 1 {
		t.Errorf("%v %+v", err, l)
	}
	w.serve("127.0.0.4", nil)
	if l, _, err := w.q.List(Filter{Campaign: "C0"}, 0, 10); err != nil || len(l) != 0 {
		t.Errorf("of a campaign: %+v %v", l, err)
	}
	if n, err := w.q.Retry(Filter{Domain: "dead.example"}); n != 1 || err != nil {
		t.Errorf("tried again %d, %v", n, err)
	}
	if r := w.next(); r.Rcpts[0].Fate != Delivered || r.Envelope.UserName != "alice" {
		t.Errorf("the result is %+v", r)
	}
	if n, err := w.q.Release(Filter{User: "bob"}); n != 1 || err != nil {
		t.Errorf("released %d, %v", n, err)
	}
	if r := w.next(); r.Rcpts[0].Fate != Delivered || r.Envelope.UserName != "bob" {
		t.Errorf("the result is %+v", r)
	}
	w.empty()
	w.host("dead.example", "127.0.0.6")
	w.send(w.mail("x@dead.example"), text)
	w.next()
	if n, err := w.q.Delete(Filter{Sender: "a@sender.example"}); n != 1 || err != nil {
		t.Errorf("deleted %d, %v", n, err)
	}
	w.empty()
}

func TestSchedule(t *testing.T) {
	t.Parallel()
	var o Options
	o.fill()
	at, tries := time.Duration(0), 0
	var pauses []time.Duration
	for at < o.Schedule.Until {
		tries++
		p := o.Schedule.pause(tries)
		pauses = append(pauses, p)
		at += p
	}
	if pauses[0] != 15*time.Minute || pauses[7] != 15*time.Minute || pauses[8] != 22*time.Minute+30*time.Second || pauses[len(pauses)-1] != 8*time.Hour || tries > 40 {
		t.Errorf("%d tries: %v", tries, pauses)
	}
}

func TestWhatTheDestinationCannotTake(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.host("old.example", "127.0.0.2")
	mx := w.serve("127.0.0.2", nil)
	mx.caps = "250 mx"
	for name, c := range map[string]struct {
		change func(*spool.Envelope)
		text   string
		want   smtp.Enhanced
	}{
		"SMTPUTF8":   {func(e *spool.Envelope) { e.UTF8 = true }, text, smtp.Enhanced{5, 6, 7}},
		"REQUIRETLS": {func(e *spool.Envelope) { e.RequireTLS = true }, text, smtp.Enhanced{5, 7, 30}},
		"signed":     {func(*spool.Envelope) {}, "DKIM-Signature: v=1; b=x\r\nSubject: x\r\n\r\ngr\xc3\xbc\xc3\x9fe\r\n", smtp.Enhanced{5, 6, 3}},
	} {
		env := w.mail("x@old.example")
		env.Verified = false
		c.change(env)
		w.send(env, c.text)
		if r := w.next(); r.Rcpts[0].Fate != Failed || r.Rcpts[0].Reply.Enh != c.want {
			t.Errorf("%s: %+v", name, r.Rcpts)
		}
	}
	w.send(w.mail("x@old.example"), text)
	if r := w.next(); r.Rcpts[0].Fate != Delivered {
		t.Errorf("an ordinary message: %+v", r)
	}
	w.send(w.mail("x@old.example"), "Subject: x\r\n\r\ngr\xc3\xbc\xc3\x9fe\r\n")
	if r := w.next(); r.Rcpts[0].Fate != Delivered || !strings.Contains(r.Note, "7 bits") {
		t.Errorf("an unsigned 8-bit message: %+v", r)
	}
	if got := mx.taken(); got[0] != text || !strings.HasSuffix(got[1], "Content-Transfer-Encoding: quoted-printable\r\n\r\ngr=C3=BC=C3=9Fe\r\n") {
		t.Errorf("the destination has %q", got)
	}
}

// TestLargeMessagesAreConverted, and wait where there is no room for that.
func TestLargeMessagesAreConverted(t *testing.T) {
	t.Parallel()
	large := "Subject: x\r\n\r\n" + strings.Repeat(strings.Repeat("\xc3\xbc", 30)+"\r\n", 30_000)
	for _, room := range []bool{true, false} {
		w := newWorld(t, func(o *Options) {
			if room {
				o.Spill = func() (smtp.Spill, error) { return os.CreateTemp(t.TempDir(), "") }
			}
		})
		w.host("old.example", "127.0.0.2")
		mx := w.serve("127.0.0.2", nil)
		mx.caps = "250 mx"
		w.send(w.mail("x@old.example"), text) // its session is there for the next
		w.next()
		w.sendLarge(w.mail("x@old.example"), large)
		want := Deferred
		if room {
			want = Delivered
		}
		if r := w.next(); r.Rcpts[0].Fate != want {
			t.Errorf("room %t: %+v", room, r)
		}
		if room && strings.Count(strings.ReplaceAll(mx.taken()[1], "=\r\n", ""), "=C3=BC") != 30*30_000 {
			t.Errorf("%d bytes arrived", len(mx.taken()[1]))
		}
	}
}
