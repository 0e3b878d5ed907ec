package main

import (
	"sync"

	"sluice/cmd/internal/api"
	"sluice/intercept/flow"
	"sluice/proxy"
)

// mostCounted bounds the users of whom there are figures of one kind: one who is pushed out begins anew.
const mostCounted = 1 << 16

// byUser has figures of each user, and of all together. They begin anew with the process.
type byUser[T any] struct {
	mu    sync.Mutex
	users map[uint32]T
	all   T
}

// count has more change the figures of a user, and the sums.
func (b *byUser[T]) count(user uint32, more func(*T)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	more(&b.all)
	u, known := b.users[user]
	if !known && len(b.users) >= mostCounted {
		for old := range b.users { // map order is as good as random
			delete(b.users, old)
			break
		}
	}
	more(&u)
	if b.users == nil {
		b.users = make(map[uint32]T)
	}
	b.users[user] = u
}

// of returns the figures of a user, nil where there are none.
func (b *byUser[T]) of(user uint32) *T {
	b.mu.Lock()
	defer b.mu.Unlock()
	u, ok := b.users[user]
	if !ok {
		return nil
	}
	return &u
}

func (b *byUser[T]) sum() T {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.all
}

// userFigures are what is counted by user.
type userFigures struct {
	auth      byUser[api.Auth]      // attempts to authenticate at destinations, and how they ended; nothing of what was said (AUT4)
	unread    byUser[api.Unread]    // what went encrypted between clients and destinations, so that nobody here could read it
	forwarded byUser[api.Forwarded] // mail that was only passed on (ATT10)
}

// authenticated counts one attempt.
func (g *userFigures) authenticated(f *flow.Flow, accepted bool) {
	g.auth.count(f.User.ID, func(a *api.Auth) {
		if accepted {
			a.Accepted++
		} else {
			a.Refused++
		}
	})
}

// record counts what a record of the log tells.
func (g *userFigures) record(r *proxy.Record) {
	if r.In.Version == proxy.Opaque && r.Status != proxy.Observed {
		g.unread.count(r.Flow.User.ID, func(u *api.Unread) {
			u.Flows++
			u.BytesOut += r.Unread.Out
			u.BytesIn += r.Unread.In
		})
	}
	if r.Forwarded {
		g.forwarded.count(r.Flow.User.ID, func(f *api.Forwarded) {
			f.Messages++
			if r.Status == proxy.Delivered || r.Status == proxy.Queued {
				f.Sent++
			}
			if r.Verdict.Class.Bad() {
				f.Bad++
			}
		})
	}
}

// counters adds the sums.
func (g *userFigures) counters(to map[string]uint64) {
	a, u, f := g.auth.sum(), g.unread.sum(), g.forwarded.sum()
	to["auth_accepted"], to["auth_refused"] = uint64(a.Accepted), uint64(a.Refused)
	to["unread_flows"], to["unread_bytes_out"], to["unread_bytes_in"] = uint64(u.Flows), uint64(u.BytesOut), uint64(u.BytesIn)
	to["forwarded_messages"], to["forwarded_sent"], to["forwarded_bad"] = uint64(f.Messages), uint64(f.Sent), uint64(f.Bad)
}

// countedLog counts what goes to the log.
type countedLog struct {
	proxy.Log
	to *userFigures
}

func (l countedLog) Put(r *proxy.Record) {
	l.to.record(r)
	l.Log.Put(r)
}
