package main

import (
	"archive/tar"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"sluice/filter/content"
	"sluice/filter/content/learn"
)

// letter is one message of the corpus with what its index says.
type letter struct {
	file, label, source, kind, split string
	headline                         bool // counts in the figures
	cluster                          int
	seq                              int
	bad                              bool
	data                             []byte
	example                          learn.Example
}

// readCorpus reads the view that an outbound filter would see of every message, with line ends made alike.
func readCorpus(dir string) ([]*letter, error) { return readView(dir, "sub") }

// readView reads every message as the folder view has it: sub, or raw, which is as it was received.
func readView(dir, view string) ([]*letter, error) {
	f, err := os.Open(filepath.Join(dir, "index.csv"))
	if err != nil {
		return nil, fmt.Errorf("could not read the corpus: %w; give its folder with -corpus", err)
	}
	defer f.Close() //nolint // it was only read
	all, err := readIndex(f)
	if err != nil {
		return nil, fmt.Errorf("could not read the corpus's index: %w", err)
	}
	byFile := map[string]*letter{}
	for _, m := range all {
		byFile[m.file] = m
	}
	if err := unpack(filepath.Join(dir, "mail.tar.zst"), view+"/", byFile); err != nil {
		return nil, err
	}
	for _, m := range all {
		if m.data == nil { // figures of a part would look like those of the whole
			return nil, fmt.Errorf("the corpus has no message %s/%s, which its index names", view, m.file)
		}
	}
	return all, nil
}

// indexed are the columns that are read of the index.
var indexed = []string{"file", "label", "source", "kind", "split", "headline", "cluster", "seq"}

func readIndex(in io.Reader) (all []*letter, err error) {
	r := csv.NewReader(in)
	head, err := r.Read()
	if err != nil {
		return nil, err
	}
	column := map[string]int{}
	for i, h := range head {
		column[h] = i
	}
	for _, name := range indexed {
		if _, ok := column[name]; !ok {
			return nil, fmt.Errorf("it has no column %s", name)
		}
	}
	for {
		row, err := r.Read()
		if errors.Is(err, io.EOF) {
			return all, nil
		}
		if err != nil {
			return nil, err
		}
		at := func(name string) string { return row[column[name]] }
		m := &letter{file: at("file"), label: at("label"), source: at("source"), kind: at("kind"), split: at("split"), headline: at("headline") == "1", bad: at("label") != "ham"}
		var errs [2]error
		m.cluster, errs[0] = strconv.Atoi(strings.TrimPrefix(at("cluster"), "c"))
		m.seq, errs[1] = strconv.Atoi(at("seq"))
		if err := errors.Join(errs[:]...); err != nil {
			return nil, fmt.Errorf("%s: %w", m.file, err)
		}
		all = append(all, m)
	}
}

func unpack(path, view string, byFile map[string]*letter) error {
	cmd := exec.Command("zstd", "-dc", "--", path)
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("could not unpack %s: %w; install zstd", path, err)
	}
	err = readMails(out, view, byFile)
	_, _ = io.Copy(io.Discard, out) // lets zstd end; what it says itself comes from Wait
	if err := errors.Join(err, cmd.Wait()); err != nil {
		return fmt.Errorf("could not unpack %s: %w", path, err)
	}
	return nil
}

// readMails takes the messages of a view out of an archive.
func readMails(archive io.Reader, view string, byFile map[string]*letter) error {
	for t := tar.NewReader(archive); ; {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		name, ok := strings.CutPrefix(strings.TrimPrefix(h.Name, "./"), view)
		m := byFile[name]
		if !ok || m == nil || h.Typeflag != tar.TypeReg {
			continue
		}
		if m.data, err = io.ReadAll(t); err != nil {
			return err
		}
		m.data = content.CRLF(m.data)
	}
}

// free are the sources whose terms allow that what was learnt from them is shipped.
var free = map[string]bool{"spamassassin": true, "enron": true, "foff": true, "nef": true, "circuit": true}

// How much the made-up mails weigh beside real ones, and how many there are of each template.
const (
	madeWeight = 0.5
	perKind    = 30
	firstGroup = 1 << 20 // above the numbers of the corpus's clusters
)

// madeUp returns the made-up mails as examples. All of one template are one group.
func madeUp(j *content.Judge) ([]learn.Example, error) {
	ts, err := templates()
	if err != nil {
		return nil, err
	}
	w := newWriter()
	var all []learn.Example
	for i := range ts {
		for range perKind {
			e := j.Example(w.mail(&ts[i]), ts[i].bad, madeWeight)
			e.Group = firstGroup + i
			all = append(all, e)
		}
	}
	return all, nil
}

// examplesOf returns the examples of those mails that want picks.
func examplesOf(all []*letter, want func(*letter) bool) (es []learn.Example) {
	for _, m := range all {
		if want(m) {
			es = append(es, m.example)
		}
	}
	return es
}

// prepare makes an example of every mail.
func prepare(all []*letter, j *content.Judge) {
	for _, m := range all {
		m.example = j.Example(m.data, m.bad, weightOf(m))
		m.example.Group = m.cluster
	}
}

// weightOf gives the few modern messages of good senders more weight, since old ones are many.
func weightOf(m *letter) float64 {
	switch m.source {
	case "foff", "circuit":
		return 3
	}
	return 1
}
