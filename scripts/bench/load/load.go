// Package load sends numbered messages over many SMTP sessions at once and measures how fast they are taken.
package load

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"sluice/scripts/bench/message"
)

// Config says what to send and when to stop; of Duration and Count the first
// that is reached ends the run, and zero means no such bound.
type Config struct {
	Targets  []netip.AddrPort // taken in turn by new connections
	Sources  []netip.Addr     // taken in turn by new connections; none: the kernel chooses
	Sessions int              // at once
	PerConn  int              // messages per connection
	Size     int              // bytes of one message
	Pipeline bool             // send MAIL, RCPT and DATA in one write (RFC 2920)
	TLS      bool             // say STARTTLS first
	Duration time.Duration
	Count    int
	Run      uint32 // upper half of the message numbers
}

// Address sets targets and sources from lists as they stand in flags.
func (c *Config) Address(targets, sources string) error {
	for s := range strings.SplitSeq(targets, ",") {
		a, err := netip.ParseAddrPort(s)
		if err != nil {
			return fmt.Errorf("could not read -targets: %w; write it like 198.51.100.1:25", err)
		}
		c.Targets = append(c.Targets, a)
	}
	for s := range strings.SplitSeq(sources, ",") {
		if s == "" {
			continue
		}
		a, err := netip.ParseAddr(s)
		if err != nil {
			return fmt.Errorf("could not read -sources: %w", err)
		}
		c.Sources = append(c.Sources, a)
	}
	return nil
}

func (c Config) validate() error {
	switch {
	case len(c.Targets) == 0:
		return errors.New("could not start the load: it has no target")
	case c.Sessions < 1 || c.PerConn < 1:
		return fmt.Errorf("could not start the load with %d sessions and %d messages per connection: both must be at least 1", c.Sessions, c.PerConn)
	case c.Duration <= 0 && c.Count <= 0:
		return errors.New("could not start the load: it has neither a duration nor a count")
	}
	return nil
}

// Result is what happened. Latencies are in microseconds.
type Result struct {
	Attempted int              `json:"attempted"`   // messages begun
	Messages  int              `json:"messages"`    // messages answered 250
	Sessions  int              `json:"sessions"`    // connections that ended with 221
	Seconds   float64          `json:"seconds"`     // first connect to last reply
	Rate      float64          `json:"msgs_per_s"`  // Messages / Seconds
	Latency   Latency          `json:"transaction"` // MAIL to the final 250
	Session   Latency          `json:"session"`     // connect to 221
	Unacked   []uint32         `json:"unacked"`     // places in the run that got no 250
	Faults    map[string]Fault `json:"faults"`      // by step and reply
	Greeting  string           `json:"greeting"`    // one of those heard
}

// Fault counts one kind of failure.
type Fault struct {
	Count  int    `json:"count"`
	Sample string `json:"sample"`
}

// maxFaults ends a run that fails again and again instead of sending.
const maxFaults = 500

// shared is what all sessions of a run have in common.
type shared struct {
	cfg    Config
	next   atomic.Uint32 // place of the next message
	conns  atomic.Uint32 // connections begun
	faults atomic.Int32
	stop   atomic.Bool
	once   sync.Once
	tls    *tls.Config

	greeting atomic.Pointer[string]
}

// Run sends until the configured end or until ctx is done. Failures of single
// sessions are in the Result; the error is for a run that could not be made.
func Run(ctx context.Context, cfg Config) (Result, error) {
	if err := cfg.validate(); err != nil {
		return Result{}, err
	}
	tpl, err := message.New(cfg.Size)
	if err != nil {
		return Result{}, err
	}
	sh := &shared{cfg: cfg}
	defer context.AfterFunc(ctx, func() { sh.stop.Store(true) })()
	if cfg.Duration > 0 {
		defer time.AfterFunc(cfg.Duration, func() { sh.stop.Store(true) }).Stop()
	}
	workers := make([]*worker, cfg.Sessions)
	var wg sync.WaitGroup
	start := time.Now()
	for i := range workers {
		w := &worker{shared: sh, tpl: tpl.Clone(), faultsBy: map[string]Fault{}, latencies: make([]time.Duration, 0, 4096)}
		workers[i] = w
		wg.Go(func() { w.run(ctx) })
	}
	wg.Wait()
	return collect(workers, start, sh), nil
}

// claim takes the next message's place, or says that the run is over. On a busy machine a short run may be over before any
// session is open; the first to be open sends all the same, so that a run without messages is one in which none gets through.
func (s *shared) claim() (uint32, bool) {
	if s.over() && s.next.Load() > 0 {
		return 0, false
	}
	place := s.next.Add(1) - 1
	if s.cfg.Count > 0 && place >= uint32(s.cfg.Count) {
		return 0, false
	}
	return place, true
}

func (s *shared) over() bool {
	return s.stop.Load() || (s.cfg.Count > 0 && s.next.Load() >= uint32(s.cfg.Count))
}

func collect(workers []*worker, start time.Time, sh *shared) Result {
	r := Result{Attempted: int(sh.next.Load()), Unacked: []uint32{}, Faults: map[string]Fault{}}
	if n := sh.cfg.Count; n > 0 {
		r.Attempted = min(r.Attempted, n)
	}
	var latencies, sessions []time.Duration
	last := start
	for _, w := range workers {
		latencies = append(latencies, w.latencies...)
		sessions = append(sessions, w.sessions...)
		r.Unacked = append(r.Unacked, w.unacked...)
		for k, f := range w.faultsBy {
			r.Faults[k] = Fault{Count: r.Faults[k].Count + f.Count, Sample: f.Sample}
		}
		if w.last.After(last) {
			last = w.last
		}
	}
	if g := sh.greeting.Load(); g != nil {
		r.Greeting = *g
	}
	r.Messages, r.Sessions = len(latencies), len(sessions)
	r.Latency, r.Session = quantiles(latencies), quantiles(sessions)
	if r.Seconds = last.Sub(start).Seconds(); r.Seconds > 0 {
		r.Rate = float64(r.Messages) / r.Seconds
	}
	return r
}
