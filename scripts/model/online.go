package main

import (
	"fmt"
	"io"
	"math/rand/v2"
	"slices"

	"sluice/filter/content"
	"sluice/filter/content/learn"
)

// feedback says how a filter hears the truth about what it judged.
type feedback struct {
	name  string
	share float64 // of bad mail about which anybody says something; good mail is taken for good at once unless reported
	late  int     // messages between the judgement and the word on it
	wrong float64 // share of words that are wrong
}

// online judges mail in the order in which it came and learns from feedback, as the TREC spam tracks do.
func online(mails []*letter, start *learn.Model, f feedback, seed uint64) []scored {
	mails = slices.Clone(mails)
	slices.SortStableFunc(mails, func(a, b *letter) int { return a.seq - b.seq })
	m := start
	r := rand.New(rand.NewPCG(seed, seed))
	var all []scored
	type word struct {
		at  int
		on  *letter
		bad bool
	}
	var words []word
	for i, x := range mails {
		for len(words) > 0 && words[0].at <= i {
			m.LearnExample(&words[0].on.example, words[0].bad)
			words = words[1:]
		}
		z := m.ScoreExample(&x.example)
		all = append(all, scored{x, z, m.Probability(z)})
		if x.bad && r.Float64() >= f.share {
			continue
		}
		words = append(words, word{i + 1 + f.late, x, x.bad != (r.Float64() < f.wrong)})
	}
	return all
}

// printOnline prints the figures of each way of feedback, on the slice that earlier work was measured on.
func printOnline(w io.Writer, all []*letter, extra []learn.Example) {
	slice := pick(all, func(m *letter) bool { return m.source == "spamassassin" })
	others := content.Build("others", built, nil, append(examplesOf(all, func(m *letter) bool { return m.source != "spamassassin" && m.split == "train" }), extra...))
	for _, start := range []*learn.Model{learn.NewModel("empty"), others} {
		whole := 0.0
		for i, f := range []feedback{
			{"at once", 1, 0, 0},
			{"on 5 % of bad mail", 0.05, 0, 0},
			{"1,000 messages late", 1, 1000, 0},
			{"1 % wrong", 1, 0, 0.01},
			{"all three", 0.05, 1000, 0.01},
		} {
			s := summarise(online(slice, start.Clone(), f, 1))
			s.print(w, "on line, from "+start.Info().Name+", "+f.name)
			if i == 0 {
				whole = s.roca
			}
			fmt.Fprintf(w, "%-34s loss against feedback at once: %.3f points of 1-ROCA %%\n", "", s.roca-whole)
		}
	}
	fmt.Fprintln(w)
}
