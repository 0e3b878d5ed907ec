package main

import (
	"runtime"
	"runtime/metrics"
	"testing"
	"time"
)

func TestMemoryKeeper(t *testing.T) {
	t.Parallel()
	now := time.Now()
	k := newMemoryKeeper(now)
	metrics.Read(k.samples)
	for _, s := range k.samples {
		if s.Value.Kind() != metrics.KindUint64 {
			t.Fatalf("the runtime does not know %s", s.Name)
		}
	}
	var set []int
	back := 0
	k.setGC = func(p int) int { set = append(set, p); return 0 }
	k.giveBack = func() { back++ }
	k.look(now)
	if len(set) != 1 || set[0] != k.percent || k.percent < 1 || k.percent > mostGC || k.headroom != leastHeadroom {
		t.Errorf("set to %v, percent %d, headroom %d", set, k.percent, k.headroom)
	}
	k.look(now) // nothing has changed
	if len(set) != 1 {
		t.Errorf("set to %v", set)
	}
	k = newMemoryKeeper(now)
	k.setGC, k.giveBack = func(int) int { return 0 }, func() { back++ }
	garbage := make([]byte, 64<<20)
	runtime.KeepAlive(&garbage)
	metrics.Read(k.samples)
	if k.tick(); back != 0 {
		t.Error("memory was given back while much was allocated")
	}
	if k.tick(); back != 1 {
		t.Errorf("memory was given back %d times in the first quiet look, want 1", back)
	}
	if k.tick(); back != 1 {
		t.Error("memory was given back again, though nothing was allocated")
	}
}

// TestHeadroom: garbage has as much room as is made in the time between two collections that cost a hundredth of a processor,
// within bounds; a burst has its room at once and keeps it for a while.
func TestHeadroom(t *testing.T) {
	t.Parallel()
	const mib = 1 << 20
	for _, c := range []struct {
		rate          float64
		scanned, used uint64
		want          uint64
	}{
		{0, 5 * mib, 20 * mib, leastHeadroom},
		{4 * mib, 5 * mib, 20 * mib, 8 * mib},
		{15 * mib, 5 * mib, 20 * mib, 30 * mib},
		{300 * mib, 5 * mib, 20 * mib, mostHeadroom},
		{2 * mib, 40e6, 60 * mib, 8 * mib},              // four seconds
		{4 * mib, 1e9, 2000 * mib, 400 * mib},           // a hundred
		{40 * mib, 1e9, 2000 * mib, 1000 * mib},         // half of what is in use
		{1, 1e9, 2000 * mib, leastHeadroom},             // nothing to be done
		{3 * mib, 0, 1, 6 * mib},                        // not more often than every two seconds
		{float64(mostHeadroom) / 2, 1, 0, mostHeadroom}, // just so much
		{float64(mostHeadroom), 1, 0, mostHeadroom},     // and no more
	} {
		if got := headroom(c.rate, c.scanned, c.used); got != c.want {
			t.Errorf("%.0f bytes a second, %d looked into, %d in use: room for %d, want %d", c.rate, c.scanned, c.used, got, c.want)
		}
	}
	for _, c := range []struct {
		used, room uint64
		want       int
	}{{0, leastHeadroom, mostGC}, {1 << 20, leastHeadroom, mostGC}, {mostHeadroom, mostHeadroom, 100}, {50 << 20, leastHeadroom, 8}, {1 << 30, 1 << 29, 50}, {1 << 30, leastHeadroom, 1}, {1 << 40, 1, 1}, {1 << 30, 16 << 20, 2}} {
		if got := gcPercent(c.used, c.room); got != c.want {
			t.Errorf("GOGC over %d bytes with room for %d is %d, want %d", c.used, c.room, got, c.want)
		}
	}
	now := time.Now()
	k := newMemoryKeeper(now)
	k.setGC = func(int) int { return 0 }
	metrics.Read(k.samples)
	k.look(now.Add(leastSpan / 2))
	if k.headroom != leastHeadroom {
		t.Errorf("room for %d after a moment that tells nothing", k.headroom)
	}
	garbage := make([]byte, 64<<20)
	runtime.KeepAlive(&garbage)
	metrics.Read(k.samples)
	k.look(now.Add(time.Second))
	if k.headroom < mostHeadroom {
		t.Errorf("room for %d in a burst, want %d", k.headroom, mostHeadroom)
	}
	burst := k.headroom
	if k.look(now.Add(time.Minute)); k.headroom >= burst || k.headroom < burst/2 {
		t.Errorf("room for %d right after a burst, which had %d", k.headroom, burst)
	}
	for range 20 {
		now = now.Add(time.Minute)
		k.look(now.Add(time.Minute))
	}
	if k.headroom != leastHeadroom {
		t.Errorf("room for %d long after a burst, want %d", k.headroom, leastHeadroom)
	}
}

// TestAfterNext: each collection is heard of once.
func TestAfterNext(t *testing.T) {
	t.Parallel()
	for range 2 {
		collected := make(chan struct{}, 1)
		afterNext(collected)
		runtime.GC()
		select {
		case <-collected:
		case <-time.After(time.Minute):
			t.Fatal("a collection was not heard of")
		}
	}
}
