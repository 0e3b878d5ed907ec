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
	return dir + "/ns/net" // no room by nftables
}

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
	for until := time.Now().Add(20 * time.Second); time.Now().Before(until); time.Sleep(20 * time.Millisecond) {
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
