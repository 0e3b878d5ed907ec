package api

import (
	"context"
	"net/http"
	"strings"
)

// Rollout is where the roll-out stands.
type Rollout struct {
	Fail    string          `json:"fail" doc:"what becomes of mail while the proxy is dead: open or closed, of whoever has no setting of his own"`
	Asked   bool            `json:"asked" doc:"somebody has decided about fail, in the configuration or at the first step to enforcement"`
	Targets []RolloutTarget `json:"targets" doc:"all, then every prefix that has a mode of its own"`
}

// RolloutTarget is one scope with its stage.
type RolloutTarget struct {
	Target   string   `json:"target" doc:"all, a prefix, or a user's name"`
	Prefixes []string `json:"prefixes"`
	Stage    string   `json:"stage" doc:"off, observe, shadow, canary 1%, canary 5%, canary 25% or enforce; mixed where its prefixes differ, else the mode"`
	Next     string   `json:"next,omitempty"`
	Back     string   `json:"back,omitempty"`
	Inside   int      `json:"inside,omitempty" doc:"longer prefixes inside that keep modes of their own"`
	Origin   string   `json:"origin,omitempty" doc:"what says so: run-time, config, user or default"`
}

// RolloutRequest asks for one step.
type RolloutRequest struct {
	Target string `json:"target" doc:"all, a prefix, or a user's name"`
	Back   bool   `json:"back,omitempty" doc:"a step back, which asks nothing; else forward"`
	Force  bool   `json:"force,omitempty" doc:"forward although the gate says stop; needs a reason"`
	Reason string `json:"reason,omitempty"`
	Fail   string `json:"fail,omitempty" doc:"open or closed: the answer to what becomes of mail while the proxy is dead, asked once at the first step to enforcement"`
}

// RolloutStep is a step that was made.
type RolloutStep struct {
	RolloutTarget
	From string `json:"from" doc:"the stage before"`
	Gate *Gate  `json:"gate,omitempty" doc:"what stood before the step; left out for a step back and for the first one"`
}

// Roller moves users from stage to stage. Who is the operator's account.
type Roller interface {
	Rollout(ctx context.Context) (*Rollout, error)
	RollOut(ctx context.Context, who string, r RolloutRequest) (*RolloutStep, error)
}

func (s *Server) rollOut(r *http.Request) (any, error) {
	var req RolloutRequest
	if err := body(r, &req); err != nil {
		return nil, err
	}
	if req.Target == "" {
		return nil, invalid("nobody to move", `name a target: "all", a prefix, or a user`)
	}
	if req.Force && strings.TrimSpace(req.Reason) == "" {
		return nil, invalid("force needs a reason", "say why the gate does not count")
	}
	if err := checkWhy(req.Reason); err != nil {
		return nil, err
	}
	if req.Fail != "" && req.Fail != "open" && req.Fail != "closed" {
		return nil, invalid(req.Fail+" is not a fail mode", "open forwards mail untouched while the proxy is dead; closed lets it wait, then resets")
	}
	return s.back.RollOut(r.Context(), who(r.Context()), req)
}
