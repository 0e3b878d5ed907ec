package main

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sluice/cmd/internal/api"
	"sluice/cmd/internal/backup"
	"sluice/cmd/internal/store"
)

// TestBackupKnowsAllThatIsKept: whatever sluiced keeps in store.dir either is in a backup or is known not to be, and what the
// configuration names is in it.
func TestBackupKnowsAllThatIsKept(t *testing.T) {
	t.Parallel()
	if backup.Schema != store.SchemaVersion() {
		t.Errorf("backups know the database's version %d, the store writes %d", backup.Schema, store.SchemaVersion())
	}
	g := newGateway(t, "")
	roots, key := filepath.Join(g.dir, "roots.pem"), filepath.Join(g.dir, "held.key")
	if err := os.Link(g.file(), roots); err != nil {
		t.Fatal(err)
	}
	g.configure("[tls]\nca_domains = [\"customer.example\"]\n[tls.acme]\nroots = \"" + roots + "\"\n[quarantine]\nkey_file = \"" + key + "\"\n")
	stray, younger := filepath.Join(g.dir, "store", gathering+"1"), filepath.Join(g.dir, "store", gathering+"2")
	for _, dir := range []string{stray, younger} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chtimes(stray, time.Now(), time.Now().Add(-time.Hour)); err != nil {
		t.Fatal(err)
	}
	g.start()
	defer g.end()
	for path, gone := range map[string]bool{stray: true, younger: false} {
		if _, err := os.Stat(path); os.IsNotExist(err) != gone {
			t.Errorf("%s: %v", path, err)
		}
	}
	var keys []api.DKIMKey
	if err := g.api.Do(context.Background(), "POST", "/v1/dkim", map[string]any{"domain": "customer.example", "type": "both"}, &keys); err != nil {
		t.Fatal(err)
	}
	list, err := os.ReadDir(filepath.Join(g.dir, "store"))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range list {
		if !backup.Holds(e.Name()) && !backup.Leaves(e.Name()) {
			t.Errorf("nobody has decided whether a backup has %s", e.Name())
		}
	}
	var b bytes.Buffer
	if err := g.api.Fetch(context.Background(), "/v1/backup", &b); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(g.dir, "gw.sluice")
	if err := os.WriteFile(file, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := backup.Look(file)
	if err != nil {
		t.Fatal(err)
	}
	var paths []string
	for _, f := range c.Files {
		paths = append(paths, strings.TrimPrefix(f.Path, g.dir))
	}
	if want := "/held.key /roots.pem /sluice.toml"; strings.Join(paths, " ") != want {
		t.Errorf("of the configuration it has %q, want %q", paths, want)
	}
	want := map[string]int{"configuration and the files that it names": 3, "keys that sign mail (DKIM)": 2, "users, settings, logins, tokens, locks, rules, audit log": 1, "certificates and authorities, with their keys": 2}
	for _, p := range c.Parts {
		if n, ok := want[p.What]; ok && p.Files != n || p.Left && p.Files != 0 {
			t.Errorf("%s: %d files, want %d", p.What, p.Files, n)
		}
	}
	if left, err := filepath.Glob(filepath.Join(g.dir, "store", gathering+"*")); err != nil || len(left) != 1 {
		t.Errorf("the backup left %q, %v", left, err)
	}
}
