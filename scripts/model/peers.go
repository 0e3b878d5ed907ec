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
	"slices"
	"strconv"
	"strings"
	"time"
)

// peers measures filters that people use today on the same messages, where this machine has them: bogofilter trained on
// the same mail, SpamAssassin and Rspamd with the rules that need no network.
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
	}{{"bogofilter", "bogofilter", bogofilter}, {"SpamAssassin, local rules", "spamassassin", spamAssassin}, {"Rspamd, local rules", "unshare", rspamd}} {
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
	out, err := cmd.Output()
	if len(out) == 0 && err != nil { // its exit code is a verdict
		return err
	}
	each := processorTimeOf(cmd) / time.Duration(len(test))
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

// assassinSays finds scores, and behind each the name of its message: mailboxes are judged in the order of dates.
var assassinSays = regexp.MustCompile(`(?m)^(?:X-Spam-Status: \w+, score=(-?[0-9.]+)|X-Bench-File: (\S+))`)

// spamAssassin judges a sample in one process, since it takes a tenth of a second and more for each message, and as much again
// to start.
func spamAssassin(w io.Writer, dir string, _, test []*letter, _ map[*letter]string) error {
	const every = 10
	var sample []*letter
	var box bytes.Buffer
	for i := 0; i < len(test); i += every {
		sample = append(sample, test[i])
		fmt.Fprintf(&box, "From x@example.net Mon Jan  1 00:00:00 2024\nX-Bench-File: %s\n", test[i].file)
		for line := range bytes.SplitSeq(bytes.ReplaceAll(test[i].data, []byte("\r\n"), []byte("\n")), []byte("\n")) {
			if bytes.HasPrefix(line, []byte("From ")) {
				box.WriteByte('>')
			}
			box.Write(append(line, '\n'))
		}
		box.WriteByte('\n')
	}
	path := filepath.Join(dir, "sample.mbox")
	if err := os.WriteFile(path, box.Bytes(), 0o600); err != nil {
		return err
	}
	cmd := exec.Command("spamassassin", "-L", "--nocreate-prefs", "--mbox", path)
	out, err := cmd.Output()
	if err != nil {
		return err
	}
	scores := map[string]float64{}
	score := 0.0
	for _, m := range assassinSays.FindAllSubmatch(out, -1) {
		if len(m[2]) > 0 {
			scores[string(m[2])] = score
		} else {
			score, _ = strconv.ParseFloat(string(m[1]), 64)
		}
	}
	if len(scores) != len(sample) {
		return fmt.Errorf("it judged %d of %d messages", len(scores), len(sample))
	}
	printPeer(w, fmt.Sprintf("SpamAssassin -L, every %dth", every), sample, scores, 5, processorTimeOf(cmd)/time.Duration(len(sample)))
	return nil
}

// processorTimeOf is what a program that has ended took.
func processorTimeOf(cmd *exec.Cmd) time.Duration {
	return cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
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
	defer printPeerKinds(w, all, threshold)
	fmt.Fprintf(w, "%-34s 1-ROCA %.4f %% of %d good, %d bad; at its threshold good called bad %d (%.2f %%), bad called good %d (%.1f %%); bad missed where 0.3 / 0.1 %% of good is called bad: %.1f / %.1f %%; %v of processor time each\n",
		name, s.roca, good, bad, falsely, percent(falsely, good), missed, percent(missed, bad), s.missed[0], s.missed[1], each.Round(time.Microsecond))
}

// printPeerKinds prints how many of each kind a peer calls bad.
func printPeerKinds(w io.Writer, all []scored, threshold float64) {
	type cell struct{ n, bad int }
	kinds := map[string]*cell{}
	var names []string
	for _, x := range all {
		k := x.label + "  " + x.source + ", " + x.kind
		if kinds[k] == nil {
			kinds[k] = &cell{}
			names = append(names, k)
		}
		kinds[k].n++
		if x.z >= threshold {
			kinds[k].bad++
		}
	}
	slices.Sort(names)
	for _, k := range names {
		fmt.Fprintf(w, "  %-48s %6d %8d called bad (%5.1f %%)\n", k, kinds[k].n, kinds[k].bad, percent(kinds[k].bad, kinds[k].n))
	}
}
