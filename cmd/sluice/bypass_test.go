package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"sluice/intercept/control"
)

// wayOut is a sluice-intercept that only knows bypasses.
type wayOut struct {
	mu   sync.Mutex
	list []control.Bypass
}

func (w *wayOut) Handle(_ context.Context, _ control.Peer, r *control.Request) (*control.Reply, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch r.Op {
	case control.OpBypass:
		r.Bypass.By, r.Bypass.Since = "uid 0, pid 1", now
		w.list = append(w.list, *r.Bypass)
	case control.OpBypassEnd:
		if r.Bypass != nil {
			return nil, control.Errorf(control.CodeInvalid, "there is none of %v", r.Bypass.Prefix)
		}
		w.list = nil
	case control.OpStatus:
		return &control.Reply{Status: &control.Status{Bypasses: w.list}}, nil
	default:
		return nil, fmt.Errorf("asked for %s", r.Op)
	}
	return nil, nil
}

// configAt writes a configuration whose control socket stands in its own folder.
func configAt(t *testing.T) (file, socket string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "sluice")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	file, socket = filepath.Join(dir, "sluice.toml"), filepath.Join(dir, "control.sock")
	text := fmt.Sprintf("[gateway]\nname = \"gw.example\"\n[intercept]\ncustomer_interfaces = [\"cust*\"]\nuplinks = [\"up0\"]\ncontrol_socket = %q\n[delivery]\nmode = \"own\"\n", socket)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file, socket
}

func TestBypassNeedsNoDaemon(t *testing.T) {
	t.Parallel()
	file, socket := configAt(t)
	l, err := control.Listen(socket, os.Getgid())
	if err != nil {
		t.Fatal(err)
	}
	w := &wayOut{}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	s := &control.Server{Handler: w, Allow: func(control.Peer) bool { return true }}
	go func() { done <- s.Serve(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	none := filepath.Join(t.TempDir(), "no-sluiced")
	for _, tc := range []struct {
		line string
		code int
		want string
	}{
		{"bypass status", 0, "no bypass is in force\n"},
		{"bypass on --for 30m --prefix 192.0.2.9 --reason stuck", 0, "bypass: new connections of 192.0.2.9/32 are forwarded unfiltered until "},
		{"bypass on --reason more", 0, "every source are forwarded unfiltered until off: more (uid 0, pid 1, since 12:00:00)"},
		{"bypass off --prefix 2001:db8::/64", exitFailed, "there is none of 2001:db8::/64"},
		{"bypass on", exitUsage, "--reason is missing"},
		{"bypass on --reason x --for 0s", exitUsage, "leave it out"},
		{"bypass on --reason x --prefix 192.0.2.1/24", exitUsage, "192.0.2.0/24"},
	} {
		code, out, errs := call(none, 0, append(strings.Fields(tc.line), "--config", file)...)
		if code != tc.code || !strings.Contains(out+errs, tc.want) {
			t.Errorf("%s: %d %s%s", tc.line, code, out, errs)
		}
	}
	w.mu.Lock()
	if len(w.list) != 2 || w.list[0].Prefix != netip.MustParsePrefix("192.0.2.9/32") || time.Until(w.list[0].Until).Round(time.Minute) != 30*time.Minute || !w.list[1].Until.IsZero() {
		t.Errorf("%+v", w.list)
	}
	w.mu.Unlock()
	if code, out, _ := call(none, 0, "bypass", "off", "--json", "--config", file); code != 0 || !json.Valid([]byte(out)) || strings.TrimSpace(out) != "[]" {
		t.Errorf("%d %s", code, out)
	}
}

// TestBypassWithoutHelper hands the command on to sluice-intercept's own.
func TestBypassWithoutHelper(t *testing.T) {
	file, socket := configAt(t)
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "sluice-intercept"), []byte("#!/bin/sh\necho \"alone: $*\"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	code, out, errs := call(socket, 0, "bypass", "on", "--reason", "all is lost", "--config", file)
	if code != 0 || out != "alone: bypass on --config "+file+" --reason all is lost\n" {
		t.Errorf("%d %s%s", code, out, errs)
	}
}
