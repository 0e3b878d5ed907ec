//go:build nettest

package main

import (
	"fmt"
	"syscall"
	"testing"
	"time"
)

// crash starts the helper and kills it after a while, wherever it is by then.
func (g *gateway) crash(config string, after time.Duration) {
	g.t.Helper()
	p := start(g.t, g.gw.command(false, binary, "--config", config), roleHelper)
	time.Sleep(after) // the moment is what is tried
	select {
	case <-p.done:
		g.t.Fatalf("the helper ended by itself, %v after its start", after)
	default:
		p.kill()
	}
}

// moments are points in time spread over a start and a little beyond it, closer to each other at its beginning, when most
// is changed.
func (g *gateway) moments(config string, n int) (all []time.Duration) {
	g.t.Helper()
	began := time.Now()
	h := g.helper(config)
	whole := time.Since(began)
	h.kill()
	for i := range n {
		part := float64(i+1) / float64(n-1)
		all = append(all, time.Duration(float64(whole)*part*part))
	}
	g.t.Logf("a start takes %v", whole)
	return all
}

// TestKilledAtAnyMoment: killed while it starts, the helper leaves what cleanup takes away whole, and what the next one
// brings to the desired state.
func TestKilledAtAnyMoment(t *testing.T) {
	t.Parallel()
	for _, path := range []string{"tcx", "clsact", "nftables"} {
		t.Run(path, func(t *testing.T) {
			t.Parallel()
			g := newGateway(t)
			g.gw.sh(`ip rule add pref 200 from 192.0.2.99 lookup 7; ip route add 203.0.113.128/25 via 198.51.100.25 table 7`)
			before := g.state()
			config := g.config(fmt.Sprintf("path = %q", path))
			clean := func(what string) {
				t.Helper()
				if out, err := g.tool("cleanup", "--config", config); err != nil {
					t.Fatalf("cleanup after %s: %v %s", what, err, out)
				}
				if after := g.state(); after != before {
					t.Fatalf("cleanup after %s left or took something\nbefore:\n%s\nafter:\n%s", what, before, after)
				}
			}
			g.helper(config).kill()
			desired := g.state()
			moments := g.moments(config, 8)
			clean("a whole start")
			seen := map[string]bool{}
			for _, m := range moments {
				what := fmt.Sprintf("a kill %v into the start", m)
				g.crash(config, m)
				seen[g.state()] = true
				clean(what)
				g.crash(config, m)
				g.crash(config, moments[len(moments)/2])
				g.helper(config).kill()
				if again := g.state(); again != desired {
					t.Fatalf("a start after %s and another brings\n%s\ninstead of\n%s", what, again, desired)
				}
				clean(what + " and a start")
			}
			if len(seen) < 2 { // nftables changes all at once
				t.Errorf("the kills left %d different states only", len(seen))
			}
			t.Logf("the kills left %d different states", len(seen))
		})
	}
}

// TestApplyAgainAndAgain: the same state, however often it is asked for, and by however many reloads at once.
func TestApplyAgainAndAgain(t *testing.T) {
	t.Parallel()
	g := newGateway(t)
	config := g.config("")
	h := g.helper(config)
	first := g.state()
	for range 20 {
		n := h.count()
		h.signal(syscall.SIGHUP)
		h.wait(n, "configuration reloaded")
	}
	for range 5 {
		h.kill()
		h = g.helper(config)
	}
	if again := g.state(); again != first {
		t.Errorf("applied again, the state is\n%s\ninstead of\n%s", again, first)
	}
	g.mx()
	g.proxy()
	g.cust.expect("", mx4, "proxy ")
	g.cust.expect("", mx6, "proxy ")
}
