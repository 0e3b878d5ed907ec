package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"golang.org/x/sys/unix"

	"sluice/scripts/bench/load"
	"sluice/scripts/bench/matrix"
	"sluice/scripts/bench/testbed"
)

// asleep is how long sessions stand idle before the memory is read: what a gateway gives up of idle ones it has by then.
const asleep = 8 * time.Second

// idle is one kind of idle session, and the most that Sluice may need for each, user and kernel together.
type idle struct {
	name  string
	stage load.Stage
	legs  matrix.Legs
	bound float64 // KiB
}

var idles = []idle{
	{"greeted", load.Greeted, matrix.NoTLS, 8},
	{"EHLO answered", load.Helloed, matrix.NoTLS, 8},
	{"with the onward connection", load.Onward, matrix.NoTLS, 12},
	{"the same, onward leg TLS", load.Onward, matrix.OnwardTLS, 40},
	{"the same, both legs TLS", load.Onward, matrix.BothTLS, 40},
}

// runMemory measures what idle sessions cost a gateway.
func runMemory(ctx context.Context, args []string) error {
	o := options{more: true}
	fs := flag.NewFlagSet("bench memory", flag.ContinueOnError)
	sessions := fs.Int("sessions", 10_000, "idle sessions at once")
	fs.StringVar(&o.binaries, "binaries", "bin", "`directory` of sluiced and sluice-intercept")
	only := fs.String("only", "", "sluice alone, and of its rows those whose `name` holds this")
	fs.BoolVar(&o.enforce, "enforce", false, "fail when a session needs more than its bound")
	if err := fs.Parse(args); err != nil {
		return err
	}
	files, err := moreFiles(uint64(3**sessions + 1000))
	if err != nil {
		return err
	}
	tw := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	header := "idle sessions, KiB each\tway\tsessions\tprocess\tkernel\tboth\tat most\t\n"
	var wrong []error
	for _, kind := range idles {
		if !strings.Contains(kind.name, *only) {
			continue
		}
		for _, mode := range []string{matrix.Yardstick, "sluice"} {
			if *only != "" && mode == matrix.Yardstick {
				continue
			}
			if !(matrix.Cell{TLS: kind.legs}).Has(mode) || mode == matrix.Yardstick && kind.stage == load.Greeted {
				continue
			}
			n := *sessions
			if mode == matrix.Yardstick || kind.stage == load.Onward {
				n = min(n, (files-500)/2) // two connections each
			}
			c, err := measureIdle(ctx, o, kind, mode, n)
			if err != nil {
				return fmt.Errorf("%s, %s: %w", mode, kind.name, err)
			}
			bound := ""
			if mode == "sluice" {
				bound = fmt.Sprintf("%.0f", kind.bound)
				if c.process+c.kernel > kind.bound {
					bound += " missed"
					wrong = append(wrong, fmt.Errorf("sluice, %s: %.1f KiB, at most %.0f", kind.name, c.process+c.kernel, kind.bound))
				}
			}
			fmt.Fprintf(tw, "%s%s\t%s\t%d\t%.1f\t%.1f\t%.1f\t%s\t\n", header, kind.name, mode, n, c.process, c.kernel, c.process+c.kernel, bound)
			header = ""
		}
	}
	if err := tw.Flush(); err != nil {
		return err
	}
	if strings.Contains(slowName, *only) {
		missed, err := reportSlow(ctx, o, *only == "")
		if err != nil {
			return err
		}
		wrong = append(wrong, missed)
	}
	if !o.enforce {
		return nil
	}
	return errors.Join(wrong...)
}

// moreFiles raises how many files a process may have open, and returns how many it may.
func moreFiles(want uint64) (int, error) {
	var now unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &now); err != nil {
		return 0, fmt.Errorf("could not read the limit of open files: %w", err)
	}
	if now.Max < want {
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: want, Max: want}); err == nil {
			now.Max = want
		} // else fewer sessions are held
	}
	return int(now.Max), nil
}

// cost is memory in KiB.
type cost struct{ process, kernel float64 }

// measureIdle reads what a gateway has before the sessions and with them.
func measureIdle(ctx context.Context, o options, kind idle, mode string, sessions int) (each cost, err error) {
	err = weigh(ctx, o, mode, func(b *bench, speaker *testbed.Process, group *testbed.Group) error {
		if err := rest(ctx); err != nil { // what its start took and does not need is not to be taken off what sessions need
			return err
		}
		before, err := used(speaker, group)
		if err != nil {
			return err
		}
		h, err := b.hold(b.gates[0], kind.stage, kind.legs, sessions)
		if err != nil {
			return errors.Join(err, b.gates[0].explain())
		}
		defer func() { err = errors.Join(err, h.end()) }()
		if err := rest(ctx); err != nil {
			return err
		}
		after, err := used(speaker, group)
		n := float64(sessions)
		each = cost{(after.process - before.process) / n, (after.kernel - before.kernel) / n}
		return err
	})
	return each, err
}

// weigh starts one gateway anew, since memory that was used once is not given back at once, and has the program of it
// measured that speaks SMTP, in a control group of its own.
func weigh(ctx context.Context, o options, mode string, measure func(*bench, *testbed.Process, *testbed.Group) error) (err error) {
	if err := sweep(); err != nil {
		return err
	}
	o.modes = []string{mode}
	dir, err := os.MkdirTemp("", testbed.Name(os.Getpid()))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	group, err := testbed.NewGroup()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, group.Close()) }()
	b, err := open(ctx, o, dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.close()) }()
	programs := b.gates[0].programs
	speaker := programs[len(programs)-1] // it is started last
	if err := group.Add(speaker); err != nil {
		return err
	}
	return measure(b, speaker, group)
}

// rest waits until a gateway that is left alone has given up what it does.
func rest(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(asleep):
		return nil
	}
}

// used reads the memory of a process and, of its group, the kernel's.
func used(p *testbed.Process, group *testbed.Group) (cost, error) {
	process, err := p.Memory()
	if err != nil {
		return cost{}, err
	}
	kernel, err := group.Kernel()
	return cost{float64(process) / 1024, float64(kernel) / 1024}, err
}
