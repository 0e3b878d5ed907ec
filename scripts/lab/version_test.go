//go:build labtest

package lab

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
)

// moduleDir is the root of the module that is tested.
func moduleDir(t *testing.T) string {
	t.Helper()
	out, err := exec.Command("go", "env", "GOMOD").Output()
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Dir(strings.TrimSpace(string(out)))
}

// others are the changes that make the kernel programs' headers those of a version to come: another LAYOUT, members before the
// others in sources, locks and the configuration, a larger table, and a map more.
var others = map[string][][2]string{
	"sluice.h": {
		{`\tLAYOUT = \d+,`, "\tLAYOUT = 4711,"},
		{`\nstruct source \{\n`, "\nstruct source {\n\t__u32 since;\n"},
		{`\nstruct lock \{\n`, "\nstruct lock {\n\t__u64 since_ns;\n"},
		{`\nstruct config \{\n`, "\nstruct config {\n\t__u64 since_ns;\n"},
	},
	"maps.h": {
		{`4096\);(\s+__type\(key, struct net_key\);\s+__type\(value, __u32\);\s+\} lock_exempt)`, "8192);$1"},
		{`\n#endif\n$`, `
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16);
	__type(key, __u32);
	__type(value, __u64);
} novelty SEC(".maps");

#endif
`},
	},
}

// otherText is a source file of that version.
func otherText(t *testing.T, name, text string) string {
	t.Helper()
	for _, change := range others[name] {
		re := regexp.MustCompile(change[0])
		if len(re.FindAllString(text, -1)) != 1 {
			t.Fatalf("%s has not one %q: the other version cannot be made of it", name, change[0])
		}
		text = re.ReplaceAllString(text, change[1])
	}
	return text
}

// other is that helper, built once for all tests of the process.
var other struct {
	sync.Mutex
	dir, path string
}

func removeOther() {
	if other.dir != "" {
		_ = os.RemoveAll(other.dir) // in the folder for temporary files
	}
}

// otherVersion builds a helper whose kernel maps look different, from the same sources but for two headers, and returns
// its path.
func otherVersion(t *testing.T) string {
	t.Helper()
	other.Lock()
	defer other.Unlock()
	if other.path != "" {
		return other.path
	}
	root := moduleDir(t)
	dir, err := os.MkdirTemp("", "sluice-other") // outlives this test: TestMain removes it
	if err != nil {
		t.Fatal(err)
	}
	other.dir = dir
	sources, err := filepath.Glob(filepath.Join(root, "bpf/*.[ch]"))
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range sources {
		b, err := os.ReadFile(s)
		if err != nil {
			t.Fatal(err)
		}
		name := filepath.Base(s)
		if err := os.WriteFile(filepath.Join(dir, name), []byte(otherText(t, name, string(b))), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	run := func(args ...string) {
		t.Helper()
		cmd := exec.CommandContext(ctx, args[0], args[1:]...)
		cmd.Dir, cmd.Env = filepath.Join(root, "bpf"), append(os.Environ(), "GOPACKAGE=bpf", "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v: %v\n%s", args, err, out)
		}
	}
	gen, err := os.ReadFile(filepath.Join(root, "bpf/gen.go"))
	if err != nil {
		t.Fatal(err)
	}
	overlay := map[string]string{}
	for line := range strings.Lines(string(gen)) {
		text, ok := strings.CutPrefix(strings.TrimSpace(line), "//go:generate go tool bpf2go ")
		if !ok || !strings.Contains(text, " mail mail.bpf.c ") {
			continue
		}
		text = strings.Replace(text, "mail.bpf.c", filepath.Join(dir, "mail.bpf.c"), 1)
		run(append([]string{"go", "tool", "bpf2go", "-output-dir", dir}, strings.Fields(text)...)...)
		for _, f := range []string{"mail_bpfel.go", "mail_bpfel.o"} {
			overlay[filepath.Join(root, "bpf", f)] = filepath.Join(dir, f)
		}
	}
	b, err := json.Marshal(map[string]any{"Replace": overlay})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "overlay.json"), b, 0o600); err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(dir, "sluice-intercept")
	run("go", "build", "-overlay", filepath.Join(dir, "overlay.json"), "-ldflags", "-X main.version=other", "-o", out, "sluice/cmd/sluice-intercept")
	other.path = out
	return out
}

// helperVersions are the paths of two helpers: the one on the gateway, and another version.
func helperVersions(t *testing.T, g *Gateway) [2]string {
	t.Helper()
	own := filepath.Join(t.TempDir(), "sluice-intercept")
	if err := copyProgram(g.bin("sluice-intercept"), own); err != nil {
		t.Fatal(err)
	}
	return [2]string{own, otherVersion(t)}
}

// installHelper puts a helper in the place of the gateway's, as an upgrade does.
func (g *Gateway) installHelper(path string) error {
	if err := copyProgram(path, g.bin("sluice-intercept")); err != nil {
		return fmt.Errorf("could not install another helper: %w", err)
	}
	return nil
}
