//go:build nettest

package main

import (
	"strconv"
	"testing"
)

// TestObserveIsCounted: the mode forwards untouched, and its counter tells it from pass.
func TestObserveIsCounted(t *testing.T) {
	t.Parallel()
	g := newGateway(t)
	g.mx()
	g.helper(g.config(`default_mode = "observe"`))
	p := g.proxy()
	g.cust.expect("192.0.2.10:0", mx4, "mx 192.0.2.10:")
	g.cust.expect("[2001:db8:1::10]:0", mx6, "mx [2001:db8:1::10]:")
	// A fresh network may lose a first SYN to neighbour discovery, which then counts twice.
	observed, err := strconv.Atoi(p.ask("counter observe"))
	if passed := p.ask("counter pass"); err != nil || observed < 2 || passed != "0" {
		t.Errorf("%d observed, %v, and %s passed, want at least 2 and 0", observed, err, passed)
	}
}
