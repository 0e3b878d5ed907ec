//go:build nettest

package main

import (
	"io"
	"testing"

	"sluice/scripts/bench/kernel"
)

// TestKernelQuick measures everything once, however roughly: every packet arrives, nothing is tracked, all tables are filled.
func TestKernelQuick(t *testing.T) {
	c := kernel.Quick()
	c.Rounds, c.Packets, c.Progress = 1, 256, io.Discard
	r, err := measureKernel(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Alone) == 0 || len(r.InSitu) == 0 || len(r.Forwards) == 0 || len(r.Many) == 0 || len(r.Connects) != 5 || r.Tracked != 0 {
		t.Errorf("measured %+v", r)
	}
	for _, c := range r.Connects {
		if c.Rate == 0 {
			t.Errorf("%s: no connection", c.Way)
		}
	}
	for _, m := range r.Memory {
		if m.Bytes == 0 {
			t.Errorf("%s of %d users takes nothing", m.Table, m.Users)
		}
	}
}
