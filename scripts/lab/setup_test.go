//go:build labtest

package lab

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

// setupArgs run `sluice setup` for this gateway, whose files are not where a real one has them.
func setupArgs(g *Gateway, more ...string) []string {
	set := map[string]string{
		"intercept.pin_dir": g.Dir + "/bpf/sluice", "intercept.state_dir": g.Dir + "/intercept/state",
		"intercept.control_socket": g.Dir + "/intercept/control.sock", "intercept.daemon_user": daemonUser,
		"smtp.spill_dir": g.Dir + "/state/spill", "store.dir": g.Dir + "/state", "log.dir": g.Dir + "/log", "api.socket": g.Socket,
	}
	args := []string{"setup", "--yes", "--config", g.Config}
	for key, value := range set {
		args = append(args, "--set", fmt.Sprintf("%s=%q", key, value))
	}
	return append(args, more...)
}

// fresh is a gateway on which Sluice was installed and nothing else was done.
func fresh(t *testing.T, l *Lab) *Gateway {
	t.Helper()
	g, err := l.PrepareGateway(testContext(t), GatewayOptions{Binaries: os.Getenv("SLUICE_BIN")})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(g.Config); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := g.Stop(context.Background()); err != nil {
			t.Error("stop the gateway: ", err)
		}
	})
	return g
}

// TestSetup: the first command on a fresh gateway, the daemons started on what it wrote, and mail that is seen and not
// touched.
func TestSetup(t *testing.T) {
	t.Parallel()
	ctx, l := testContext(t), ForTest(t, Options{})
	g := fresh(t, l)
	if err := l.sysctl(HostGateway, []string{"core/somaxconn=16384", "ipv4/tcp_max_syn_backlog=128"}); err != nil {
		t.Fatal(err)
	}
	if err := l.ip(ctx, HostGateway, []string{
		"link add br0 type bridge", "link add port0 type veth peer name port1", "link set port0 master br0", "link set br0 up", "link set port0 up",
		"addr add 192.0.2.129/27 dev br0", "link add idle0 type veth peer name idle1", "link set idle0 up", "link add vl7 link cust0 type macvlan",
	}); err != nil {
		t.Fatal(err)
	}
	dry := sluice(t, g, setupArgs(g, "--dry-run")...)
	if _, err := os.Stat(g.Config); err == nil || !strings.Contains(dry, `default_mode = "observe"`) {
		t.Errorf("--dry-run wrote a file, or printed none:\n%s", dry)
	}
	var out struct {
		Written    bool
		Config     string
		Interfaces []struct{ Name, Role, Why string }
		Findings   []findingLine
	}
	if err := json.Unmarshal([]byte(sluice(t, g, setupArgs(g, "--json")...)), &out); err != nil || !out.Written || len(out.Findings) != 1 || !strings.HasPrefix(out.Findings[0].Remedy, "sysctl --system") {
		t.Fatalf("%v, %+v", err, out)
	}
	roles := map[string]string{}
	for _, i := range out.Interfaces {
		roles[i.Role] += " " + i.Name
		if i.Why == "" {
			t.Errorf("%s has no reason", i.Name)
		}
	}
	if roles["uplink"] != " up0" || roles["customer"] != " cust0 cust1 cust2 cust3 br0" || !strings.Contains(out.Config, `customer_interfaces = ["cust*", "br0"]`) {
		t.Errorf("roles %v in\n%s", roles, out.Config)
	}
	for _, w := range []string{`name = "gw.example"`, `# address = "203.0.113.1"`, `# helo = "gw.example"`} {
		if !strings.Contains(out.Config, w) {
			t.Errorf("%s is not in\n%s", w, out.Config)
		}
	}
	again, err := g.Sluice(ctx, setupArgs(g)...)
	if err != nil || again.Code != 1 || !strings.Contains(again.Stderr, "exists already") {
		t.Errorf("a second setup: %v, code %d: %s", err, again.Code, again.Stderr)
	}
	for _, attached := range []string{"rule", "-6 rule"} {
		rules, err := l.must(ctx, HostGateway, Command{Args: append([]string{"ip"}, strings.Fields(attached)...)})
		if err != nil || strings.Contains(rules, "fwmark") {
			t.Errorf("setup has attached something: %v %s", err, rules)
		}
	}
	startOn(ctx, t, g)
	seenAndUntouched(ctx, t, l, g)
	firstSteps(ctx, t, l, g)
}

