package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sluice/cmd/internal/api"
	"sluice/intercept/control"
)

const modesConfig = `
[[mode]]
prefix = "192.0.2.0/24"
mode = "observe"
reason = "roll-out"
[[exempt]]
prefix = "198.51.100.0/28"
mode = "reject"
reason = "a trap"
[[user]]
name = "alice"
prefixes = ["127.0.0.0/8", "192.0.2.0/28"]
[[user]]
name = "carol"
prefixes = ["192.0.2.128/28"]
mode = "intercept"
fail = "closed"
`

// withHelper starts a gateway with a helper that has no kernel.
func withHelper(t *testing.T, extra string) (*gateway, *fakeHelper) {
	t.Helper()
	g := newGateway(t, extra)
	f, port := g.socket()
	h := &fakeHelper{path: filepath.Join(g.dir, "control.sock"), port: port, heartbeat: memory(t)}
	h.start(t, f)
	t.Cleanup(func() { h.stop(t); f.Close() })
	g.run(nil, 0)
	waitFor(t, func() bool { return get[api.Status](g, "/v1/status").Accepting })
	return g, h
}

// ask sends a request that has to be refused with a status and a text, or to succeed where status is 0.
func ask(g *gateway, method, path string, in any, status int, text string) {
	g.t.Helper()
	err := g.api.Do(context.Background(), method, path, in, nil)
	var p *api.Problem
	switch {
	case status == 0 && err != nil:
		g.t.Errorf("%s %s: %v", method, path, err)
	case status != 0 && (!errors.As(err, &p) || p.Status != status || !strings.Contains(p.Error(), text)):
		g.t.Errorf("%s %s: %v, want %d with %q", method, path, err, status, text)
	}
}

func setMode(g *gateway, prefix, mode string, status int, text string) {
	g.t.Helper()
	ask(g, "POST", "/v1/modes", api.ModeRequest{Prefix: prefix, Mode: mode, Reason: "ticket 4711"}, status, text)
}

// TestModesAtRunTime: a rule is in the kernel, in the store and in the proxy's own view, or nowhere.
func TestModesAtRunTime(t *testing.T) {
	t.Parallel()
	g, h := withHelper(t, modesConfig)
	if s := h.source("192.0.2.0/24"); s.User != 0 || s.Mode != control.Observe {
		t.Errorf("the configured mode was told as %+v", s)
	}
	if s := h.source("192.0.2.128/28"); s.User == 0 || s.Mode != control.Intercept || s.Fail != control.Closed {
		t.Errorf("a user's own mode was told as %+v", s)
	}
	setMode(g, "192.0.2.0/26", "shadow", 0, "")
	if s := h.source("192.0.2.0/26"); s.User != 0 || s.Mode != control.Shadow {
		t.Errorf("the rule was told as %+v", s)
	}
	setMode(g, "192.0.2.0/28", "intercept", 0, "") // exactly a user's prefix
	if s := h.source("192.0.2.0/28"); s.User == 0 || s.Mode != control.Intercept {
		t.Errorf("the rule at a user's prefix was told as %+v", s)
	}
	for addr, want := range map[string]string{"192.0.2.1": "intercept run-time", "192.0.2.20": "shadow run-time", "192.0.2.99": "observe config", "192.0.2.129": "intercept user", "203.0.113.1": "intercept default"} {
		m := get[api.Mode](g, "/v1/modes/"+addr)
		if got := m.Mode + " " + m.Origin; got != want {
			t.Errorf("%s has %s, want %s", addr, got, want)
		}
	}
	if f := g.flowFrom("192.0.2.20"); !g.daemon.shadowed(&f) {
		t.Error("the proxy does not know of the rule")
	}
	// Refusals change nothing.
	setMode(g, "192.0.2.128/30", "shadow", http.StatusForbidden, "intercept.runtime_loosen")
	setMode(g, "127.0.0.0/8", "pass", http.StatusForbidden, "127.0.0.0/8")
	h.mu.Lock()
	h.refuse = control.Errorf(control.CodeInvalid, "could not do that: the path nftables has no such mode; use another")
	h.mu.Unlock()
	setMode(g, "192.0.2.0/26", "drop", http.StatusConflict, "no such mode; use another")
	h.mu.Lock()
	h.refuse = nil
	h.mu.Unlock()
	ask(g, "DELETE", "/v1/modes/192.0.2.0/24", nil, http.StatusNotFound, "stands in the configuration")
	ask(g, "DELETE", "/v1/modes/203.0.113.0/24", nil, http.StatusNotFound, "no rule was made")
	if m := get[api.Mode](g, "/v1/modes/192.0.2.20"); m.Mode != "shadow" {
		t.Errorf("after the refusals %+v", m)
	}
	if n := len(get[[]api.Mode](g, "/v1/modes")); n != 5 {
		t.Errorf("%d modes are listed", n)
	}

	// A restart finds them in the store; removing one brings back what the configuration says.
	g.end()
	g.run(nil, 0)
	waitFor(t, func() bool {
		var st api.Status
		return g.api.Do(t.Context(), "GET", "/v1/status", nil, &st) == nil && st.Accepting
	})
	if s := h.source("192.0.2.0/26"); s.Mode != control.Shadow {
		t.Errorf("after a restart %+v", s)
	}
	ask(g, "DELETE", "/v1/modes/192.0.2.0/26?reason=done", nil, 0, "")
	ask(g, "DELETE", "/v1/modes/192.0.2.0/28", nil, 0, "")
	if s := h.source("192.0.2.0/26"); s.Mode != 0 {
		t.Errorf("removed, but told as %+v", s)
	}
	if s := h.source("192.0.2.0/28"); s.Mode != 0 || s.User == 0 {
		t.Errorf("the user's prefix was told as %+v", s)
	}
	if m := get[api.Mode](g, "/v1/modes/192.0.2.20"); m.Mode != "observe" {
		t.Errorf("after removal %+v", m)
	}
	acts, err := g.daemon.store.Acts(10)
	if err != nil || len(acts) != 4 || acts[1].What != "mode removed" || !strings.Contains(acts[1].Detail, "done (was shadow: ticket 4711)") || acts[1].Who == "" {
		t.Errorf("audit log: %+v %v", acts, err)
	}
	g.end()
}

