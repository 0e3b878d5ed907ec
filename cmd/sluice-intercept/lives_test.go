//go:build nettest

package main

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestLeastPrivilege runs the helper with the capabilities that its unit file gives, and no others.
func TestLeastPrivilege(t *testing.T) {
	t.Parallel()
	g := newGateway(t)
	g.gw.sh(fmt.Sprintf("chgrp 65534 %[1]s && mkdir %[1]s/bpf/sluice", g.dir))
	cmd := g.gw.command(false, "setpriv", "--regid", "65534", "--clear-groups", "--no-new-privs",
		"--bounding-set", "-all,+net_admin,+bpf,+perfmon,+net_raw,+net_bind_service",
		binary, "--config", g.config(""))
	h := start(t, cmd, roleHelper)
	h.wait(0, "msg=ready")
	h.wait(0, "interface=up0 role=uplink path=tcx")
	p := g.proxy()
	g.cust.expect("", mx4, "proxy ")
	if got := p.ask("lock 9 0 192.0.2.10/32"); !strings.HasPrefix(got, "ok ") {
		t.Error(got)
	}
}

// TestHelperDiesUnderTraffic kills the helper again and again while customers connect without a pause.
func TestHelperDiesUnderTraffic(t *testing.T) {
	t.Parallel()
	for _, path := range []string{"tcx", "nftables"} {
		t.Run(path, func(t *testing.T) {
			t.Parallel()
			helperDies(t, path)
		})
	}
}

func helperDies(t *testing.T, path string) {
	g := newGateway(t)
	g.mx()
	config := g.config(fmt.Sprintf("path = %q\n", path) + "[limits]\nconnections_per_second = 0 # one customer is all the load there is")
	h := g.helper(config)
	p := g.proxy()
	if got := p.ask("users 192.0.2.0/24,5,intercept,closed"); got != "ok" {
		t.Fatal(got)
	}
	if got := p.ask("lock 6 0 192.0.2.11/32"); !strings.HasPrefix(got, "ok") {
		t.Fatal(got)
	}
	var stop atomic.Bool
	var served atomic.Int64
	done := make(chan error, 2)
	for _, remote := range []string{mx4, mx6} {
		go func() {
			var errs []error
			for !stop.Load() && len(errs) < 5 {
				if got, err := g.cust.greeting("", remote); err != nil || !strings.HasPrefix(got, "proxy ") {
					errs = append(errs, fmt.Errorf("%q %w", got, err))
				}
				served.Add(1)
			}
			done <- errors.Join(errs...)
		}()
	}
	for range 3 {
		n := p.count()
		h.kill()
		before := served.Load()
		h = g.helper(config)
		if line, _ := p.wait(n, "redialed"); line != "redialed, same socket: true" {
			t.Error(line)
		}
		h.wait(0, "msg=listening")
		if served.Load() == before {
			t.Error("nobody was served meanwhile")
		}
	}
	// What was set at run time survived: the lock is known to the new helper, too.
	if _, err := g.cust.greeting("192.0.2.11:0", mx4); !errors.Is(err, unix.ECONNREFUSED) {
		t.Errorf("locked source: %v", err)
	}
	if got := p.ask("status"); !strings.Contains(got, "alive sources=1 locks=1") {
		t.Error(got)
	}
	if got := p.ask("unlock 6"); got != "ok" {
		t.Error(got)
	}
	g.cust.expect("192.0.2.11:0", mx4, "proxy ")
	stop.Store(true)
	for range 2 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	t.Log("connections served:", served.Load())
}

