package main

import (
	"net/http"
	"testing"

	"sluice/cmd/internal/api"
	"sluice/intercept/control"
)

func roll(g *gateway, r api.RolloutRequest, status int, text string) {
	g.t.Helper()
	ask(g, "POST", "/v1/rollout", r, status, text)
}

// TestRolloutForwardAndBack goes the whole way, with the one question on it.
func TestRolloutForwardAndBack(t *testing.T) {
	t.Parallel()
	g, h := withHelper(t, `
[[mode]]
prefix = "0.0.0.0/0"
mode = "pass"
reason = "before the roll-out"
[[mode]]
prefix = "::/0"
mode = "pass"
reason = "before the roll-out"
[[user]]
name = "alice"
prefixes = ["127.0.0.0/8"]
[[user]]
name = "carol"
prefixes = ["192.0.2.0/28"]
fail = "open"
`)
	defer g.end()
	stage := func(want string) {
		t.Helper()
		if ro := get[api.Rollout](g, "/v1/rollout"); ro.Targets[0].Stage != want {
			t.Errorf("stage %+v, want %s", ro.Targets[0], want)
		}
	}
	stage("off")
	all := api.RolloutRequest{Target: "all"}
	roll(g, api.RolloutRequest{Target: "all", Back: true}, http.StatusConflict, "off already")
	roll(g, api.RolloutRequest{Target: "nobody"}, http.StatusNotFound, "neither all, a prefix nor a user")
	for _, want := range []string{"observe", "shadow"} {
		roll(g, all, 0, "")
		stage(want)
	}
	roll(g, all, http.StatusConflict, "--fail open forwards them")
	stage("shadow")
	if s := h.source("127.0.0.0/8"); s.Fail != control.Open {
		t.Errorf("before the answer alice is %+v", s)
	}
	all.Fail = "closed"
	roll(g, all, 0, "")
	all.Fail = ""
	if ro := get[api.Rollout](g, "/v1/rollout"); ro.Fail != "closed" || !ro.Asked {
		t.Errorf("after the answer %+v", ro)
	}
	if a, c, w := h.source("127.0.0.0/8"), h.source("192.0.2.0/28"), h.source("0.0.0.0/0"); a.Fail != control.Closed || c.Fail != control.Open || w.Fail != control.Closed || w.Mode != control.Canary {
		t.Errorf("after the answer alice is %+v, carol %+v, everybody else %+v", a, c, w)
	}
	for _, want := range []string{"canary 1%", "canary 5%", "canary 25%", "enforce"} {
		stage(want)
		if want != "enforce" {
			roll(g, all, 0, "")
		}
	}
	roll(g, all, http.StatusConflict, "enforced already")

	// One user goes his own way.
	roll(g, api.RolloutRequest{Target: "alice", Back: true}, 0, "")
	if m := get[api.Mode](g, "/v1/modes/127.0.0.1"); m.Mode != "canary" || m.Percent != 25 {
		t.Errorf("alice has %+v", m)
	}
	ask(g, "POST", "/v1/modes", api.ModeRequest{Prefix: "127.0.0.0/8", Mode: "canary", Percent: 7, Reason: "x"}, 0, "")
	if ro := get[api.Rollout](g, "/v1/rollout"); len(ro.Targets) != 2 || ro.Targets[1].Next != "canary 25%" || ro.Targets[1].Back != "canary 5%" || ro.Targets[0].Inside != 1 {
		t.Errorf("%+v", ro.Targets)
	}
	setMode(g, "192.0.2.0/28", "drop", 0, "")
	roll(g, api.RolloutRequest{Target: "carol"}, http.StatusConflict, "is no stage")

	for _, want := range []string{"canary 25%", "canary 5%", "canary 1%", "shadow", "observe", "off"} {
		roll(g, api.RolloutRequest{Target: "all", Back: true}, 0, "")
		stage(want)
	}
	if acts, err := g.daemon.store.Acts(3); err != nil || acts[0].What != "roll-out back" || acts[0].Detail != "observe to off: roll-out" {
		t.Errorf("audit log: %+v %v", acts, err)
	}
}
