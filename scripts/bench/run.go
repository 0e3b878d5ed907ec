package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"sluice/scripts/bench/matrix"
	"sluice/scripts/bench/testbed"
)

// options are the flags of the matrix run.
type options struct {
	modes    []string
	rounds   int
	slice    time.Duration // length of one sample
	more     bool
	only     string // part of the name of the cells to measure
	enforce  bool
	chunking bool
	binaries string
	before   string // the binaries of an earlier build
	jsonPath string
}

// result is what -json writes.
type result struct {
	Started time.Time       `json:"started"`
	Took    float64         `json:"took_s"`
	Host    testbed.Host    `json:"host"`
	LoadEnd string          `json:"loadavg_end"`
	Slice   float64         `json:"seconds_per_sample"`
	Rows    []matrix.Row    `json:"rows"`
	Samples []matrix.Sample `json:"samples"`
}

func parseOptions(args []string) (options, error) {
	var o options
	fs := flag.NewFlagSet("bench", flag.ContinueOnError)
	modes := fs.String("modes", "forward,relay,sluice,content", "`ways` through the gateway to compare")
	quick := fs.Bool("quick", false, "about a minute and a half: 2 rounds of 1.5 s samples, without more")
	fs.IntVar(&o.rounds, "rounds", 5, "rounds; each measures every cell through every way once")
	fs.DurationVar(&o.slice, "slice", 4*time.Second, "length of one sample")
	fs.BoolVar(&o.more, "more", true, "also measure large messages, slow destinations and TLS")
	fs.StringVar(&o.only, "only", "", "measure no other cells than those whose name has this `text`, as in pipelined")
	fs.BoolVar(&o.chunking, "chunking", true, "the destinations offer CHUNKING, as Postfix, Exim and Exchange do unless told otherwise")
	fs.BoolVar(&o.enforce, "enforce", false, "fail when Sluice misses a bound, not only when a message is lost, damaged or doubled")
	fs.StringVar(&o.binaries, "binaries", "bin", "`directory` of sluiced and sluice-intercept")
	fs.StringVar(&o.before, "before", "", "`directory` of an earlier build, measured beside the present one as one more way")
	fs.StringVar(&o.jsonPath, "json", "", "`file` for all samples and medians; - is standard output, after the table")
	if err := fs.Parse(args); err != nil {
		return o, err
	}
	if fs.NArg() > 0 {
		return o, fmt.Errorf("could not understand %q: give flags, or load, sink or barerelay first", fs.Arg(0))
	}
	if *quick {
		o.rounds, o.slice, o.more = 2, 1500*time.Millisecond, false
	}
	o.modes = strings.Split(*modes, ",")
	for i, m := range o.modes {
		if _, ok := starters[m]; !ok || m == matrix.Before || slices.Contains(o.modes[:i], m) {
			return o, fmt.Errorf("could not measure %q: the ways are forward, relay, sluice and content, each once", m)
		}
	}
	if o.before != "" {
		o.modes = append(o.modes, matrix.Before)
	}
	if len(o.cells()) == 0 {
		return o, fmt.Errorf("could not measure nothing: no cell has %q in its name", o.only)
	}
	if o.rounds < 1 || o.slice <= 0 {
		return o, errors.New("could not measure nothing: -rounds and -slice must be positive")
	}
	return o, nil
}

// cells are those to measure.
func (o *options) cells() []matrix.Cell {
	return slices.DeleteFunc(matrix.Cells(o.more), func(c matrix.Cell) bool { return !strings.Contains(c.String(), o.only) })
}

func runMatrix(ctx context.Context, args []string) error {
	o, err := parseOptions(args)
	if err != nil {
		return err
	}
	res := result{Started: time.Now().UTC(), Host: testbed.ReadHost(), Slice: o.slice.Seconds()}
	fmt.Fprintf(os.Stderr, "%s, %d cores, Linux %s, %s; load average %s\n",
		res.Host.CPU, res.Host.Cores, res.Host.Kernel, res.Host.Go, res.Host.LoadAvg)
	res.Samples, err = measureAll(ctx, o, os.Stderr)
	if err != nil && len(res.Samples) == 0 {
		return err
	}
	res.Took, res.LoadEnd = time.Since(res.Started).Seconds(), testbed.LoadAvg()
	res.Rows = matrix.Rows(res.Samples)
	return errors.Join(err, report(o, res))
}

