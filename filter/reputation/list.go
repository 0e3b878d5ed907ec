package reputation

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// A list is taken out when a test of it fails, and after so many questions in a row without an answer; only a test that
// goes well puts it back. Until the first one it is out.
const (
	outAfter  = 10
	testEvery = 5 * time.Minute
	testAgain = 30 * time.Second // while it is out
	testTime  = 10 * time.Second
)

// list is one list by DNS.
type list struct {
	o     Options
	dns   Resolver
	fresh Resolver
	event func(Event)
	count counts

	mu     sync.Mutex
	in     bool // it is asked
	fails  int  // in a row
	tested time.Time
	err    error // why it is out
	told   bool  // an event said that it is out
}

type counts struct{ asked, listed, refused, failed, unmapped atomic.Uint64 }

// Event tells that a list was taken out or put back.
type Event struct {
	List string
	Zone string
	Out  bool
	Err  error
}

var errUntested = errors.New("it was not tested yet")

// usable tells whether the list is asked, and why not.
func (l *list) usable() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.in {
		return nil
	}
	if l.err == nil {
		return errUntested
	}
	return l.err
}

// ask looks up one entry: the answers, none where it is not listed.
func (l *list) ask(ctx context.Context, entry string) ([]netip.Addr, error) {
	l.count.asked.Add(1)
	as, err := l.lookup(ctx, l.dns, entry)
	l.mu.Lock()
	if err == nil {
		l.fails = 0
		l.mu.Unlock()
		return as, nil
	}
	l.fails++
	out := l.in && l.fails >= outAfter
	if out {
		l.take(err)
	}
	l.mu.Unlock()
	l.count.failed.Add(1)
	if out {
		l.event(Event{l.o.Name, l.o.Zone, true, err})
	}
	return nil, err
}

// take takes the list out. l.mu is held.
func (l *list) take(why error) { l.in, l.err, l.told, l.tested = false, why, true, time.Now() }

func (l *list) lookup(ctx context.Context, dns Resolver, entry string) ([]netip.Addr, error) {
	name := entry + "." + l.o.Zone
	as, err := dns.LookupA(ctx, name)
	switch {
	case notFound(err):
		return nil, nil
	case err != nil:
		return nil, err
	}
	for _, a := range as {
		if !answers.Contains(a) {
			return nil, fmt.Errorf("%s has the address %s, which no list answers: the zone may be somebody else's now", name, a)
		}
		if refusal.Contains(a) {
			return nil, fmt.Errorf("%s has the address %s, by which lists say that they do not answer: ask their operators", name, a)
		}
	}
	return as, nil
}

// due tells whether it is time for a test.
func (l *list) due() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	every := testEvery
	if !l.in {
		every = testAgain
	}
	return time.Since(l.tested) >= every
}

// test asks what the list has to have and what it must not have (RFC 5782 5), and puts it in or takes it out.
func (l *list) test(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, testTime)
	defer cancel()
	err := l.probe(ctx)
	l.mu.Lock()
	l.tested = time.Now()
	was, told := l.in, l.told
	l.in, l.err, l.fails = err == nil, err, 0
	l.told = err != nil
	l.mu.Unlock()
	switch {
	case err != nil && (was || !told):
		l.event(Event{l.o.Name, l.o.Zone, true, err})
	case err == nil && told:
		l.event(Event{l.o.Name, l.o.Zone, false, nil})
	}
}

func (l *list) probe(ctx context.Context) error {
	has, err := l.lookup(ctx, l.fresh, l.o.Unlisted)
	switch {
	case err != nil:
		return err
	case len(has) > 0:
		return fmt.Errorf("it lists everything: %s.%s has the address %s", l.o.Unlisted, l.o.Zone, has[0])
	}
	has, err = l.lookup(ctx, l.fresh, l.o.Listed)
	switch {
	case err != nil:
		return err
	case len(has) == 0:
		return fmt.Errorf("it does not have %s.%s, which every list has: it is dead, or not to be reached by this resolver", l.o.Listed, l.o.Zone)
	}
	return nil
}
