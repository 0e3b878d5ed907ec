//go:build bpftest

package bpf

import (
	"encoding/hex"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"sluice/bpf/model"
)

// report makes a failing situation as small as it gets and prints what repeats it.
func (c *comparison) report(seed uint64, x situation, difference string) {
	c.Helper()
	again := func(y situation) string {
		if time := c.now() - x.tables.Beat; x.tables.Beat != 0 && time > uint64(fresh) && x.tables.Beat > c.now()-sec {
			return ""
		}
		c.load(y.tables, y.state, c.fill)
		c.counted()
		want, got := c.both(situation{y.program, y.tables, copyState(y.state), y.packet})
		return differ(want, got)
	}
	if d := again(x); d == "" {
		c.Errorf("seed %d: %s: %s; not again with this packet alone\n%s", seed, x.program, difference, x)
		return
	}
	for shrunk := true; shrunk; {
		shrunk = false
		for _, y := range x.smaller() {
			if d := again(y); d != "" {
				x, difference, shrunk = y, d, true
				break
			}
		}
	}
	c.Errorf("%s: %s\n%s\nrepeat with SLUICE_PACKET_SEED=%d", x.program, difference, x, seed)
}

// smaller gives the situation with one thing less, for every thing.
func (x situation) smaller() (all []situation) {
	all = append(all, oneLess(x, func(t *model.Tables) *[]model.Source { return &t.Sources })...)
	all = append(all, oneLess(x, func(t *model.Tables) *[]model.Exemption { return &t.Exemptions })...)
	all = append(all, oneLess(x, func(t *model.Tables) *[]model.Lock { return &t.Locks })...)
	all = append(all, oneLess(x, func(t *model.Tables) *[]model.Bypass { return &t.Bypasses })...)
	all = append(all, oneLess(x, func(t *model.Tables) *[]model.Port { return &t.Ports })...)
	all = append(all, oneLess(x, func(t *model.Tables) *[]netip.Prefix { return &t.Local })...)
	all = append(all, oneLess(x, func(t *model.Tables) *[]netip.Prefix { return &t.Delivery })...)
	all = append(all, oneLess(x, func(t *model.Tables) *[]netip.Prefix { return &t.LockExempt })...)
	if n, least := len(x.packet.Frame), shortest(x.packet.Frame); n > least {
		for _, keep := range []int{n / 2, n - 1} {
			y := x
			y.packet.Frame = y.packet.Frame[:max(least, keep)]
			all = append(all, y)
		}
	}
	if x.packet.Mark != 0 {
		y := x
		y.packet.Mark = 0
		all = append(all, y)
	}
	return all
}

// oneLess gives x once for every entry of a table, without it.
func oneLess[T any](x situation, table func(*model.Tables) *[]T) (all []situation) {
	for i := range *table(x.tables) {
		t := *x.tables
		list := table(&t)
		*list = slices.Delete(slices.Clone(*list), i, i+1)
		y := x
		y.tables = &t
		all = append(all, y)
	}
	return all
}

func (x situation) String() string {
	var b strings.Builder
	t := *x.tables
	fmt.Fprintf(&b, "unknown %+v\n", t.Unknown)
	for _, s := range t.Sources {
		fmt.Fprintf(&b, "source %+v\n", s)
	}
	for _, e := range t.Exemptions {
		fmt.Fprintf(&b, "exemption %+v\n", e)
	}
	for _, l := range t.Locks {
		fmt.Fprintf(&b, "lock %+v\n", l)
	}
	fmt.Fprintf(&b, "ports %+v; bypasses %+v; local %v; delivery %v; open to locks %v\n", t.Ports, t.Bypasses, t.Local, t.Delivery, t.LockExempt)
	fmt.Fprintf(&b, "listener %v, start %d, beat %d, restart until %d, empty since %d, budgets %v %v\n", t.Listener, t.Start, t.Beat, t.RestartUntil, x.state.EmptySince, x.state.LockBudgets, x.state.OpenBudgets)
	fmt.Fprintf(&b, "mark %#x, interface %d, came by %d, packet:\n%s", x.packet.Mark, x.packet.Ifindex, x.packet.Ingress, hex.Dump(x.packet.Frame))
	return b.String()
}
