package main

import (
	"runtime"
	"runtime/metrics"
	"testing"
)

func TestMemoryKeeper(t *testing.T) {
	t.Parallel()
	k := newMemoryKeeper()
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
	k.look()
	if len(set) != 1 || set[0] != k.percent || k.percent < leastGC || k.percent > mostGC {
		t.Errorf("set to %v, percent %d", set, k.percent)
	}
	k.look() // nothing was allocated and nothing has changed
	if len(set) != 1 || back > 1 {
		t.Errorf("set to %v, gave back %d times", set, back)
	}
	k = newMemoryKeeper()
	k.setGC, k.giveBack = func(int) int { return 0 }, func() { back++ }
	garbage := make([]byte, 64<<20)
	runtime.KeepAlive(&garbage)
	metrics.Read(k.samples)
	back = 0
	if k.look(); back != 0 {
		t.Error("memory was given back while much was allocated")
	}
	if k.look(); back != 1 {
		t.Errorf("memory was given back %d times in the first quiet look, want 1", back)
	}
	if k.look(); back != 1 {
		t.Error("memory was given back again, though nothing was allocated")
	}
	for used, want := range map[uint64]int{0: mostGC, 1 << 20: mostGC, headroom: 100, 50 << 20: 64, 1 << 30: leastGC} {
		if got := gcPercent(used); got != want {
			t.Errorf("GOGC over %d bytes is %d, want %d", used, got, want)
		}
	}
}
