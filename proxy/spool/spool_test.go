package spool

import (
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"sluice/proxy/smtp"
)

func TestMessageGoesInAndComesOut(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := open(t, dir, Options{})
	env := to("b@example.net", "c@example.org", "d@EXAMPLE.net")
	env.Rcpts[1].Notify, env.Rcpts[1].ORcpt = smtp.NotifyFailure|smtp.NotifyDelay, "rfc822;c@example.org"
	env.Ret, env.EnvID, env.UTF8, env.RequireTLS, env.Identity, env.Verified = "HDRS", "q+2Bz", true, true, "mailbox", true
	env.Body = smtp.Body8BitMIME
	ids := commit(t, s, env, message(3))
	if len(ids) != 2 {
		t.Fatalf("%d deliveries for two domains", len(ids))
	}
	check := func(s *Spool) {
		t.Helper()
		l := lease(t, s, ids[0])
		if got := textOf(t, l); got != message(3) {
			t.Errorf("the message is %q", got)
		}
		if r := l.Envelope.Rcpts; len(r) != 2 || r[0].Address != "b@example.net" || r[1].Address != "d@EXAMPLE.net" {
			t.Errorf("recipients of the first delivery are %+v", r)
		}
		want := *env
		want.Rcpts, want.Received = l.Envelope.Rcpts, l.Envelope.Received
		if !reflect.DeepEqual(l.Envelope, want) || l.Envelope.Received.Sub(env.Received).Abs() > time.Microsecond {
			t.Errorf("the envelope is\n%+v, want\n%+v", l.Envelope, want)
		}
		if _, err := s.Lease(ids[0]); err == nil {
			t.Error("leased twice")
		} else {
			mustBe(t, err, ErrBusy)
		}
		second := lease(t, s, ids[1])
		if r := second.Envelope.Rcpts; len(r) != 1 || r[0] != env.Rcpts[1] {
			t.Errorf("recipients of the second delivery are %+v", r)
		}
		for _, l := range []*Lease{l, second} {
			if err := l.Return(); err != nil {
				t.Error(err)
			}
		}
	}
	check(s)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, dir, Options{})
	check(s)
	for _, id := range ids {
		if err := lease(t, s, id).Settle(State{}); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if s = open(t, dir, Options{}); len(all(s)) != 0 {
		t.Errorf("%d deliveries are left", len(all(s)))
	}
	_, err := s.Lease(ids[0])
	mustBe(t, err, ErrUnknown)
}

func TestStateIsKept(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := open(t, dir, Options{})
	id := commit(t, s, to("a@example.net", "b@example.net", "c@example.net"), message(1))[0]
	l := lease(t, s, id)
	due := time.Now().Add(time.Hour).Truncate(time.Second)
	st := State{
		Due: due, Attempts: 3, Left: 0b101, Delayed: true, Last: due.Add(-time.Minute), Note: "timed out",
		Replies: []Reply{{Rcpt: 2, Code: 450, Enh: smtp.Enhanced{4, 7, 1}, Text: "greylisted", Host: "mx.example.net"}},
	}
	if err := l.Settle(st); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		l = lease(t, s, id)
		if !l.State.Due.Equal(due) || l.State.Attempts != 3 || l.State.Left != 0b101 || !l.State.Delayed || l.State.Note != "timed out" ||
			!reflect.DeepEqual(l.State.Replies, st.Replies) || !l.State.Last.Equal(st.Last) {
			t.Errorf("the state is %+v", l.State)
		}
		if l.Open(1) || !l.Open(2) {
			t.Error("the wrong recipients are open")
		}
		if err := l.Return(); err != nil {
			t.Fatal(err)
		}
		s.Close()
		s = open(t, dir, Options{})
	}
}

