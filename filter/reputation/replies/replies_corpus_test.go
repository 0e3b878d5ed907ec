package replies

import (
	"archive/tar"
	"bytes"
	"encoding/csv"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// sample is a reply with its class.
type sample struct {
	at    At
	code  int
	text  string
	class Class
	test  bool // kept aside while the rules were written
}

// corpusClasses are the classes of the corpus's reasons. Those that are not here are not of the four that are measured
// by themselves; a reply of theirs still counts when it is taken for one of the four.
var corpusClasses = map[string]Class{
	"userunknown": Unknown, "hostunknown": Unknown, "hasmoved": Unknown, "spamdetected": Spam, "toomanyconn": Rate, "speeding": Rate,
	"mailboxfull": Quota, "blocked": Blocked, "badreputation": Blocked, "authfailure": Policy, "policyviolation": Policy, "requireptr": Policy,
}

// corpusReplies reads the corpus's replies. Its reason is that of the whole bounce: where the reply at hand only follows
// from an earlier one ("need RCPT", "no valid recipients"), or is one of several, it need not be about this one, which is
// left out; so is "filtered", which names a place where a server refused, not a meaning. What a reply answers, which a gateway
// knows, stands in the bounce.
func corpusReplies(t *testing.T, dir string) (all []sample) {
	f, err := os.Open(filepath.Join(dir, "smtp-replies.csv"))
	if err != nil {
		t.Skipf("NOT RUN: the corpus is absent (%v); set SLUICE_CORPUS to its folder", err)
	}
	defer f.Close() //nolint // it was only read
	rows, err := csv.NewReader(f).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	lines := map[string]int{} // by bounce
	for _, r := range rows[1:] {
		lines[r[8]]++
	}
	bounces := corpusBounces(t, dir)
	for _, r := range rows[1:] {
		code, _ := strconv.Atoi(r[0])
		low := strings.ToLower(r[7])
		follows := strings.Contains(low, "need rcpt") || strings.Contains(low, "no valid recipients") || strings.Contains(low, "must precede") || strings.Contains(low, "were rejected with this")
		piece := len(r[7]) > 4 && r[7][3] == '-' && !strings.Contains(r[7], " "+r[0]+" ") && !strings.Contains(r[7], " "+r[0]+"-")
		if r[5] == "" || r[5] == "filtered" || follows || piece || lines[r[8]] > 1 {
			continue
		}
		c, ok := corpusClasses[r[5]]
		if !ok {
			c = Other
		}
		h := fnv.New32a()
		_, _ = h.Write([]byte(r[8]))
		all = append(all, sample{answered(bounces[r[8]]), code, r[7], c, h.Sum32()%10 >= 6})
	}
	return all
}

// corpusBounces reads the texts of the corpus's bounces by their files' names.
func corpusBounces(t *testing.T, dir string) map[string][]byte {
	out, err := exec.Command("zstd", "-dc", "--", filepath.Join(dir, "dsn.tar.zst")).Output()
	if errors.Is(err, exec.ErrNotFound) {
		t.Skip("NOT RUN: zstd is not installed, so the corpus cannot be read")
	}
	if err != nil {
		t.Fatal(err)
	}
	all := map[string][]byte{}
	for r := tar.NewReader(bytes.NewReader(out)); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		if all[path.Base(h.Name)], err = io.ReadAll(r); err != nil {
			t.Fatal(err)
		}
	}
}

// places are the words by which Postfix, Exim and Sendmail say in a bounce what the destination's reply answered.
var places = []struct {
	words *regexp.Regexp
	at    At
}{
	{regexp.MustCompile(`refused\s+to\s+talk\s+to\s+me|mailer\s+after\s+(initial\s+connection|EHLO|HELO)|server\s+after\s+(initial\s+connection|EHLO|HELO)|while talking to [^\n]*\n<<< [45]`), Greeting},
	{regexp.MustCompile(`in\s+reply\s+to\s+MAIL|(mailer|server)\s+after\s+MAIL|>>> MAIL[^\n]*\n<<< [45]`), Sender},
	{regexp.MustCompile(`in\s+reply\s+to\s+RCPT|(mailer|server)\s+after\s+RCPT|>>> RCPT[^\n]*\n<<< [45]`), Recipient},
	{regexp.MustCompile(`in\s+reply\s+to\s+(end\s+of\s+DATA|DATA)|(mailer|server)\s+after\s+(end\s+of\s+data|DATA)|>>> DATA[^\n]*\n<<< [45]`), Message},
}

// answered tells what the reply in a bounce answered; Anywhere where the bounce does not say, or names several.
func answered(bounce []byte) (at At) {
	for _, p := range places {
		if p.words.Match(bounce) {
			if at != Anywhere {
				return Anywhere
			}
			at = p.at
		}
	}
	return at
}

// TestRepliesOfTheCorpus: macro-F1 over unknown user, spam, rate and greylist on what was kept aside.
func TestRepliesOfTheCorpus(t *testing.T) {
	t.Parallel()
	dir := os.Getenv("SLUICE_CORPUS")
	if dir == "" {
		dir = filepath.Join("..", "..", "..", "..", "shared", "corpus")
	}
	all := corpusReplies(t, dir)
	for _, part := range []string{"train", "test"} {
		var some []sample
		for _, s := range all {
			if s.test == (part == "test") {
				some = append(some, s)
			}
		}
		f1, table := measure(t, some, os.Getenv("SLUICE_SHOW") == part)
		t.Logf("corpus, %s: %d replies, macro-F1 %.3f\n%s", part, len(some), f1, table)
		if part == "test" && f1 < 0.95 {
			t.Errorf("macro-F1 is %.3f on the test split, want at least 0.95", f1)
		}
	}
}

var measured = []Class{Unknown, Spam, Rate, Greylist}

// measure returns the macro-F1 of those of the four classes that occur.
func measure(t *testing.T, some []sample, show bool) (f1 float64, table string) {
	var hit, said, is [classes]int
	for _, s := range some {
		got := Shipped().Classify(s.at, s.code, s.text)
		said[got]++
		is[s.class]++
		if got == s.class {
			hit[got]++
		} else if show {
			t.Logf("%v, want %v: at %d: %d %s", got, s.class, s.at, s.code, s.text)
		}
		if got == Unknown && strings.Contains(s.text, "5.7.") && !strings.Contains(s.text, "5.1.") {
			t.Errorf("a 5.7.x is taken for an unknown user: %s", s.text)
		}
	}
	n := 0
	for _, c := range measured {
		if is[c] == 0 {
			continue
		}
		f := 2 * float64(hit[c]) / float64(said[c]+is[c])
		table += fmt.Sprintf("  %-9s %3d, found %3d, right %3d, F1 %.3f\n", c, is[c], said[c], hit[c], f)
		f1 += f
		n++
	}
	return f1 / float64(max(1, n)), table
}
