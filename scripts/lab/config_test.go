//go:build labtest

package lab

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
)

// mistakes are changes to the usual configuration, each with what the programs say to it.
var mistakes = []struct {
	name, old, new string
	line           string // a part of the line that is named
	want           []string
}{
	{"an unknown key", "[gateway]\n", "[gateway]\nnmae = \"x\"\n", "nmae", []string{"gateway.nmae", "; "}},
	{"a missing key", "name = \"gw.example\"\n", "", "", []string{"gateway.name", "; "}},
	{"a wrong word", `default_fail = "closed"`, `default_fail = "shut"`, "shut", []string{"intercept.default_fail", "open, closed"}},
	{"a wrong type", "automatic = true", "automatic = 7", "automatic = 7", []string{"lock.automatic", "; "}},
	{"no prefix", `prefixes = ["{{.DeliveryV4}}", "{{.DeliveryV6}}"]`, `prefixes = ["203.0.113.300/28"]`, "300/28", []string{"delivery.prefixes", "203.0.113.300/28", "; "}},
	{"too short a time", "[lock]\n", "[lock]\ntime = \"5s\"\n", `time = "5s"`, []string{"lock.time", "at least 1m"}},
	{"a prefix of two users", "[api]\n", "[[user]]\nname = \"twin\"\nprefixes = [\"192.0.2.10/32\"]\n[api]\n", "", []string{"192.0.2.10/32", "; "}},
	{"broken TOML", "[api]\n", "[api\n", "[api", []string{"; "}},
}

// TestBadConfigurationDoesNotStart: each program names file, line, key and remedy, and leaves nothing behind.
func TestBadConfigurationDoesNotStart(t *testing.T) {
	t.Parallel()
	ctx, l := testContext(t), ForTest(t, Options{})
	g, err := l.PrepareGateway(ctx, GatewayOptions{Binaries: os.Getenv("SLUICE_BIN")})
	if err != nil {
		t.Fatal(err)
	}
	before := kernelState(ctx, t, l, g)
	for _, m := range mistakes {
		if err := g.Configure(broken(t, m.old, m.new), ""); err != nil {
			t.Fatal(err)
		}
		for _, c := range []Command{
			{Args: []string{g.bin("sluice-intercept"), "--config", g.Config}},
			{Args: []string{g.bin("sluice-intercept"), "check", "--config", g.Config}},
			{Args: []string{g.bin("sluiced"), "--config", g.Config}, UID: daemonID, GID: daemonID},
			{Args: []string{g.bin("sluiced"), "-check", "--config", g.Config}, UID: daemonID, GID: daemonID},
		} {
			out, err := l.Run(ctx, HostGateway, c)
			if err != nil {
				t.Fatal(err)
			}
			if out.Code == 0 {
				t.Errorf("%s: %v ended with 0", m.name, c.Args)
			}
			complaint(t, m.name, out.Stderr, g.Config, m.line, m.want)
		}
	}
	if err := os.Remove(g.Config); err != nil {
		t.Fatal(err)
	}
	for _, p := range []string{"sluice-intercept", "sluiced"} {
		if out, err := l.Exec(ctx, HostGateway, g.bin(p), "--config", g.Config); err != nil || out.Code == 0 || !strings.Contains(out.Stderr, g.Config) {
			t.Errorf("%s without a file: %d %q %v", p, out.Code, out.Stderr, err)
		}
	}
	if after := kernelState(ctx, t, l, g); after != before {
		t.Errorf("something was left behind:\n%s\nbefore:\n%s", after, before)
	}
	if err := g.Configure("", ""); err != nil {
		t.Fatal(err)
	}
	if err := g.StartIntercept(ctx); err != nil {
		t.Errorf("the good one does not start: %v", err)
	}
}

// complaint states that a program's text names file, line and key, and what to do.
func complaint(t *testing.T, name, text, file, line string, want []string) {
	t.Helper()
	if line != "" {
		content, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		n := 1 + strings.Count(string(content[:strings.Index(string(content), line)]), "\n")
		want = append([]string{fmt.Sprintf("%s:%d: ", file, n)}, want...)
	} else {
		want = append([]string{file + ":"}, want...)
	}
	for _, w := range want {
		if !strings.Contains(text, w) {
			t.Errorf("%s: %q is not in %q", name, w, text)
		}
	}
}

