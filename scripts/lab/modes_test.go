//go:build labtest

package lab

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// looseConfig lets modes below those of the file be set for alice, bob and dave, and the sink be exempt.
var looseConfig = strings.Replace(GatewayConfig, "[intercept]\n", `[intercept]
runtime_loosen = ["192.0.2.0/27", "2001:db8::/46"]
runtime_exempt = ["198.51.100.20/32", "2001:db8:100::20/128"]
`, 1)

const sink4, sink6 = "198.51.100.20:25", "[2001:db8:100::20]:25"

// met is what a customer meets: the gateway, the destination's own greeting, a reset, or nothing.
func met(ctx context.Context, l *Lab, host, to string) string {
	a := try(ctx, l, host, to)
	switch {
	case strings.HasPrefix(a.greeting, "220 gw.example"):
		return "gateway"
	case strings.HasPrefix(a.greeting, "220 mx.sink.example"):
		return "destination"
	case a.err != nil && strings.Contains(a.err.Error(), "refused"):
		return "reset"
	case a.err != nil:
		return "nothing"
	}
	return a.greeting
}

// meets holds that a customer meets the same by both families.
func meets(ctx context.Context, t *testing.T, l *Lab, host, want string) {
	t.Helper()
	for _, to := range []string{sink4, sink6} {
		if got := met(ctx, l, host, to); got != want {
			t.Errorf("%s meets %s at %s, want %s", host, got, to, want)
		}
	}
}

// setModes sets the mode of prefixes.
func setModes(t *testing.T, g *Gateway, mode string, prefixes ...string) {
	t.Helper()
	for _, p := range prefixes {
		args := []string{"mode", "set", p, mode, "--reason", "test"}
		if name, percent, ok := strings.Cut(mode, " "); ok {
			args = append([]string{"mode", "set", p, name, "--percent", percent}, args[4:]...)
		}
		sluice(t, g, args...)
	}
}

// refusedWith runs a command that has to fail with a text and leave the gateway as it is.
func refusedWith(ctx context.Context, t *testing.T, g *Gateway, text string, args ...string) {
	t.Helper()
	out, err := g.Sluice(ctx, args...)
	if err != nil || out.Code == 0 || !strings.Contains(out.Stderr, text) {
		t.Errorf("sluice %v: %v, exit %d, %q, want %q", args, err, out.Code, out.Stderr, text)
	}
}

// impossibleModes holds that a mode which connects from customers' own addresses is refused while answers would come back by an
// uplink that is not attached, that all stays as it is, and that the same commands are taken once it is.
func impossibleModes(ctx context.Context, t *testing.T, l *Lab, g *Gateway, path string) {
	t.Helper()
	configure := func(uplinks string, attached bool) {
		t.Helper()
		text := strings.Replace(by(path, looseConfig), `uplinks = ["up*"]`, `uplinks = ["`+uplinks+`"]`, 1)
		if err := errors.Join(g.Configure(text, ""), g.Intercept.Signal(syscall.SIGHUP)); err != nil {
			t.Fatal(err)
		}
		for {
			var st struct {
				Helper struct{ Interfaces []struct{ Role string } }
			}
			if err := sluiceJSON(ctx, g, &st, "status"); err != nil {
				t.Fatal(err)
			}
			if slices.ContainsFunc(st.Helper.Interfaces, func(i struct{ Role string }) bool { return i.Role == "uplink" }) == attached {
				return
			}
			if err := sleep(ctx, 50*time.Millisecond); err != nil {
				t.Fatalf("uplinks %s: %+v", uplinks, st.Helper.Interfaces)
			}
		}
	}
	before := sluice(t, g, "mode") + sluice(t, g, "exempt")
	configure("wan7", false)
	const why = "no uplink is attached"
	refusedWith(ctx, t, g, why, "mode", "set", "192.0.2.10", "shadow", "--reason", "x")
	refusedWith(ctx, t, g, "correct intercept.uplinks", "mode", "set", "192.0.2.0/27", "canary", "--percent", "5", "--reason", "x")
	refusedWith(ctx, t, g, why, "exempt", "set", "198.51.100.20", "shadow", "--reason", "x")
	sluice(t, g, "mode", "set", "192.0.2.11", "reject", "--reason", "needs no uplink")
	sluice(t, g, "mode", "remove", "192.0.2.11", "--reason", "done")
	if after := sluice(t, g, "mode") + sluice(t, g, "exempt"); after != before {
		t.Errorf("what was refused changed the rules:\n%s\nbefore:\n%s", after, before)
	}
	meets(ctx, t, l, "alice", "gateway")
	configure("up*", true)
	sluice(t, g, "mode", "set", "192.0.2.10", "shadow", "--reason", "the same again")
	if got := met(ctx, l, "alice", sink4); got != "destination" {
		t.Errorf("in shadow alice meets %s", got)
	}
	if path != "nftables" {
		return
	}
	// nftables knows no ports of interfaces: the file is not taken, and what it says beside is not, either.
	text := strings.Replace(by(path, looseConfig), "[intercept]\n", "[intercept]\ndefault_mode = \"drop\"\n", 1)
	err := errors.Join(g.Configure(text, "[[intercept.port]]\nport = 2525\ninterfaces = [\"cust*\"]\n"), g.Intercept.Signal(syscall.SIGHUP))
	if err := errors.Join(err, g.Intercept.WaitLog(ctx, "could not tell interfaces apart")); err != nil {
		t.Fatal(err)
	}
	if got := met(ctx, l, "mallory", sink4) + met(ctx, l, "alice", sink4); got != "gatewaydestination" {
		t.Errorf("after a file that was refused mallory and alice meet %s", got)
	}
	sluice(t, g, "mode", "set", "192.0.2.10", "intercept", "--reason", "changes go on")
	meets(ctx, t, l, "alice", "gateway")
}