// firstSteps goes on from there for one customer: his mail is in shadow, and at the first step to enforcement it is asked
// what becomes of it while the proxy is dead.
func firstSteps(ctx context.Context, t *testing.T, l *Lab, g *Gateway) {
	sluice(t, g, "rollout", "forward", "192.0.2.10/32")
	from := "shadow@alice.example"
	gateMail(ctx, t, l, "alice", from, "198.51.100.20:25", "shadow@sink.example", "Subject: x\r\n\r\nx\r\n")
	for {
		var all []struct{ Shadow bool }
		if err := sluiceJSON(ctx, g, &all, "log", "--from", from, "--status", "delivered"); err != nil {
			t.Fatal(err)
		}
		if len(all) == 1 && all[0].Shadow {
			break
		}
		if err := sleep(ctx, 50*time.Millisecond); err != nil {
			t.Fatalf("a step forward, and the log has %+v", all)
		}
	}
	out, err := g.Sluice(ctx, "rollout", "forward", "192.0.2.10/32")
	if err != nil || out.Code != 1 || !strings.Contains(out.Stderr, "--fail open") {
		t.Errorf("the first step to enforcement: %v, code %d: %s%s", err, out.Code, out.Stdout, out.Stderr)
	}
	sluice(t, g, "rollout", "forward", "192.0.2.10/32", "--fail", "closed")
	sluice(t, g, "rollout", "back", "192.0.2.10/32")
}

// startOn starts all daemons of a gateway.
func startOn(ctx context.Context, t *testing.T, g *Gateway) {
	t.Helper()
	if err := g.StartIntercept(ctx); err != nil {
		t.Fatal(err)
	}
	if err := g.StartSluiced(ctx); err != nil {
		t.Fatal(err)
	}
	p, err := g.StartObserve(ctx)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Stop(context.Background()); err != nil {
			t.Error(err)
		}
	})
}

func seenAndUntouched(ctx context.Context, t *testing.T, l *Lab, g *Gateway) {
	body := []byte("Subject: first\r\n\r\nseen\r\n")
	for i, to := range []string{"198.51.100.20:25", "[2001:db8:100::20]:25"} {
		from, rcpt := fmt.Sprintf("first%d@alice.example", i), fmt.Sprintf("first%d@sink.example", i)
		c, err := l.Hello(ctx, "alice", "", to)
		if err != nil {
			t.Fatal(err)
		}
		if _, last, err := c.Send(from, []string{rcpt}, body); err != nil || last.Code != 250 {
			t.Fatalf("to %s: %v, %v", to, last, err)
		}
		if err := c.Quit(); err != nil {
			t.Error(err)
		}
		m := messageTo(ctx, t, l, rcpt)
		alice := l.Customers()[0]
		if peer := unmapped(m.Peer).Addr(); !bytes.Equal(m.Data, body) || peer != alice.V4 && peer != alice.V6 {
			t.Errorf("%q came from %v: it was touched", m.Data, m.Peer)
		}
		observedRecords(ctx, t, g, 1, func(r observedRecord) bool { return r.From == from })
	}
	var gate struct {
		Users, Observed, Messages int
		Lines                     []struct{ Check, Verdict string }
	}
	if err := sluiceJSON(ctx, g, &gate, "gate"); err != nil {
		t.Fatal(err)
	}
	if gate.Users != 2 || gate.Observed != 2 || gate.Messages != 2 || len(gate.Lines) != 8 {
		t.Errorf("the gate says %+v", gate)
	}
}
