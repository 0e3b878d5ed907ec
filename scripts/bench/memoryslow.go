package main

import (
	"context"
	"fmt"
	"os"
	"slices"
	"text/tabwriter"
	"time"

	"sluice/scripts/bench/matrix"
	"sluice/scripts/bench/testbed"
)

const (
	slowName = "sending to slow destinations"
	// slowFor is how long they send, and slowFrom when all are under way and what their beginning took is given back.
	slowFor, slowFrom = 25 * time.Second, 15 * time.Second
	// slowBound is the most, in MiB, that Sluice may have of its own meanwhile.
	slowBound = 60
)

// reportSlow measures what a gateway has in memory while sessions send to slow destinations, and tells whether Sluice has too much.
func reportSlow(ctx context.Context, o options, compare bool) (missed, err error) {
	cells := matrix.Cells(true)
	cell := cells[slices.IndexFunc(cells, func(c matrix.Cell) bool { return c.Slow })]
	tw := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(tw, "%v; MiB\tway\tprocess\tits text as well\tkernel\tprocess at most\t\n", cell)
	modes := []string{"sluice"}
	if compare {
		modes = []string{matrix.Yardstick, "sluice"}
	}
	for _, mode := range modes {
		m, err := measureSlow(ctx, o, mode, cell)
		if err != nil {
			return nil, fmt.Errorf("%s, %s: %w", mode, slowName, err)
		}
		bound := ""
		if mode == "sluice" {
			bound = fmt.Sprint(slowBound)
			if m.process > slowBound {
				bound += " missed"
				missed = fmt.Errorf("sluice, %s: %.0f MiB, at most %d", slowName, m.process, slowBound)
			}
		}
		fmt.Fprintf(tw, "%s\t%s\t%.0f\t%.0f\t%.0f\t%s\t\n", slowName, mode, m.process, m.resident, m.kernel, bound)
	}
	return missed, tw.Flush()
}

// footprint is memory in MiB.
type footprint struct{ process, resident, kernel float64 }

// measureSlow reads, once a second, what a gateway has while sessions send to slow destinations, and returns the most, since
// garbage comes and goes.
func measureSlow(ctx context.Context, o options, mode string, cell matrix.Cell) (most footprint, err error) {
	err = weigh(ctx, o, mode, func(b *bench, speaker *testbed.Process, group *testbed.Group) error {
		sent := make(chan error, 1)
		go func() {
			s, err := b.send(ctx, b.gates[0], cell, "-duration", slowFor.String())
			if err == nil && (!s.Loss().None() || s.Load.Messages == 0) {
				err = fmt.Errorf("of %d messages: %+v, %v", s.Load.Messages, s.Loss(), s.Load.Faults)
			}
			sent <- err
		}()
		from, every := time.NewTimer(slowFrom), time.NewTicker(time.Second)
		defer every.Stop()
		for begun, until := false, time.Now().Add(slowFor); ; {
			select {
			case err := <-sent:
				return err
			case <-from.C:
				begun = true
			case now := <-every.C:
				if !begun || now.After(until) { // the last ones end one by one
					continue
				}
				c, err := used(speaker, group)
				if err != nil {
					return err
				}
				resident, err := speaker.Resident()
				if err != nil {
					return err
				}
				most.process, most.kernel = max(most.process, c.process/1024), max(most.kernel, c.kernel/1024)
				most.resident = max(most.resident, float64(resident)/(1<<20))
			}
		}
	})
	return most, err
}
