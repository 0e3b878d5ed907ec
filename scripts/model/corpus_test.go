package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"sluice/filter/content"
	"sluice/filter/content/shipped"
)

// TestShippedModelOnTheCorpus holds the shipped model to what it is worth, where the development corpus is at hand: no good
// message is called spam, and most bad ones are.
func TestShippedModelOnTheCorpus(t *testing.T) {
	t.Parallel()
	dir := defaultCorpus()
	if os.Getenv("SLUICE_CORPUS") == "" {
		dir = filepath.Join("..", "..", dir)
	}
	if _, err := os.Stat(filepath.Join(dir, "index.csv")); err != nil {
		t.Skipf("NOT RUN: the corpus is absent (%v); set SLUICE_CORPUS to its folder", err)
	}
	if _, err := exec.LookPath("zstd"); err != nil {
		t.Skip("NOT RUN: zstd is not installed, so the corpus cannot be read")
	}
	all, err := readCorpus(dir)
	if err != nil {
		t.Fatal(err)
	}
	m, err := shipped.Model()
	if err != nil {
		t.Fatal(err)
	}
	test := pick(all, func(m *letter) bool { return m.split == "test" && m.headline })
	prepare(test, content.NewJudge(m))
	s := summarise(judgeAll(m, test))
	if s.good < 1000 || s.bad < 500 {
		t.Fatalf("%d good and %d bad messages", s.good, s.bad)
	}
	if s.roca > 0.3 || s.at[1].falsely != 0 || percent(s.at[1].missed, s.bad) > 35 || percent(s.at[0].falsely, s.good) > 0.3 {
		t.Errorf("1-ROCA %.3f %%; at spam %d good called bad and %.1f %% of the bad missed; at unsure %d good called bad", s.roca, s.at[1].falsely, percent(s.at[1].missed, s.bad), s.at[0].falsely)
	}
}

// TestIndexThatLacksSomething: figures of half a corpus would look like figures.
func TestIndexThatLacksSomething(t *testing.T) {
	t.Parallel()
	const head = "file,label,source,kind,date,split,headline,cluster,seq\n"
	all, err := readIndex(strings.NewReader(head + "a.eml,ham,x,y,,test,1,c7,3\n"))
	if err != nil || len(all) != 1 || all[0].cluster != 7 || all[0].seq != 3 || all[0].bad || !all[0].headline {
		t.Errorf("%+v %v", all, err)
	}
	for in, want := range map[string]string{
		strings.Replace(head, "split,", "", 1):    "no column split",
		head + "a.eml,ham,x,y,,test,1,c7,third\n": "a.eml",
		head + "a.eml,ham,x,y,,test,1,c7\n":       "wrong number of fields",
	} {
		if _, err := readIndex(strings.NewReader(in)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", in, err, want)
		}
	}
	if err := figures("/nonexistent", []string{"odd"}, ""); err == nil || !strings.Contains(err.Error(), `"odd"`) {
		t.Errorf("figures that there are not: %v", err)
	}
}
