package main

import (
	"context"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"sluice/intercept/control"
)

const (
	waiting  = 4096            // records that wait for sluiced; the next is lost and counted
	patience = 2 * time.Second // for one report, and for all at the end
)

// reporter sends records to sluiced and waits for it when it is away, without holding the reader up.
type reporter struct {
	path    string
	log     *slog.Logger
	records chan *control.Observed
	state   atomic.Pointer[control.ObservedReport] // counters as they are now
	lost    atomic.Uint64
	ctx     context.Context
	cancel  context.CancelFunc
	done    sync.WaitGroup

	conn *net.UnixConn
	away bool // and said so
}

func newReporter(path string, log *slog.Logger) *reporter {
	r := &reporter{path: path, log: log, records: make(chan *control.Observed, waiting)}
	r.ctx, r.cancel = context.WithCancel(context.Background())
	r.state.Store(new(control.ObservedReport))
	r.done.Go(r.run)
	return r
}

// put takes a record; it never waits.
func (r *reporter) put(o *control.Observed) {
	select {
	case r.records <- o:
	default:
		r.lost.Add(1)
	}
}

// tell takes the counters.
func (r *reporter) tell(seen uint64, loss control.ObservedLoss) {
	r.state.Store(&control.ObservedReport{Seen: seen, Loss: loss})
}

// countersEvery is how often the counters are told: sluiced takes longer silence for an observer that is not there.
const countersEvery = 5 * time.Second

// run sends each record, and the counters at once and once in a while.
func (r *reporter) run() {
	next := time.NewTimer(0)
	defer next.Stop()
	for {
		select {
		case o, open := <-r.records:
			if !open {
				return
			}
			r.deliver(o)
		case <-next.C:
			r.deliver(nil)
			pause := countersEvery
			if r.away { // it has waited
				pause = 0
			}
			next.Reset(pause)
		}
	}
}

// deliver sends one report, to another sluiced when the first has ended. Counters alone make way for records between two tries.
func (r *reporter) deliver(o *control.Observed) {
	for {
		report := *r.state.Load()
		report.Observed = o
		report.Loss.Records = r.lost.Load()
		err := r.dial()
		if err == nil {
			if err = control.Report(r.conn, report, time.Now().Add(patience)); err == nil {
				return
			}
			_ = r.conn.Close() // broken
			r.conn = nil
		}
		if !r.away {
			r.away = true
			r.log.Warn("waiting for sluiced", "err", err)
		}
		select {
		case <-time.After(time.Second):
		case <-r.ctx.Done():
			r.lost.Add(1)
			return
		}
		if o == nil {
			return
		}
	}
}

func (r *reporter) dial() (err error) {
	if r.conn != nil {
		return nil
	}
	if r.conn, err = control.DialObserved(r.ctx, r.path); err != nil {
		r.conn = nil
		return err
	}
	if r.away {
		r.away = false
		r.log.Info("sluiced is there")
	}
	return nil
}

// close sends what waits, within the patience.
func (r *reporter) close() {
	close(r.records)
	t := time.AfterFunc(patience, r.cancel)
	r.done.Wait()
	t.Stop()
	r.cancel()
	if r.conn != nil {
		_ = r.conn.Close() // nothing is sent any more
	}
}
