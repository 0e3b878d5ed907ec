// Package backup writes what makes a gateway the one it is into one file, and puts that back whole or not at all.
package backup

import (
	"path"
	"slices"
	"strings"
)

// Part is a kind of what a gateway keeps on disk.
type Part struct {
	What string `json:"what"`
	Note string `json:"note,omitempty" doc:"where it comes from; of what is left out: how it is kept"`

	Left  bool  `json:"left,omitempty" doc:"a backup never has it"`
	Files int   `json:"files"`
	Bytes int64 `json:"bytes"`

	names []string // in store.dir: files and folders, as path.Match has them
}

// state are the parts of the folder store.dir that a backup has.
var state = []Part{
	{What: "users, settings, logins, tokens, locks, rules, audit log", Note: "passwords and tokens as hashes", names: []string{database}},
	{What: "keys that sign mail (DKIM)", Note: "their records are in the DNS", names: []string{"dkim"}},
	{What: "keys of links, traces, held mail and samples", names: []string{"links.key", "trace.key", "quarantine.key", "samples.key"}},
	{What: "certificates and authorities, with their keys", names: []string{"acme", "ca.pem", "client-leg.pem"}},
	{What: "what the content filter learnt", names: []string{"learned.model", "learned.previous", "learned.shadow", "lessons.journal", "content.[01]"}},
	{What: "counts, habits and conduct of senders, campaigns, addresses", names: []string{"counts.[01]", "habits.[01]", "conduct.[01]", "senders.[01]", "patience.[01]", "campaigns.[01]", "addresses.[01]"}},
	{What: "what is known of pools, MTA-STS and password guessers", names: []string{"pools.json", "mta-sts.json", "guessers.json"}},
}

// left are the parts that a backup does not have.
var left = []Part{
	{Left: true, What: "mail that waits (spool)", Note: "not in it: a copy would be delivered twice: keep its disk, and mirror it", names: []string{"spool"}},
	{Left: true, What: "held mail and samples of locks", Note: "not in it: copy the folders quarantine and samples; their keys are in here", names: []string{"quarantine", "samples"}},
	{Left: true, What: "message log", Note: "not in it: copy log.dir from a snapshot of its file system"},
	{Left: true, What: "connections, messages in flight, kernel tables, bypass", Note: "not in it: they belong to the moment", names: []string{"inflight", "spill", "plugins.json"}},
}

const (
	database      = "sluice.db"
	configuration = "configuration and the files that it names"
)

// journals of the database hold what is not in it yet; they go wherever it goes.
var journals = []string{database + "-wal", database + "-shm"}

// Holds tells whether a backup has what is called so in store.dir.
func Holds(name string) bool { return partOf(state, name) != nil }

// Leaves tells whether it is known why a backup does not have what is called so in store.dir.
func Leaves(name string) bool {
	return partOf(left, name) != nil || slices.Contains(journals, name) || strings.HasPrefix(name, ".") || strings.HasPrefix(name, aside)
}

func partOf(parts []Part, name string) *Part {
	for i := range parts {
		for _, pattern := range parts[i].names {
			if ok, err := path.Match(pattern, name); ok && err == nil {
				return &parts[i]
			}
		}
	}
	return nil
}

// tally sorts the files of a backup by part; behind them stand the parts that it leaves out.
func tally(sizes map[string]int64) []Part {
	parts := append([]Part{{What: configuration}}, slices.Clone(state)...)
	for name, size := range sizes {
		p := &parts[0]
		if rest, ok := strings.CutPrefix(name, stateFolder+"/"); ok {
			top, _, _ := strings.Cut(rest, "/")
			if p = partOf(parts[1:], top); p == nil {
				continue
			}
		}
		p.Files, p.Bytes = p.Files+1, p.Bytes+size
	}
	return append(parts, left...)
}
