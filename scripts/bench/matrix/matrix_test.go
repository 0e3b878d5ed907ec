package matrix

import (
	"math"
	"slices"
	"strings"
	"testing"

	"sluice/scripts/bench/load"
	"sluice/scripts/bench/sink"
)

func sample(mode string, cell Cell, round int, rate, cpu, p99 float64) Sample {
	s := Sample{Mode: mode, Cell: cell, Round: round, GatewayCPU: cpu}
	s.Load.Rate, s.Load.Latency.P99 = rate, p99
	return s
}

func TestRowsPairRounds(t *testing.T) {
	t.Parallel()
	c := Cells(false)
	// The machine is half as fast in round 1: the ratio must not notice.
	rows := Rows([]Sample{
		sample("relay", c[0], 0, 1000, 50, 10), sample("sluice", c[0], 0, 800, 75, 12),
		sample("forward", c[1], 0, 9, 0, 1),
		sample("relay", c[0], 1, 500, 100, 20), sample("sluice", c[0], 1, 400, 150, 24),
	})
	if len(rows) != 3 || rows[0].Mode != "relay" || rows[1].Mode != "sluice" || rows[2].Cell != c[1] {
		t.Fatalf("rows are %+v", rows)
	}
	r := rows[1]
	if r.Rounds != 2 || r.Rate != 600 || !near(r.RateRatio, 0.8) || !near(r.CPURatio, 1.5) || !near(r.P99Ratio, 1.2) {
		t.Errorf("row is %+v", r)
	}
	if rows[2].RateRatio != 0 {
		t.Errorf("a ratio without yardstick is %v", rows[2].RateRatio)
	}
	if missed := (Bounds{CPU: 2, Rate: 0.7, P99: 1.5}).Missed(r); len(missed) != 0 {
		t.Errorf("missed %v", missed)
	}
	if missed := (Bounds{CPU: 1.4, Rate: 0.9, P99: 1.1}).Missed(r); len(missed) != 3 {
		t.Errorf("missed only %v", missed)
	}
	var out strings.Builder
	if err := Write(&out, rows); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"10 KiB, 1 session, 100 messages per connection (medians of 2)", "×0.80", "112.5", "×1.20"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("table lacks %q:\n%s", want, out.String())
		}
	}
}

func TestChange(t *testing.T) {
	t.Parallel()
	c := Cells(false)
	samples := []Sample{
		sample("sluice", c[0], 0, 1, 80, 1), sample(Before, c[0], 0, 1, 100, 1),
		sample("sluice", c[0], 1, 1, 160, 1), sample(Before, c[0], 1, 1, 200, 1), // the machine is half as fast
		sample("sluice", c[0], 2, 1, 1, 1), sample(Before, c[1], 2, 1, 1, 1), // no pair
	}
	if ratio, spread, ok := Change(samples, c[0], "sluice", Before); !ok || !near(ratio, 0.8) || !near(spread, 0) {
		t.Errorf("change %v ± %v, %t", ratio, spread, ok)
	}
	samples[0].GatewayCPU = 125
	if ratio, spread, ok := Change(samples, c[0], "sluice", Before); !ok || !near(ratio, 1) || math.Abs(spread-math.Log(1.25)) > 1e-9 {
		t.Errorf("change %v ± %v, %t", ratio, spread, ok)
	}
	if _, _, ok := Change(samples, c[1], "sluice", Before); ok {
		t.Error("a change of one cell was found without pairs")
	}
}

func near(a, b float64) bool { return math.Abs(a-b) < 1e-9 }

func TestLoss(t *testing.T) {
	t.Parallel()
	s := Sample{
		Load:    load.Result{Unacked: []uint32{4, 5}, Faults: map[string]load.Fault{"RCPT: 451": {Count: 2}}},
		Arrived: sink.Report{Damaged: 1, Doubled: 2, Stray: 1, Missing: []uint32{5, 9}},
	}
	want := Loss{Lost: 1, Damaged: 1, Doubled: 3, Ambiguous: 1, Refused: 2}
	if got := s.Loss(); got != want || got.None() {
		t.Errorf("loss is %+v, want %+v", got, want)
	}
	if !(Sample{}).Loss().None() {
		t.Error("an empty sample has losses")
	}
}

func TestCells(t *testing.T) {
	t.Parallel()
	if plain, all := Cells(false), Cells(true); len(plain) != 6 || len(all) != 12 || !slices.Equal(all[:6], plain) {
		t.Errorf("cells are %v and %v", plain, all)
	}
}

// TestCellsAreBounded: each cell that something else can carry has a bound, and what a way cannot carry is not asked of it.
func TestCellsAreBounded(t *testing.T) {
	t.Parallel()
	for _, c := range Cells(true) {
		if !c.Has("sluice") || c.Has(Yardstick) != (c.TLS == NoTLS) || c.Has("forward") != (c.TLS != OnwardTLS) || !c.Has(Before) {
			t.Errorf("%v: ways %v %v %v", c, c.Has("sluice"), c.Has(Yardstick), c.Has("forward"))
		}
		if (BoundsOf(c) == Bounds{}) != (c.TLS != NoTLS) {
			t.Errorf("%v: bounds %+v", c, BoundsOf(c))
		}
		if c.Has(Filtered) != (c.TLS == NoTLS && !c.Slow && c.Size <= 100<<10) {
			t.Errorf("%v: measured with the content filter: %v", c, c.Has(Filtered))
		}
	}
	slow := Row{Cell: Cell{Slow: true}, CPURatio: 9, RateRatio: 0.1, Forwarded: 0.9}
	if missed := BoundsOf(slow.Cell).Missed(slow); len(missed) != 1 || !strings.Contains(missed[0], "of forwarding 0.90") {
		t.Errorf("missed %v", missed)
	}
}
