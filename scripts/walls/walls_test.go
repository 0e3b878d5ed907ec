// Package walls holds the tree to its rules: who may import whom, and that every package says what it is.
package walls

import (
	"bytes"
	"encoding/json"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// pkg is the part of `go list -json` that the walls look at.
type pkg struct {
	ImportPath string
	Dir        string
	GoFiles    []string
	Imports    []string
	Deps       []string
}

// wall says what the packages of a tree may import of ours. A pattern ending in /... covers the folder below it too.
type wall struct {
	tree    []string // packages the wall stands around
	except  []string // packages inside tree that another wall covers
	allow   []string // what they may import, beside themselves
	because string
}

var walls = []wall{
	{
		tree:    []string{"bpf", "bpf/model", "intercept/flow", "intercept/control", "proxy/smtp", "proxy/durable", "proxy/tlspolicy", "cmd/internal/config", "cmd/internal/textlog"},
		because: "leaves import nothing of ours, so that everybody may import them",
	},
	{
		tree: []string{"filter/policy", "filter/message"}, allow: []string{"intercept/flow"},
		because: "what a check may see depends on the flow alone",
	},
	{
		tree: []string{"intercept", "intercept/..."}, except: []string{"intercept/flow", "intercept/control", "intercept/observe"},
		allow:   []string{"bpf", "intercept/..."},
		because: "the privileged side must not link code that parses what strangers send",
	},
	{
		tree: []string{"intercept/observe"}, allow: []string{"bpf", "intercept/...", "proxy/smtp"},
		because: "the passive path reads dialogues but decides nothing",
	},
	{
		tree: []string{"filter", "filter/..."}, except: []string{"filter/policy", "filter/message"},
		allow:   []string{"filter", "filter/...", "intercept/flow"},
		because: "the filter builds and tests without root, kernel or network",
	},
	{
		tree: []string{"proxy", "proxy/..."}, except: []string{"proxy/smtp", "proxy/durable", "proxy/probe", "proxy/tlspolicy"},
		allow: []string{"filter", "filter/message", "filter/policy", "filter/sign", "filter/reputation/replies", "intercept/flow",
			"proxy", "proxy/..."},
		because: "the proxy asks the filter through its pipeline only, and builds on any machine",
	},
	{
		tree: []string{"cmd/internal/panel"}, allow: []string{"cmd/internal/api", "filter", "filter/...", "proxy", "proxy/...", "intercept/flow", "intercept/control"},
		because: "the panel stands on the API",
	},
	{
		tree: []string{"cmd/internal/..."}, except: []string{"cmd/internal/panel", "cmd/internal/config"},
		allow:   []string{"filter", "filter/...", "proxy", "proxy/...", "intercept/flow", "intercept/control"},
		because: "adapters do not know each other; cmd/sluiced wires them",
	},
	{
		tree: []string{"cmd/sluiced"},
		allow: []string{"filter", "filter/...", "proxy", "proxy/...", "cmd/internal/...", "intercept/flow",
			"intercept/control", "docs/codes"},
		because: "the process that parses strangers' bytes must not hold the code that sets the kernel",
	},
	{
		tree: []string{"cmd/sluice-intercept"}, allow: []string{"bpf", "intercept", "intercept/...", "cmd/internal/config", "cmd/internal/textlog"},
		because: "the privileged helper stays small and parses nothing that a stranger sends",
	},
	{
		tree: []string{"cmd/sluice-observe"}, allow: []string{"bpf", "intercept", "intercept/...", "proxy/smtp", "cmd/internal/config", "cmd/internal/textlog"},
		because: "the observer reads, reports, and decides nothing",
	},
	{
		tree: []string{"cmd/sluice"}, allow: []string{"cmd/internal/api", "cmd/internal/backup", "cmd/internal/config", "intercept/control", "intercept/ruleset", "proxy/durable", "proxy/probe",
			"filter", "filter/message", "filter/policy", "filter/content", "filter/content/...", "filter/campaign", "intercept/flow"},
		because: "the operator's command asks the daemons; of the host it looks at what any program may see, and files of mail it judges with the gateway's own code",
	},
}

func TestImports(t *testing.T) {
	t.Parallel()
	for _, p := range list(t) {
		name := strings.TrimPrefix(p.ImportPath, "sluice/")
		for _, w := range walls {
			if !matches(w.tree, name) || matches(w.except, name) {
				continue
			}
			for _, d := range p.Deps {
				dep, ours := strings.CutPrefix(d, "sluice/")
				if ours && dep != name && !matches(w.allow, dep) {
					t.Errorf("%s imports %s, directly or not: %s", name, dep, w.because)
				}
			}
		}
	}
}

// TestContentIsReadWithoutExpressions: what looks at the content of every message finds literal text, which costs the same whatever
// the message holds; a regular expression would need a literal search in front of it.
func TestContentIsReadWithoutExpressions(t *testing.T) {
	t.Parallel()
	readers := []string{"filter/content", "filter/content/...", "filter/campaign", "filter/habit", "filter/scanner"}
	seen := 0
	for _, p := range list(t) {
		if !matches(readers, strings.TrimPrefix(p.ImportPath, "sluice/")) {
			continue
		}
		seen++
		if slices.Contains(p.Imports, "regexp") {
			t.Errorf("%s imports regexp: search for a literal text instead", p.ImportPath)
		}
	}
	if seen < 8 {
		t.Errorf("%d packages read content: some have moved", seen)
	}
}

func TestEveryPackageOpensWithASentence(t *testing.T) {
	t.Parallel()
	sentence := regexp.MustCompile(`^(Package|Command) [\w-]+ [a-z][^.]+\.(\s|$)`)
	for _, p := range list(t) {
		if strings.Contains(p.Dir, "/testdata/") {
			continue
		}
		var docs []string
		for _, f := range p.GoFiles {
			file, err := parser.ParseFile(token.NewFileSet(), filepath.Join(p.Dir, f), nil, parser.ParseComments|parser.PackageClauseOnly)
			if err != nil {
				t.Fatal(err)
			}
			if doc := packageDoc(file); doc != "" {
				docs = append(docs, doc)
			}
		}
		switch {
		case len(p.GoFiles) == 0: // tests only: the test file's comment is for its reader
		case len(docs) != 1:
			t.Errorf("%s has %d package comments, want exactly one true sentence", p.ImportPath, len(docs))
		case !sentence.MatchString(docs[0]):
			t.Errorf("%s opens with %q, want \"Package <name> <does what>.\"", p.ImportPath, strings.SplitN(docs[0], "\n", 2)[0])
		}
	}
}

func packageDoc(f *ast.File) string {
	if f.Doc == nil {
		return ""
	}
	return strings.TrimSpace(f.Doc.Text())
}

func matches(patterns []string, name string) bool {
	for _, p := range patterns {
		if dir, ok := strings.CutSuffix(p, "/..."); ok && strings.HasPrefix(name, dir+"/") || p == name {
			return true
		}
	}
	return false
}

// list returns every package of the module with its transitive imports.
func list(t *testing.T) []pkg {
	t.Helper()
	out, err := exec.Command("go", "list", "-json=ImportPath,Dir,GoFiles,Imports,Deps", "sluice/...").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	var all []pkg
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var p pkg
		if err := dec.Decode(&p); err == io.EOF {
			return all
		} else if err != nil {
			t.Fatalf("go list's answer: %v", err)
		}
		all = append(all, p)
	}
}