func TestModeEndsByItself(t *testing.T) {
	t.Parallel()
	g, h := withHelper(t, modesConfig)
	defer g.end()
	until := time.Now().Add(300 * time.Millisecond)
	ask(g, "POST", "/v1/modes", api.ModeRequest{Prefix: "192.0.2.0/26", Mode: "drop", Reason: "x", Until: &until}, 0, "")
	if s := h.source("192.0.2.0/26"); s.Mode != control.Drop || !s.Until.Equal(until) {
		t.Errorf("told as %+v", s)
	}
	ask(g, "POST", "/v1/exemptions", api.ExemptRequest{Prefix: "198.51.100.99", Mode: "drop", Reason: "x", Until: &until}, 0, "")
	waitFor(t, func() bool { return h.source("192.0.2.0/26").Mode == 0 })
	waitFor(t, func() bool { return len(get[[]api.Exemption](g, "/v1/exemptions")) == 1 })
	if modes, err := g.daemon.store.Modes(); err != nil || len(modes) != 0 {
		t.Errorf("the store still has %+v %v", modes, err)
	}
}

func TestModesWithoutHelper(t *testing.T) {
	t.Parallel()
	g := newGateway(t, modesConfig)
	g.socket()
	g.run(nil, 0)
	defer g.end()
	setMode(g, "192.0.2.0/26", "drop", http.StatusServiceUnavailable, "sluice-intercept is away")
	ask(g, "POST", "/v1/exemptions", api.ExemptRequest{Prefix: "198.51.100.99", Mode: "drop", Reason: "x"}, http.StatusServiceUnavailable, "nothing was changed")
	if n := len(get[[]api.Exemption](g, "/v1/exemptions")); n != 1 {
		t.Errorf("%d exemptions", n)
	}
	if m := get[api.Mode](g, "/v1/modes/192.0.2.20"); m.Mode != "observe" {
		t.Errorf("%+v", m)
	}
}

func TestExemptionsAtRunTime(t *testing.T) {
	t.Parallel()
	g, h := withHelper(t, modesConfig)
	defer g.end()
	exempt := func(prefix, mode string, status int, text string) {
		t.Helper()
		ask(g, "POST", "/v1/exemptions", api.ExemptRequest{Prefix: prefix, Mode: mode, Reason: "ticket"}, status, text)
	}
	exempt("198.51.100.200", "pass", http.StatusForbidden, "intercept.runtime_exempt")
	exempt("198.51.100.1", "intercept", http.StatusForbidden, "says reject")
	exempt("198.51.100.200", "drop", 0, "")
	ask(g, "POST", "/v1/exemptions", api.ExemptRequest{Prefix: "198.51.100.200", Port: 2525, Mode: "drop", Reason: "x"}, http.StatusBadRequest, "no mail port")
	exempt("198.51.100.200", "intercept", 0, "") // in place of it
	h.mu.Lock()
	if len(h.exempt) != 1 || h.exempt[0].Mode != control.Intercept {
		t.Errorf("told %+v", h.exempt)
	}
	h.mu.Unlock()
	ask(g, "DELETE", "/v1/exemptions/198.51.100.200?port=25", nil, http.StatusNotFound, "no exemption")
	ask(g, "DELETE", "/v1/exemptions/198.51.100.200", nil, 0, "")
	h.mu.Lock()
	if len(h.exempt) != 0 {
		t.Errorf("told %+v", h.exempt)
	}
	h.mu.Unlock()
}

