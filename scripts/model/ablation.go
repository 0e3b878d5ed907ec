package main

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"syscall"
	"time"

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

// cost measures the processor time of a judgement, by size.
func cost(w io.Writer, m *learn.Model, all []*letter) {
	j := content.NewJudge(m)
	fmt.Fprintf(w, "processor time of a judgement, all parts of it\n")
	for _, size := range []struct {
		name        string
		least, most int
	}{{"up to 2 KiB", 0, 2 << 10}, {"2 to 8 KiB", 2 << 10, 8 << 10}, {"8 to 12 KiB", 8 << 10, 12 << 10}, {"12 to 50 KiB", 12 << 10, 50 << 10}, {"50 KiB and more", 50 << 10, 1 << 30}} {
		some := pick(all, func(m *letter) bool { return len(m.data) >= size.least && len(m.data) < size.most })
		if len(some) == 0 {
			continue
		}
		n := 0
		began := processorTime()
		for n < 3000 {
			for _, x := range some[:min(len(some), 500)] {
				j.Judge(x.data, content.DefaultThresholds, 2)
				n++
			}
		}
		fmt.Fprintf(w, "  %-18s %8.1f µs\n", size.name, float64((processorTime()-began).Nanoseconds())/float64(n)/1000)
	}
	fmt.Fprintln(w)
}

func processorTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
