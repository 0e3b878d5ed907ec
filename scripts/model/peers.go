package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// peers measures filters that people use today on the same messages, where this machine has them: bogofilter trained on
// the same mail, SpamAssassin with the rules that need no network.
func peers(w io.Writer, all []*letter) error {
	dir, err := os.MkdirTemp("", "peers")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir) //nolint // what is left is in the folder for temporary files
	paths := map[*letter]string{}
	for _, m := range all {
		p := filepath.Join(dir, m.file)
		if err := os.WriteFile(p, m.data, 0o600); err != nil {
			return err
		}
		paths[m] = p
	}
	test := pick(all, func(m *letter) bool { return m.split == "test" && m.headline })
	for _, peer := range []struct {
		name, program string
		run           func(io.Writer, string, []*letter, []*letter, map[*letter]string) error
	}{{"bogofilter", "bogofilter", bogofilter}, {"SpamAssassin, local rules", "spamassassin", spamAssassin}} {
		if _, err := exec.LookPath(peer.program); errors.Is(err, exec.ErrNotFound) {
			fmt.Fprintf(w, "%-34s not measured: %s is not installed\n", peer.name, peer.program)
			continue
		}
		if err := peer.run(w, dir, pick(all, func(m *letter) bool { return m.split == "train" }), test, paths); err != nil {
			fmt.Fprintf(w, "%-34s not measured: %v\n", peer.name, err)
		}
	}
	fmt.Fprintln(w)
	return nil
}

// bogofilter trains and scores in one process each, file names on its standard input.
func bogofilter(w io.Writer, dir string, train, test []*letter, paths map[*letter]string) error {
	db := filepath.Join(dir, "bogo")
	if err := os.Mkdir(db, 0o700); err != nil {
		return err
	}
	for _, bad := range []bool{false, true} {
		flag := "-n"
		if bad {
			flag = "-s"
		}
		cmd := exec.Command("bogofilter", "-d", db, flag, "-b")
		cmd.Stdin = names(pick(train, func(m *letter) bool { return m.bad == bad }), paths)
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("training: %w: %s", err, out)
		}
	}
	cmd := exec.Command("bogofilter", "-d", db, "-T", "-b")
	cmd.Stdin = names(test, paths)
	began := time.Now()
	out, err := cmd.Output()
	if len(out) == 0 && err != nil { // its exit code is a verdict
		return err
	}
	each := time.Since(began) / time.Duration(len(test))
	scores := map[string]float64{}
	for sc := bufio.NewScanner(bytes.NewReader(out)); sc.Scan(); {
		f := strings.Fields(sc.Text())
		if len(f) >= 3 {
			scores[filepath.Base(f[0])], _ = strconv.ParseFloat(f[len(f)-1], 64)
		}
	}
	printPeer(w, "bogofilter, trained alike", test, scores, 0.99, each)
	return nil
}

func names(ms []*letter, paths map[*letter]string) io.Reader {
	var b bytes.Buffer
	for _, m := range ms {
		fmt.Fprintln(&b, paths[m])
	}
	return &b
}

var assassinScore = regexp.MustCompile(`(?m)^X-Spam-Status: \w+, score=(-?[0-9.]+)`)

// spamAssassin judges a sample: it takes a tenth of a second and more for each message.
func spamAssassin(w io.Writer, _ string, _, test []*letter, paths map[*letter]string) error {
	const every = 60
	scores := map[string]float64{}
	var sample []*letter
	began := time.Now()
	for i := 0; i < len(test); i += every {
		in, err := os.Open(paths[test[i]])
		if err != nil {
			return err
		}
		cmd := exec.Command("spamassassin", "-L", "--nocreate-prefs")
		cmd.Stdin = in
		out, err := cmd.Output()
		if err = errors.Join(err, in.Close()); err != nil {
			return err
		}
		if m := assassinScore.FindSubmatch(out); m != nil {
			scores[test[i].file], _ = strconv.ParseFloat(string(m[1]), 64)
		}
		sample = append(sample, test[i])
	}
	printPeer(w, fmt.Sprintf("SpamAssassin -L, every %dth", every), sample, scores, 5, time.Since(began)/time.Duration(len(sample)))
	return nil
}

// printPeer prints a peer's figures, at the threshold with which it is installed.
func printPeer(w io.Writer, name string, test []*letter, scores map[string]float64, threshold float64, each time.Duration) {
	var all []scored
	falsely, missed, good, bad := 0, 0, 0, 0
	for _, m := range test {
		s, ok := scores[m.file]
		if !ok {
			continue
		}
		all = append(all, scored{m, s, 0})
		switch {
		case m.bad:
			if bad++; s < threshold {
				missed++
			}
		default:
			if good++; s >= threshold {
				falsely++
			}
		}
	}
	s := summarise(all)
	fmt.Fprintf(w, "%-34s 1-ROCA %.4f %% of %d good, %d bad; at its threshold good called bad %d (%.2f %%), bad called good %d (%.1f %%); %v each, its start not taken off\n",
		name, s.roca, good, bad, falsely, percent(falsely, good), missed, percent(missed, bad), each.Round(time.Microsecond))
}