// TestReloadTellsTheHelperAgain: it may have read an older configuration and refuse what is allowed now.
func TestReloadTellsTheHelperAgain(t *testing.T) {
	t.Parallel()
	g, h := withHelper(t, modesConfig)
	defer g.end()
	h.mu.Lock()
	h.refuse = control.Errorf(control.CodeCeiling, "could not set it")
	h.mu.Unlock()
	g.configure(modesConfig + `
[[mode]]
prefix = "2001:db8::/32"
mode = "pass"
reason = "x"
`)
	if err := g.daemon.reload(); err != nil {
		t.Fatal(err)
	}
	if s := h.source("2001:db8::/32"); s.Mode != 0 {
		t.Errorf("the helper took %+v", s)
	}
	h.mu.Lock()
	h.refuse = nil
	h.mu.Unlock()
	waitFor(t, func() bool { return h.source("2001:db8::/32").Mode == control.Pass })
}

// TestCanary: who is enforced at a share is enforced at every larger one, all his addresses together.
func TestCanary(t *testing.T) {
	t.Parallel()
	counts := map[int]int{}
	for i := range 20_000 {
		user := fmt.Sprintf("user%d", i)
		before := false
		for _, percent := range []int{1, 5, 25, 99} {
			v := verdict{mode: control.Canary, percent: percent}
			now := v.enforced(user)
			if before && !now {
				t.Fatalf("%s is enforced at less than %d %% and not there", user, percent)
			}
			if before = now; now {
				counts[percent]++
			}
		}
	}
	for percent, n := range counts {
		if want := 200 * percent; n < want*8/10 || n > want*12/10 {
			t.Errorf("%d %%: %d of 20000 users", percent, n)
		}
	}
	// The same on every gateway and after every restart.
	if s := canaryShare("alice"); s < 17.12 || s > 17.13 {
		t.Errorf("alice stands at %f", s)
	}
	for mode, want := range map[control.Mode]bool{control.Intercept: true, control.Shadow: false, control.Pass: false} {
		if v := (verdict{mode: mode, percent: 99}); v.enforced("alice") != want {
			t.Errorf("%v: %v", mode, !want)
		}
	}
}

func TestCanaryDecidesByUser(t *testing.T) {
	t.Parallel()
	g := newGateway(t, `
[[user]]
name = "alice"
prefixes = ["127.0.0.0/8", "2001:db8:1::/64"]
[[mode]]
prefix = "0.0.0.0/0"
mode = "canary"
percent = 99
reason = "x"
[[mode]]
prefix = "::/0"
mode = "canary"
percent = 99
reason = "x"
`)
	g.start()
	defer g.end()
	share := int(canaryShare("alice"))
	for _, tc := range []struct {
		percent int
		side    string
	}{{share, "shadow"}, {share + 1, "enforced"}, {1, "shadow"}} {
		for _, p := range []string{"0.0.0.0/0", "::/0"} {
			ask(g, "POST", "/v1/modes", api.ModeRequest{Prefix: p, Mode: "canary", Percent: tc.percent, Reason: "x"}, 0, "")
		}
		for _, addr := range []string{"127.0.0.1", "127.9.9.9", "2001:db8:1::77"} {
			if f := g.flowFrom(addr); g.daemon.shadowed(&f) != (tc.side == "shadow") {
				t.Errorf("%d %%: %s is not on side %s", tc.percent, addr, tc.side)
			}
			if m := get[api.Mode](g, "/v1/modes/"+addr); m.Canary != tc.side || m.User != "alice" || m.Percent != tc.percent {
				t.Errorf("%d %%: %s is told as %+v", tc.percent, addr, m)
			}
		}
		if u := get[api.UserDetail](g, "/v1/users/alice"); u.Canary != tc.side || u.Mode != fmt.Sprintf("canary %d%%", tc.percent) {
			t.Errorf("%d %%: the user is told as %s, %s", tc.percent, u.Mode, u.Canary)
		}
	}
}