func broken(t *testing.T, old, bad string) string {
	t.Helper()
	text := strings.Replace(GatewayConfig, old, bad, 1)
	if text == GatewayConfig {
		t.Fatalf("the usual configuration has no %q", old)
	}
	return text
}

// TestBadReloadKeepsTheOldState of both programs, and mail and locks go on; a good one then holds.
func TestBadReloadKeepsTheOldState(t *testing.T) {
	t.Parallel()
	ctx, l := testContext(t), ForTest(t, Options{})
	g := startGateway(t, l, "")
	sluice(t, g, "lock", "mallory", "--reason", "a test")
	before := kernelState(ctx, t, l, g)
	for _, m := range mistakes {
		if err := g.Configure(broken(t, m.old, m.new), ""); err != nil {
			t.Fatal(err)
		}
		marks := []int{logSize(t, g.Intercept), logSize(t, g.Sluiced)}
		if err := g.Reload(); err != nil {
			t.Fatal(err)
		}
		for i, p := range []*Process{g.Intercept, g.Sluiced} {
			text, err := waitLogAfter(ctx, p, marks[i], "the old ")
			if err != nil {
				t.Fatalf("%s: %v", m.name, err)
			}
			complaint(t, m.name, strings.ReplaceAll(text, `\"`, `"`), g.Config, m.line, m.want)
		}
		served(t, l, "alice", "", "198.51.100.20:25")
	}
	if after := kernelState(ctx, t, l, g); after != before {
		t.Errorf("bad reloads changed the kernel's state:\n%s\nbefore:\n%s", after, before)
	}
	if out, err := g.Sluice(ctx, "status"); err != nil || out.Code != 0 || !strings.Contains(out.Stdout, "reload") {
		t.Errorf("status does not tell of the bad reload: %v\n%s%s", err, out.Stdout, out.Stderr)
	}
	if locked := lockedUsers(ctx, t, g); len(locked) != 1 {
		t.Errorf("locked are %v", locked)
	}
	served(t, l, "bob", "", "[2001:db8:100::20]:25")

	if err := g.Configure("", "[[user]]\nname = \"late\"\nprefixes = [\"192.0.2.99/32\"]\nmode = \"reject\"\n"); err != nil {
		t.Fatal(err)
	}
	marks := []int{logSize(t, g.Intercept), logSize(t, g.Sluiced)}
	if err := g.Reload(); err != nil {
		t.Fatal(err)
	}
	for i, p := range []*Process{g.Intercept, g.Sluiced} {
		if _, err := waitLogAfter(ctx, p, marks[i], "reloaded"); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.AddCustomer(ctx, Customer{Name: "late", V4: netip.MustParseAddr("192.0.2.99"), V6: netip.MustParseAddr("2001:db8:99::99")}); err != nil {
		t.Fatal(err)
	}
	refused(t, l, "late", "", "198.51.100.20:25")
}

func logSize(t *testing.T, p *Process) int {
	t.Helper()
	data, err := os.ReadFile(p.LogPath())
	if err != nil {
		t.Fatal(err)
	}
	return len(data)
}

// waitLogAfter waits until a line of a program's log behind a mark contains text, and gives all behind the mark.
func waitLogAfter(ctx context.Context, p *Process, mark int, text string) (string, error) {
	for {
		data, err := os.ReadFile(p.LogPath())
		if err != nil {
			return "", err
		}
		if rest := string(data[mark:]); strings.Contains(rest, text) && strings.HasSuffix(rest, "\n") {
			return rest, nil
		}
		if err := sleep(ctx, logPoll); err != nil {
			return "", fmt.Errorf("%s has not said %q: %w", p.name, text, err)
		}
	}
}

// kernelState is everything that Sluice may leave in the gateway's kernel, as text.
func kernelState(ctx context.Context, t *testing.T, l *Lab, g *Gateway) string {
	t.Helper()
	out, err := l.Exec(ctx, HostGateway, "sh", "-c", `
		echo rules; ip rule; ip -6 rule
		echo routes; ip route show table all | grep -v cache; ip -6 route show table all | sed 's/ expires [0-9a-z]*//'
		echo filters; tc qdisc show; for d in $(ls /sys/class/net); do tc filter show dev $d ingress; tc filter show dev $d egress; done
		echo pins; find "$1" -mindepth 1 | sort
		echo addresses; ip -o addr show | sed 's/ valid_lft.*//'
		echo neighbours; ip neigh show proxy; ip -6 neigh show proxy
		echo nft; nft list ruleset`, "sh", g.Dir+"/bpf")
	if err != nil || out.Code != 0 {
		t.Fatalf("%v: %s", err, out.Stderr)
	}
	return out.Stdout + "tcx\n" + strings.Join(tcxPrograms(t, l), "\n")
}

// tcxPrograms counts what hangs at the gateway's interfaces by tcx, which the distribution's tools are too old to show.
func tcxPrograms(t *testing.T, l *Lab) (all []string) {
	t.Helper()
	if err := l.In(HostGateway, func() error {
		interfaces, err := net.Interfaces()
		if err != nil {
			return err
		}
		for _, i := range interfaces {
			for _, at := range []ebpf.AttachType{ebpf.AttachTCXIngress, ebpf.AttachTCXEgress} {
				found, err := link.QueryPrograms(link.QueryOptions{Target: i.Index, Attach: at})
				if errors.Is(err, ebpf.ErrNotSupported) {
					continue // a kernel without tcx
				}
				if err != nil {
					return fmt.Errorf("could not ask for the programs of %s: %w", i.Name, err)
				}
				if n := len(found.Programs); n > 0 {
					all = append(all, fmt.Sprintf("%s %v: %d", i.Name, at, n))
				}
			}
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return all
}

// TestCleanupLeavesNothing after both programs died of kill -9 while mail crossed, with a lock in force.
func TestCleanupLeavesNothing(t *testing.T) { onEachPath(t, cleanupLeavesNothingBy) }

func cleanupLeavesNothingBy(t *testing.T, path string) {
	ctx, l := testContext(t), ForTest(t, Options{})
	g, err := l.PrepareGateway(ctx, GatewayOptions{Config: by(path, GatewayConfig), Binaries: os.Getenv("SLUICE_BIN")})
	if err != nil {
		t.Fatal(err)
	}
	before := kernelState(ctx, t, l, g)
	if err := g.StartIntercept(ctx); err != nil {
		t.Fatal(err)
	}
	if err := g.StartSluiced(ctx); err != nil {
		t.Fatal(err)
	}
	served(t, l, "alice", "", "198.51.100.20:25")
	sluice(t, g, "lock", "mallory", "--reason", "a test")
	open, err := l.Hello(ctx, "alice", "", "[2001:db8:100::20]:25")
	if err != nil {
		t.Fatal(err)
	}
	defer open.Close()
	if kernelState(ctx, t, l, g) == before {
		t.Fatal("the running programs left no trace: nothing is tried")
	}
	if n := len(tcxPrograms(t, l)); (n > 0) != (path == "tcx") {
		t.Errorf("by %s programs hang at %d hooks of tcx", path, n)
	}
	if out, err := g.Cleanup(ctx); err != nil || out.Code == 0 || !strings.Contains(out.Stderr, "stop it first") {
		t.Errorf("cleanup beside a running helper: %v %d %s", err, out.Code, out.Stderr)
	}
	if err := g.Sluiced.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := g.Intercept.Kill(); err != nil {
		t.Fatal(err)
	}
	for range 2 { // once more does no harm
		if out, err := g.Cleanup(ctx); err != nil || out.Code != 0 {
			t.Fatalf("cleanup: %v %s", err, out.Stderr)
		}
		if after := kernelState(ctx, t, l, g); after != before {
			t.Errorf("cleanup left or took something:\n%s\nbefore:\n%s", after, before)
		}
	}
	// Mail goes as if there never had been a gateway.
	c, err := l.SMTP(ctx, "mallory", "", "198.51.100.20:25")
	if err != nil || !strings.Contains(c.Greeting.String(), "mx.sink.example") {
		t.Fatalf("after cleanup: %v", err)
	}
	_ = c.Close()
}