// TestModesAtRunTime goes through every mode of a source and of a destination on a live gateway, and has both programs
// restarted in between.
func TestModesAtRunTime(t *testing.T) { onEachPath(t, modesAtRunTimeBy) }

func modesAtRunTimeBy(t *testing.T, path string) {
	ctx, l := testContext(t), ForTest(t, Options{})
	g := startGatewayWith(t, l, by(path, looseConfig))
	alice := []string{"192.0.2.8/29", "2001:db8:1::/48"} // around him; they are not his own prefixes
	meets(ctx, t, l, "alice", "gateway")
	for mode, want := range map[string]string{"pass": "destination", "observe": "destination", "shadow": "destination", "reject": "reset", "drop": "nothing", "canary 1": "destination", "intercept": "gateway"} {
		setModes(t, g, mode, alice...)
		meets(ctx, t, l, "alice", want)
	}
	meets(ctx, t, l, "bob", "gateway")

	// Shadow judges, also in the part of a canary that is not enforced.
	for _, mode := range []string{"shadow", "canary 1"} {
		setModes(t, g, mode, alice...)
		var log []struct {
			Shadow bool
			Class  string
		}
		replies := inShadow(ctx, t, l, "alice", sink4, "judged@sink.example")
		if len(replies) == 0 {
			t.Fatal("no dialogue")
		}
		if err := sluiceJSON(ctx, g, &log, "log", "--user", "alice", "--status", "delivered"); err != nil {
			t.Fatal(err)
		}
		if len(log) == 0 || !log[0].Shadow || log[0].Class != "spam" {
			t.Errorf("%s: logged %+v", mode, log)
		}
	}

	// The longest prefix wins, whoever it belongs to; a lock of the user holds inside all of it.
	setModes(t, g, "pass", "192.0.2.0/27", "2001:db8:1::10/128")
	setModes(t, g, "intercept", "192.0.2.10/32")
	if got := met(ctx, l, "alice", sink4); got != "gateway" {
		t.Errorf("alice meets %s", got)
	}
	if got := met(ctx, l, "bob", sink4); got != "destination" {
		t.Errorf("bob meets %s", got)
	}

	// What is refused changes nothing.
	for text, args := range map[string][]string{
		"intercept.runtime_loosen": {"mode", "set", "192.0.2.66", "pass", "--reason", "x"},
		"bits set behind":          {"mode", "set", "192.0.2.10/24", "reject", "--reason", "x"},
		"IPv4 written as IPv6":     {"mode", "set", "::ffff:192.0.2.0/120", "reject", "--reason", "x"},
		"is not a mode":            {"mode", "set", "192.0.2.66", "allow", "--reason", "x"},
		"percent":                  {"mode", "set", "192.0.2.10", "canary", "--reason", "x"},
		"no rule was made":         {"mode", "remove", "203.0.113.0/24"},
		"intercept.runtime_exempt": {"exempt", "set", "198.51.100.21", "pass", "--reason", "x"},
		"cannot be in mode canary": {"exempt", "set", "198.51.100.20", "canary", "--reason", "x"},
		"no mail port":             {"exempt", "set", "198.51.100.20", "pass", "--port", "26", "--reason", "x"},
	} {
		refusedWith(ctx, t, g, text, args...)
	}
	if got := met(ctx, l, "mallory", sink4); got != "gateway" {
		t.Errorf("mallory meets %s", got)
	}
	if n := strings.Count(sluice(t, g, "mode"), "run-time"); n != 5 {
		t.Errorf("%d rules are listed:\n%s", n, sluice(t, g, "mode"))
	}

	// Rules outlive every restart, and hold before sluiced is there to say so.
	for what, again := range map[string]func() error{
		"sluiced": func() error { return g.RestartSluiced(ctx) }, "sluice-intercept": func() error { return g.RestartIntercept(ctx) },
	} {
		if err := again(); err != nil {
			t.Fatal(err)
		}
		if got := met(ctx, l, "bob", sink4) + met(ctx, l, "alice", sink6) + met(ctx, l, "alice", sink4); got != "destinationdestinationgateway" {
			t.Errorf("after a restart of %s: %s", what, got)
		}
	}
	if _, err := handOver(ctx, g); err != nil {
		t.Fatal(err)
	}
	if err := g.Sluiced.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := g.Intercept.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := g.StartIntercept(ctx); err != nil {
		t.Fatal(err)
	}
	if got := met(ctx, l, "bob", sink4); got != "destination" {
		t.Errorf("with sluiced dead and sluice-intercept back bob meets %s", got)
	}
	if err := g.StartSluiced(ctx); err != nil {
		t.Fatal(err)
	}
	for _, p := range []string{"192.0.2.0/27", "2001:db8:1::10/128", "192.0.2.10", alice[0], alice[1]} {
		sluice(t, g, "mode", "remove", p, "--reason", "done")
	}
	for _, host := range []string{"alice", "bob"} {
		meets(ctx, t, l, host, "gateway")
	}

	exemptions(ctx, t, l, g)
	impossibleModes(ctx, t, l, g, path)
}

