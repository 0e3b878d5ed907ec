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

const endsInDrop = `{"nftables": [
 {"chain": {"family": "ip", "table": "filter", "name": "INPUT", "handle": 1, "type": "filter", "hook": "input", "prio": 0, "policy": "accept"}},
 {"rule": {"family": "ip", "table": "filter", "chain": "INPUT", "handle": 3, "expr": [{"match": {"op": "==", "left": {"meta": {"key": "iif"}}, "right": "lo"}}, {"accept": null}]}},
 {"rule": {"family": "ip", "table": "filter", "chain": "INPUT", "handle": 4, "expr": [{"counter": {"packets": 0, "bytes": 0}}, {"reject": {"type": "icmp", "expr": "port-unreachable"}}]}}`

func TestDoctorLooksAtTheFirewall(t *testing.T) {
	t.Parallel()
	cfg := &config.Config{Intercept: config.Intercept{Mark: 0x02000000}}
	for _, c := range []struct {
		name, rules, legacy string
		err                 error
		state, text         string
	}{
		{"no rules", `{"nftables": []}`, "", nil, api.OK, "no input chain"},
		{"drops by default", dropByDefault + "]}", "", nil, api.Warn, "inet filter input"},
		{"ends in a drop", endsInDrop + "]}", "", nil, api.Warn, "ip filter INPUT"},
		{"knows the mark", dropByDefault + acceptMark + "]}", "", nil, api.OK, "no input chain"},
		{"knows a mark of iptables", strings.ReplaceAll(endsInDrop, `{"meta": {"key": "iif"}}`, `{"xt": {"type": "match", "name": "mark"}}`) + "]}", "", nil, api.OK, "no input chain"},
		{"no nft", "", "", exec.ErrNotFound, api.OK, "no input chain"},
		{"nonsense", "table inet filter", "", nil, api.Warn, "could not be read"},
		{"legacy policy", `{"nftables": []}`, ":INPUT DROP [3:180]\n:FORWARD ACCEPT [0:0]\n", nil, api.Warn, "iptables-legacy INPUT"},
		{"legacy without nft", "", ":INPUT ACCEPT [3:180]\n-A INPUT -i lo -j ACCEPT\n-A INPUT -j REJECT --reject-with icmp-port-unreachable\n", exec.ErrNotFound, api.Warn, "iptables-legacy INPUT"},
		{"legacy knows", `{"nftables": []}`, ":INPUT DROP [3:180]\n-A INPUT -m mark --mark 0x2000000/0x2000000 -j ACCEPT\n", nil, api.OK, "no input chain"},
		{"legacy forwards nothing", `{"nftables": []}`, ":INPUT ACCEPT [3:180]\n:FORWARD DROP [0:0]\n-A INPUT -s 192.0.2.66/32 -j DROP\n", nil, api.OK, "no input chain"},
	} {
		h := &host{rules: func(context.Context) ([]byte, error) { return []byte(c.rules), c.err },
			tables: func(_ context.Context, family string) ([]byte, error) {
				if family == "ip" {
					return []byte(c.legacy), nil
				}
				return nil, nil
			}}
		fs := h.firewall(t.Context(), cfg)
		if len(fs) != 1 || fs[0].State != c.state || !strings.Contains(fs[0].Text, c.text) || fs[0].State != api.OK && fs[0].Remedy == "" {
			t.Errorf("%s: %+v, want %s and %q", c.name, fs, c.state, c.text)
		}
	}
}
