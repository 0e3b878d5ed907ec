package walls

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// driving are the folders whose tests run the programs, or a whole one in the test's process.
var driving = []string{"scripts/lab/", "scripts/containment/", "cmd/"}

// TestFeaturesNameTests: what docs/features.md says drives a feature is there, and a row stands only by a test that runs the programs.
func TestFeaturesNameTests(t *testing.T) {
	t.Parallel()
	root := filepath.Join("..", "..")
	doc, err := os.ReadFile(filepath.Join(root, "docs", "features.md"))
	if err != nil {
		t.Fatal(err)
	}
	there := map[string]string{} // in which file
	declared := regexp.MustCompile(`(?m)^func (Test\w+)\(`)
	err = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		text, err := os.ReadFile(path)
		for _, m := range declared.FindAllSubmatch(text, -1) {
			name := filepath.ToSlash(strings.TrimPrefix(path, root+string(filepath.Separator)))
			if old := there[string(m[1])]; old == "" || !drives(old) {
				there[string(m[1])] = name
			}
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	named := regexp.MustCompile("`(Test\\w+)`").FindAllSubmatch(doc, -1)
	if len(named) < 50 {
		t.Errorf("the table names %d tests only", len(named))
	}
	for _, m := range named {
		if there[string(m[1])] == "" {
			t.Errorf("docs/features.md names %s, which is not there", m[1])
		}
	}
	row := regexp.MustCompile(`(?m)^\| ([A-Z]{3}[0-9]+) [^|]*\| *stands[^|]*\|(.*)$`)
	rows := row.FindAllSubmatch(doc, -1)
	if len(rows) < 50 {
		t.Errorf("only %d rows stand", len(rows))
	}
	for _, r := range rows {
		is := strings.Contains(string(r[2]), "scenario")
		for _, m := range regexp.MustCompile("`(Test\\w+)`").FindAllSubmatch(r[2], -1) {
			is = is || drives(there[string(m[1])])
		}
		if !is {
			t.Errorf("%s stands by no test that runs the programs", r[1])
		}
	}
}

func drives(file string) bool {
	return slices.ContainsFunc(driving, func(dir string) bool { return strings.HasPrefix(file, dir) })
}
