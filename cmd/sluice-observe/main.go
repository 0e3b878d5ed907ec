// Command sluice-observe reads the beginnings of the mail flows that mode observe forwards untouched, and tells sluiced
// who sent what to whom and what the server said. It is in nobody's way: when it is dead, mail goes on unseen.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"

	"sluice/bpf"
	"sluice/intercept/attach"
	"sluice/intercept/control"
	"sluice/intercept/observe"
	"sluice/intercept/ruleset"
)

// version is set when the program is built.
var version = "unknown"

const usage = `usage: sluice-observe [--config FILE] [--limit BYTES]
       sluice-observe version

Attaches behind sluice-intercept's programs, gives up every privilege, and reports to sluiced until SIGTERM.
`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// exitConfig is EX_CONFIG of sysexits(3): the unit does not try again until a person has corrected the file.
const exitConfig = 78

// The bounds of --limit. A packet is copied in at most 16 KiB.
const (
	usualLimit = 8 << 10
	leastLimit = 512
	mostLimit  = 16 << 10
)

// run is the whole program; it returns the exit status: 0, 1 when something failed, 2 for a wrong command line, 78 for a
// bad configuration.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	if len(args) == 1 && args[0] == "version" {
		fmt.Fprintln(stdout, "sluice-observe", version)
		return 0
	}
	fs := flag.NewFlagSet("sluice-observe", flag.ContinueOnError)
	fs.SetOutput(stderr)
	fs.Usage = func() { fmt.Fprint(stderr, usage) }
	file := fs.String("config", "/etc/sluice/sluice.toml", "configuration file")
	limit := fs.Int("limit", usualLimit, "bytes of what a side says before the other speaks that are read")
	if err := fs.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return 0
		}
		return 2
	}
	if fs.NArg() > 0 || *limit < leastLimit || *limit > mostLimit {
		fmt.Fprintf(stderr, "sluice-observe: --limit is %d to %d bytes\n%s", leastLimit, mostLimit, usage)
		return 2
	}
	set, err := load(*file)
	if err != nil {
		fmt.Fprintf(stderr, "sluice-observe: %v\n", err)
		return exitConfig
	}
	if err := serve(ctx, set, *limit, newLog(stderr)); err != nil {
		fmt.Fprintf(stderr, "sluice-observe: %v\n", err)
		return 1
	}
	return 0
}

// newLog writes text lines; under the journal without the time, which the journal has itself.
func newLog(w io.Writer) *slog.Logger {
	journal := os.Getenv("JOURNAL_STREAM") != ""
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{ReplaceAttr: func(groups []string, a slog.Attr) slog.Attr {
		if journal && len(groups) == 0 && a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}}))
}

// serve attaches, drops privileges and reads until the context ends, the customer interfaces change, or the helper has other maps.
func serve(ctx context.Context, set *settings, limit int, log *slog.Logger) error {
	links, err := set.links()
	if err != nil {
		return err
	}
	source, err := bpf.OpenObserver(set.pins, links, bpf.ObserveOptions{Limit: uint32(limit)})
	if err != nil {
		return err
	}
	if err := errors.Join(drop(set.uid, set.gid), dropped()); err != nil {
		return errors.Join(err, source.Close())
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if err := set.follow(ctx, links, func() {
		log.Info("the customer interfaces have changed: ending, to be started anew with the rights to attach")
		cancel()
	}); err != nil {
		return errors.Join(err, source.Close())
	}
	out := newReporter(set.socket, log)
	log.Info("ready", "version", version, "interfaces", len(links), "uid", set.uid)
	err = watch(ctx, source, out, log)
	out.close()
	return errors.Join(err, source.Close())
}

// watch hands what the source gives to the observer, and its records to out.
func watch(ctx context.Context, source *bpf.Observer, out *reporter, log *slog.Logger) error {
	obs := observe.New(observe.Options{}, out.put)
	next := time.Now()
	for ctx.Err() == nil {
		if now := time.Now(); !now.Before(next) {
			next = now.Add(time.Second)
			if source.Superseded() {
				log.Info("sluice-intercept was upgraded and has other maps: ending, to be started anew with the rights to attach")
				break
			}
			obs.Tick(now)
			c, err := source.Counts()
			if err != nil {
				return err
			}
			out.tell(obs.Seen(), control.ObservedLoss{Kernel: c.Lost + c.Unread, Flows: obs.Lost()})
		}
		s, err := source.Read(next)
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
		case err != nil:
			return fmt.Errorf("could not read the ring buffer: %w", err)
		default:
			obs.Add(s, time.Now())
		}
	}
	obs.Close(time.Now())
	return nil
}

// links are the customer interfaces that can be observed now.
func (s *settings) links() ([]bpf.ObserveLink, error) {
	k, err := attach.Open()
	if err != nil {
		return nil, err
	}
	defer k.Close()
	all, err := k.Links()
	if err != nil {
		return nil, err
	}
	var out []bpf.ObserveLink
	for _, seat := range ruleset.Seats(all, s.customers, s.uplinks) {
		if seat.Role == ruleset.Customer && seat.Refused == "" {
			out = append(out, bpf.ObserveLink{Index: seat.Link.Index, Raw: seat.Link.Raw})
		}
	}
	return out, nil
}
