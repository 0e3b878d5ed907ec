package main

import (
	"runtime"
	"testing"
)

// TestOneProcessorIsTakenForTwo is not parallel: it changes how many the process has.
func TestOneProcessorIsTakenForTwo(t *testing.T) {
	for _, x := range []struct {
		said      string
		has, want int
	}{{"", 1, 2}, {"", 3, 3}, {"1", 1, 1}} {
		func() {
			defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(x.has))
			t.Setenv("GOMAXPROCS", x.said)
			if takeTwoProcessors(); runtime.GOMAXPROCS(0) != x.want {
				t.Errorf("of %d, with GOMAXPROCS=%q: %d, want %d", x.has, x.said, runtime.GOMAXPROCS(0), x.want)
			}
		}()
	}
}
