package scanner

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"sluice/filter"
)

// stand is a client that does as it is told, and counts.
type stand struct {
	mu           sync.Mutex
	down         error
	asks, pings  int
	block, blown chan struct{}
}

func (s *stand) set(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.down = err
}

func (s *stand) seen() (asks, pings int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.asks, s.pings
}

func (s *stand) ask(ctx context.Context, _ *question) ([]filter.Hit, error) {
	s.mu.Lock()
	s.asks++
	err := s.down
	s.mu.Unlock()
	if s.block != nil {
		s.blown <- struct{}{}
		select {
		case <-s.block:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	return nil, err
}

func (s *stand) ping(context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pings++
	return s.down
}

func standing(s *stand, event func(Event)) *plugin {
	p := newPlugin(options(Clamd, "unix:/nowhere"), event)
	p.instances[0].client = s
	return p
}

// TestBreaker: after five failures no message waits for a dead program; it is asked again once it answers a ping, and then
// one failure is enough.
func TestBreaker(t *testing.T) {
	t.Parallel()
	s := &stand{down: errors.New("gone")}
	events := make(chan Event, 10)
	p := standing(s, func(e Event) { events <- e })
	in := p.instances[0]
	in.pause = time.Hour
	ask := func() error { _, err := p.ask(context.Background(), &question{letter(), 1}); return err }
	for range openAfter {
		if ask() == nil {
			t.Fatal("a failure is an answer")
		}
	}
	if e := <-events; !e.Dead || e.Err == nil || e.Then == "" {
		t.Errorf("the event is %+v", e)
	}
	for range 3 {
		if ask() == nil {
			t.Error("a dead one answers")
		}
	}
	if asks, pings := s.seen(); asks != openAfter || pings != 0 {
		t.Errorf("asked %d times and pinged %d times, want %d and none before the pause is over", asks, pings, openAfter)
	}
	in.look(context.Background()) // it is still away
	if state, err := in.state(); state != Dead || err == nil {
		t.Errorf("state %s, %v", state, err)
	}
	s.set(nil)
	in.look(context.Background())
	if e := <-events; e.Dead {
		t.Errorf("the event is %+v", e)
	}
	s.set(errors.New("stumbles"))
	_ = ask()
	if e := <-events; !e.Dead {
		t.Error("half open, and one failure is not enough")
	}
	s.set(nil)
	in.look(context.Background())
	<-events
	if err := ask(); err != nil {
		t.Error(err)
	}
	if state, _ := in.state(); state != Alive {
		t.Errorf("state %s", state)
	}
}

// TestPingedBesideMail: once the pause is over the next message has a dead program pinged, and does not wait for it.
func TestPingedBesideMail(t *testing.T) {
	t.Parallel()
	s := &stand{down: errors.New("gone")}
	events := make(chan Event, 10)
	p := standing(s, func(e Event) { events <- e })
	p.instances[0].pause = 0
	for range openAfter {
		_, _ = p.ask(context.Background(), &question{letter(), 1})
	}
	<-events
	s.set(nil)
	_, err := p.ask(context.Background(), &question{letter(), 1})
	if err == nil {
		t.Error("the message waited for the ping")
	}
	if e := <-events; e.Dead {
		t.Errorf("the event is %+v", e)
	}
}

// TestAtOnce: more messages than it may be asked about wait, and give up in time; that is not its failure.
func TestAtOnce(t *testing.T) {
	t.Parallel()
	s := &stand{block: make(chan struct{}), blown: make(chan struct{}, 10)}
	p := standing(s, func(Event) {})
	p.o.AtOnce, p.slots = 1, make(chan struct{}, 1)
	first := make(chan error)
	go func() { _, err := p.ask(context.Background(), &question{letter(), 1}); first <- err }()
	<-s.blown
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
	defer cancel()
	if _, err := p.ask(ctx, &question{letter(), 1}); !errors.Is(err, errBusy) {
		t.Errorf("the second hears %v", err)
	}
	close(s.block)
	if err := <-first; err != nil {
		t.Error(err)
	}
	if state, _ := p.instances[0].state(); state != Alive || p.count.busy.Load() != 1 {
		t.Errorf("state %s, %d busy", state, p.count.busy.Load())
	}
}

// TestWhoeverLeavesIsNoFailure: a session that ends while a program is asked says nothing about the program.
func TestWhoeverLeavesIsNoFailure(t *testing.T) {
	t.Parallel()
	s := &stand{block: make(chan struct{}), blown: make(chan struct{}, 10)}
	p := standing(s, func(Event) {})
	for range openAfter + 1 {
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error)
		go func() { _, err := p.ask(ctx, &question{letter(), 1}); done <- err }()
		<-s.blown
		cancel()
		if err := <-done; err == nil {
			t.Error("a session that left has an opinion")
		}
	}
	if state, _ := p.instances[0].state(); state != Unknown {
		t.Errorf("state %s", state)
	}
}

// TestReconfigured: what is known of a plug-in outlives a reload that does not touch it.
func TestReconfigured(t *testing.T) {
	t.Parallel()
	ps := New(defaults(), func(Event) {})
	a, b := options(Clamd, "unix:/a"), options(Spamd, "unix:/b")
	ps.Configure([]Options{a, b})
	(*ps.list.Load())[1].count.asked.Add(3)
	a.Timeout = time.Second
	ps.Configure([]Options{a, b})
	if f := ps.Figures(); len(f) != 2 || f[1].Asked != 3 || f[0].Asked != 0 || f[0].Instances[0].State != Unknown {
		t.Errorf("figures %+v", f)
	}
	ps.Configure(nil)
	if ps.Figures() != nil {
		t.Error("a plug-in that was removed is still there")
	}
}
