package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"sluice/scripts/bench/load"
	"sluice/scripts/bench/matrix"
	"sluice/scripts/bench/sink"
	"sluice/scripts/bench/testbed"
)

const (
	// readyWithin is how long a gateway may take until mail crosses it.
	readyWithin = 20 * time.Second
	// settle lets work that a gateway does after its reply (closing, logging) be charged to the sample that caused it.
	settle = 200 * time.Millisecond
	// warmUp messages fill caches and connections before a gateway is measured.
	warmUp = 300
)

// bench is the network with everything that runs in it.
type bench struct {
	bed    *testbed.Bed
	self   string // this program, for its parts
	dir    string // for logs, sockets and state
	sink   *testbed.Process
	orders io.WriteCloser
	answer *json.Decoder
	gates  []*gate
	run    uint32
}

// open builds the network and starts sink and gateways; nothing is left behind on an error.
func open(ctx context.Context, o options, dir string) (*bench, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	bed, err := testbed.New(ctx, o.modes)
	if err != nil {
		return nil, err
	}
	b := &bench{bed: bed, self: self, dir: dir}
	if err := b.start(ctx, o); err != nil {
		return nil, errors.Join(err, b.close())
	}
	return b, nil
}

func (b *bench) start(ctx context.Context, o options) error {
	if err := b.startSink(o.chunking); err != nil {
		return err
	}
	for _, place := range b.bed.Gates {
		g := &gate{Gate: place}
		b.gates = append(b.gates, g)
		if err := starters[place.Name](ctx, b, g, o); err != nil {
			return err
		}
		if err := b.awaitReady(ctx, g); err != nil {
			return errors.Join(err, g.explain())
		}
	}
	return nil
}

func (b *bench) startSink(chunking bool) error {
	c := exec.Command(b.self, "sink", "-chunking="+strconv.FormatBool(chunking))
	in, err := c.StdinPipe()
	if err != nil {
		return err
	}
	// Not StdoutPipe: Wait would close it while an answer may still be unread.
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer w.Close()
	c.Stdout, c.Stderr = w, os.Stderr
	b.orders, b.answer = in, json.NewDecoder(bufio.NewReader(r))
	b.sink, err = testbed.Start(b.bed.Internet, c)
	return err
}

// close stops everything in the reverse order and removes the network.
func (b *bench) close() error {
	var errs []error
	for i := len(b.gates) - 1; i >= 0; i-- {
		errs = append(errs, b.gates[i].stop())
	}
	if b.sink != nil {
		errs = append(errs, b.orders.Close(), b.sink.Stop())
	}
	return errors.Join(append(errs, b.bed.Close())...)
}

// order tells the sink something and reads its answer.
func (b *bench) order(word string, n int) (sink.Report, error) {
	var r sink.Report
	if _, err := fmt.Fprintln(b.orders, word, n); err != nil {
		return r, fmt.Errorf("could not reach the sink: %w", err)
	}
	if err := b.answer.Decode(&r); err != nil {
		return r, fmt.Errorf("could not read the sink's answer: %w", err)
	}
	return r, nil
}

// awaitReady sends through g until the warm-up arrives whole.
func (b *bench) awaitReady(ctx context.Context, g *gate) error {
	ctx, cancel := context.WithTimeout(ctx, readyWithin)
	defer cancel()
	cell := matrix.Cell{Size: 10 << 10, Sessions: 10, PerConn: 10}
	var last load.Result
	for {
		s, err := b.send(ctx, g, cell, "-count", strconv.Itoa(warmUp), "-duration", "3s")
		if err == nil && s.Loss().None() && s.Load.Messages > 0 && strings.Contains(s.Load.Greeting, greeters[g.Name]) {
			return nil
		}
		if err == nil {
			last = s.Load
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("could not get mail through %s within %v: %v; replies %v", g.Name, readyWithin, err, last.Faults)
		case <-time.After(100 * time.Millisecond):
		}
		if err := g.alive(); err != nil {
			return err
		}
	}
}

