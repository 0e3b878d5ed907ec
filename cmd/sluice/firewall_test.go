package main

import (
	"context"
	"os/exec"
	"strings"
	"testing"

	"sluice/cmd/internal/api"
	"sluice/cmd/internal/config"
)

// As nft 1.0.6 prints them.
const (
	dropByDefault = `{"nftables": [{"metainfo": {"version": "1.0.6", "release_name": "Lester Gooch #5", "json_schema_version": 1}},
 {"table": {"family": "inet", "name": "filter", "handle": 1}},
 {"chain": {"family": "inet", "table": "filter", "name": "input", "handle": 1, "type": "filter", "hook": "input", "prio": 0, "policy": "drop"}},
 {"chain": {"family": "inet", "table": "filter", "name": "forward", "handle": 2, "type": "filter", "hook": "forward", "prio": 0, "policy": "drop"}},
 {"rule": {"family": "inet", "table": "filter", "chain": "input", "handle": 3, "expr": [{"match": {"op": "in", "left": {"ct": {"key": "state"}}, "right": ["established", "related"]}}, {"accept": null}]}}`
	acceptMark = `,
 {"rule": {"family": "inet", "table": "filter", "chain": "input", "handle": 4, "expr": [{"match": {"op": "==", "left": {"&": [{"meta": {"key": "mark"}}, 33554432]}, "right": 33554432}}, {"accept": null}]}}`
)

func TestDoctorLooksAtTheFirewall(t *testing.T) {
	t.Parallel()
	cfg := &config.Config{Intercept: config.Intercept{Mark: 0x02000000}}
	for _, c := range []struct {
		name, rules string
		err         error
		state, text string
	}{
		{"no rules", `{"nftables": []}`, nil, api.OK, "no input chain"},
		{"drops by default", dropByDefault + "]}", nil, api.Warn, "inet filter input"},
		{"knows the mark", dropByDefault + acceptMark + "]}", nil, api.OK, "no input chain"},
		{"no nft", "", exec.ErrNotFound, api.OK, "not installed"},
		{"nonsense", "table inet filter", nil, api.Warn, "could not be read"},
	} {
		h := &host{rules: func(context.Context) ([]byte, error) { return []byte(c.rules), c.err }}
		f := h.firewall(t.Context(), cfg)
		if f.State != c.state || !strings.Contains(f.Text, c.text) {
			t.Errorf("%s: %s %q, want %s and %q", c.name, f.State, f.Text, c.state, c.text)
		}
		if c.name == "drops by default" && !strings.Contains(f.Remedy, "nft insert rule inet filter input meta mark and 0x2000000") {
			t.Errorf("%s: remedy %q", c.name, f.Remedy)
		}
	}
}