// connected waits until sluiced has found a helper that was restarted.
func connected(ctx context.Context, t *testing.T, g *Gateway) {
	t.Helper()
	var st struct{ Helper struct{ Connected bool } }
	for !st.Helper.Connected {
		if err := sluiceJSON(ctx, g, &st, "status"); err != nil {
			t.Fatal(err)
		}
		if err := sleep(ctx, 10*time.Millisecond); err != nil {
			t.Fatal("sluiced does not find sluice-intercept again")
		}
	}
}

// exemptions goes through the modes of a destination.
func exemptions(ctx context.Context, t *testing.T, l *Lab, g *Gateway) {
	t.Helper()
	sinks := []string{"198.51.100.20", "2001:db8:100::20"}
	for mode, want := range map[string]string{"pass": "destination", "shadow": "destination", "observe": "destination", "reject": "reset", "drop": "nothing", "intercept": "gateway"} {
		for _, p := range sinks {
			sluice(t, g, "exempt", "set", p, mode, "--port", "25", "--reason", "test")
		}
		meets(ctx, t, l, "mallory", want)
	}
	for _, p := range sinks {
		sluice(t, g, "exempt", "set", p, "pass", "--for", "1h", "--reason", "test")
		sluice(t, g, "exempt", "remove", p, "--port", "25")
	}
	if err := g.RestartIntercept(ctx); err != nil {
		t.Fatal(err)
	}
	meets(ctx, t, l, "mallory", "destination")
	connected(ctx, t, g)
	for _, p := range sinks {
		sluice(t, g, "exempt", "remove", p)
	}
	meets(ctx, t, l, "mallory", "gateway")
}

// TestModesChangeUnderLoad changes modes a hundred times while customers send: nothing is refused, nothing lost, and not
// one connection of a customer who stays intercepted goes past the proxy.
func TestModesChangeUnderLoad(t *testing.T) { onEachPath(t, modesChangeUnderLoadBy) }