// send runs one load and compares what was answered with what arrived.
func (b *bench) send(ctx context.Context, g *gate, cell matrix.Cell, bound ...string) (matrix.Sample, error) {
	s := matrix.Sample{Mode: g.Name, Cell: cell}
	b.run++
	if _, err := b.order("begin", int(b.run)); err != nil {
		return s, err
	}
	args := append([]string{"load", "-targets", join(g.Targets[cell.Kind()]), "-sources", join(b.bed.Sources),
		"-sessions", strconv.Itoa(cell.Sessions), "-per-connection", strconv.Itoa(cell.PerConn), "-size", strconv.Itoa(cell.Size),
		"-tls=" + strconv.FormatBool(cell.TLS == matrix.BothTLS), "-pipeline=" + strconv.FormatBool(cell.Pipeline), "-run", strconv.Itoa(int(b.run))}, bound...)
	var out, errOut bytes.Buffer
	c := exec.Command(b.self, args...)
	c.Stdout, c.Stderr = &out, &errOut
	p, err := testbed.Start(b.bed.Client, c)
	if err != nil {
		return s, err
	}
	if err := p.Wait(ctx); err != nil {
		return s, fmt.Errorf("load ended: %w: %s", err, bytes.TrimSpace(errOut.Bytes()))
	}
	if err := json.Unmarshal(out.Bytes(), &s.Load); err != nil {
		return s, fmt.Errorf("could not read the load's result: %w", err)
	}
	if s.Arrived, err = b.order("report", s.Load.Attempted); err != nil {
		return s, err
	}
	if n := s.Load.Messages; n > 0 {
		used := c.ProcessState.UserTime() + c.ProcessState.SystemTime()
		s.ClientCPU = perMessage(used, n)
	}
	return s, nil
}

// measure is one sample.
func (b *bench) measure(ctx context.Context, g *gate, cell matrix.Cell, slice time.Duration) (matrix.Sample, error) {
	before, err := b.usage(g)
	if err != nil {
		return matrix.Sample{}, err
	}
	s, err := b.send(ctx, g, cell, "-duration", slice.String())
	if err != nil {
		return s, err
	}
	n := s.Load.Messages
	if n == 0 {
		return s, fmt.Errorf("no message got through: %v", s.Load.Faults)
	}
	select {
	case <-ctx.Done():
		return s, ctx.Err()
	case <-time.After(settle):
	}
	after, err := b.usage(g)
	if err != nil {
		return s, err
	}
	used := after.minus(before)
	s.GatewayCPU, s.SinkCPU = perMessage(used.gateway, n), perMessage(used.sink, n)
	client := time.Duration(s.ClientCPU * float64(n) * float64(time.Microsecond))
	capacity := used.wall * time.Duration(runtime.NumCPU())
	s.Elsewhere = max(0, float64(capacity-used.idle-used.gateway-used.sink-client)/float64(capacity))
	return s, nil
}

// usage is CPU time used so far.
type usage struct {
	gateway, sink time.Duration
	idle          time.Duration
	wall          time.Duration
	at            time.Time
}

func (u usage) minus(v usage) usage {
	return usage{gateway: u.gateway - v.gateway, sink: u.sink - v.sink, idle: u.idle - v.idle, wall: u.at.Sub(v.at)}
}

func (b *bench) usage(g *gate) (usage, error) {
	var errs [3]error
	u := usage{at: time.Now()}
	u.gateway, errs[0] = g.cpu()
	u.sink, errs[1] = b.sink.CPU()
	u.idle, errs[2] = testbed.Idle()
	return u, errors.Join(errs[:]...)
}

func perMessage(d time.Duration, n int) float64 {
	return float64(d) / float64(time.Microsecond) / float64(n)
}

// join writes addresses as the load's flags want them.
func join[T fmt.Stringer](all []T) string {
	words := make([]string, len(all))
	for i, a := range all {
		words[i] = a.String()
	}
	return strings.Join(words, ",")
}

func (b *bench) path(name string) string { return filepath.Join(b.dir, name) }
