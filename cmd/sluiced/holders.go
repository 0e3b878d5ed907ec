package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"time"

	"sluice/cmd/internal/api"
	"sluice/cmd/internal/store"
	"sluice/proxy"
)

func shownHolding(h *store.Holding) api.Holding {
	a := api.Holding{Prefix: h.Prefix.String(), Holder: h.Holder, By: h.By}
	if h.By != "" {
		a.ID = h.ID
	}
	a.Since = moment(h.Since)
	a.Until = moment(h.Until)
	return a
}

// Holders tells the history of an address.
func (b backend) Holders(_ context.Context, a netip.Addr) ([]api.Holding, error) {
	all, err := b.d.store.Holdings(a)
	list := make([]api.Holding, len(all))
	for i := range all {
		list[i] = shownHolding(&all[i])
	}
	return list, err
}

// TellHolding notes what the provider's records know.
func (b backend) TellHolding(_ context.Context, who string, r api.HoldingRequest) (*api.Holding, error) {
	p, err := api.ParsePrefix(r.Prefix)
	if err != nil {
		return nil, err
	}
	h := store.Holding{Prefix: p, Holder: r.Holder, By: who}
	if r.Since != nil {
		h.Since = *r.Since
	}
	if r.Until != nil {
		h.Until = *r.Until
	}
	if h, err = b.d.store.TellHolding(h, store.Act{Who: who, What: "holder told", Subject: r.Prefix, Detail: r.Holder + " " + r.Reason}); err != nil {
		return nil, &api.Problem{Status: http.StatusConflict, Code: "refused", What: err.Error(), Remedy: "`sluice holder " + p.Addr().String() + "` shows the history"}
	}
	a := shownHolding(&h)
	return &a, nil
}

// ForgetHolding removes what was told.
func (b backend) ForgetHolding(_ context.Context, who string, id int64, reason string) (*api.Holding, error) {
	h, err := b.d.store.ForgetHolding(id, store.Act{Who: who, What: "holder forgotten", Subject: fmt.Sprint(id), Detail: reason})
	if errors.Is(err, store.ErrNoHolding) {
		return nil, &api.Problem{Status: http.StatusNotFound, Code: "no-such-holding", What: fmt.Sprintf("nothing that was told has the number %d", id), Remedy: "`sluice holder ADDRESS` shows the numbers; what was noted by itself stays"}
	}
	if err != nil {
		return nil, err
	}
	a := shownHolding(&h)
	return &a, nil
}

// history answers who held addresses, each address once asked.
type history struct {
	store *store.Store
	known map[netip.Addr][]store.Holding
}

// holder is who held the source of a record when it was written, as far as that is known better than by the record's own
// user: by what was told since.
func (h *history) holder(r *proxy.Record) (string, error) {
	a := r.Flow.Client.Addr().Unmap().WithZone("")
	if !a.IsValid() {
		return "", nil
	}
	all, ok := h.known[a]
	if !ok {
		var err error
		if all, err = h.store.Holdings(a); err != nil {
			return "", err
		}
		if h.known == nil {
			h.known = map[netip.Addr][]store.Holding{}
		}
		h.known[a] = all
	}
	return holderAt(all, r.Start), nil
}

func holderAt(all []store.Holding, at time.Time) string {
	for i := range all {
		if all[i].At(at) {
			return all[i].Holder
		}
	}
	return ""
}
