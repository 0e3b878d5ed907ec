package main

import (
	"net/netip"
	"testing"

	"sluice/filter/limit"
)

// TestPlacesElsewhere: whatever order beginnings and ends are told in, the gate holds what is open, and nothing for ever.
func TestPlacesElsewhere(t *testing.T) {
	t.Parallel()
	gate := limit.NewSessions(limit.SessionOptions{})
	e := elsewhere{gate: gate}
	at := func(n int) place {
		return place{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("198.51.100.25"), n}
	}
	for i, step := range []struct{ n, want int }{{-1, 0}, {3, 2}, {-1, 1}, {1, 2}, {-2, 0}, {-1, 0}, {2, 1}} {
		e.moved([]place{at(step.n)})
		if got := gate.Stats().Active; got != step.want {
			t.Errorf("step %d: %d places held, want %d", i, got, step.want)
		}
	}
	e.forget()
	if got := gate.Stats().Active; got != 0 {
		t.Errorf("%d places held when no older process can be left", got)
	}
	e.moved([]place{at(1)})
	if got := gate.Stats().Active; got != 1 {
		t.Errorf("%d places held after another hand-over, want 1", got)
	}
	e.over.Stop()
}
