package main

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strings"

	"sluice/cmd/internal/api"
	"sluice/cmd/internal/config"
	"sluice/cmd/internal/resolver"
	"sluice/filter/policy"
	"sluice/filter/reputation"
)

// listAnswers is how many answers of lists are remembered.
const listAnswers = 100_000

// newLists makes the check of lists by DNS. They have a resolver of their own, so that their many answers push out no others.
func (d *daemon) newLists() *reputation.Lists {
	dns := &net.Resolver{PreferGo: true}
	return reputation.New(d.policy, resolver.New(resolver.Options{Backend: dns, Most: listAnswers}), resolver.Fresh{Resolver: dns}, d.listEvent)
}

// listOptions turns configured lists into those of the filter.
func listOptions(all []config.DNSList) []reputation.Options {
	var out []reputation.Options
	for i := range all {
		l := &all[i]
		o := reputation.Options{
			Name: l.Name, Zone: l.Zone, Of: reputation.Subject(l.Of), Refuse: netPrefixes(l.Refuse), Note: netPrefixes(l.Note), Class: classOf(l.Class), Says: l.Says,
			Timeout: l.Timeout.D(), Exempt: netPrefixes(l.Exempt), ExemptDomains: l.ExemptDomains, Numeric: l.Numeric, Listed: l.Listed, Unlisted: l.Unlisted,
		}
		o.Failure, _ = policy.ParseFailure(l.Failure) // the configuration allows no other names
		out = append(out, o)
	}
	return out
}

func netPrefixes(all []config.Prefix) (out []netip.Prefix) {
	for _, p := range all {
		out = append(out, p.Prefix)
	}
	return out
}

// listEvent alarms about lists that are taken out, and tells when they are back.
func (d *daemon) listEvent(e reputation.Event) {
	if e.Out {
		d.log.Error("a list by DNS was taken out", "list", e.List, "zone", e.Zone, "err", e.Err)
		return
	}
	d.log.Warn("a list by DNS is well again", "list", e.List, "zone", e.Zone)
}

// shownLists is how the lists are.
func (d *daemon) shownLists() []api.DNSList {
	out := []api.DNSList{}
	for _, f := range d.lists.Figures() {
		l := api.DNSList{Name: f.Name, Zone: f.Zone, Of: string(f.Of), State: "good", Asked: f.Asked, Listed: f.Listed, Refused: f.Refused, Failed: f.Failed, Unmapped: f.Unmapped}
		switch {
		case f.Err != nil:
			l.State, l.Error = "out", f.Err.Error()
		case !f.In:
			l.State = "untested"
		}
		out = append(out, l)
	}
	return out
}

// listFindings tell of each list whether it is asked.
func listFindings(all []api.DNSList) (fs []api.Finding) {
	for i := range all {
		l := &all[i]
		text := fmt.Sprintf("%s, %d questions, %d listed, %d refused", l.State, l.Asked, l.Listed, l.Refused)
		if l.State == "out" {
			text = "taken out: " + l.Error
		}
		fs = append(fs, finding("list "+l.Name, l.State == "out", api.Warn, text, "dig +short <test point>."+l.Zone+" on this host; the list's operators say whether this resolver may ask. Remove the [[dnslist]] where it is gone"))
		if l.Unmapped > 0 {
			fs = append(fs, finding("list "+l.Name, true, api.Warn, fmt.Sprintf("%d answers are neither in refuse nor in note", l.Unmapped), "add what the list's operators say that they mean"))
		}
	}
	return fs
}

// listCounters are the figures of lists as counters.
func (d *daemon) listCounters(c map[string]uint64) {
	for _, f := range d.lists.Figures() {
		name := "list_" + strings.Map(counterLetter, f.Name) + "_"
		c[name+"asked"], c[name+"listed"], c[name+"refused"], c[name+"failed"], c[name+"unmapped"] = f.Asked, f.Listed, f.Refused, f.Failed, f.Unmapped
		c[name+"in"] = 0
		if f.In {
			c[name+"in"] = 1
		}
	}
}

// lookAtOpinions pings plug-ins and tests lists whose time it is.
func (d *daemon) lookAtOpinions(ctx context.Context) {
	done := make(chan struct{})
	go func() { defer close(done); d.lists.Look(ctx) }()
	d.plugins.Look(ctx)
	<-done
}

// opinionsChanged has new plug-ins and lists looked at soon.
func (d *daemon) opinionsChanged() {
	select {
	case d.opined <- struct{}{}:
	default:
	}
}
