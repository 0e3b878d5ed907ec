package main

import (
	"fmt"
	"io"
	"math"
	"os"
	"slices"
	"sort"
	"strings"

	"sluice/filter/content"
	"sluice/filter/content/learn"
	"sluice/filter/content/shipped"
)

// scored is a message with what a model says of it.
type scored struct {
	*letter
	z, p float64
}

// judgeAll scores messages with a model.
func judgeAll(m *learn.Model, mails []*letter) []scored {
	all := make([]scored, len(mails))
	for i, x := range mails {
		z := m.ScoreExample(&x.example)
		all[i] = scored{x, z, m.Probability(z)}
	}
	return all
}

// summary are the figures of one model on one set.
type summary struct {
	good, bad int
	roca      float64    // 1 - area under the ROC curve, in %
	missed    [3]float64 // bad mail missed, in %, where 0.3, 0.1 and 0.01 % of good mail is called bad
	at        [2]counts  // at the thresholds unsure and spam
}

type counts struct{ falsely, missed int }

// goodCalledBad are the shares of good mail at which missed is measured.
var goodCalledBad = [3]float64{0.003, 0.001, 0.0001}

func summarise(all []scored) (s summary) {
	var good, bad []float64
	for _, x := range all {
		if x.bad {
			bad = append(bad, x.z)
		} else {
			good = append(good, x.z)
		}
		for i, t := range []float64{content.DefaultThresholds.Unsure, content.DefaultThresholds.Spam} {
			switch {
			case !x.bad && x.p >= t:
				s.at[i].falsely++
			case x.bad && x.p < t:
				s.at[i].missed++
			}
		}
	}
	s.good, s.bad = len(good), len(bad)
	if len(good) == 0 || len(bad) == 0 {
		return s
	}
	sort.Float64s(good)
	sort.Float64s(bad)
	wrong := 0.0
	for _, z := range bad {
		above := len(good) - sort.SearchFloat64s(good, math.Nextafter(z, math.Inf(1)))
		equal := len(good) - sort.SearchFloat64s(good, z) - above
		wrong += float64(above) + float64(equal)/2
	}
	s.roca = 100 * wrong / float64(len(good)*len(bad))
	for i, share := range goodCalledBad {
		threshold := good[len(good)-1-int(share*float64(len(good)))]
		s.missed[i] = 100 * float64(sort.SearchFloat64s(bad, math.Nextafter(threshold, math.Inf(1)))) / float64(len(bad))
	}
	return s
}

func percent(n, of int) float64 { return 100 * float64(n) / float64(max(of, 1)) }

func (s *summary) print(w io.Writer, name string) {
	fmt.Fprintf(w, "%-34s 1-ROCA %.4f %% of %d good, %d bad; bad missed where 0.3 / 0.1 / 0.01 %% of good is called bad: %.2f / %.2f / %.2f %%\n",
		name, s.roca, s.good, s.bad, s.missed[0], s.missed[1], s.missed[2])
	for i, t := range []string{"unsure", "spam"} {
		fmt.Fprintf(w, "%-34s at %-6s good called bad %d (%.3f %%), bad called good %d (%.2f %%)\n", "", t,
			s.at[i].falsely, percent(s.at[i].falsely, s.good), s.at[i].missed, percent(s.at[i].missed, s.bad))
	}
}

// printKinds prints counts by source, kind and label.
func printKinds(w io.Writer, all []scored) {
	type cell struct{ n, unsure, spam int }
	kinds := map[string]*cell{}
	for _, x := range all {
		k := x.label + "  " + x.source + ", " + x.kind
		c := kinds[k]
		if c == nil {
			c = &cell{}
			kinds[k] = c
		}
		c.n++
		if x.p >= content.DefaultThresholds.Unsure {
			c.unsure++
		}
		if x.p >= content.DefaultThresholds.Spam {
			c.spam++
		}
	}
	names := make([]string, 0, len(kinds))
	for k := range kinds {
		names = append(names, k)
	}
	slices.Sort(names)
	fmt.Fprintf(w, "  %-48s %6s %18s %18s\n", "kind", "count", "at least unsure", "spam")
	for _, k := range names {
		c := kinds[k]
		fmt.Fprintf(w, "  %-48s %6d %8d (%5.1f %%) %8d (%5.1f %%)\n", k, c.n, c.unsure, percent(c.unsure, c.n), c.spam, percent(c.spam, c.n))
	}
}

