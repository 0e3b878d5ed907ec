//go:build nettest

package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// roleLockedDown is sluice-intercept on a host where nobody may use BPF.
const roleLockedDown = "locked-down"

// refuseBPF takes the system call bpf(2) from this process and whatever it starts.
func refuseBPF() error {
	program := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: 0}, // number of the system call
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: unix.SYS_BPF, Jf: 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
	}
	filter := unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]}
	_, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&filter)))
	if errno != 0 {
		return errno
	}
	return nil
}

// TestPathIsChosen: what a host can have is found by trying, the reason is told, and nothing of the trial is left.
func TestPathIsChosen(t *testing.T) {
	t.Parallel()
	const unit = "-all,+net_admin,+sys_admin,+bpf,+perfmon,+net_raw,+net_bind_service"
	without := func(rights ...string) string {
		out := unit
		for _, r := range rights {
			out = strings.Replace(out, ",+"+r, "", 1)
		}
		return out
	}
	for _, c := range []struct {
		name, role string
		bounds     string // capabilities; "" leaves all
		path       string
		reason     []string
	}{
		{"everything", roleHelper, "", "tcx", []string{"a trial connection by tcx succeeded"}},
		{"no BPF", roleLockedDown, "", "nftables", []string{"a trial of tcx failed: ", "a trial of clsact failed: ", "operation not permitted"}},
		{"the unit's rights", roleHelper, unit, "tcx", []string{"a trial connection by tcx succeeded"}},
		{"no namespaces", roleHelper, without("sys_admin"), "tcx", []string{"no trial connection was made: no right to make a network namespace"}},
		{"rights without BPF", roleHelper, without("sys_admin", "bpf", "perfmon"), "nftables", []string{"a trial of BPF failed: "}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			g := newGateway(t)
			g.mx()
			g.gw.sh(fmt.Sprintf("chgrp 65534 %[1]s && mkdir %[1]s/bpf/sluice", g.dir))
			args := []string{binary, "--config", g.config("")}
			if c.bounds != "" {
				args = append([]string{"setpriv", "--regid", "65534", "--clear-groups", "--no-new-privs", "--bounding-set", c.bounds}, args...)
			}
			h := start(t, g.gw.command(false, args...), c.role)
			h.wait(0, "msg=ready")
			line, _ := h.wait(0, `msg="data path"`)
			for _, want := range append(c.reason, "path="+c.path+" ") {
				if !strings.Contains(line, want) {
					t.Errorf("%s\nlacks %q", line, want)
				}
			}
			p := g.proxy()
			g.cust.expect("192.0.2.10:0", mx4, "proxy ")
			g.cust.expect("[2001:db8:1::10]:0", mx6, "proxy ")
			if got := p.ask("lock 9 0 192.0.2.10/32"); !strings.HasPrefix(got, "ok ") {
				t.Error(got)
			}
			room := c.path == "tcx" && !strings.Contains(c.name, "no ")
			want := 1
			if room {
				want = 2
			}
			if n := g.namespacesOf(h, want); n != want {
				t.Errorf("the helper's threads are in %d network namespaces", n)
			}
			if rules := g.gw.sh("ip rule"); strings.Contains(rules, "fwmark") == room {
				t.Errorf("with a room: %v; rules:\n%s", room, rules)
			}
		})
	}
}

// namespacesOf counts the network namespaces in which threads of the helper are.
func (g *gateway) namespacesOf(h *process, want int) int {
	g.t.Helper()
	seen := 0
	for until := time.Now().Add(time.Minute); time.Now().Before(until); time.Sleep(10 * time.Millisecond) {
		all := make(map[string]bool)
		links, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/ns/net", helperPID(g.t, h)))
		if err != nil {
			g.t.Fatal(err)
		}
		for _, l := range links {
			if ns, err := os.Readlink(l); err == nil {
				all[ns] = true
			}
		}
		if seen = len(all); seen == want { // the thread of a trial may be ending
			break
		}
	}
	return seen
}

// helperPID is the process itself: nsenter and setpriv become it.
func helperPID(t *testing.T, h *process) int {
	t.Helper()
	return h.cmd.Process.Pid
}

// TestNoPathAtAll: where neither is to be had the helper does not start, and says what is missing.
func TestNoPathAtAll(t *testing.T) {
	t.Parallel()
	g := newGateway(t)
	before := g.state()
	nft := mustFind(t, "nft")
	g.gw.sh("mount --bind /dev/null " + nft)
	for extra, want := range map[string][]string{
		"":                                      {"could not find a data path", "a trial of tcx failed", "a trial of nftables failed: the program nft is not installed"},
		`path = "nftables"`:                     {"the program nft is not installed; on Debian: apt install nftables"},
		`path = "tcx"`:                          {"could not load the programs", "CAP_BPF"},
		`path = "wireguard"`:                    {"intercept.path", "nftables"},
		"path = \"nftables\"\nlisten_port = 25": {"listen_port"},
	} {
		cmd := g.gw.command(false, binary, "--config", g.config(extra))
		cmd.Env = append(os.Environ(), roleVar+"="+roleLockedDown)
		out, err := cmd.CombinedOutput()
		if err == nil {
			t.Errorf("%q: it started:\n%s", extra, out)
		}
		for _, w := range want {
			if !strings.Contains(string(out), w) {
				t.Errorf("%q: no %q in:\n%s", extra, w, out)
			}
		}
	}
	g.gw.sh("umount " + nft)
	if after := g.state(); after != before {
		t.Errorf("left:\n%s\nbefore:\n%s", after, before)
	}
}

func mustFind(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err == nil {
		path, err = filepath.EvalSymlinks(path)
	}
	if err != nil {
		t.Fatal(err)
	}
	return path
}
