package lock

import (
	"maps"
	"sync"
	"sync/atomic"
)

const ticketShards = 1024

// tickets answers who is locked without a lock of its own.
type tickets struct {
	n      atomic.Int64
	mu     sync.Mutex
	shards [ticketShards]atomic.Pointer[map[uint32]string] // a change copies one of them: many, so that they stay small
}

func (t *tickets) get(user uint32) (string, bool) {
	if t.n.Load() == 0 {
		return "", false
	}
	m := t.shards[user%ticketShards].Load()
	if m == nil {
		return "", false
	}
	ticket, ok := (*m)[user]
	return ticket, ok
}

// set names the ticket of a user, or takes it away where it is "".
func (t *tickets) set(user uint32, ticket string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	p := &t.shards[user%ticketShards]
	next := map[uint32]string{}
	if m := p.Load(); m != nil {
		for k, v := range *m {
			next[k] = v
		}
	}
	before := len(next)
	delete(next, user)
	if ticket != "" {
		next[user] = ticket
	}
	t.n.Add(int64(len(next) - before)) // before the map is seen when it grows from none
	p.Store(&next)
}

// scopes answers which identities are locked. They are few.
type scopes struct {
	mu sync.Mutex
	m  atomic.Pointer[map[Scope]string]
}

func (t *scopes) get(whom Scope) (string, bool) {
	m := t.m.Load()
	if m == nil {
		return "", false
	}
	ticket, ok := (*m)[whom]
	return ticket, ok
}

func (t *scopes) set(whom Scope, ticket string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	next := map[Scope]string{}
	if m := t.m.Load(); m != nil {
		next = maps.Clone(*m)
	}
	delete(next, whom)
	if ticket != "" {
		next[whom] = ticket
	}
	if len(next) == 0 {
		t.m.Store(nil)
		return
	}
	t.m.Store(&next)
}
