package main

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"time"

	"sluice/cmd/internal/api"
	"sluice/cmd/internal/config"
	"sluice/cmd/internal/store"
	"sluice/filter/policy"
)

// Import makes users added by command hold the prefixes of a list, in store, proxy and kernel.
func (b backend) Import(_ context.Context, who string, lines []api.ImportLine, replace bool, reason string) (*api.Imported, error) {
	d, began := b.d, time.Now()
	users, modes, err := b.importLists(lines, who, reason)
	if err != nil {
		return nil, err
	}
	d.change.Lock()
	defer d.change.Unlock()
	if d.retired() {
		return nil, errRetired
	}
	r := d.rules.Load()
	for i := range modes {
		if err := r.ceiling.Check(sourceOf(&modes[i])); err != nil {
			return nil, refusal(err)
		}
	}
	act := store.Act{At: began, Who: who, What: "users imported", Subject: fmt.Sprintf("%d prefixes", len(lines)), Detail: reason}
	done, err := d.store.Import(users, modes, replace, act)
	if err != nil {
		return nil, refused(err.Error(), "`sluice users` lists who has what")
	}
	if err := d.rosterAnew(); err != nil {
		return nil, err
	}
	r.put(modes, nil)
	out := &api.Imported{Users: done.Users, Prefixes: done.Prefixes, Modes: done.Modes, Added: done.Added, Removed: done.Removed}
	if c := d.link.client.Load(); c != nil {
		d.tellHelper(c)
	}
	if text := d.link.complaint(); text != "" && d.o.socket == nil {
		out.Warning = "the kernel does not have it yet: " + text
	}
	out.Seconds = time.Since(began).Seconds()
	d.log.Info("users imported", "by", who, "users", done.Users, "prefixes", done.Prefixes, "added", done.Added, "removed", done.Removed, "took", time.Since(began).Round(time.Millisecond))
	return out, nil
}

// importLists sorts lines by user, in the order of their first lines.
func (b backend) importLists(lines []api.ImportLine, who, reason string) (users []policy.Listed, modes []store.Rule, err error) {
	at := make(map[string]int)
	now := time.Now().UTC()
	for _, l := range lines {
		i, ok := at[l.User]
		if !ok {
			if err := config.CheckUserName(l.User); err != nil {
				what, remedy, _ := strings.Cut(err.Error(), "; ")
				return nil, nil, &api.Problem{Status: http.StatusBadRequest, Code: "invalid", What: l.Prefix.String() + ": " + what, Remedy: remedy}
			}
			i = len(users)
			at[l.User] = i
			users = append(users, policy.Listed{Name: l.User})
		}
		users[i].Prefixes = append(users[i].Prefixes, l.Prefix)
		if l.Mode != "" {
			if err := b.goesOn(l.Mode); err != nil {
				return nil, nil, err
			}
			modes = append(modes, store.Rule{Prefix: l.Prefix, Mode: l.Mode, Reason: reason, By: who, Since: now})
		}
	}
	return users, modes, nil
}
