package main

import (
	"fmt"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"sluice/cmd/internal/api"
)

func TestDoctorOfTheHelper(t *testing.T) {
	t.Parallel()
	sound := func() *api.Helper {
		return &api.Helper{Connected: true, Version: version, Path: "tcx", PathReason: "tried", Heartbeat: "alive",
			Interfaces: []api.Interface{{Name: "cust0", Role: "customer", Path: "tcx"}, {Name: "up0", Role: "uplink", Path: "tcx"}}}
	}
	for _, f := range helperFindings(sound()) {
		if f.State != api.OK || f.Remedy != "" {
			t.Errorf("of a sound helper: %+v", f)
		}
	}
	for _, tt := range []struct {
		change             func(*api.Helper)
		check, state, text string
		n                  int
	}{
		{func(h *api.Helper) { h.Connected, h.Error = false, "no such file" }, "sluice-intercept", api.Fail, "not connected: no such file", 1},
		{func(h *api.Helper) { h.Version = "other" }, "versions", api.Warn, "sluice-intercept other", 1},
		{func(h *api.Helper) { h.Heartbeat = "stale" }, "heartbeat", api.Fail, "stale", 1},
		{func(h *api.Helper) { h.Interfaces = h.Interfaces[:1] }, "attached", api.Fail, "the guard does not stand", 1},
		{func(h *api.Helper) { h.Interfaces = h.Interfaces[1:] }, "attached", api.Fail, "no customer interface", 1},
		{func(h *api.Helper) {
			for i := range 4000 {
				h.Interfaces = append(h.Interfaces, api.Interface{Name: fmt.Sprintf("port%d", i), Role: "customer", Error: "a port of br0"})
			}
		}, "interfaces", api.Fail, "3995 more are not attached", 6},
		{func(h *api.Helper) { h.Bypasses = []api.Bypass{{Prefix: "192.0.2.0/24", Reason: "stuck"}} }, "bypass", api.Warn, "mail of 192.0.2.0/24", 1},
		{func(h *api.Helper) { h.Problems = []string{"rule 50 comes before ours"} }, "sluice-intercept", api.Warn, "rule 50", 1},
	} {
		h := sound()
		tt.change(h)
		bad, found := 0, false
		for _, f := range helperFindings(h) {
			if f.State == api.OK {
				continue
			}
			bad++
			found = found || f.Check == tt.check && f.State == tt.state && strings.Contains(f.Text, tt.text) && f.Remedy != ""
		}
		if !found || bad != tt.n {
			t.Errorf("want %s %s %q among %d: %+v", tt.check, tt.state, tt.text, tt.n, helperFindings(h))
		}
	}
}

func TestDoctorReadsCounters(t *testing.T) {
	t.Parallel()
	if fs := countFindings(map[string]uint64{"intercept": 7, "asymmetric": 0}); len(fs) != 0 {
		t.Errorf("nothing is wrong, but %+v", fs)
	}
	fs := countFindings(map[string]uint64{"asymmetric": 3, "assign_failed": 1})
	if len(fs) != 2 || fs[0].Check != "asymmetric routes" || !strings.HasPrefix(fs[0].Text, "3 answers") || fs[1].State != api.Warn || fs[1].Remedy == "" {
		t.Errorf("%+v", fs)
	}
}

func TestDoctorLooksAtRoomAndFiles(t *testing.T) {
	t.Parallel()
	if f := openFiles(1 << 40); f.State != api.Warn || !strings.Contains(f.Remedy, "LimitNOFILE=") {
		t.Errorf("%+v", f)
	}
	if f := openFiles(1); f.State != api.OK {
		t.Errorf("%+v", f)
	}
	seen := map[unix.Fsid]string{}
	dir := t.TempDir()
	if f, again := disk(dir, seen); again || f.Check != "disk "+dir || !strings.Contains(f.Text, "MiB free") {
		t.Errorf("%+v %v", f, again)
	}
	if _, again := disk(dir, seen); !again {
		t.Error("one file system is told twice")
	}
	if f, _ := disk(dir+"/none", seen); f.State != api.Fail || f.Remedy == "" {
		t.Errorf("%+v", f)
	}
}
