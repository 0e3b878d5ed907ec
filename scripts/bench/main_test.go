package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sluice/scripts/bench/matrix"
	"sluice/scripts/bench/sink"
)

func contains(text string, parts ...string) bool {
	for _, p := range parts {
		if !strings.Contains(text, p) {
			return false
		}
	}
	return true
}

func TestParseOptions(t *testing.T) {
	t.Parallel()
	o, err := parseOptions([]string{"-quick", "-modes", "relay,forward", "--binaries", "x"})
	if err != nil || o.rounds != 2 || o.slice != 1500*time.Millisecond || len(o.modes) != 2 || o.binaries != "x" {
		t.Errorf("options %+v, %v", o, err)
	}
	for _, bad := range [][]string{{"-modes", "relay,relay"}, {"-modes", "postfix"}, {"-modes", ""}, {"-rounds", "0"}, {"stray"}} {
		if o, err := parseOptions(bad); err == nil {
			t.Errorf("%q was accepted as %+v", bad, o)
		}
	}
}

func TestJudge(t *testing.T) {
	t.Parallel()
	cell := matrix.Cells(false)[0]
	row := matrix.Row{Mode: "sluice", Cell: cell, CPURatio: 3, RateRatio: 1, P99Ratio: 1}
	o := options{modes: []string{"relay", "sluice"}, bounds: matrix.Bounds{CPU: 2, Rate: 0.7, P99: 1.5}}
	if err := judge(o, []matrix.Row{row}); err != nil {
		t.Errorf("a missed bound failed without -enforce: %v", err)
	}
	o.enforce = true
	if err := judge(o, []matrix.Row{row}); err == nil || !contains(err.Error(), "CPU 3.00, at most 2.00") {
		t.Errorf("-enforce gives %v", err)
	}
	row.CPURatio, row.Loss.Lost = 1, 1
	o.enforce = false
	if err := judge(o, []matrix.Row{row}); err == nil || !contains(err.Error(), "Lost:1") {
		t.Errorf("a lost message gives %v", err)
	}
}

func TestWriteJSON(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "r.json")
	want := matrix.Sample{Mode: "relay", Cell: matrix.Cells(false)[1], Arrived: sink.Report{Received: 3}}
	if err := writeJSON(path, result{Samples: []matrix.Sample{want}}); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var got result
	if err := json.Unmarshal(b, &got); err != nil || len(got.Samples) != 1 || got.Samples[0].Arrived.Received != 3 || got.Samples[0].Cell != want.Cell {
		t.Errorf("read back %+v, %v", got, err)
	}
}