// TestProgressIsKept: what a try has come to so far outlives a kill, with that it went on; until then the delivery is nobody else's.
func TestProgressIsKept(t *testing.T) {
	t.Parallel()
	d := newSimDisk(1)
	s, err := Open("simulated", Options{disk: d})
	if err != nil {
		t.Fatal(err)
	}
	id := commit(t, s, to("a@example.net", "b@example.net", "c@example.net"), message(1))[0]
	l := lease(t, s, id)
	st := l.State
	st.Left, st.Replies = 0b110, []Reply{{Code: 250, Text: "taken", Taken: true, Relayed: true}}
	if err := l.Progress(st); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Lease(id); !errors.Is(err, ErrBusy) {
		t.Errorf("it is leased twice: %v", err)
	}
	if err := l.Noted(); err != nil || l.Open(0) || !l.Open(1) {
		t.Errorf("%v, %b", err, l.State.Left)
	}
	defer s.Close()
	d.restart(false)
	if s, err = Open("simulated", Options{disk: d, Keep: true}); err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	rep, err := s.Takeover()
	if err != nil || len(rep.Interrupted) != 1 || !slices.Equal(rep.Interrupted[0].To, []string{"b@example.net", "c@example.net"}) {
		t.Fatalf("%+v, %v", rep, err)
	}
	l = lease(t, s, id)
	if l.State.Left != 0b110 || l.State.Attempts != 0 || l.State.Kills != 1 || !reflect.DeepEqual(l.State.Replies, st.Replies) {
		t.Errorf("the state is %+v", l.State)
	}
	if err := l.Progress(State{Left: 0b100}); err != nil {
		t.Fatal(err)
	}
	if err := l.Settle(State{}); err != nil || len(all(s)) != 0 {
		t.Errorf("%v, %d are left", err, len(all(s)))
	}
}

func TestOperatorsChanges(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := open(t, dir, Options{})
	id := commit(t, s, to("a@example.net"), message(1))[0]
	other := commit(t, s, to("a@example.net"), message(2))[0]
	if err := s.Hold(id, "to be looked at"); err != nil {
		t.Fatal(err)
	}
	_, err := s.Lease(id)
	mustBe(t, err, ErrHeld)
	s.Close()
	s = open(t, dir, Options{})
	_, err = s.Lease(id)
	mustBe(t, err, ErrHeld)
	if l, err := s.Look(id); err != nil || l.State.Hold != "to be looked at" {
		t.Errorf("%v, %+v", err, l)
	}
	if f := s.Figures(); f.Held != 1 || f.Deliveries != 2 {
		t.Errorf("figures are %+v", f)
	}
	if err := s.Release(id); err != nil {
		t.Fatal(err)
	}
	l := lease(t, s, id)
	mustBe(t, s.Hold(id, "late"), ErrBusy)
	mustBe(t, s.Delete(id), ErrBusy)
	if err := l.Settle(State{Left: 1, Due: time.Now().Add(time.Hour), Attempts: 1}); err != nil {
		t.Fatal(err)
	}
	if err := s.Retry(id); err != nil {
		t.Fatal(err)
	}
	if d, err := s.Get(id); err != nil || d.Due.After(time.Now()) || d.Attempts != 1 {
		t.Errorf("%v, %+v", err, d)
	}
	if err := s.Delete(id); err != nil {
		t.Fatal(err)
	}
	mustBe(t, s.Delete(id), ErrUnknown)
	if got := all(s); !slices.Equal(got, []ID{other}) {
		t.Errorf("left are %v", got)
	}
	if f := s.Figures(); f.Held != 0 {
		t.Errorf("figures are %+v", f)
	}
}

func TestLargeMessageHasAFileOfItsOwn(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := open(t, dir, Options{})
	text := "Subject: large\r\n\r\n" + strings.Repeat("all work and no play\r\n.\r\n", 20_000)
	store := func() []ID { return large(t, s, text) }
	tails := func() int {
		names, err := s.d.list()
		if err != nil {
			t.Fatal(err)
		}
		return len(slices.DeleteFunc(names, func(n string) bool { return !strings.HasSuffix(n, suffixTail) }))
	}
	ids := store()
	for range 2 {
		for _, id := range ids {
			l := lease(t, s, id)
			if got := textOf(t, l); got != text {
				t.Errorf("got %d bytes, want %d", len(got), len(text))
			}
			l.Return()
		}
		s.Close()
		s = open(t, dir, Options{})
	}
	if err := lease(t, s, ids[0]).Settle(State{}); err != nil {
		t.Fatal(err)
	}
	if n := tails(); n != 1 {
		t.Errorf("%d files while a delivery is open", n)
	}
	if err := lease(t, s, ids[1]).Settle(State{}); err != nil {
		t.Fatal(err)
	}
	if n := tails(); n != 0 {
		t.Errorf("%d files when all is done", n)
	}
	// One that is never committed is dropped; so is one whose program ended before.
	d, err := s.Create()
	if err != nil {
		t.Fatal(err)
	}
	sp, err := d.OpenSpill()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := sp.Write([]byte("half a message")); err != nil || tails() != 1 {
		t.Errorf("%v, %d files", err, tails())
	}
	s.Close()
	s = open(t, dir, Options{})
	if n := tails(); n != 0 {
		t.Errorf("%d files of messages that never came whole", n)
	}
}

