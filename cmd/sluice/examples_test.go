package main

import (
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// TestExamplesWork: every command line that help and documentation show whole is one that the command takes.
func TestExamplesWork(t *testing.T) {
	t.Parallel()
	n := 0
	var walk func(*cobra.Command)
	walk = func(c *cobra.Command) {
		for line := range strings.Lines(c.Example) {
			n++
			if err := takes(strings.TrimSpace(line)); err != nil {
				t.Errorf("the help of %q says %q: %v", c.CommandPath(), strings.TrimSpace(line), err)
			}
		}
		for _, sub := range c.Commands() {
			walk(sub)
		}
	}
	walk(anyRoot())
	shown := regexp.MustCompile(`(?m)^(?:# |\$ )?(sluice .*)$`)
	for _, path := range texts(t, ".md") {
		blocks := strings.Split(read(t, path), "\n```")
		for i := 1; i < len(blocks); i += 2 {
			for _, m := range shown.FindAllStringSubmatch(blocks[i], -1) {
				n++
				if err := takes(m[1]); err != nil {
					t.Errorf("%s shows %q: %v", path, m[1], err)
				}
			}
		}
	}
	if n < 80 {
		t.Errorf("%d examples were found", n)
	}
}

// TestNamedCommandsExist: what messages, documentation and remedies name in passing, often without its arguments, is there.
func TestNamedCommandsExist(t *testing.T) {
	t.Parallel()
	quoted := regexp.MustCompile("`(sluice [^`%]+)`")
	raw := regexp.MustCompile("`sluice [^`]*\n\n[^`]*`") // a text of several paragraphs, in Go
	n := 0
	for _, path := range texts(t, ".md", ".go", ".toml", ".8", ".5") {
		if strings.Contains(path, "/scripts/") {
			continue
		}
		for _, m := range quoted.FindAllStringSubmatch(raw.ReplaceAllString(read(t, path), ""), -1) {
			line := strings.NewReplacer("\n", " ", `\n`, " ", `\-`, "-", "// ", "", " ... ", " list ").Replace(m[1])
			for _, one := range alternatives(line) {
				n++
				if err := exists(one); err != nil {
					t.Errorf("%s names %q: %v", path, line, err)
				}
			}
		}
	}
	if n < 150 {
		t.Errorf("%d commands were found", n)
	}
}

// anyRoot is the command as main makes it.
func anyRoot() *cobra.Command {
	root := (&program{screen: &screen{out: io.Discard}}).root()
	root.SetErr(io.Discard)
	return root
}

// texts are the files of the source tree with such endings, tests and what was built aside.
func texts(t *testing.T, endings ...string) (all []string) {
	t.Helper()
	err := filepath.WalkDir(filepath.Join("..", ".."), func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && slices.Contains([]string{".git", "bin", "out", "testdata"}, d.Name()):
			return filepath.SkipDir
		case slices.Contains(endings, filepath.Ext(path)) && !strings.HasSuffix(path, "_test.go"):
			all = append(all, path)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// takes says why a command line would be refused before anybody is asked.
func takes(line string) error {
	words, err := shellWords(line)
	if err != nil {
		return err
	}
	for _, one := range words {
		c, err := parsed(one)
		if err == nil {
			err = c.ValidateArgs(c.Flags().Args())
		}
		if err == nil {
			err = c.ValidateRequiredFlags()
		}
		if err == nil && !c.Runnable() {
			err = fmt.Errorf("%s does nothing by itself", c.CommandPath())
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// exists says which word of a command line, that may lack its end, there is not.
func exists(line string) error {
	words, err := shellWords(line)
	if err != nil {
		return err
	}
	for _, one := range words {
		c, err := parsed(one)
		if err != nil {
			return err
		}
		if args := c.Flags().Args(); len(args) > 0 {
			if err := c.ValidateArgs(args); err != nil && !strings.Contains(err.Error(), "missing") {
				return err
			}
		}
	}
	return nil
}

// parsed finds the command of a line without its first word and reads its flags.
func parsed(words []string) (*cobra.Command, error) {
	c, rest, err := anyRoot().Find(words)
	if err != nil {
		return nil, err
	}
	err = c.ParseFlags(rest)
	if err != nil && regexp.MustCompile(`needs an argument|invalid argument "[A-Z]+"|"[A-Z]+" is not |help requested`).MatchString(err.Error()) {
		err = nil // a flag is named without a value, or with a word for one
	}
	return c, err
}

var subcommand = regexp.MustCompile(`^[a-z]+(\|[a-z]+)+$`)

// alternatives makes of "queue list|show" both.
func alternatives(line string) []string {
	words := strings.Fields(line)
	for i, w := range words {
		if subcommand.MatchString(w) && i < 3 {
			var all []string
			for alternative := range strings.SplitSeq(w, "|") {
				all = append(all, strings.Join(append(append(slices.Clone(words[:i]), alternative), words[i+1:]...), " "))
			}
			return all
		}
	}
	return []string{line}
}

// shellWords splits the calls of sluice in a line of a shell into their words, without the first one.
func shellWords(line string) (all [][]string, err error) {
	var words []string
	end := func() {
		if len(words) > 0 && words[0] == "sluice" {
			all = append(all, words[1:])
		}
		words = nil
	}
	for rest := line; ; {
		rest = strings.TrimLeft(rest, " \t")
		switch {
		case rest == "" || rest[0] == '#':
			end()
			return all, nil
		case rest[0] == ';' || rest[0] == '|':
			end()
			rest = rest[1:]
			continue
		case rest[0] == '>': // and the file
			_, rest, _ = strings.Cut(strings.TrimLeft(rest[1:], " "), " ")
			continue
		}
		var word strings.Builder
		for rest != "" && !strings.ContainsRune(" \t;", rune(rest[0])) {
			if q := rest[0]; q == '"' || q == '\'' {
				text, after, closed := strings.Cut(rest[1:], string(q))
				if !closed {
					return nil, fmt.Errorf("the quotation %s does not end", rest)
				}
				word.WriteString(text)
				rest = after
				continue
			}
			word.WriteByte(rest[0])
			rest = rest[1:]
		}
		words = append(words, word.String())
	}
}
