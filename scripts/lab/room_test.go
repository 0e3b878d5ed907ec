//go:build labtest

package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// room is the namespace of the proxy's sockets: the one in which some thread of the helper is, but not its first; else the
// gateway's.
func (g *Gateway) room(t *testing.T) string {
	t.Helper()
	dir := fmt.Sprintf("/proc/%d", g.Intercept.Pid())
	own, err := os.Readlink(dir + "/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	tasks, err := filepath.Glob(dir + "/task/*/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	for _, task := range tasks {
		if ns, err := os.Readlink(task); err == nil && ns != own {
			return task
		}
	}
	return g.own() // no room by nftables
}

func (g *Gateway) own() string { return fmt.Sprintf("/proc/%d/ns/net", g.Intercept.Pid()) }

// inRoom runs a command there and gives its output.
func (g *Gateway) inRoom(ctx context.Context, t *testing.T, args ...string) string {
	t.Helper()
	out, err := exec.CommandContext(ctx, "nsenter", append([]string{"--net=" + g.room(t)}, args...)...).CombinedOutput()
	if err != nil {
		t.Fatalf("%v in the room: %v: %s", args, err, out)
	}
	return string(out)
}

// TestRoom: the proxy's sockets stand in a namespace of their own; the gateway has no policy rule; its firewall's input
// chain, and strict settings, keep no customer from the proxy; and once it is there the helper gives the right away that
// the room needed.
func TestRoom(t *testing.T) {
	t.Parallel()
	ctx, l := testContext(t), ForTest(t, Options{})
	g := startGatewayWith(t, l, GatewayConfig)
	for _, family := range []string{"-4", "-6"} {
		out, err := l.must(ctx, HostGateway, Command{Args: []string{"ip", family, "rule"}})
		if err != nil || strings.Count(out, "\n") > 3 || strings.Contains(out, "fwmark") {
			t.Errorf("rules of the gateway: %v\n%s", err, out)
		}
	}
	if out := g.inRoom(ctx, t, "ss", "-Htln"); !strings.Contains(out, ":10025") {
		t.Errorf("listening in the room:\n%s", out)
	}
	on(ctx, t, l, []string{
		"nft add table inet strict", "nft add chain inet strict input { type filter hook input priority 0 ; policy drop ; }",
		"nft add rule inet strict input udp sport 53 accept", "nft add rule inet strict input meta l4proto icmpv6 accept", "nft add rule inet strict input ct state established accept",
		"nft add chain inet strict forward { type filter hook forward priority 0 ; policy drop ; }",
		"sysctl ipv4/conf/all/rp_filter=1", "sysctl ipv4/conf/all/src_valid_mark=1", "sysctl ipv4/tcp_fwmark_accept=1",
	})
	for _, f := range bothFamilies {
		c, err := l.Hello(ctx, "alice", f.from+":0", f.to)
		if err != nil {
			t.Fatalf("%s: %v", f.name, err)
		}
		if _, r, err := c.Send("a@alice.example", []string{"u@sink.example"}, []byte("Subject: "+f.name+"\r\n\r\n"+strings.Repeat(strings.Repeat("x", 70)+"\r\n", 5000))); err != nil || r.Code != 250 {
			t.Errorf("%s: %v, %v", f.name, r, err)
		}
		c.Close()
	}
	withoutAdmin(t, g)
}

// withoutAdmin states that no thread of the helper has CAP_SYS_ADMIN, or will soon have.
func withoutAdmin(t *testing.T, g *Gateway) {
	t.Helper()
	with := 0
	for until := time.Now().Add(time.Minute); time.Now().Before(until); time.Sleep(20 * time.Millisecond) {
		files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", g.Intercept.Pid()))
		if err != nil || len(files) == 0 {
			t.Fatal(files, err)
		}
		with = 0
		for _, f := range files {
			b, err := os.ReadFile(f)
			if errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ESRCH) { // a thread that ended
				continue
			}
			_, permitted, _ := strings.Cut(string(b), "CapPrm:\t")
			permitted, _, _ = strings.Cut(permitted, "\n")
			if n, err := strconv.ParseUint(permitted, 16, 64); err != nil || n&(1<<unix.CAP_SYS_ADMIN) != 0 {
				with++
			}
		}
		if with == 0 {
			return
		}
	}
	t.Errorf("%d threads of the helper have CAP_SYS_ADMIN", with)
}

// rules tells whether a policy rule of the gateway's delivers.
func (g *Gateway) rules(ctx context.Context, t *testing.T) bool {
	t.Helper()
	out, err := g.lab.must(ctx, HostGateway, Command{Args: []string{"ip", "rule"}})
	if err != nil {
		t.Fatal(err)
	}
	return strings.Contains(out, "fwmark")
}

// roomless makes a helper that may make no namespace, and needs policy rules for that.
func roomless(t *testing.T, helper string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "roomless")
	script := fmt.Sprintf("#!/bin/sh\nexec setpriv --bounding-set -sys_admin %s \"$@\"\n", helper)
	if err := writeProgram(path, strings.NewReader(script)); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestRoomComesAndGoes: helpers that can have a room and one that cannot take turns under load. Connections go on where they
// began, policy rules stay for as long as one needs them, and no message is lost.
func TestRoomComesAndGoes(t *testing.T) {
	t.Parallel()
	for _, path := range []string{"tcx", "clsact"} {
		t.Run(path, func(t *testing.T) {
			t.Parallel()
			ctx, l := testContext(t), ForTest(t, Options{})
			g := startGatewayWith(t, l, by(path, GatewayConfig+"[limits]\nmessages_per_hour = 0\nrecipients_per_hour = 0\nconnections_per_second = 0\n"))
			own := filepath.Join(t.TempDir(), "sluice-intercept")
			if err := copyProgram(g.bin("sluice-intercept"), own); err != nil {
				t.Fatal(err)
			}
			for _, end := range []func(context.Context) error{g.Sluiced.Stop, g.Intercept.Stop} {
				if err := end(ctx); err != nil {
					t.Fatal(err)
				}
			}
			comesAndGoes(ctx, t, l, g, own, roomless(t, own), true)
		})
	}
}

func comesAndGoes(ctx context.Context, t *testing.T, l *Lab, g *Gateway, own, without string, back bool) {
	begin := func(helper string) {
		t.Helper()
		if err := errors.Join(g.installHelper(helper), g.StartIntercept(ctx)); err != nil {
			t.Fatal(err)
		}
	}
	begin(without)
	if err := g.StartSluiced(ctx); err != nil {
		t.Fatal(err)
	}
	f := &fleet{lab: l, told: map[string]int{}, what: map[string]string{}}
	f.start("alice", "198.51.100.20:25")
	f.start("bob", "[2001:db8:100::20]:25")
	open := func(what string) *heldMessage {
		t.Helper()
		ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
		defer cancel()
		for want := f.seq.Load() + 2*fleetSize; f.seq.Load() < want; {
			if err := sleep(ctx, 10*time.Millisecond); err != nil {
				t.Fatalf("%s nothing is sent any more: %v", what, err)
			}
		}
		h, err := hold(ctx, l, "alice", "held@sink.example")
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		return h
	}
	finish := func(h *heldMessage, what string) {
		t.Helper()
		if err := h.finish(); err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	held := open("without a room")
	if !g.rules(ctx, t) {
		t.Error("without a room there are no policy rules")
	}
	restart := func(helper string) {
		t.Helper()
		if err := g.Intercept.Kill(); err != nil {
			t.Fatal(err)
		}
		begin(helper)
	}
	restart(own)
	for g.room(t) == g.own() || !strings.Contains(g.inRoom(ctx, t, "ss", "-Htan"), ":25 ") {
		if err := sleep(ctx, 20*time.Millisecond); err != nil {
			t.Fatal("no connection gets into the room")
		}
	}
	inside := open("with a room")
	if !g.rules(ctx, t) {
		t.Error("the policy rules went before the last connection that needs them")
	}
	finish(held, "a connection from before the room")
	for g.rules(ctx, t) {
		if err := sleep(ctx, 50*time.Millisecond); err != nil {
			t.Fatal("the policy rules stay though nothing needs them")
		}
	}
	if !back {
		finish(inside, "inside")
		f.end()
		books(t, ctx, l, g, f)
		return
	}
	restart(without)
	finish(inside, "a connection in the room, with a helper that cannot enter it")
	again := open("with a helper that cannot enter the room")
	restart(own)
	finish(again, "a connection in the room")
	finish(open("in the end"), "the last connection")
	f.end()
	if len(f.what) > 0 {
		t.Errorf("clients heard something other than 250: %v", f.what)
	}
	if g.rules(ctx, t) {
		t.Error("there are policy rules again")
	}
	books(t, ctx, l, g, f)
}
