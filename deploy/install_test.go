// Package deploy tests that installation puts every file where systemd and man look for it, and nothing in force.
package deploy

import (
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// install runs the script as `make install` does.
func install(t *testing.T, args ...string) string {
	t.Helper()
	out, err := exec.Command("../scripts/install", args...).CombinedOutput()
	if err != nil {
		t.Fatalf("install %q: %v\n%s", args, err, out)
	}
	return string(out)
}

// installed lists the files below dir.
func installed(t *testing.T, dir string) (files []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			files = append(files, strings.TrimPrefix(path, dir))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestInstallPutsFilesWhereTheyAreLookedFor(t *testing.T) {
	t.Parallel()
	dest := t.TempDir()
	out := install(t, dest, "/usr/local")
	want := []string{
		"/usr/local/lib/sysctl.d/60-sluice.conf",
		"/usr/local/lib/systemd/system/sluice-intercept.service",
		"/usr/local/lib/systemd/system/sluice-observe.service",
		"/usr/local/lib/systemd/system/sluiced.service",
		"/usr/local/lib/sysusers.d/sluice.conf",
		"/usr/local/lib/tmpfiles.d/sluice.conf",
		"/usr/local/share/doc/sluice/sluice.toml",
		"/usr/local/share/man/man5/sluice.toml.5",
		"/usr/local/share/man/man8/sluice-intercept.8",
		"/usr/local/share/man/man8/sluice-observe.8",
		"/usr/local/share/man/man8/sluice.8",
		"/usr/local/share/man/man8/sluiced.8",
	}
	if got := installed(t, dest); !slices.Equal(got, want) {
		t.Errorf("installed\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if !strings.Contains(out, "Nothing is attached and nothing runs") {
		t.Errorf("it does not say what to do next: %s", out)
	}
	for _, p := range []string{"sluiced", "sluice-intercept", "sluice-observe"} {
		unit := read(t, dest+"/usr/local/lib/systemd/system/"+p+".service")
		if !strings.Contains(unit, "\nExecStart=/usr/local/sbin/"+p+" ") || strings.Contains(unit, "/usr/sbin/") {
			t.Errorf("%s.service does not start the program below PREFIX:\n%s", p, unit)
		}
	}
}

func TestInstallKeepsTheConfiguration(t *testing.T) {
	t.Parallel()
	dest := t.TempDir()
	install(t, dest, "/usr")
	config := dest + "/etc/sluice/sluice.toml"
	if _, err := os.Stat(config); err == nil {
		t.Error("the first installation brings a configuration that fits no gateway; `sluice setup` is to write it")
	}
	if got := read(t, dest+"/usr/share/doc/sluice/sluice.toml"); got != read(t, "sluice.toml") {
		t.Error("the example is not the one of this tree")
	}
	if err := os.MkdirAll(filepath.Dir(config), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(config, []byte("mine\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{dest, "/usr"}, {"--remove", dest, "/usr"}} {
		install(t, args...)
		if got := read(t, config); got != "mine\n" {
			t.Errorf("install %q made %q of an operator's configuration", args, got)
		}
	}
	if got := installed(t, dest); !slices.Equal(got, []string{"/etc/sluice/sluice.toml"}) {
		t.Errorf("after removal there are still %v", got)
	}
}

func TestInstallRefusesARelativePrefix(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{{t.TempDir()}, {t.TempDir(), "usr"}, {t.TempDir(), "/"}} {
		if out, err := exec.Command("../scripts/install", args...).CombinedOutput(); err == nil || !strings.Contains(string(out), "usage:") {
			t.Errorf("install %q: %v %s", args, err, out)
		}
	}
}

// TestManualsShowAllTheirLines: troff leaves out a line that begins with a macro it does not know.
func TestManualsShowAllTheirLines(t *testing.T) {
	t.Parallel()
	pages, err := filepath.Glob("man/*.[58]")
	if err != nil || len(pages) < 5 {
		t.Fatalf("%d pages, %v", len(pages), err)
	}
	macro := regexp.MustCompile(`^\.(\\"|TH|SH|SS|TP|PP|IP|B|I|BR|BI|RI|RB|IR|RS|RE|br|nf|fi)( |$)`)
	for _, page := range pages {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for i, line := range strings.Split(string(text), "\n") {
			if (strings.HasPrefix(line, ".") || strings.HasPrefix(line, "'")) && !macro.MatchString(line) {
				t.Errorf("%s:%d would not be shown: %s", page, i+1, line)
			}
		}
	}
}