// measureAll builds the network, measures and removes everything again. With
// an error come the samples measured until then.
func measureAll(ctx context.Context, o options, progress io.Writer) (samples []matrix.Sample, err error) {
	if err := sweep(); err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", testbed.Name(os.Getpid()))
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	b, err := open(ctx, o, dir)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, b.close()) }()
	cells := o.cells()
	total := 0
	for _, cell := range cells {
		for _, g := range b.gates {
			if cell.Has(g.Name) {
				total += o.rounds
			}
		}
	}
	for round := range o.rounds {
		for _, cell := range cells {
			for _, g := range b.gates {
				if !cell.Has(g.Name) {
					continue
				}
				s, err := b.measure(ctx, g, cell, o.slice)
				if err != nil {
					return samples, fmt.Errorf("%s, %s: %w", g.Name, cell, err)
				}
				s.Round = round
				samples = append(samples, s)
				fmt.Fprintf(progress, "%3d/%d %-8s %-52s %7.0f msg/s %6.1f µs  p99 %7.3f ms  load %s%s\n", len(samples), total,
					g.Name, cell, s.Load.Rate, s.GatewayCPU, s.Load.Latency.P99/1e3, testbed.LoadAvg(), complaint(s))
			}
		}
	}
	return samples, nil
}

// sweep removes the directories, and the BPF file systems in them, of
// benchmarks that were killed.
func sweep() error {
	left, err := filepath.Glob(filepath.Join(os.TempDir(), "sluice-bench-*"))
	if err != nil {
		return err
	}
	for _, dir := range left {
		if !testbed.Gone(dir) {
			continue
		}
		mounts, err := filepath.Glob(filepath.Join(dir, "*", bpfDir))
		if err != nil {
			return err
		}
		for _, at := range append(mounts, filepath.Join(dir, bpfDir)) {
			if err := unix.Unmount(at, unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
				return fmt.Errorf("could not unmount %s, which an earlier run left: %w", at, err)
			}
		}
		if err := os.RemoveAll(dir); err != nil {
			return err
		}
	}
	return nil
}

// complaint tells at once what else only the table would say at the end.
func complaint(s matrix.Sample) string {
	if s.Loss().None() {
		return ""
	}
	text := fmt.Sprintf("  %+v", s.Loss())
	for _, f := range s.Load.Faults {
		text += fmt.Sprintf(" [%d× %s]", f.Count, f.Sample)
	}
	return text
}

func report(o options, res result) error {
	if err := matrix.Write(os.Stdout, res.Rows); err != nil {
		return err
	}
	fmt.Printf("\nratios (×) are to %s, \"of forward\" to plain forwarding, in the same round; took %.0f s; load average %s before, %s after\n",
		matrix.Yardstick, res.Took, res.Host.LoadAvg, res.LoadEnd)
	if o.before != "" {
		changes(o, res.Samples)
	}
	if o.jsonPath != "" {
		if err := writeJSON(o.jsonPath, res); err != nil {
			return err
		}
	}
	return judge(o, res.Rows)
}

// changes prints what became of the CPU of a message since an earlier build.
func changes(o options, samples []matrix.Sample) {
	for _, c := range o.cells() {
		if ratio, spread, ok := matrix.Change(samples, c, "sluice", matrix.Before); ok {
			fmt.Printf("CPU of sluice to that of %s, %s: ×%.3f ± %.3f\n", o.before, c, ratio, ratio*spread)
		}
	}
}

func writeJSON(path string, res result) error {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetIndent("", "  ")
	if err := enc.Encode(res); err != nil {
		return err
	}
	if path == "-" {
		_, err := os.Stdout.Write(b.Bytes())
		return err
	}
	return os.WriteFile(filepath.Clean(path), b.Bytes(), 0o644)
}

// judge prints Sluice's bounds and fails on any message that was not delivered once and whole.
func judge(o options, rows []matrix.Row) error {
	var wrong []error
	compared := slices.Contains(o.modes, matrix.Yardstick)
	for _, r := range rows {
		if !r.Loss.None() {
			wrong = append(wrong, fmt.Errorf("%s, %s: %+v", r.Mode, r.Cell, r.Loss))
		}
		if r.Mode != "sluice" || !compared {
			continue
		}
		missed := matrix.BoundsOf(r.Cell).Missed(r)
		verdict := "kept"
		if len(missed) > 0 {
			verdict = "missed: " + strings.Join(missed, "; ")
			if o.enforce {
				wrong = append(wrong, fmt.Errorf("sluice, %s: bounds %s", r.Cell, verdict))
			}
		}
		fmt.Printf("bounds of sluice, %s: %s\n", r.Cell, verdict)
	}
	return errors.Join(wrong...)
}