// large commits a message that outgrows memory.
func large(t *testing.T, s *Spool, text string) []ID {
	t.Helper()
	d, err := s.Create()
	if err != nil {
		t.Fatal(err)
	}
	defer d.Abort()
	b := smtp.NewBody(&smtp.DataOptions{MaxMemory: 16 << 10, OpenSpill: d.OpenSpill})
	if err := b.Append([]byte(text)); err != nil {
		t.Fatal(err)
	}
	if err := b.Finish(); err != nil {
		t.Fatal(err)
	}
	defer b.Release()
	env := to("l@example.net")
	if len(text) > 100_000 {
		env = to("a@example.net", "b@example.org")
	}
	ids, err := d.Commit(env, nil, b)
	if err != nil {
		t.Fatal(err)
	}
	return ids
}

// TestWaiting: each message counts once for its user from Commit until its last delivery is settled, on hold or not, also
// behind a restart; a notice never does.
func TestWaiting(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := open(t, dir, Options{})
	is := func(when string, want int) {
		t.Helper()
		if n, other := s.Waiting(7), s.Waiting(8); n != want || other != 0 {
			t.Errorf("%s: %d messages wait, and %d of somebody else, want %d and 0", when, n, other, want)
		}
	}
	is("of an empty spool", 0)
	two := commit(t, s, to("a@example.net", "b@example.org"), message(1))
	one := commit(t, s, to("a@example.net"), message(2))
	notice := to("a@example.com")
	notice.Class = ClassNotice
	commit(t, s, notice, message(3))
	risky := to("a@example.com")
	risky.Class = "risk"
	commit(t, s, risky, message(4))
	is("with three messages and a notice", 3)
	if err := s.Hold(one[0], "to see"); err != nil {
		t.Fatal(err)
	}
	if err := lease(t, s, two[0]).Settle(State{}); err != nil {
		t.Fatal(err)
	}
	is("with one on hold, and one of two deliveries done", 3)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, dir, Options{})
	is("behind a restart", 3)
	if err := lease(t, s, two[1]).Settle(State{}); err != nil {
		t.Fatal(err)
	}
	is("with both deliveries done", 2)
	if err := s.Delete(one[0]); err != nil {
		t.Fatal(err)
	}
	is("with what was on hold deleted", 1)
	if len(s.x.waiting) != 1 {
		t.Errorf("users are remembered: %v", s.x.waiting)
	}
}

func TestNoticeAndItsReasonAreOneStep(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := open(t, dir, Options{})
	id := commit(t, s, to("a@example.net", "b@example.net"), message(1))[0]
	l := lease(t, s, id)
	d, err := s.Create()
	if err != nil {
		t.Fatal(err)
	}
	env := to("a@example.com")
	env.From, env.Class = "", "notice"
	b := bodyOf(t, "Subject: failed\r\n\r\nsorry\r\n")
	defer b.Release()
	notices, err := l.SettleWith(State{Left: 0b10, Attempts: 1, Note: "one failed"}, d, env, b)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		l = lease(t, s, id)
		if l.Open(0) || !l.Open(1) || l.State.Note != "one failed" {
			t.Errorf("the state is %+v", l.State)
		}
		l.Return()
		if n := lease(t, s, notices[0]); textOf(t, n) != "Subject: failed\r\n\r\nsorry\r\n" {
			t.Error("another notice")
		} else {
			n.Return()
		}
		if d, err := s.Get(notices[0]); err != nil || !d.Notice {
			t.Errorf("%v, %+v", err, d)
		}
		s.Close()
		s = open(t, dir, Options{})
	}
}

