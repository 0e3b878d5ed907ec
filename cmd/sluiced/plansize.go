package main

import (
	"fmt"
	"net/http"

	"sluice/cmd/internal/api"
	"sluice/filter/policy"
)

// fits says which account has more users than its plan allows, those of accounts inside it counted (ATT6).
func (g *groupsNow) fits() error {
	byID := make(map[uint32]*policy.Group, len(g.all))
	for i := range g.all {
		byID[g.all[i].ID] = &g.all[i]
	}
	have := map[uint32]int{}
	for _, account := range g.members {
		for range len(g.all) { // no longer than accounts can stand inside of each other
			a := byID[account]
			if a == nil || a.Kind != policy.Account {
				break
			}
			have[a.ID]++
			account = a.Parent
		}
	}
	for id, n := range have {
		a := byID[id]
		if p := byID[a.Plan]; p != nil && p.Most > 0 && n > p.Most {
			return &api.Problem{Status: http.StatusConflict, Code: "plan-full",
				What:   fmt.Sprintf("account %s would have %d users, and its plan %s allows %d", a.Name, n, p.Name, p.Most),
				Remedy: fmt.Sprintf("take one out (sluice users join USER --none), give the account another plan, or allow more: sluice accounts set plan %s --users %d", p.Name, n)}
		}
	}
	return nil
}
