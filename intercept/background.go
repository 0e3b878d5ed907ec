package intercept

import (
	"context"
	"fmt"
	"time"
)

// keepSaved writes the state to disk a moment after it changed, and at the end.
func (e *Engine) keepSaved(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			e.saveNow()
			return
		case <-e.save:
		}
		t := time.NewTimer(saveDelay)
		select {
		case <-ctx.Done():
			t.Stop()
		case <-t.C:
		}
		e.saveNow()
	}
}

func (e *Engine) saveNow() {
	now := time.Now()
	s := &stored{Version: storedVersion, Locks: e.locks.live(now)}
	e.mu.RLock()
	dir := e.cfg.StateDir
	size := e.runtime.Len()
	e.mu.RUnlock()
	if err := e.saveSources(size); err != nil {
		e.log.Error("after a reboot the sources before this change would be applied", "error", err)
	}
	if err := s.save(dir); err != nil {
		e.log.Error("after a reboot the state before this change would be applied", "error", err)
	}
}

// saveSources syncs the journal, or writes it anew where it has grown or was lost.
func (e *Engine) saveSources(size int) error {
	if !e.journal.grown(size) {
		return e.journal.sync()
	}
	e.change.Lock()
	defer e.change.Unlock()
	return e.journal.write(e.runtime)
}

// watchHeart logs when the proxy's heartbeat changes its state.
func (e *Engine) watchHeart(ctx context.Context) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	was := ""
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		h, err := e.data.Heartbeat()
		if err != nil {
			e.log.Error("heartbeat unknown", "error", err)
			continue
		}
		now := heartName(h)
		if now == was {
			continue
		}
		switch now {
		case "stale":
			e.log.Error("the proxy's heartbeat is stale: the fail modes are in force", "age", fmt.Sprintf("%.1fs", h.Age.Seconds()))
		default:
			e.log.Info("the proxy's heartbeat changed", "state", now)
		}
		was = now
	}
}
