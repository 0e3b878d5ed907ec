package main

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"slices"
	"time"

	"sluice/cmd/internal/api"
	"sluice/cmd/internal/store"
	"sluice/filter/identity"
	"sluice/filter/lock"
)

const (
	// identitiesEvery is how often what identities sent is written down. Limits count on their own; this is for people.
	identitiesEvery = 5 * time.Second
	identitiesBatch = 5000
)

// loadIdentities reads those of earlier runs.
func (d *daemon) loadIdentities() error {
	return d.store.EachIdentity(d.started.Add(-identity.Forget), d.identities.Load)
}

// keepIdentities writes what changed until ctx ends.
func (d *daemon) keepIdentities(ctx context.Context) {
	tick := time.NewTicker(identitiesEvery)
	defer tick.Stop()
	told := false
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		err := d.saveIdentities()
		if err != nil && !told {
			d.log.Error("could not save what identities sent; it is tried again", "err", err)
		}
		told = err != nil
	}
}

func (d *daemon) saveIdentities() error {
	for {
		all := d.identities.Changed(identitiesBatch)
		if len(all) == 0 {
			return nil
		}
		if err := d.store.PutIdentities(all); err != nil {
			d.identities.Unsaved(all)
			return err
		}
	}
}

// Identities lists those of a user, or of all, by what they sent.
func (b backend) Identities(_ context.Context, user string, limit int) ([]api.Identity, error) {
	id, err := b.idOf(user)
	if err != nil {
		return nil, err
	}
	all := b.d.identities.List(id)
	slices.SortFunc(all, func(x, y identity.Entry) int {
		return cmp.Or(cmp.Compare(y.Bad, x.Bad), cmp.Compare(y.Messages, x.Messages), cmp.Compare(x.User, y.User), cmp.Compare(x.Name, y.Name))
	})
	list := []api.Identity{}
	for i := range all[:min(limit, len(all))] {
		list = append(list, b.identity(&all[i]))
	}
	return list, nil
}

func (b backend) identity(e *identity.Entry) api.Identity {
	a := api.Identity{User: b.anyName(e.User), Identity: e.Name, First: e.First, Last: e.Last, Messages: e.Messages, Recipients: e.Recipients,
		Refused: e.Refused, Bad: e.Bad, Code: e.Code}
	whom := lock.Scope{User: e.User, Identity: e.Name}
	st := b.d.locks.Standing(whom)
	a.Standing, a.Score, a.Factors = st.Rung.String(), st.Score, shownFactors(st.Factors)
	if k, ok := b.d.locks.FindIn(whom); ok {
		a.Locked, a.Reason, a.Score, a.Factors = k.Ticket, k.Reason, k.Score, shownFactors(k.Factors)
	}
	a.Reset = moment(e.Reset)
	return a
}

// ResetIdentity lets an identity begin anew.
func (b backend) ResetIdentity(_ context.Context, who string, r api.IdentityRequest) (*api.Identity, error) {
	m, err := b.find(r.User)
	if err != nil {
		return nil, err
	}
	e, ok := b.d.identities.Begin(m.ID, r.Identity, time.Now())
	b.d.locks.Forget(lock.Scope{User: m.ID, Identity: r.Identity})
	if !ok {
		return nil, &api.Problem{Status: http.StatusNotFound, Code: "no-such-identity", What: fmt.Sprintf("user %s has no identity %q", m.Name, r.Identity), Remedy: "`sluice identities " + m.Name + "` lists them"}
	}
	b.d.log.Info("identity reset", "user", m.Name, "identity", r.Identity, "by", who)
	err = b.d.store.Audit(store.Act{Who: who, What: "identity reset", Subject: m.Name + "/" + r.Identity, Detail: r.Reason})
	a := b.identity(&e)
	return &a, err
}
