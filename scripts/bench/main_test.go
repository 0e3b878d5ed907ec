package main

import (
	"encoding/json"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pelletier/go-toml/v2"

	"sluice/scripts/bench/matrix"
	"sluice/scripts/bench/sink"
	"sluice/scripts/bench/testbed"
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
	if o, err := parseOptions([]string{"-modes", "sluice", "-before", "old"}); err != nil || len(o.modes) != 2 || o.modes[1] != matrix.Before || o.before != "old" {
		t.Errorf("beside an earlier build: options %+v, %v", o, err)
	}
	for _, bad := range [][]string{{"-modes", "before"}, {"-modes", "relay,relay"}, {"-modes", "postfix"}, {"-modes", ""}, {"-rounds", "0"}, {"stray"}} {
		if o, err := parseOptions(bad); err == nil {
			t.Errorf("%q was accepted as %+v", bad, o)
		}
	}
}

func TestJudge(t *testing.T) {
	t.Parallel()
	cell := matrix.Cells(false)[0]
	row := matrix.Row{Mode: "sluice", Cell: cell, CPURatio: 3, RateRatio: 1, P99Ratio: 1}
	o := options{modes: []string{"relay", "sluice"}}
	if err := judge(o, []matrix.Row{row}); err != nil {
		t.Errorf("a missed bound failed without -enforce: %v", err)
	}
	o.enforce = true
	if err := judge(o, []matrix.Row{row}); err == nil || !contains(err.Error(), "CPU 3.00, at most 1.30") {
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

// TestSluiceConfigIsTOML checks the template alone; that the programs accept it shows when they start.
func TestSluiceConfigIsTOML(t *testing.T) {
	t.Parallel()
	g := &gate{Gate: testbed.Gate{Customer: "cust0", Uplink: "up0", Delivery: netip.MustParsePrefix("203.0.113.192/27")}}
	var c struct {
		Intercept struct {
			CustomerInterfaces []string `toml:"customer_interfaces"`
			PinDir             string   `toml:"pin_dir"`
		}
		Delivery struct {
			Address []struct{ Address netip.Addr }
		}
	}
	if err := toml.Unmarshal([]byte(sluiceConfigFor(g, "/run/x", "off")), &c); err != nil {
		t.Fatal(err)
	}
	if c.Intercept.CustomerInterfaces[0] != "cust0" || c.Intercept.PinDir != "/run/x/bpf/sluice" || len(c.Delivery.Address) != 8 {
		t.Errorf("configuration is %+v", c)
	}
	for _, a := range c.Delivery.Address {
		if !g.Delivery.Contains(a.Address) {
			t.Errorf("delivery address %v is outside %v", a.Address, g.Delivery)
		}
	}
}