// printCalibration compares probabilities with what became true.
func printCalibration(w io.Writer, all []scored) {
	fmt.Fprintf(w, "  %-14s %6s %10s %10s\n", "said", "count", "said mean", "were bad")
	for _, b := range binsOf(all) {
		fmt.Fprintf(w, "  %4.2f to %4.2f   %6d %9.1f%% %9.1f%%\n", b.from, b.to, b.n, 100*b.sum/float64(b.n), percent(b.bad, b.n))
	}
}

func pick(all []*letter, want func(*letter) bool) (some []*letter) {
	for _, m := range all {
		if want(m) {
			some = append(some, m)
		}
	}
	return some
}

// allParts are the figures that there are.
var allParts = []string{"whole", "plain", "shipped", "online", "ablations", "raw", "cost", "peers", "crossed"}

// figures prints what the classifier is worth on the corpus, and draws the calibration of the shipped model where plotTo
// names a file.
func figures(corpus string, parts []string, plotTo string) error {
	for _, p := range parts {
		if !slices.Contains(allParts, p) {
			return fmt.Errorf("there are no figures %q; the parts are %s", p, strings.Join(allParts, ", "))
		}
	}
	w := os.Stdout
	all, err := readCorpus(corpus)
	if err != nil {
		return err
	}
	if slices.Equal(parts, []string{"cost"}) && plotTo == "" {
		return cost(w, all) // which needs no examples
	}
	j := content.NewJudge(learn.NewModel(""))
	prepare(all, j)
	extra, err := madeUp(j)
	if err != nil {
		return err
	}
	want := func(name string) bool { return len(parts) == 0 || slices.Contains(parts, name) }
	test := pick(all, func(m *letter) bool { return m.split == "test" && m.headline })
	aside := pick(all, func(m *letter) bool { return m.split == "test" && !m.headline })
	train := func(m *letter) bool { return m.split == "train" }
	show := func(name string, es []learn.Example) {
		m := content.Build(name, built, nil, es)
		s := summarise(judgeAll(m, test))
		s.print(w, name)
		c := m.Calibration()
		fmt.Fprintf(w, "  calibration %.3f * score %+.3f\n", c.A, c.B)
		printKinds(w, judgeAll(m, append(slices.Clone(test), aside...)))
		printCalibration(w, judgeAll(m, test))
	}
	if plotTo != "" {
		m, err := shipped.Model()
		if err != nil {
			return err
		}
		svg := plot("The shipped model on the test split", binsOf(judgeAll(m, test)))
		if err := os.WriteFile(plotTo, []byte(svg), 0o644); err != nil {
			return err
		}
	}
	if want("whole") {
		show("all sources + made up", append(examplesOf(all, train), extra...))
	}
	if want("plain") {
		show("all sources", examplesOf(all, train))
	}
	if want("shipped") {
		show("shipped (free sources + made up)", append(examplesOf(all, func(m *letter) bool { return train(m) && free[m.source] }), extra...))
	}
	if want("online") {
		printOnline(w, all, extra)
	}
	if want("ablations") {
		ablations(w, all)
	}
	if want("raw") {
		if err := rawView(w, corpus, j); err != nil {
			return err
		}
	}
	if want("cost") {
		if err := cost(w, all); err != nil {
			return err
		}
	}
	if want("peers") {
		if err := peers(w, all); err != nil {
			return err
		}
	}
	if want("crossed") {
		crossed(w, all, extra)
	}
	return nil
}

// crossed trains on all sources but one and tests on that one.
func crossed(w io.Writer, all []*letter, extra []learn.Example) {
	for _, src := range []string{"enron", "spamassassin", "phishing_pot", "foff", "abusix"} {
		m := content.Build("", built, nil, append(examplesOf(all, func(m *letter) bool { return m.split == "train" && m.source != src }), extra...))
		test := judgeAll(m, pick(all, func(m *letter) bool { return m.source == src || m.split == "test" && m.headline }))
		own := slices.DeleteFunc(slices.Clone(test), func(x scored) bool { return x.source != src })
		has := map[bool]bool{}
		for _, x := range own {
			has[x.bad] = true
		}
		for _, x := range test {
			if x.source != src && !has[x.bad] {
				own = append(own, x)
			}
		}
		s := summarise(own)
		s.print(w, "  as a new source: "+src)
		var lines strings.Builder
		printKinds(&lines, slices.DeleteFunc(own, func(x scored) bool { return x.source != src }))
		fmt.Fprint(w, lines.String())
	}
	m := content.Build("", built, nil, append(examplesOf(all, func(m *letter) bool { return m.split == "train" && free[m.source] && m.source != "foff" }), extra...))
	fmt.Fprintf(w, "  as a new source: foff, to a model made as the shipped one is\n")
	printKinds(w, judgeAll(m, pick(all, func(m *letter) bool { return m.source == "foff" })))
}
