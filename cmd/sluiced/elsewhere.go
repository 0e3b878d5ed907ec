package main

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"sluice/cmd/internal/api"
	"sluice/cmd/internal/config"
	"sluice/intercept/control"
)

// mostNamed is how many sources or users doctor names one by one.
const mostNamed = 5

// bound says in words where a user's packets have to come from.
func bound(u *config.User) (out []string) {
	for _, b := range u.Bind {
		text := "all of his"
		switch {
		case b.Prefix.IsValid():
			text = b.Prefix.String()
		case len(u.Bind) > 1:
			text = "the others"
		}
		if b.Interface != "" {
			text += " by " + b.Interface
		}
		if b.MAC != "" {
			text += " from " + b.MAC
		}
		out = append(out, text)
	}
	return out
}

// nameOf is the name of a user known by name; others are called by their address.
func (b backend) nameOf(id uint32) string {
	if m, ok := b.d.roster.Load().byID[id]; ok {
		return m.Name
	}
	return ""
}

// anyName is also the name of a user that was made for an unknown source.
func (b backend) anyName(id uint32) string {
	name := b.nameOf(id)
	if name == "" {
		name, _ = b.d.store.NameOf(id)
	}
	return name
}

// idOf is the user of that name, 0 without one.
func (b backend) idOf(user string) (uint32, error) {
	if user == "" {
		return 0, nil
	}
	m, err := b.find(user)
	if err != nil {
		return 0, err
	}
	return m.ID, nil
}

// elsewhereFindings name the sources whose mail has another way out.
func elsewhereFindings(all []api.Elsewhere) (fs []api.Finding) {
	for _, e := range all[:min(len(all), mostNamed)] {
		who := e.Address.String()
		if e.User != "" {
			who += " (" + e.User + ")"
		}
		fs = append(fs, finding("asymmetric route "+e.Address.String(), true, api.Warn,
			fmt.Sprintf("%d answers to mail connections of %s that did not come through here, the last at %s", e.Answers, who, e.Last.Format(time.DateTime)),
			fmt.Sprintf("sluice probe %s; on the customer's server: sluice probe --from-here", e.Address)))
	}
	return fs
}

// borrowed names the users in whose name connections came from where they are not.
func (b backend) borrowed(ctx context.Context) []api.Finding {
	c := b.d.link.client.Load()
	if c == nil {
		return nil
	}
	counts, err := c.UserCounters(ctx)
	if err != nil {
		return []api.Finding{finding("spoofing", true, api.Warn, "the kernel's counters could not be read: "+err.Error(), "journalctl -u sluice-intercept")}
	}
	return spoofFindings(counts, b.nameOf)
}

func spoofFindings(counts []control.UserCount, name func(uint32) string) (fs []api.Finding) {
	counts = slices.DeleteFunc(slices.Clone(counts), func(u control.UserCount) bool { return u.Counts["spoofed"] == 0 })
	slices.SortFunc(counts, func(x, y control.UserCount) int { return cmp.Compare(y.Counts["spoofed"], x.Counts["spoofed"]) })
	for _, u := range counts[:min(len(counts), mostNamed)] {
		who := name(u.User)
		if who == "" {
			who = "unknown sources"
		}
		fs = append(fs, finding("spoofing", true, api.Warn,
			fmt.Sprintf("%d connections in the name of %s came by another interface or Ethernet address than his, and were dropped", u.Counts["spoofed"], who),
			"sluice probe; sluice status --counters tells the kinds: spoof_bind, spoof_path; a moved customer needs his route or [[user.bind]] corrected"))
	}
	return fs
}
