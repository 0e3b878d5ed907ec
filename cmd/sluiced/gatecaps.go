package main

import (
	"net/netip"
	"slices"
)

// wouldWait counts the sessions that were not enforced and would have waited: more of their source, or of their source
// and destination, were open than may be. A session's end is that of its last message, so this may say too little.
func (f *figures) wouldWait(c *concerned) (n int) {
	sources := map[netip.Addr][]*flowSeen{}
	for _, s := range f.flows {
		if s.shadow || s.observed {
			sources[s.source] = append(sources[s.source], s)
		}
	}
	for _, all := range sources {
		set := f.users[all[0].user].settings
		if len(all) <= min(capOr(set.SessionsPerSource), capOr(set.SessionsPerPair)) {
			continue
		}
		slices.SortFunc(all, func(a, b *flowSeen) int { return a.begin.Compare(b.begin) })
		n += sweep(all, capOr(set.SessionsPerSource), capOr(set.SessionsPerPair), c)
	}
	return n
}

// capOr is a cap, where 0 is none.
func capOr(n int) int {
	if n <= 0 {
		return 1 << 30
	}
	return n
}

// sweep goes through the sessions of one source in the order of their beginnings.
func sweep(all []*flowSeen, perSource, perPair int, c *concerned) (n int) {
	byEnd := slices.SortedFunc(slices.Values(all), func(a, b *flowSeen) int { return a.end.Compare(b.end) })
	open, pairs := 0, map[netip.Addr]int{}
	for _, s := range all {
		for len(byEnd) > 0 && !byEnd[0].end.After(s.begin) {
			open--
			pairs[byEnd[0].target]--
			byEnd = byEnd[1:]
		}
		if open >= perSource || pairs[s.target] >= perPair {
			n++
			c.add(s.user, s.source.String())
		}
		open++
		pairs[s.target]++
	}
	return n
}
