package walls

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// opinions are codes that stand in the log alone: no client hears them, so they need no page.
var opinions = map[string]bool{"LEARNED": true, "MANUAL": true, "AUTH-GUESS": true, "MILTER-CHANGES": true, "OUT-CUT": true}

// TestCodesHavePages: each public code that a check may put into a reply has a page, which the reply links to (gateway.help_url).
func TestCodesHavePages(t *testing.T) {
	t.Parallel()
	root := filepath.Join("..", "..")
	code := regexp.MustCompile(`(?:Code:\s*|Code[A-Z]\w+\s*=\s*|lockedCode = |: )"([A-Z][A-Z]+(?:-[A-Z]+)*)"`)
	found := 0
	for _, dir := range []string{"filter", "proxy"} {
		err := filepath.WalkDir(filepath.Join(root, dir), func(path string, d os.DirEntry, err error) error {
			if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
				return err
			}
			text, err := os.ReadFile(path)
			for line := range strings.SplitSeq(string(text), "\n") {
				if !strings.Contains(line, "Code") && !strings.Contains(line, "RATE-") {
					continue
				}
				for _, m := range code.FindAllStringSubmatch(line, -1) {
					found++
					if _, err := os.Stat(filepath.Join(root, "docs", "codes", m[1]+".md")); err != nil && !opinions[m[1]] {
						t.Errorf("%s: the code %s has no page; write docs/codes/%s.md", path, m[1], m[1])
					}
				}
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if found < 20 {
		t.Errorf("%d codes were found only: the test looks at the wrong places", found)
	}
}
