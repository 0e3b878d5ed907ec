package main

import (
	"sync"

	"sluice/cmd/internal/api"
	"sluice/proxy"
)

// passed counts, by user, what went encrypted between clients and destinations, so that nobody here could read it. The
// users are bounded: one who is pushed out begins anew.
type passed struct {
	mu    sync.Mutex
	users map[uint32]api.Unread
	all   api.Unread
}

// passedLog counts what goes to the log.
type passedLog struct {
	proxy.Log
	to *passed
}

func (l *passedLog) Put(r *proxy.Record) {
	if r.In.Version == proxy.Opaque && r.Status != proxy.Observed {
		l.to.add(r)
	}
	l.Log.Put(r)
}

func (p *passed) add(r *proxy.Record) {
	p.mu.Lock()
	defer p.mu.Unlock()
	count := func(u *api.Unread) {
		u.Flows++
		u.BytesOut += r.Unread.Out
		u.BytesIn += r.Unread.In
	}
	count(&p.all)
	u, known := p.users[r.Flow.User.ID]
	if !known && len(p.users) >= guardUsers {
		for old := range p.users { // map order is as good as random
			delete(p.users, old)
			break
		}
	}
	if p.users == nil {
		p.users = make(map[uint32]api.Unread)
	}
	count(&u)
	p.users[r.Flow.User.ID] = u
}

func (p *passed) sum() api.Unread {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.all
}

// of returns the counts of a user, nil where nothing passed.
func (p *passed) of(user uint32) *api.Unread {
	p.mu.Lock()
	defer p.mu.Unlock()
	u, ok := p.users[user]
	if !ok {
		return nil
	}
	return &u
}

func (p *passed) counters(to map[string]uint64) {
	u := p.sum()
	to["unread_flows"], to["unread_bytes_out"], to["unread_bytes_in"] = uint64(u.Flows), uint64(u.BytesOut), uint64(u.BytesIn)
}
