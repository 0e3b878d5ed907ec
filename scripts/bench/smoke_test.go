//go:build nettest

package main

import (
	"io"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sluice/scripts/bench/matrix"
)

// TestMain lets the test binary play the benchmark's parts, which it starts as processes of itself.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case "load", "sink", "barerelay":
			main()
			return
		}
	}
	os.Exit(m.Run())
}

// TestForwardAndRelay measures both for a moment in real namespaces.
func TestForwardAndRelay(t *testing.T) {
	o := options{modes: []string{"forward", "relay"}, rounds: 1, slice: 300 * time.Millisecond}
	samples, err := measureAll(t.Context(), o, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	if want := 2 * len(matrix.Cells(false)); len(samples) != want {
		t.Fatalf("%d samples, want %d", len(samples), want)
	}
	for _, s := range samples {
		if !s.Loss().None() || s.Load.Messages == 0 || s.Load.Messages != s.Arrived.Received {
			t.Errorf("%s, %s: %d messages taken, arrived %+v, loss %+v, faults %v",
				s.Mode, s.Cell, s.Load.Messages, s.Arrived, s.Loss(), s.Load.Faults)
		}
		// Only if packets really cross the relay does it use time: this is the proof of interception.
		if crossed := s.GatewayCPU > 1; crossed != (s.Mode == "relay") {
			t.Errorf("%s, %s: the gateway's programs used %.1f µs a message", s.Mode, s.Cell, s.GatewayCPU)
		}
		if s.ClientCPU <= 1 || s.SinkCPU <= 1 {
			t.Errorf("%s, %s: client used %.1f µs, sink %.1f µs", s.Mode, s.Cell, s.ClientCPU, s.SinkCPU)
		}
	}
	left, err := filepath.Glob("/run/netns/sluice-bench-" + strconv.Itoa(os.Getpid()) + "-*")
	if err != nil || len(left) > 0 {
		t.Errorf("namespaces left behind: %v, %v", left, err)
	}
}

// TestDeadGatewayIsNamed proves that a gateway which never comes up ends the run, with its reason, and leaves nothing.
func TestDeadGatewayIsNamed(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"sluiced", "sluice-intercept"} {
		script := "#!/bin/sh\necho cannot work today\nexit 1\n"
		if err := os.WriteFile(filepath.Join(dir, name), []byte(script), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	o := options{modes: []string{"sluice"}, rounds: 1, slice: time.Second, binaries: dir, chunking: true}
	_, err := measureAll(t.Context(), o, io.Discard)
	if err == nil || !contains(err.Error(), "a program of sluice has ended", "cannot work today") {
		t.Errorf("error is %v", err)
	}
}

// TestSweepUnmounts: what a benchmark that was killed has left mounted stands in nobody's way.
func TestSweepUnmounts(t *testing.T) {
	for _, at := range []string{bpfDir, filepath.Join("gate", bpfDir)} {
		dir := filepath.Join(os.TempDir(), "sluice-bench-4194303-"+strconv.Itoa(os.Getpid())) // no process has this number
		if err := os.MkdirAll(filepath.Join(dir, at), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := unix.Mount("bpf", filepath.Join(dir, at), "bpf", 0, ""); err != nil {
			t.Fatal(err)
		}
		if err := sweep(); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(dir); !os.IsNotExist(err) {
			t.Errorf("%s is still there: %v", dir, err)
		}
	}
}
