package main

import (
	"sync"

	"sluice/cmd/internal/api"
	"sluice/intercept/flow"
)

// guardUsers bounds the users whose attempts to authenticate are counted apart.
const guardUsers = 1 << 16

// guesses count how attempts to authenticate at destinations ended, by user; they begin anew with the process. Nothing of
// what was said is in them (AUT4).
type guesses struct {
	mu    sync.Mutex
	users map[uint32]api.Auth
	all   api.Auth
}

// Authenticated counts one attempt.
func (g *guesses) Authenticated(f *flow.Flow, accepted bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	count(&g.all, accepted)
	u, known := g.users[f.User.ID]
	if !known && len(g.users) >= guardUsers {
		for old := range g.users { // map order is as good as random
			delete(g.users, old)
			break
		}
	}
	count(&u, accepted)
	if g.users == nil {
		g.users = make(map[uint32]api.Auth)
	}
	g.users[f.User.ID] = u
}

// of returns the counts of a user, nil where he never tried.
func (g *guesses) of(user uint32) *api.Auth {
	g.mu.Lock()
	defer g.mu.Unlock()
	u, ok := g.users[user]
	if !ok {
		return nil
	}
	return &u
}

// counters adds the sums.
func (g *guesses) counters(to map[string]uint64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	to["auth_accepted"], to["auth_refused"] = uint64(g.all.Accepted), uint64(g.all.Refused)
}

func count(a *api.Auth, accepted bool) {
	if accepted {
		a.Accepted++
	} else {
		a.Refused++
	}
}
