package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"

	"sluice/scripts/bench/load"
	"sluice/scripts/bench/matrix"
	"sluice/scripts/bench/testbed"
)

// runHold opens sessions, says how many, and holds them until its standard input ends.
func runHold(ctx context.Context, args []string) error {
	var cfg load.Config
	fs := flag.NewFlagSet("bench hold", flag.ContinueOnError)
	targets := fs.String("targets", "", "`address:port,...` to open sessions to, in turn")
	sources := fs.String("sources", "", "`address,...` to open them from, in turn")
	stage := fs.String("stage", string(load.Greeted), "`how far` each goes: greeting, ehlo or onward")
	fs.IntVar(&cfg.Sessions, "sessions", 1, "sessions to hold")
	fs.BoolVar(&cfg.TLS, "tls", false, "say STARTTLS")
	if err := errors.Join(fs.Parse(args), cfg.Address(*targets, *sources)); err != nil {
		return err
	}
	cfg.Size = 1 << 10 // none is sent
	held, err := load.Hold(ctx, cfg, load.Stage(*stage))
	if err != nil {
		return err
	}
	defer held.Close()
	if err := json.NewEncoder(os.Stdout).Encode(held); err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}

// held is a process that holds sessions through one gateway.
type held struct {
	load.Held
	process *testbed.Process
	orders  io.Closer
}

// hold opens sessions through g and returns when all stand.
func (b *bench) hold(g *gate, stage load.Stage, legs matrix.Legs, sessions int) (*held, error) {
	c := exec.Command(b.self, "hold", "-targets", join(g.Targets[matrix.Cell{TLS: legs}.Kind()]), "-sources", join(b.bed.Sources),
		"-stage", string(stage), "-tls="+strconv.FormatBool(legs == matrix.BothTLS), "-sessions", strconv.Itoa(sessions))
	in, err := c.StdinPipe()
	if err != nil {
		return nil, err
	}
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	c.Stdout, c.Stderr = w, os.Stderr
	h := &held{orders: in}
	h.process, err = testbed.Start(b.bed.Client, c)
	w.Close()
	if err != nil {
		return nil, err
	}
	if err := json.NewDecoder(r).Decode(&h.Held); err != nil {
		return nil, errors.Join(fmt.Errorf("could not hold sessions through %s: %w", g.Name, err), h.end())
	}
	if h.Open < sessions {
		return nil, errors.Join(fmt.Errorf("could not hold more than %d of %d sessions through %s: %v", h.Open, sessions, g.Name, h.Faults), h.end())
	}
	return h, nil
}

// end lets the sessions go.
func (h *held) end() error {
	return errors.Join(h.orders.Close(), h.process.Wait(context.Background()))
}
