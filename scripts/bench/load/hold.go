package load

import (
	"context"
	"fmt"
	"io"
	"sync"
)

// Stage is how far a held session goes before it falls silent.
type Stage string

// The stages.
const (
	Greeted Stage = "greeting" // the greeting is read
	Helloed Stage = "ehlo"     // and EHLO answered, and STARTTLS before it where TLS is wanted
	Onward  Stage = "onward"   // and MAIL, RCPT and RSET, so that a proxy has its onward connection
)

// openers is how many sessions are opened at once.
const openers = 32

// Held are sessions that stand idle until Close.
type Held struct {
	Open   int              `json:"open"`
	Faults map[string]Fault `json:"faults"`
	conns  []io.Closer
}

// Close ends the sessions without a word.
func (h *Held) Close() {
	for _, c := range h.conns {
		_ = c.Close() // they end either way
	}
}

// Hold opens cfg.Sessions sessions and leaves each idle at a stage.
func Hold(ctx context.Context, cfg Config, to Stage) (*Held, error) {
	cfg.PerConn, cfg.Count = 1, cfg.Sessions
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	sh := &shared{cfg: cfg}
	var mu sync.Mutex
	held := &Held{Faults: map[string]Fault{}}
	var wg sync.WaitGroup
	for range openers {
		wg.Go(func() {
			for {
				if _, more := sh.claim(); !more || ctx.Err() != nil {
					return
				}
				w := &worker{shared: sh, faultsBy: map[string]Fault{}}
				err := w.open(ctx, to)
				mu.Lock()
				if err == nil {
					held.conns = append(held.conns, w.conn)
				} else {
					w.note(err)
					for k, f := range w.faultsBy {
						held.Faults[k] = Fault{Count: held.Faults[k].Count + f.Count, Sample: f.Sample}
					}
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	held.Open = len(held.conns)
	if held.Open == 0 {
		return held, fmt.Errorf("could not open a session: %v", held.Faults)
	}
	return held, nil
}

// open brings one session to its stage.
func (w *worker) open(ctx context.Context, to Stage) error {
	if err := w.dial(ctx); err != nil {
		return err
	}
	var err error
	switch to {
	case Greeted:
		err = w.expect("greeting", 220)
	case Helloed:
		err = w.hello()
	default:
		if err = w.hello(); err == nil {
			err = w.ask("MAIL", mail, 250)
		}
		if err == nil {
			err = w.ask("RCPT", rcpt, 250)
		}
		if err == nil {
			err = w.ask("RSET", rset, 250)
		}
	}
	if err != nil {
		w.conn.Close()
	}
	return err
}
