package distrust

import (
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"testing"
	"time"
)

// TestPersonAllows: with or without a refusal, for a week at most, in the same bounds, and mail does not end it.
func TestPersonAllows(t *testing.T) {
	t.Parallel()
	r, f := newRig(t), flowFrom(src, dst)
	e, err := r.Allow(pairOf(f), Grant{By: "carol", Why: "ticket 4711", Until: r.now.Add(30 * 24 * time.Hour)}, "alice")
	if err != nil || e.Grant.Until.Sub(r.now) != GrantTime {
		t.Fatalf("%+v, %v", e, err)
	}
	r.Trusted(f)
	r.restart()
	if r.MayPass(f) == "" || r.List()[0].Grant.By != "carol" {
		t.Errorf("after a restart: %+v", r.List())
	}
	for range Connections {
		if _, ok := r.Pass(f); !ok {
			t.Fatal("too few")
		}
	}
	if _, ok := r.Pass(f); ok {
		t.Error("a person's grant has no bound")
	}
	r.now = r.now.Add(GrantTime)
	if r.MayPass(f) != "" {
		t.Error("it has no end")
	}
}

// TestStoreThatFails: nothing is granted by a person without being on disk; what was learnt is written later.
func TestStoreThatFails(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	f := r.learn(src, dst)
	r.store.fails = errors.New("disk full")
	if _, err := r.Allow(pairOf(f), Grant{By: "carol"}, "alice"); err == nil || r.MayPass(f) != "" {
		t.Error("granted without a disk")
	}
	if r.Save() == nil || len(r.store.all) != 0 {
		t.Error("saved without a disk")
	}
	r.store.fails = nil
	if r.save(); len(r.store.all) != 1 {
		t.Errorf("on disk: %+v", r.store.all)
	}
	turns := r.store.turns
	if r.save(); r.store.turns != turns {
		t.Error("saved though nothing changed")
	}
	r.store.fails = errors.New("disk full")
	if _, err := r.Forget(pairOf(f)); err == nil || len(r.List()) != 1 {
		t.Error("forgotten without a disk")
	}
	r.store.fails = nil
	if _, err := r.Forget(Pair{SourceOf(netip.MustParseAddr("192.0.2.99")), f.Target}); !errors.Is(err, ErrUnknown) {
		t.Errorf("a pair nobody knows: %v", err)
	}
	if r.restart(); len(r.List()) != 1 {
		t.Errorf("after a restart: %+v", r.List())
	}
}

// TestMemoryIsBounded: neither one source that tries all destinations nor a crowd of sources fills the memory, and grants
// stay.
func TestMemoryIsBounded(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	good := r.learn(src, dst)
	r.owners[good.Target] = "TLSA"
	if r.MayPass(good) == "" {
		t.Fatal("no grant")
	}
	target := func(i int) string { return fmt.Sprintf("198.51.%d.%d:25", i>>8&255, i&255) }
	for i := range 1000 {
		r.learn("192.0.2.66", target(i))
	}
	if n := r.sources[SourceOf(netip.MustParseAddr("192.0.2.66"))]; n != mostOfOne {
		t.Errorf("one source has %d entries", n)
	}
	for i := range 2 * mostEntries {
		r.learn(fmt.Sprintf("198.18.%d.%d", i>>8&255, i&255), target(i>>9))
	}
	if n := len(r.entries); n > mostEntries || int64(n) != r.any.Load() {
		t.Errorf("%d entries, counted %d", n, r.any.Load())
	}
	if r.MayPass(good) == "" {
		t.Error("the crowd pushed a grant out")
	}
	r.save()
	r.now = r.now.Add(evidenceTime + time.Hour)
	r.save()
	if len(r.entries) != 0 || len(r.sources) != 0 || len(r.budgets) != 0 || r.grants != 0 || len(r.store.all) != 0 {
		t.Errorf("a month later: %d entries, %d sources, %d budgets, %d grants, %d on disk", len(r.entries), len(r.sources), len(r.budgets), r.grants, len(r.store.all))
	}
}

// TestConcurrentUse: sessions, a person and the writer at once, for the race detector.
func TestConcurrentUse(t *testing.T) {
	t.Parallel()
	store := &memory{all: map[Pair]Entry{}}
	l, err := New(Options{Store: store, Published: owners{netip.MustParseAddrPort(dst): "TLSA"}, Events: func(Event) {}})
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			f := flowFrom(fmt.Sprintf("192.0.2.%d", i%3), dst)
			for range 300 {
				l.Refused(f, Alert, "x")
				if l.MayPass(f) != "" {
					if spend, ok := l.Pass(f); ok {
						spend(10)
					}
				}
				switch i {
				case 5:
					_, _ = l.Forget(pairOf(f)) // somebody else may have
				case 6:
					_ = l.Save()
				case 7:
					l.Trusted(f)
				}
				l.List()
			}
		})
	}
	wg.Wait()
	if n := len(l.entries); n > 3 || l.grants > n {
		t.Errorf("%d entries, %d grants", n, l.grants)
	}
}