// TestProxyDiesAndTheNextTakesOver: the helper's own copy of the socket keeps connections waiting.
func TestProxyDiesAndTheNextTakesOver(t *testing.T) {
	t.Parallel()
	g := newGateway(t)
	g.helper(g.config(""))
	p := g.proxy()
	p.kill()
	c, err := g.cust.dial("", mx4, 20*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	g.proxy()
	c.SetDeadline(time.Now().Add(20 * time.Second))
	if line, err := bufio.NewReader(c).ReadString('\n'); err != nil || !strings.HasPrefix(line, "proxy ") {
		t.Errorf("%q %v", line, err)
	}
}

// TestSecondBoot holds that sources and locks of the last run are in force before any proxy dials.
func TestSecondBoot(t *testing.T) {
	t.Parallel()
	g := newGateway(t)
	config := g.config("")
	h := g.helper(config)
	p := g.proxy()
	if got := p.ask("users 192.0.2.11/32,5,reject,closed"); got != "ok" {
		t.Fatal(got)
	}
	if got := p.ask("lock 6 0 192.0.2.10/32"); !strings.HasPrefix(got, "ok") {
		t.Fatal(got)
	}
	p.kill()
	h.stop()
	// A boot: maps, programs and rules are gone, the disk stays.
	g.gw.sh(fmt.Sprintf("rm -r %s/bpf/sluice", g.dir))
	g.helper(config)
	for _, local := range []string{"192.0.2.10:0", "192.0.2.11:0"} {
		if _, err := g.cust.greeting(local, mx4); !errors.Is(err, unix.ECONNREFUSED) {
			t.Errorf("%s after the boot: %v", local, err)
		}
	}
}

func TestBadReloadKeepsTheOldState(t *testing.T) {
	t.Parallel()
	g := newGateway(t)
	h := g.helper(g.config(""))
	first := g.state()
	for _, tc := range []struct{ extra, want string }{
		{"no_such_key = 1", "no_such_key"},
		{"mark = 0x3", "mark"},
		{"listen_port = 10026", "listen_port"},
	} {
		n := h.count()
		file := g.config(tc.extra)
		h.signal(syscall.SIGHUP)
		line, _ := h.wait(n, "not reloaded")
		if !strings.Contains(line, tc.want) || !strings.Contains(line, file) {
			t.Errorf("%s: %s", tc.extra, line)
		}
	}
	if again := g.state(); again != first {
		t.Errorf("state\n%s\ninstead of\n%s", again, first)
	}
	n := h.count()
	g.config(`[[user]]
name = "alice"
prefixes = ["192.0.2.11/32"]
mode = "reject"`)
	h.signal(syscall.SIGHUP)
	h.wait(n, "configuration reloaded")
	if _, err := g.cust.greeting("192.0.2.11:0", mx4); !errors.Is(err, unix.ECONNREFUSED) {
		t.Errorf("new mode: %v", err)
	}
}

// TestNumbersChangeUnderARunningProxy swaps mark, table and priority under a running proxy: rules of the old numbers go last.
func TestNumbersChangeUnderARunningProxy(t *testing.T) {
	t.Parallel()
	for _, path := range []string{"tcx", "nftables"} {
		t.Run(path, func(t *testing.T) {
			t.Parallel()
			numbersChange(t, path)
		})
	}
}

func numbersChange(t *testing.T, path string) {
	g := newGateway(t)
	h := g.helper(g.config(fmt.Sprintf("path = %q", path)))
	g.proxy()
	g.cust.expect("", mx4, "proxy ")
	g.config(fmt.Sprintf("path = %q\nmark = 0x100\njudged_mark = 0x200\ntable = 77\nrule_priority = 300", path))
	h.signal(syscall.SIGHUP)
	h.wait(0, "configuration reloaded")
	g.cust.expect("", mx4, "proxy ")
	g.cust.expect("", mx6, "proxy ")
	rules := g.gw.sh("ip rule; ip -6 rule; ip route show table 5325 2>&1 || true")
	if strings.Contains(rules, "lookup 5325") || strings.Contains(rules, "goto 110") || strings.Contains(rules, "fwmark 0x100/0x100 lookup 77") == roomed(path) {
		t.Errorf("rules:\n%s", rules)
	}
}

func TestStoredStateIsPrivate(t *testing.T) {
	t.Parallel()
	g := newGateway(t)
	h := g.helper(g.config(""))
	p := g.proxy()
	if got := p.ask("users 192.0.2.11/32,5,reject,closed"); got != "ok" {
		t.Fatal(got)
	}
	h.stop()
	for _, name := range []string{"applied.json", "sources.jsonl"} {
		fi, err := os.Stat(filepath.Join(g.dir, "state", name))
		if err != nil || fi.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v %v", name, fi, err)
		}
	}
	if got := slices.Collect(strings.Lines(g.gw.sh("ls " + g.dir + "/state"))); len(got) != 2 {
		t.Errorf("state folder holds %q", got)
	}
}
