//go:build nettest

package main

import (
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestPinsWithoutABPFFileSystem holds that the helper mounts one, on the pin folder itself, and takes it away again.
func TestPinsWithoutABPFFileSystem(t *testing.T) {
	t.Parallel()
	g := newGateway(t)
	config := g.config("")
	b, err := os.ReadFile(config)
	if err != nil {
		t.Fatal(err)
	}
	text := strings.Replace(string(b), g.dir+"/bpf/sluice", g.dir+"/pins", 1)
	if err := os.WriteFile(config, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	h := g.helper(config)
	if got := g.gw.sh(fmt.Sprintf("stat -f -c %%T %s/pins; ls %[1]s/pins/links | wc -l", g.dir)); got != "bpf_fs\n3\n" {
		t.Errorf("pins: %q", got)
	}
	h.stop()
	if out, err := g.tool("cleanup", "--config", config); err != nil {
		t.Fatal(err, out)
	}
	if got := g.gw.sh(fmt.Sprintf("ls -d %s/pins 2>&1 || true", g.dir)); !strings.Contains(got, "No such file") {
		t.Errorf("left: %q", got)
	}
}

// state is everything that the helper may have left in the kernel and on disk, as text.
func (g *gateway) state() string {
	return g.gw.sh(fmt.Sprintf(`
		ip rule; ip -6 rule
		ip route show table all proto 125; ip -6 route show table all proto 125
		tc qdisc show | grep clsact | grep -v 'dev sluice[0-9]' || true
		for d in cust0 up0; do for h in ingress egress; do tc filter show dev $d $h | sed 's/ id [0-9]*//; s/jited//' ; done; done
		nft list tables
		bpftool net show 2>/dev/null | grep -v '^sluice[0-9]' | grep -o 'sluice[^ ]*\|mail_ingress\|uplink_[a-z]*' || true
		find %[1]s/bpf %[1]s/state -mindepth 1 2>/dev/null | sort
		ls %[1]s | grep sock || true`, g.dir))
}

// doors counts the interfaces that lead to rooms. Those of a process that was killed vanish in a moment.
func (g *gateway) doors(want int) {
	g.t.Helper()
	count := func() string {
		return strings.TrimSpace(g.gw.sh("ip -details link show type veth | grep -c 'alias sluice: door' || true"))
	}
	for until := time.Now().Add(time.Minute); count() != fmt.Sprint(want); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(until) {
			g.t.Errorf("%s doors instead of %d", count(), want)
			return
		}
	}
}

// roomed tells whether the sockets of a path's proxy have a room.
func roomed(path string) bool { return path != "nftables" }

func TestApplyTwiceAndLeaveNothing(t *testing.T) {
	t.Parallel()
	for _, path := range []string{"tcx", "clsact", "nftables"} {
		t.Run(path, func(t *testing.T) {
			t.Parallel()
			g := newGateway(t)
			g.gw.sh(`ip rule add pref 200 from 192.0.2.99 lookup 7; ip route add 203.0.113.128/25 via 198.51.100.25 table 7`)
			before := g.state()
			config := g.config(fmt.Sprintf("path = %q", path))
			h := g.helper(config)
			first := g.state()
			if first == before || !strings.Contains(first, "local 203.0.113.16/28") || strings.Contains(first, "goto 110") == roomed(path) {
				t.Fatalf("nothing applied, or too much:\n%s", first)
			}
			if roomed(path) {
				g.doors(1)
			}
			h.signal(syscall.SIGHUP)
			h.wait(0, "configuration reloaded")
			if again := g.state(); again != first {
				t.Errorf("reload changed the state\nbefore:\n%s\nafter:\n%s", first, again)
			}
			if out, err := g.tool("cleanup", "--config", config); err == nil || !strings.Contains(out, "stop it first") {
				t.Errorf("cleanup beside a running helper: %v %s", err, out)
			}
			h.kill()
			if out, err := g.tool("check", "--config", config); err != nil || strings.Contains(out, "rule pref 100 fwmark") == roomed(path) || !strings.Contains(out, "data path: "+path) {
				t.Errorf("check: %v\n%s", err, out)
			}
			h = g.helper(config)
			if again := g.state(); again != first {
				t.Errorf("restart changed the state\nbefore:\n%s\nafter:\n%s", first, again)
			}
			h.kill()
			for range 2 { // once more does no harm
				if out, err := g.tool("cleanup", "--config", config); err != nil {
					t.Fatalf("cleanup: %v %s", err, out)
				}
			}
			g.doors(0)
			if after := g.state(); after != before {
				t.Errorf("cleanup left or took something\nbefore:\n%s\nafter:\n%s", before, after)
			}
		})
	}
}

func TestWhatOthersRemoveComesBack(t *testing.T) {
	t.Parallel()
	for _, path := range []string{"tcx", "nftables"} {
		t.Run(path, func(t *testing.T) {
			t.Parallel()
			removedComesBack(t, path)
		})
	}
}

func removedComesBack(t *testing.T, path string) {
	g := newGateway(t)
	h := g.helper(g.config(fmt.Sprintf("path = %q", path)))
	first := g.state()
	n := h.count()
	if roomed(path) {
		g.mx()
		g.proxy()
		g.gw.sh("ip link del sluice0")
		h.wait(n, "the way to the proxy's sockets changed")
		g.doors(1)
		g.cust.expect("192.0.2.10:0", mx4, "proxy ")
		g.cust.expect("[2001:db8:1::10]:0", mx6, "proxy ")
		n = h.count()
		g.gw.sh("ip route del local 203.0.113.16/28 table local")
	} else {
		g.gw.sh("ip rule del pref 100; ip -6 rule del pref 90; ip route del local default table 5325")
	}
	h.wait(n, "are back")
	if path == "nftables" { // as firewalls do when they start anew
		g.mx()
		g.proxy()
		n := h.count()
		g.gw.sh("nft flush ruleset")
		h.wait(n, "somebody removed the nftables table")
		g.cust.expect("192.0.2.10:0", mx4, "proxy ")
		g.cust.expect("[2001:db8:1::10]:0", mx6, "proxy ")
	}
	if again := g.state(); again != first {
		t.Errorf("state\n%s\ninstead of\n%s", again, first)
	}
}

func TestAnInterfaceThatAppearsLate(t *testing.T) {
	t.Parallel()
	for _, path := range []string{"tcx", "nftables"} {
		t.Run(path, func(t *testing.T) {
			t.Parallel()
			appearsLate(t, path)
		})
	}
}

func appearsLate(t *testing.T, path string) {
	g := newGateway(t)
	g.mx()
	h := g.helper(g.config(fmt.Sprintf("path = %q", path)))
	g.proxy()
	late := newSpace(t, syscall.CLONE_NEWNET)
	n := h.count()
	g.gw.sh(fmt.Sprintf(`ip link add cust7 type veth peer name eth0 netns %d
		ip addr add 192.0.2.129/30 dev cust7; ip link set cust7 up`, late.pid))
	late.sh("ip link set lo up; ip link set eth0 up; ip addr add 192.0.2.130/30 dev eth0; ip route add default via 192.0.2.129")
	h.wait(n, "interface=cust7")
	late.expect("", mx4, "proxy 192.0.2.130:")
	// The gateway's new address is its own at once: no flow to it is intercepted.
	n = h.count()
	g.gw.sh("ip link del cust7")
	h.wait(n, `msg="interface let go" interface=cust7`)
	if path == "nftables" {
		if set := g.gw.sh("nft list set inet sluice customers"); strings.Contains(set, "cust7") || !strings.Contains(set, "cust0") {
			t.Error(set)
		}
		return
	}
	if links := g.gw.sh(fmt.Sprintf("ls %s/bpf/sluice/links | wc -l", g.dir)); strings.TrimSpace(links) != "3" {
		t.Errorf("%s pinned links instead of 3", links)
	}
}

// TestForeignFilterIsLeftAlone: another agent's filter stands where the usual tools put it.
func TestForeignFilterIsLeftAlone(t *testing.T) {
	t.Parallel()
	g := newGateway(t)
	g.gw.sh(`tc qdisc add dev cust0 clsact
		tc filter add dev cust0 ingress prio 1 protocol ip bpf bytecode '1,6 0 0 0,'
		tc qdisc add dev up0 clsact
		tc filter add dev up0 ingress prio 1 protocol all bpf bytecode '1,6 0 0 0,'`)
	foreign := g.state()
	config := g.config(`path = "clsact"`)
	h := g.helper(config)
	line, _ := h.wait(0, "interface is not covered")
	if !strings.Contains(line, "cust0") || !strings.Contains(line, "foreign filter") {
		t.Error(line)
	}
	line, _ = h.wait(0, "interface=up0")
	if !strings.Contains(line, "path=clsact") || !strings.Contains(line, "runs before ours") {
		t.Error(line)
	}
	h.stop()
	if out, err := g.tool("cleanup", "--config", config); err != nil {
		t.Fatal(err, out)
	}
	if after := g.state(); after != foreign {
		t.Errorf("foreign state changed\nbefore:\n%s\nafter:\n%s", foreign, after)
	}
	// With tcx nothing is in the way.
	h = g.helper(g.config(`path = "tcx"`))
	h.wait(0, "interface=cust0 role=customer path=tcx")
}

func TestBridgePortIsRefused(t *testing.T) {
	t.Parallel()
	g := newGateway(t)
	g.gw.sh("ip link add br0 type bridge; ip link add cust8 type veth peer name cust9; ip link set cust8 master br0")
	h := g.helper(g.config(""))
	line, _ := h.wait(0, "interface=cust8")
	if !strings.Contains(line, "name br0 instead") {
		t.Error(line)
	}
}

// TestDeviceWithoutEthernetHeader gets the program for bare packets.
func TestDeviceWithoutEthernetHeader(t *testing.T) {
	t.Parallel()
	for _, path := range []string{"tcx", "clsact", "nftables"} {
		g := newGateway(t)
		g.gw.sh("ip tuntap add cust5 mode tun; ip link set cust5 up")
		g.helper(g.config(fmt.Sprintf("path = %q", path)))
		p := g.proxy()
		want := fmt.Sprintf("Role:customer Path:%s Kind:raw Error:}", path)
		if got := p.ask("status"); !strings.Contains(got, "{Name:cust5") || !strings.Contains(got, want) {
			t.Errorf("status %q has no %q", got, want)
		}
	}
}