func modesChangeUnderLoadBy(t *testing.T, path string) {
	ctx, l := testContext(t), ForTest(t, Options{})
	// dave stays intercepted although what is around him changes all the time.
	g := startGatewayWith(t, l, by(path, looseConfig)+"\n[limits]\nmessages_per_hour = 0\nrecipients_per_hour = 0\nconnections_per_second = 0\n"+
		"[[mode]]\nprefix = \"192.0.2.30/32\"\nmode = \"intercept\"\nreason = \"stays\"\n[[mode]]\nprefix = \"2001:db8:3::/48\"\nmode = \"intercept\"\nreason = \"stays\"\n")
	out, err := l.Capture(ctx, HostGateway, "up0", "tcp dst port 25")
	if err != nil {
		t.Fatal(err)
	}
	in, err := l.Capture(ctx, "alice", "eth0", "tcp port 25")
	if err != nil {
		t.Fatal(err)
	}
	f := &fleet{lab: l, told: map[string]int{}, what: map[string]string{}}
	f.start("alice", sink4)
	f.start("dave", sink6)
	f.start("dave", sink4)
	modes := []string{"shadow", "intercept", "canary 50", "pass", "observe"}
	prefixes := []string{"192.0.2.0/27", "2001:db8::/46", "192.0.2.10", "192.0.2.8/29", "192.0.2.10/31"}
	began := time.Now()
	for i := range 100 {
		p := prefixes[i%len(prefixes)]
		if i%7 == 6 && strings.Contains(sluice(t, g, "mode"), p) {
			if out, err := g.Sluice(ctx, "mode", "remove", p); err != nil || out.Code != 0 && !strings.Contains(out.Stderr, "no rule was made") {
				t.Fatalf("remove %s: %v %s", p, err, out.Stderr)
			}
			continue
		}
		setModes(t, g, modes[i%len(modes)], p)
	}
	t.Logf("100 changes in %v, %d messages", time.Since(began), f.seq.Load())
	f.end()
	if len(f.what) > 0 {
		t.Errorf("clients heard something other than 250: %v", f.what)
	}
	cust, err := in.Stop()
	if err != nil {
		t.Fatal(err)
	}
	resets(t, cust)
	up, err := out.Stop()
	if err != nil {
		t.Fatal(err)
	}
	own := 0
	for _, p := range up.SYNs() {
		switch p.Src.Addr() {
		case netip.MustParseAddr("192.0.2.30"), netip.MustParseAddr("2001:db8:3::30"):
			t.Errorf("at %v a connection of dave's went past the proxy: %v to %v", p.Time, p.Src, p.Dst)
		case netip.MustParseAddr("192.0.2.10"):
			own++
		}
	}
	if own == 0 {
		t.Error("no connection ever left from alice's own address: the modes did nothing")
	}
	books(t, ctx, l, g, f)
}

// TestCanary: who is enforced at a share is enforced at every larger one, and all the others hear nothing of us.
func TestCanary(t *testing.T) {
	t.Parallel()
	ctx := testContext(t)
	var customers []Customer
	for i := range 24 {
		customers = append(customers, Customer{Name: fmt.Sprintf("c%d", i), V4: netip.AddrFrom4([4]byte{192, 0, 2, byte(40 + i)}),
			V6: netip.MustParseAddr(fmt.Sprintf("2001:db8:%x::77", 0x40+i))})
	}
	l := ForTest(t, Options{Customers: customers})
	g := startGatewayWith(t, l, strings.Replace(GatewayConfig, "[intercept]\n", "[intercept]\ndefault_mode = \"observe\"\n", 1))
	all := []string{"0.0.0.0/0", "::/0"}
	meets(ctx, t, l, "c0", "destination")
	before := map[string]bool{}
	for _, percent := range []int{1, 5, 25, 60, 99} {
		setModes(t, g, fmt.Sprintf("canary %d", percent), all...)
		now, told := map[string]bool{}, map[string]string{}
		var users []struct{ Name, Mode, Canary string }
		if err := sluiceJSON(ctx, g, &users, "users"); err != nil {
			t.Fatal(err)
		}
		for _, u := range users {
			if u.Mode != fmt.Sprintf("canary %d%%", percent) {
				t.Errorf("%s is told as %s", u.Name, u.Mode)
			}
			told[u.Name] = u.Canary
		}
		for _, c := range customers {
			got := met(ctx, l, c.Name, sink4)
			if six := met(ctx, l, c.Name, sink6); six != got {
				t.Errorf("%d %%: %s meets %s by IPv4 and %s by IPv6", percent, c.Name, got, six)
			}
			if now[c.Name] = got == "gateway"; got != "gateway" && got != "destination" {
				t.Errorf("%d %%: %s meets %s", percent, c.Name, got)
			}
			if side := map[bool]string{true: "enforced", false: "shadow"}[now[c.Name]]; told[c.Name] != side {
				t.Errorf("%d %%: %s is told to be %s and is %s", percent, c.Name, told[c.Name], side)
			}
			if before[c.Name] && !now[c.Name] {
				t.Errorf("%s is enforced at less than %d %% and not there", c.Name, percent)
			}
		}
		t.Logf("%d %%: %d of %d", percent, count(now), len(customers))
		before = now
	}
	if n := count(before); n < len(customers)*3/4 {
		t.Errorf("at 99 %% %d of %d are enforced", n, len(customers))
	}
}

func count(set map[string]bool) (n int) {
	for _, in := range set {
		if in {
			n++
		}
	}
	return n
}
