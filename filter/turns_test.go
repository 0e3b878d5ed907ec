package filter

import (
	"context"
	"sync"
	"testing"
	"time"

	"sluice/filter/message"
	"sluice/intercept/flow"
)

const soon = time.Minute // nothing here takes as long, unless it hangs

// slow is a check that says of whom it looks at a message, and ends when it is told.
type slow struct {
	began chan uint32
	end   [4]chan struct{} // by user
}

func newSlow() (s slow) {
	s.began = make(chan uint32, 100)
	for i := range s.end {
		s.end[i] = make(chan struct{})
	}
	return s
}

func (s slow) Check(_ context.Context, _ Phase, m *message.Message, hits []Hit) []Hit {
	if len(m.Data) >= Large {
		s.began <- m.Flow.User.ID
		<-s.end[m.Flow.User.ID]
	}
	return append(hits, Hit{Code: "SEEN"})
}

func of(user uint32, size int) *message.Message {
	return &message.Message{Flow: &flow.Flow{User: flow.User{ID: user}}, Data: make([]byte, size)}
}

// TestLargeMessagesTakeTurns: two at once and one of each user, users in the order in which they came, however many
// messages one of them has; small messages pass them all.
func TestLargeMessagesTakeTurns(t *testing.T) {
	t.Parallel()
	s := newSlow()
	turns := NewTurns(2)
	c := InTurn(s, turns)
	var all sync.WaitGroup
	begin := func(user uint32) {
		all.Go(func() {
			if got := c.Check(context.Background(), Data, of(user, Large), nil); len(got) != 1 || got[0].Code != "SEEN" {
				t.Errorf("user %d: %+v", user, got)
			}
		})
	}
	next := func() uint32 {
		select {
		case u := <-s.began:
			return u
		case <-time.After(soon):
			t.Fatal("nobody has a turn")
			return 0
		}
	}
	waiting := func(user uint32, n int) { // until so many of a user wait
		t.Helper()
		for end := time.Now().Add(soon); ; time.Sleep(time.Millisecond) {
			turns.mu.Lock()
			l := turns.users[user]
			is := l != nil && len(l.waiting) == n
			turns.mu.Unlock()
			if is {
				return
			}
			if time.Now().After(end) {
				t.Fatalf("of user %d not %d wait", user, n)
			}
		}
	}
	const greedy, other, third = 1, 2, 3
	begin(greedy)
	if u := next(); u != greedy {
		t.Fatalf("user %d has the first turn", u)
	}
	for range 20 { // one turn is free, and is not theirs
		begin(greedy)
	}
	waiting(greedy, 20)
	begin(other)
	if u := next(); u != other {
		t.Fatalf("user %d has the second turn", u)
	}
	begin(third)
	waiting(third, 1)
	if got := c.Check(context.Background(), Data, of(third, Large-1), nil); len(got) != 1 || got[0].Code != "SEEN" {
		t.Errorf("a small message: %+v", got)
	}
	for _, c := range []struct {
		ends, next uint32
		why        string
	}{
		{other, third, "greedy has a turn already"},
		{greedy, greedy, "nobody else waits"},
	} {
		if s.end[c.ends] <- struct{}{}; next() != c.next {
			t.Fatalf("after user %d it is not the turn of user %d, though %s", c.ends, c.next, c.why)
		}
	}
	begin(other)
	waiting(other, 1)
	if s.end[greedy] <- struct{}{}; next() != other {
		t.Fatal("who came while greedy had a turn waits for more than one of his messages")
	}
	s.end[other] <- struct{}{}
	s.end[third] <- struct{}{}
	for range 19 {
		if u := next(); u != greedy {
			t.Errorf("user %d has a turn", u)
		}
		s.end[greedy] <- struct{}{}
	}
	all.Wait()
	if turns.free != 2 || len(turns.users) != 0 || len(turns.ready) != 0 {
		t.Errorf("left: %d free, %d users, %d ready", turns.free, len(turns.users), len(turns.ready))
	}
}

// TestWhoseTurnDoesNotComeIsPutOff, and takes nobody's place.
func TestWhoseTurnDoesNotComeIsPutOff(t *testing.T) {
	t.Parallel()
	s := newSlow()
	turns := NewTurns(1)
	c := InTurn(s, turns)
	done := make(chan struct{})
	go func() { c.Check(context.Background(), Data, of(1, Large), nil); close(done) }()
	<-s.began
	over, cancel := context.WithCancel(context.Background())
	cancel()
	for _, user := range []uint32{1, 2} {
		v := Judge(c.Check(over, Data, of(user, Large), nil))
		if d := v.Decisive(); d == nil || d.Code != "BUSY" || v.Action != Defer || v.Class != Policy {
			t.Errorf("user %d: %+v", user, v)
		}
	}
	s.end[1] <- struct{}{}
	<-done
	if turns.free != 1 || len(turns.users) != 0 || len(turns.ready) != 0 {
		t.Errorf("left: %d free, %d users, %d ready", turns.free, len(turns.users), len(turns.ready))
	}
}

// whole is a check that is all that one can be.
type whole struct{ settled int }

func (w *whole) Check(_ context.Context, _ Phase, _ *message.Message, hits []Hit) []Hit { return hits }
func (w *whole) Settle(*message.Message, Outcome)                                       { w.settled++ }
func (w *whole) Identify(Phase, *message.Message) (identity, told string) {
	return "shop", "X-AuthUser"
}
func (w *whole) Excuses(Phase, *message.Message) []string { return []string{"other"} }

// TestInTurnHidesNothing: whatever else a check is, it is that in turn, too.
func TestInTurnHidesNothing(t *testing.T) {
	t.Parallel()
	w, other := new(whole), newSlow()
	p := NewPipeline(Step{Name: "whole", Phases: []Phase{Data}, Check: InTurn(w, NewTurns(1))}, Step{Name: "other", Phases: []Phase{Data}, Check: other})
	m := of(1, 10)
	if v := p.Ask(context.Background(), Data, m); len(v.Hits) != 0 || m.Identity != "shop" || m.Told != "X-AuthUser" {
		t.Errorf("hits %v, identity %q, told %q", v.Hits, m.Identity, m.Told)
	}
	if p.Settle(m, Outcome{}); w.settled != 1 {
		t.Errorf("settled %d times", w.settled)
	}
}
