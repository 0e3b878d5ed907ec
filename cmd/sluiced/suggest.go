package main

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"sluice/cmd/internal/api"
	"sluice/filter/identity"
	"sluice/filter/policy"
)

// oddities are the alarms of the last hours about identities, for the doctor.
type oddities struct {
	mu  sync.Mutex
	all []identity.Alarm // the oldest first
}

const (
	mostOddities = 100
	oddFor       = 2 * time.Hour
)

// odd tells and keeps an alarm about a user's identities.
func (d *daemon) odd(a identity.Alarm) {
	text, _ := oddity(&a)
	d.log.Warn("identities: "+text, "user", backend{d}.anyName(a.User))
	d.odds.mu.Lock()
	defer d.odds.mu.Unlock()
	d.odds.all = append(d.odds.all, a)
	if n := len(d.odds.all) - mostOddities; n > 0 {
		d.odds.all = slices.Delete(d.odds.all, 0, n)
	}
}

// oddity says what is odd, and what to do about it.
func oddity(a *identity.Alarm) (text, remedy string) {
	if a.Kind == identity.Exploding {
		return fmt.Sprintf("more than %d new identities within an hour, the rest shares one", a.N),
			"somebody makes names up, or the rule reads something that changes with each message: `sluice identities suggest` shows what else tells"
	}
	return fmt.Sprintf("%d of %d messages of an hour tell no identity", a.N, a.Of),
		"something sends past the servers that write it: `sluice log --where identity=` shows the messages, `sluice identities suggest` what they tell"
}

// oddFindings are what the doctor says about identities.
func (b backend) oddFindings() (fs []api.Finding) {
	b.d.odds.mu.Lock()
	defer b.d.odds.mu.Unlock()
	for i := range b.d.odds.all {
		a := &b.d.odds.all[i]
		if time.Since(a.At) > oddFor {
			continue
		}
		text, remedy := oddity(a)
		fs = append(fs, finding("identities of "+b.anyName(a.User), true, api.Warn, text+", at "+a.At.Format(time.DateTime), remedy))
	}
	return fs
}

// SuggestIdentities tells which rule would tell the senders inside a user apart.
func (b backend) SuggestIdentities(_ context.Context, user string) (*api.IdentitySuggestion, error) {
	m, err := b.find(user)
	if err != nil {
		return nil, err
	}
	g := b.d.survey.Suggest(m.ID)
	s := &api.IdentitySuggestion{User: m.Name, Messages: g.Messages, Choices: make([]api.IdentityChoice, len(g.Choices))}
	for i, c := range g.Choices {
		s.Choices[i] = api.IdentityChoice(c)
	}
	if g.Rule != nil {
		o := policy.Overrides{Identify: g.Rule}
		s.Coverage, s.Settings = g.Coverage, o.Flat()
		for k, v := range s.Settings {
			if v == "" || v == "off" {
				delete(s.Settings, k)
			}
		}
	}
	return s, nil
}
