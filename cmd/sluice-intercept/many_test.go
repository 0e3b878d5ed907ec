//go:build nettest

package main

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestManyInterfaces begins with many customer interfaces, has as many more come, and most of them go. SLUICE_SOAK names
// how many; the usual run makes do with a few.
func TestManyInterfaces(t *testing.T) {
	many := 100
	if s := os.Getenv("SLUICE_SOAK"); s != "" {
		var err error
		if many, err = strconv.Atoi(s); err != nil {
			t.Fatal(err)
		}
		patience = 2 * time.Minute
	} else {
		t.Parallel()
	}
	for _, path := range []string{"tcx", "clsact"} {
		t.Run(path, func(t *testing.T) {
			g := newGateway(t)
			g.mx()
			g.gw.sh("ip link add low0 type veth peer name low1; ip link set low0 up; ip link set low1 up")
			g.macvlans(1, many)
			start := time.Now()
			h := g.helper(g.config(fmt.Sprintf("path = %q", path)))
			ready := time.Since(start)
			g.proxy()
			h.waitLines(0, "interface=cust-", many)
			g.redirectedFrom(t, g.cust, "192.0.2.10", "2001:db8:1::10")
			before, used := h.count(), h.cpu()
			start = time.Now()
			g.macvlans(many+1, 2*many)
			made := time.Since(start)
			h.waitLines(before, "interface=cust-", many)
			served := time.Since(start)
			t.Logf("%s: %d interfaces: ready after %v; as many more, made in %v, all attached after %v, CPU %v", path, many, ready, made, served, h.cpu()-used)
			late := newSpace(t, syscall.CLONE_NEWNET)
			before = h.count()
			g.gw.sh(fmt.Sprintf("ip link add cust9 type veth peer name eth0 netns %d", late.pid))
			h.wait(before, "interface=cust9 role=customer path=")
			v4, v6 := g.behind(late, "cust9", "eth0", 32)
			g.redirectedFrom(t, late, v4, v6)
			before = h.count()
			start = time.Now()
			g.gw.sh("ip link del low0") // and with it all that stand upon it
			gone := time.Since(start)
			h.waitLines(before, `msg="interface let go"`, 2*many)
			t.Logf("all gone in %v, let go after %v", gone, time.Since(start))
			g.redirectedFrom(t, g.cust, "192.0.2.10", "2001:db8:1::10")
		})
	}
}

// macvlans makes the customer interfaces from one number to another. They have no addresses of their own, as VLANs behind
// unnumbered links have none.
func (g *gateway) macvlans(from, to int) {
	g.t.Helper()
	var b strings.Builder
	for i := from; i <= to; i++ {
		fmt.Fprintf(&b, "link add link low0 name cust-%d type macvlan mode bridge\nlink set cust-%d up\n", i, i)
	}
	g.gw.sh("echo 1 > /proc/sys/net/ipv6/conf/default/disable_ipv6") // so many multicast groups on one device take time
	defer g.gw.sh("echo 0 > /proc/sys/net/ipv6/conf/default/disable_ipv6")
	cmd := g.gw.command(false, "ip", "-batch", "-")
	cmd.Stdin = strings.NewReader(b.String())
	if out, err := cmd.CombinedOutput(); err != nil {
		g.t.Fatalf("%v\n%s", err, out)
	}
}

// waitLines waits until so many lines from number n on hold text.
func (p *process) waitLines(n int, text string, many int) {
	p.t.Helper()
	for range many {
		_, n = p.wait(n, text)
	}
}

// cpu is the processor time that the process has used.
func (p *process) cpu() time.Duration {
	p.t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.cmd.Process.Pid))
	if err != nil {
		p.t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(b), ") ")
	f := strings.Fields(rest)
	user, err1 := strconv.Atoi(f[11])
	system, err2 := strconv.Atoi(f[12])
	if err1 != nil || err2 != nil {
		p.t.Fatal(err1, err2)
	}
	return time.Duration(user+system) * 10 * time.Millisecond // of 100 ticks per second
}
