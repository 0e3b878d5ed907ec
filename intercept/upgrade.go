package intercept

import (
	"context"
	"errors"
	"time"
)

// swap puts the programs of this process in the place of those of the last one, and lets go of what only those used.
func (e *Engine) swap() error {
	if err := e.attach(); err != nil {
		return err
	}
	e.swapped.Store(true)
	if e.adopted == nil {
		return errors.Join(e.others(), e.reconcileRouting())
	}
	return errors.Join(e.others(), e.adopted.Retire(), e.keepQuarters(), e.reconcileRouting())
}

func (e *Engine) commit() error {
	if e.adopted == nil {
		return nil
	}
	return e.adopted.Commit()
}

// awaitProxy waits, for a while, until the proxy that outlived the last helper beats for new programs, too: its listening
// socket or its heartbeat could not be carried over.
func (e *Engine) awaitProxy(ctx context.Context) {
	e.socket.wait(ctx, handBackWait)
	if !e.upgrading() {
		return
	}
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(handBackWait); time.Now().Before(end); {
		if h, err := e.data.Heartbeat(); err != nil || h.Beaten {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// lost tells whether a table has nothing of what an earlier helper left, as at the first start after a boot.
func (e *Engine) lost(table string) bool { return e.adopted != nil && e.adopted.Empty(table) }

// upgrading tells whether programs are attached that use tables of another version.
func (e *Engine) upgrading() bool {
	return !e.swapped.Load() && e.adopted != nil && len(e.adopted.Migrated()) > 0
}
