// Command model builds the model that is shipped with the program, and measures what it is worth.
//
//	go run ./scripts/model build -corpus DIR      the shipped model, of the training split of the sources that may be shipped
//	go run ./scripts/model figures -corpus DIR    all figures, or those named: whole plain shipped online ablations raw cost peers crossed
//	go run ./scripts/model figures -corpus DIR cost   what a judgement costs, in some seconds
//	go run ./scripts/model campaigns -corpus DIR  each cluster of the corpus as a burst of copies, and what stops it
//	go run ./scripts/model weights -corpus DIR    what the points of SpamAssassin and Rspamd add to what content says
//	go run ./scripts/model synth -out DIR         the made-up mails, to look at them
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"sluice/filter/content"
	"sluice/filter/content/learn"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "model:", err)
		os.Exit(1)
	}
}

// built is the date that the shipped model bears: the same inputs make the same file.
var built = time.Date(2026, time.November, 22, 0, 0, 0, 0, time.UTC)

func run(args []string) error {
	if len(args) == 0 {
		return fmt.Errorf("say what to do: build, figures, campaigns, weights or synth")
	}
	fs := flag.NewFlagSet(args[0], flag.ContinueOnError)
	corpus := fs.String("corpus", defaultCorpus(), "`folder` of the development corpus")
	out := fs.String("out", "filter/content/shipped/model.bin", "`file` or folder to write")
	plotTo := fs.String("plot", "", "with figures: `file` for the calibration of the shipped model, as SVG")
	each := fs.Int("each", 600, "with weights: `messages` of either label that SpamAssassin is asked about")
	named := fs.Bool("named", false, "with campaigns: name each burst that is not treated as it should be")
	if err := fs.Parse(args[1:]); err != nil {
		return err
	}
	switch args[0] {
	case "build":
		return build(*corpus, *out)
	case "figures":
		return figures(*corpus, fs.Args(), *plotTo)
	case "campaigns":
		all, err := readCorpus(*corpus)
		if err != nil {
			return err
		}
		return campaigns(os.Stdout, all, *named)
	case "weights":
		all, err := readCorpus(*corpus)
		if err != nil {
			return err
		}
		return weights(os.Stdout, all, *each)
	case "synth":
		return writeMadeUp(*out)
	}
	return fmt.Errorf("%q is not known; say build, figures, campaigns, weights or synth", args[0])
}

func defaultCorpus() string {
	if dir := os.Getenv("SLUICE_CORPUS"); dir != "" {
		return dir
	}
	return filepath.Join("..", "shared", "corpus") // beside the project
}

// build makes the shipped model: of the training split of the free sources, and of made-up mails.
func build(corpus, out string) error {
	all, err := readCorpus(corpus)
	if err != nil {
		return err
	}
	j := content.NewJudge(learn.NewModel(""))
	prepare(all, j)
	m, err := shippable(all, j)
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(out), ".model-")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) //nolint // it is there no more unless something failed
	if err := errors.Join(m.SaveSmall(f), f.Chmod(0o644), f.Close()); err != nil {
		return fmt.Errorf("could not write %s: %w", out, err)
	}
	return os.Rename(f.Name(), out) // the one that was there stays until this one is whole
}

// shippable trains the model that may be shipped.
func shippable(all []*letter, j *content.Judge) (*learn.Model, error) {
	extra, err := madeUp(j)
	if err != nil {
		return nil, err
	}
	es := append(examplesOf(all, func(m *letter) bool { return m.split == "train" && free[m.source] }), extra...)
	return content.Build("shipped 3", built, []string{"spamassassin", "enron", "foff", "nef", "circuit", "made up"}, es), nil
}

// writeMadeUp writes the made-up mails, to look at them.
func writeMadeUp(dir string) error {
	ts, err := templates()
	if err != nil {
		return err
	}
	w := newWriter()
	for i := range ts {
		kind := filepath.Join(dir, "good")
		if ts[i].bad {
			kind = filepath.Join(dir, "bad")
		}
		if err := os.MkdirAll(kind, 0o755); err != nil {
			return err
		}
		for k := range perKind {
			if err := os.WriteFile(filepath.Join(kind, fmt.Sprintf("%s-%02d.eml", ts[i].name, k)), w.mail(&ts[i]), 0o644); err != nil {
				return err
			}
		}
	}
	return nil
}