// TestOneStepForSeveralDeliveries: what became of two deliveries of a message and the notice of both are on disk together, and
// what was kept for that notice was there before.
func TestOneStepForSeveralDeliveries(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := open(t, dir, Options{})
	ids := commit(t, s, to("a@one.example", "b@two.example", "c@three.example"), message(1))
	owed := State{Left: 1, Attempts: 1, Due: time.Now().Add(time.Hour), Last: time.Now().Truncate(time.Second), Replies: []Reply{{Code: 550, Text: "gone", Final: true}, {Rcpt: 1, Code: 451, Final: true, Expired: true}}}
	if err := lease(t, s, ids[0]).Settle(owed); err != nil {
		t.Fatal(err)
	}
	s.Close()
	s = open(t, dir, Options{})
	c, err := s.Claim(ids[0])
	if err != nil {
		t.Fatal(err)
	}
	if d, err := s.Get(ids[0]); err != nil || !d.Owed || !d.Leased || !c.State.Owed() || !reflect.DeepEqual(c.State.Replies, owed.Replies) {
		t.Errorf("%+v, %v, %+v", d, err, c.State)
	}
	if _, err := s.Claim(ids[0]); !errors.Is(err, ErrBusy) {
		t.Errorf("it is claimed twice: %v", err)
	}
	l := lease(t, s, ids[1])
	var open3 []ID
	l.Each(func(d *Delivery) bool { open3 = append(open3, d.ID); return true })
	if !l.Several() || !slices.Equal(open3, ids) {
		t.Errorf("the message has %v, want %v", open3, ids)
	}
	b := bodyOf(t, "Subject: failed\r\n\r\nsorry\r\n")
	defer b.Release()
	env := to("a@example.com")
	env.From, env.Class = "", "notice"
	if _, err := l.SettleWith(State{}, l.Draft(), env, b, Settled{c, State{}}); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if n := s.Figures().Deliveries; n != 2 {
			t.Errorf("%d deliveries, want the third and the notice", n)
		}
		s.Close()
		s = open(t, dir, Options{})
	}
	if err := s.Hold(ids[2], "x"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Claim(ids[2]); !errors.Is(err, ErrHeld) {
		t.Errorf("what is on hold is claimed: %v", err)
	}
}

func TestManyRecipientsAreSeveralDeliveries(t *testing.T) {
	t.Parallel()
	s := open(t, t.TempDir(), Options{})
	env := to()
	for range 150 {
		env.Rcpts = append(env.Rcpts, Rcpt{Address: "x@example.net"})
	}
	ids := commit(t, s, env, message(1))
	n := 0
	for _, id := range ids {
		d, err := s.Get(id)
		if err != nil {
			t.Fatal(err)
		}
		n += d.Rcpts
	}
	if len(ids) != 3 || n != 150 {
		t.Errorf("%d deliveries with %d recipients", len(ids), n)
	}
	if _, err := tryCommit(s, to(), message(1)); err == nil {
		t.Error("a message without recipients was taken")
	}
}

// TestHeldFromTheFirstMoment: nobody can lease what came to be looked at, before or after a restart, until it is released.
func TestHeldFromTheFirstMoment(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	var arrived []*Delivery
	s := open(t, dir, Options{Arrived: func(d *Delivery) { arrived = append(arrived, d) }})
	d, err := s.Create()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.CommitHeld(to("x@one.example"), nil, bodyOf(t, "no\r\n"), ""); err == nil {
		t.Fatal("held without a reason")
	}
	ids, err := d.CommitHeld(to("a@one.example", "b@two.example", "c@one.example"), []byte("Received: x\r\n"), bodyOf(t, "Subject: q\r\n\r\nhm\r\n"), "hold: [URL] looked at")
	if err != nil || len(ids) != 2 || len(arrived) != 2 || !arrived[0].Held || !arrived[1].Held || s.Figures().Held != 2 {
		t.Fatalf("committed %v, %v; arrived %+v, %d on hold", ids, err, arrived, s.Figures().Held)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, dir, Options{})
	for _, id := range ids {
		if _, err := s.Lease(id); !errors.Is(err, ErrHeld) {
			t.Errorf("lease of what is on hold: %v", err)
		}
		l, err := s.Look(id)
		if err != nil || l.State.Hold != "hold: [URL] looked at" {
			t.Errorf("hold %q, %v", l.State.Hold, err)
		}
	}
	if err := s.Release(ids[0]); err != nil {
		t.Fatal(err)
	}
	l := lease(t, s, ids[0])
	if got := textOf(t, l); got != "Received: x\r\nSubject: q\r\n\r\nhm\r\n" || len(l.Envelope.Rcpts) != 2 || l.State.Left != 0b11 {
		t.Errorf("released: %q for %+v, open %b", got, l.Envelope.Rcpts, l.State.Left)
	}
	if _, err := s.Lease(ids[1]); !errors.Is(err, ErrHeld) || s.Figures().Held != 1 {
		t.Errorf("the other delivery: %v, %d on hold", err, s.Figures().Held)
	}
}
