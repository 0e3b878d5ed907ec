package main

import (
	"sync"

	"sluice/cmd/internal/api"
	"sluice/proxy"
)

// forwarded counts, by user, mail that was only passed on (ATT10). The users are bounded: one who is pushed out begins anew.
type forwarded struct {
	mu    sync.Mutex
	users map[uint32]api.Forwarded
	all   api.Forwarded
}

// forwardedLog counts what goes to the log.
type forwardedLog struct {
	proxy.Log
	to *forwarded
}

func (l *forwardedLog) Put(r *proxy.Record) {
	if r.Forwarded {
		l.to.add(r)
	}
	l.Log.Put(r)
}

func (f *forwarded) add(r *proxy.Record) {
	f.mu.Lock()
	defer f.mu.Unlock()
	count := func(c *api.Forwarded) {
		c.Messages++
		if r.Status == proxy.Delivered || r.Status == proxy.Queued {
			c.Sent++
		}
		if r.Verdict.Class.Bad() {
			c.Bad++
		}
	}
	count(&f.all)
	u, known := f.users[r.Flow.User.ID]
	if !known && len(f.users) >= guardUsers {
		for old := range f.users { // map order is as good as random
			delete(f.users, old)
			break
		}
	}
	if f.users == nil {
		f.users = make(map[uint32]api.Forwarded)
	}
	count(&u)
	f.users[r.Flow.User.ID] = u
}

// of returns the counts of a user, nil where he forwarded nothing.
func (f *forwarded) of(user uint32) *api.Forwarded {
	f.mu.Lock()
	defer f.mu.Unlock()
	u, ok := f.users[user]
	if !ok {
		return nil
	}
	return &u
}

func (f *forwarded) counters(to map[string]uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	to["forwarded_messages"], to["forwarded_sent"], to["forwarded_bad"] = uint64(f.all.Messages), uint64(f.all.Sent), uint64(f.all.Bad)
}
