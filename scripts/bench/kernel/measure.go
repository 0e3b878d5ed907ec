package kernel

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// Config says how much is measured.
type Config struct {
	Dir        string   // in a BPF file system, for pins
	Users      []int    // sizes of the tables
	Rounds     int      // each measures everything once
	Packets    int      // in one sample
	Interfaces int      // the many
	Seconds    float64  // of one sample of connections
	Parts      []string // none: all of them
	Progress   io.Writer
}

// Full is what the documented figures come from.
func Full() Config {
	return Config{Users: []int{1, 100, 1000, 100_000, 1_000_000}, Rounds: 40, Packets: 4096, Interfaces: 4000, Seconds: 0.5, Progress: os.Stderr}
}

// Quick takes a few seconds and is for seeing that everything works.
func Quick() Config {
	return Config{Users: []int{1, 100, 1000}, Rounds: 3, Packets: 512, Interfaces: 20, Seconds: 0.05, Progress: os.Stderr}
}

// bench is the place where programs are measured: one gateway whose program is changed from sample to sample, so that all
// ways run through the same devices.
type bench struct {
	Config
	*gateway
	generator   *generator
	empty       *ebpf.Program
	populations []*population
	result      *Result
}

// Run measures and removes everything again.
func Run(ctx context.Context, c Config) (result *Result, err error) {
	b := &bench{Config: c, result: &Result{Users: c.Users, Interfaces: c.Interfaces}}
	defer func() { err = errors.Join(err, b.close()) }()
	if err := b.open(); err != nil {
		return nil, err
	}
	for _, part := range []struct {
		name string
		f    func(context.Context) error
	}{
		{"alone", b.alone}, {"traffic", b.inSitu}, {"forwarding", b.forwarding}, {"streams", b.streams}, {"connections", b.connections}, {"memory", b.memories},
	} {
		if len(c.Parts) > 0 && !slices.Contains(c.Parts, part.name) {
			continue
		}
		fmt.Fprintf(c.Progress, "kernel: %s\n", part.name)
		if err := part.f(ctx); err != nil {
			return nil, fmt.Errorf("could not measure %s: %w", part.name, err)
		}
	}
	return b.result, nil
}

func (b *bench) open() (err error) {
	if b.gateway, err = newGateway(); err != nil {
		return err
	}
	if err := b.count(); err != nil {
		return err
	}
	if b.generator, err = newGenerator(); err != nil {
		return err
	}
	if b.empty, err = emptyProgram(); err != nil {
		return fmt.Errorf("could not load an empty program: %w", err)
	}
	for _, users := range b.Users {
		p, err := settle(filepath.Join(b.Dir, strconv.Itoa(users)), users, b.cust)
		if err != nil {
			return err
		}
		b.populations = append(b.populations, p)
		if b.room == nil {
			err = b.house(p)
		}
		if err := errors.Join(err, p.SetDoor(b.door)); err != nil {
			return err
		}
	}
	for _, k := range kinds() {
		if k.from == taken4 || k.from == taken6 {
			if err := b.connected(k); err != nil {
				return err
			}
		}
	}
	l, err := b.listen("[::]:2525")
	if err != nil {
		return err
	}
	for _, p := range b.populations {
		if err := p.SetListener(l.(syscall.Conn)); err != nil {
			return err
		}
	}
	return nil
}

func (b *bench) close() error {
	var errs []error
	for _, p := range b.populations {
		errs = append(errs, p.close())
	}
	if b.empty != nil {
		errs = append(errs, b.empty.Close())
	}
	if b.generator != nil {
		b.generator.close()
	}
	if b.gateway != nil {
		errs = append(errs, b.gateway.close())
	}
	return errors.Join(errs...)
}

// beat lets every data path see a proxy that is alive.
func (b *bench) beat() error {
	for _, p := range b.populations {
		if err := p.beat(); err != nil {
			return err
		}
	}
	return nil
}

// least keeps the smallest of many samples.
type least struct{ value float64 }

func (l *least) add(v float64) {
	if l.value == 0 || v < l.value {
		l.value = v
	}
}

