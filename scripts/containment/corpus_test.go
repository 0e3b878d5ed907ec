package containment

import (
	"archive/tar"
	"bytes"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
)

// letters are the texts that are sent.
type letters struct {
	good, bad [][]byte // whole messages, header and all
	source    string
}

// mostOfLetter is how much of a message is used: the oracle does not read it, and the rules look at beginnings.
const mostOfLetter = 8 << 10

// ownField is what the customers' servers write, who take it out of what they are handed in: one letter has it.
var ownField = regexp.MustCompile(`(?im)^X-AuthUser:.*\r\n`)

// theLetters reads the corpus once for all scenarios. Where it is absent texts are made up: enough for the rules, not for
// the learned filter.
var theLetters = sync.OnceValue(func() *letters {
	dir := os.Getenv("SLUICE_CORPUS")
	if dir == "" {
		dir = filepath.Join("..", "..", "..", "shared", "corpus")
	}
	l, err := readLetters(dir)
	if err != nil {
		l = madeUp()
		l.source = fmt.Sprintf("made-up texts, since the corpus is absent (%v)", err)
	}
	return l
})

// readLetters reads the corpus's test split as an outbound filter would see it.
func readLetters(dir string) (*letters, error) {
	f, err := os.Open(filepath.Join(dir, "index.csv"))
	if err != nil {
		return nil, err
	}
	defer f.Close() //nolint // it was only read
	rows, err := csv.NewReader(f).ReadAll()
	if err != nil {
		return nil, err
	}
	bad := map[string]bool{} // by file
	for _, r := range rows[1:] {
		if r[5] == "test" && r[6] == "1" {
			bad[r[0]] = r[1] != "ham"
		}
	}
	cmd := exec.Command("zstd", "-dc", "--", filepath.Join(dir, "mail.tar.zst"))
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	l := &letters{}
	for t := tar.NewReader(out); ; {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
		name, ok := strings.CutPrefix(strings.TrimPrefix(h.Name, "./"), "sub/")
		is, known := bad[name]
		if !ok || !known {
			continue
		}
		b, err := io.ReadAll(io.LimitReader(t, mostOfLetter))
		if err != nil {
			return nil, err
		}
		b = bytes.ReplaceAll(bytes.ReplaceAll(b, []byte("\r\n"), []byte("\n")), []byte("\n"), []byte("\r\n"))
		b = ownField.ReplaceAll(b, nil)
		if is {
			l.bad = append(l.bad, b)
		} else {
			l.good = append(l.good, b)
		}
	}
	l.source = fmt.Sprintf("the corpus's test split: %d good and %d bad messages", len(l.good), len(l.bad))
	return l, cmd.Wait()
}

// madeUp writes texts of made-up words.
func madeUp() *letters {
	rnd := rand.New(rand.NewPCG(4, 2))
	l := &letters{}
	for i := range 1600 {
		var b strings.Builder
		fmt.Fprintf(&b, "Subject: letter %d\r\n\r\n", i)
		for range 80 + rnd.IntN(120) {
			for range 2 + rnd.IntN(3) {
				b.WriteString([]string{"ba", "ce", "di", "fo", "gu", "la", "ne", "ro", "su", "ti"}[rnd.IntN(10)])
			}
			b.WriteByte(' ')
		}
		b.WriteString("\r\n")
		if i%2 == 0 {
			l.good = append(l.good, []byte(b.String()))
		} else {
			l.bad = append(l.bad, []byte(b.String()))
		}
	}
	return l
}
