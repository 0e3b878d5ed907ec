package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"sluice/cmd/internal/api"
	"sluice/cmd/internal/store"
)

// Searches lists the saved searches.
func (b backend) Searches(context.Context) ([]api.Search, error) {
	all, err := b.d.store.Searches()
	list := make([]api.Search, len(all))
	for i := range all {
		list[i] = api.Search(all[i])
	}
	return list, err
}

// SaveSearch keeps a search by its name.
func (b backend) SaveSearch(_ context.Context, who string, s api.Search) (*api.Search, error) {
	s.By, s.Since = who, time.Now().UTC()
	if err := b.d.store.SaveSearch(store.Search(s), store.Act{Who: who, What: "search saved", Subject: s.Name, Detail: s.Query}); err != nil {
		return nil, err
	}
	return &s, nil
}

// RemoveSearch forgets a search.
func (b backend) RemoveSearch(_ context.Context, who, name string) (*api.Search, error) {
	one, err := b.d.store.RemoveSearch(name, store.Act{Who: who, What: "search removed", Subject: name})
	if errors.Is(err, store.ErrNoSearch) {
		return nil, &api.Problem{Status: http.StatusNotFound, Code: "no-such-search", What: fmt.Sprintf("there is no search %q", name), Remedy: "`sluice log searches` lists them"}
	}
	s := api.Search(one)
	return &s, err
}