// alone runs the program over and over on one packet: warm caches, and nothing else of the kernel.
func (b *bench) alone(ctx context.Context) error {
	list := slices.DeleteFunc(kinds(), func(k kind) bool { return k.from == checked4 || k.from == checked6 }) // no socket is assigned here
	nothing := make(map[string]*least)
	cost := make(map[cell]*least)
	measure := func(into *least, p *ebpf.Program, k kind) error {
		frame := k.frame()
		copy(frame, make([]byte, 6)) // the loopback's address, which is where a test run takes place
		_, d, err := p.Benchmark(frame, 4*b.Packets, nil)
		into.add(float64(d.Nanoseconds()))
		return err
	}
	for range b.Rounds {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		err := b.run(func() error {
			for _, k := range list {
				if nothing[k.String()] == nil {
					nothing[k.String()] = new(least)
				}
				if err := measure(nothing[k.String()], b.empty, k); err != nil {
					return err
				}
				for _, p := range b.populations {
					c := cell{k.String(), p.users, false}
					if cost[c] == nil {
						cost[c] = new(least)
					}
					if err := measure(cost[c], p.Program("mail_ingress"), k); err != nil {
						return err
					}
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	for c, l := range cost {
		b.result.Alone = append(b.result.Alone, Cost{c.kind, c.users, c.cold, l.value - nothing[c.kind].value})
	}
	b.result.sort()
	return nil
}

// cell is one figure of a table.
type cell struct {
	kind  string
	users int
	cold  bool // every packet from another source
}

// inSitu reads what the kernel's own statistics say of the program while packets are forwarded; what they say of an empty
// program is taken off.
func (b *bench) inSitu(ctx context.Context) error {
	stats, err := ebpf.EnableStats(unix.BPF_STATS_RUN_TIME)
	if err != nil {
		return fmt.Errorf("could not turn on the kernel's statistics of programs: %w", err)
	}
	defer stats.Close()
	var k link.Link
	if err := b.run(func() (err error) { k, err = attach(b.cust, b.empty); return err }); err != nil {
		return err
	}
	defer k.Close()
	cost := make(map[cell]*least)
	for round := range b.Rounds {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err := b.beat(); err != nil {
			return err
		}
		if err := b.run(func() error { return b.roundInSitu(k, cost) }); err != nil {
			return fmt.Errorf("round %d: %w", round, err)
		}
	}
	for c, l := range cost {
		if c.users > 0 {
			b.result.InSitu = append(b.result.InSitu, Cost{c.kind, c.users, c.cold, l.value - cost[cell{c.kind, 0, false}].value})
		}
	}
	b.result.sort()
	return nil
}

func (b *bench) roundInSitu(k link.Link, cost map[cell]*least) error {
	for _, kind := range kinds() {
		for i, p := range append([]*population{nil}, b.populations...) {
			program, users := b.empty, 0
			if i > 0 {
				program, users = p.Program("mail_ingress"), p.users
			}
			if err := k.Update(program); err != nil {
				return fmt.Errorf("could not change the program: %w", err)
			}
			for _, cold := range []bool{false, true} {
				sources := 0
				if cold {
					sources = users
					if !kind.v6 {
						sources = bulkUsers4(users)
					}
					if kind.from.IsValid() || sources < fewSources {
						continue
					}
				}
				ns, err := b.sampleInSitu(program, kind, sources)
				if err != nil {
					return fmt.Errorf("%s, %d users: %w", kind, users, err)
				}
				c := cell{kind.String(), users, cold}
				if cost[c] == nil {
					cost[c] = new(least)
				}
				cost[c].add(ns)
			}
		}
	}
	return nil
}

// sampleInSitu is nanoseconds per run of the program that is attached.
func (b *bench) sampleInSitu(p *ebpf.Program, k kind, sources int) (float64, error) {
	if err := b.generator.aim(k, sources, gatewayMAC); err != nil {
		return 0, err
	}
	before, err := p.Stats()
	if err != nil {
		return 0, err
	}
	if _, err := b.generator.send(b.cust, b.Packets); err != nil {
		return 0, err
	}
	after, err := p.Stats()
	if err != nil {
		return 0, err
	}
	runs := after.RunCount - before.RunCount
	if runs < uint64(b.Packets) {
		return math.NaN(), fmt.Errorf("the program saw %d of %d packets", runs, b.Packets)
	}
	return float64((after.Runtime - before.Runtime).Nanoseconds()) / float64(runs), nil
}
