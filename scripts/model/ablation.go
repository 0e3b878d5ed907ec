package main

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"

	"sluice/filter/content"
	"sluice/filter/content/learn"
)

// ablations train on less than there is: labels drawn by lot, headers alone, bodies alone.
func ablations(w io.Writer, all []*letter) {
	train := pick(all, func(m *letter) bool { return m.split == "train" })
	test := pick(all, func(m *letter) bool { return m.split == "test" && m.headline })
	j := content.NewJudge(learn.NewModel(""))
	run := func(name string, change func([]byte) []byte, shuffle bool) {
		examples := func(ms []*letter) (es []learn.Example) {
			for _, m := range ms {
				e := j.Example(change(m.data), m.bad, 1)
				e.Group = m.cluster
				es = append(es, e)
			}
			return es
		}
		es := examples(train)
		if shuffle {
			r := rand.New(rand.NewPCG(5, 5))
			r.Shuffle(len(es), func(a, b int) { es[a].Bad, es[b].Bad = es[b].Bad, es[a].Bad })
		}
		m := content.Build(name, built, nil, es)
		var out []scored
		for i, e := range examples(test) {
			z := m.ScoreExample(&e)
			out = append(out, scored{test[i], z, m.Probability(z)})
		}
		s := summarise(out)
		s.print(w, name)
	}
	same := func(b []byte) []byte { return b }
	run("ablation: labels by lot", same, true)
	run("ablation: headers alone", headAlone, false)
	run("ablation: bodies alone", bodyAlone, false)
	fmt.Fprintln(w)
}

// headEnd is where the header of b ends, its empty line not counted; -1 where it has no end.
func headEnd(b []byte) int {
	if i := bytes.Index(b, []byte("\r\n\r\n")); i >= 0 {
		return i + 2
	}
	return -1
}

func headAlone(b []byte) []byte {
	if i := headEnd(b); i >= 0 {
		return b[:i]
	}
	return b
}

// bodyAlone leaves of the header only what is needed to read the body.
func bodyAlone(b []byte) []byte {
	i := headEnd(b)
	if i < 0 {
		return b
	}
	var out []byte
	keep := false
	for _, line := range bytes.SplitAfter(b[:i], []byte("\n")) {
		if len(line) > 0 && line[0] != ' ' && line[0] != '\t' {
			keep = len(line) > 8 && line[0]|0x20 == 'c' && line[7] == '-'
		}
		if keep {
			out = append(out, line...)
		}
	}
	return append(out, b[i:]...)
}

// rawView trains and tests on messages as they were received: how much better that looks is what traces of collection give
// away to a filter that reads them.
func rawView(w io.Writer, corpus string, j *content.Judge) error {
	all, err := readView(corpus, "raw")
	if err != nil {
		return err
	}
	prepare(all, j)
	m := content.Build("raw", built, nil, examplesOf(all, func(m *letter) bool { return m.split == "train" }))
	s := summarise(judgeAll(m, pick(all, func(m *letter) bool { return m.split == "test" && m.headline })))
	s.print(w, "all sources, raw view")
	fmt.Fprintln(w)
	return nil
}
