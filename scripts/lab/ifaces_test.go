//go:build labtest

package lab

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"
)

// greetingAt connects and returns the greeting.
func greetingAt(ctx context.Context, l *Lab, host, from, to string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	c, err := l.SMTP(ctx, host, from, to)
	if err != nil {
		return "", err
	}
	defer c.Close()
	return fmt.Sprint(c.Greeting), nil
}

// TestPortsByInterface: a port is a mail port where its interface says so; submission to others is counted or refused, and
// never opened.
func TestPortsByInterface(t *testing.T) {
	t.Parallel()
	ctx, l := testContext(t), ForTest(t, Options{})
	var at []string
	for _, port := range []int{2525, 587, 465} {
		at = append(at, fmt.Sprintf("198.51.100.20:%d", port), fmt.Sprintf("[2001:db8:100::20]:%d", port))
	}
	if _, err := l.SinkAt(HostInternet, "ports", at...); err != nil {
		t.Fatal(err)
	}
	g := startGateway(t, l, `
[[intercept.port]]
port = 2525
interfaces = ["cust0"]
[[intercept.port]]
port = 587
mode = "pass"
[[intercept.port]]
port = 465
mode = "reject"
interfaces = ["cust[1-9]"]
`)
	const gateway, refused = "gw.example", "refused"
	for _, c := range []struct {
		host string
		port int
		want string
	}{
		{"alice", 2525, gateway}, {"bob", 2525, "mx."}, {"alice", 587, "mx."}, {"bob", 587, "mx."}, {"alice", 465, "mx."}, {"bob", 465, refused}, {"bob", 25, gateway},
	} {
		for _, to := range []string{fmt.Sprintf("198.51.100.20:%d", c.port), fmt.Sprintf("[2001:db8:100::20]:%d", c.port)} {
			got, err := greetingAt(ctx, l, c.host, "", to)
			if errors.Is(err, syscall.ECONNREFUSED) {
				got, err = refused, nil
			}
			if err != nil || !strings.Contains(got, c.want) {
				t.Errorf("%s at %s: %q, %v; want %q", c.host, to, got, err, c.want)
			}
		}
	}
	var n struct{ Kernel map[string]uint64 }
	if err := sluiceJSON(ctx, g, &n, "status", "--counters"); err != nil || n.Kernel["port_pass"] != 4 || n.Kernel["port_reject"] < 2 {
		t.Errorf("port_pass %d, port_reject %d: %v", n.Kernel["port_pass"], n.Kernel["port_reject"], err)
	}
	// The mail of such a port arrives like other mail.
	s, err := l.Hello(ctx, "alice", "", "198.51.100.20:2525")
	if err != nil {
		t.Fatal(err)
	}
	if _, last, err := s.Send("a@alice.example", []string{"b@sink.example"}, []byte("Subject: port\r\n\r\nx\r\n")); err != nil || last.Code != 250 {
		t.Errorf("%v %v", last, err)
	}
}

// TestBinding: a neighbour in the same segment who borrows a bound address gets nowhere, and the operator sees it.
func TestBinding(t *testing.T) {
	t.Parallel()
	ctx, l := testContext(t), ForTest(t, Options{})
	erin := Customer{Name: "erin", V4: netip.MustParseAddr("192.0.2.50"), V6: netip.MustParseAddr("2001:db8:50::50")}
	frank := Customer{Name: "frank", V4: netip.MustParseAddr("192.0.2.51"), V6: netip.MustParseAddr("2001:db8:51::51")}
	for _, c := range []Customer{erin, frank} {
		if err := l.AddCustomer(ctx, c); err != nil {
			t.Fatal(err)
		}
	}
	// Both share one segment: a bridge of the gateway.
	lines := []string{"link add custbr type bridge", "link set custbr addrgenmode none up", "addr add 192.0.2.1/32 dev custbr", "addr add fe80::1/64 dev custbr nodad"}
	for i, c := range []Customer{erin, frank} {
		port := fmt.Sprintf("cust%d", len(DefaultCustomers())+i)
		lines = append(lines, "addr flush dev "+port, "link set "+port+" master custbr",
			fmt.Sprintf("route replace %s/32 dev custbr", c.V4), fmt.Sprintf("route replace %s/128 dev custbr", c.V6))
	}
	if err := l.ip(ctx, HostGateway, lines); err != nil {
		t.Fatal(err)
	}
	mac, err := l.must(ctx, "erin", Command{Args: []string{"cat", "/sys/class/net/eth0/address"}})
	if err != nil {
		t.Fatal(err)
	}
	if err := l.ip(ctx, "frank", []string{"addr add 192.0.2.50/32 dev eth0", "addr add 2001:db8:50::50/128 dev eth0 nodad"}); err != nil {
		t.Fatal(err)
	}
	bind := "{{if eq .Name \"erin\"}}" + fmt.Sprintf("[[user.bind]]\ninterface = \"custbr\"\nmac = %q\n", strings.TrimSpace(mac)) + "{{end}}"
	g := startGatewayWith(t, l, strings.TrimSuffix(GatewayConfig, "{{end}}")+bind+"{{end}}")
	for _, to := range []string{"198.51.100.20:25", "[2001:db8:100::20]:25"} {
		if got, err := greetingAt(ctx, l, "erin", "", to); err != nil || !strings.Contains(got, "gw.example") {
			t.Errorf("erin at %s: %q %v", to, got, err)
		}
	}
	for from, to := range map[string]string{"192.0.2.50": "198.51.100.20:25", "2001:db8:50::50": "[2001:db8:100::20]:25"} {
		soon, cancel := context.WithTimeout(ctx, 1500*time.Millisecond)
		if c, err := l.Dial(soon, "frank", from, to); err == nil {
			_ = c.Close()
			t.Errorf("frank was served as %s", from)
		}
		cancel()
	}
	served(t, l, "frank", "192.0.2.51", "198.51.100.20:25")
	out, err := g.Sluice(ctx, "users", "show", "erin")
	if err != nil || !strings.Contains(out.Stdout, "by custbr from "+strings.TrimSpace(mac)) || !strings.Contains(out.Stdout, "in his name dropped") {
		t.Errorf("users show: %v\n%s", err, out.Stdout)
	}
	out, err = g.Sluice(ctx, "doctor", "--no-dns")
	if err != nil || !strings.Contains(out.Stdout, "in the name of erin came by another interface or Ethernet address than his") {
		t.Errorf("doctor: %v\n%s", err, out.Stdout)
	}
}

// secondWayOut gives a customer a link around the gateway. Answers to him still come back through it.
func secondWayOut(ctx context.Context, t *testing.T, l *Lab, host string, families ...int) {
	t.Helper()
	if err := l.ip(ctx, HostInternet, []string{"link add around type veth peer name eth1 netns " + host, "link set around up",
		"addr add 192.0.2.254/32 dev around", "addr add fe80::254/64 dev around nodad"}); err != nil {
		t.Fatal(err)
	}
	lines := []string{"link set eth1 up"}
	for _, f := range families {
		if f == 4 {
			lines = append(lines, "route replace default via 192.0.2.254 dev eth1 onlink")
		} else {
			lines = append(lines, "-6 route replace default via fe80::254 dev eth1")
		}
	}
	for _, line := range lines {
		if _, err := l.must(ctx, host, Command{Args: append([]string{"ip"}, strings.Fields(line)...)}); err != nil {
			t.Fatal(err)
		}
	}
}

// TestProbe: a customer proves on his own server what the gateway cannot see, and the desk finds it in the log.
func TestProbe(t *testing.T) {
	t.Parallel()
	ctx, l := testContext(t), ForTest(t, Options{})
	g := startGatewayWith(t, l, strings.Replace(GatewayConfig, `name = "{{.Name}}"`, `name = "{{.Name}}"{{if eq .Name "dave"}}
mode = "shadow"{{end}}{{if eq .Name "mallory"}}
fail = "open"{{end}}`, 1))
	here := func(host string, args ...string) (Output, string) {
		t.Helper()
		out, err := l.Run(ctx, host, Command{Args: append([]string{g.bin("sluice"), "probe", "--from-here"}, args...), UID: daemonID, GID: daemonID})
		if err != nil {
			t.Fatal(err)
		}
		nonce, _, _ := strings.Cut(strings.TrimPrefix(out.Stdout, "probe "), ",")
		return out, nonce
	}
	look := func(nonce string) Output {
		t.Helper()
		var out Output
		eventually(ctx, func() bool { // the log hears after the client, and until then the session is open
			var err error
			if out, err = g.Sluice(ctx, "probe", "--look", nonce); err != nil {
				t.Fatal(err)
			}
			return out.Code == 0 && !strings.Contains(out.Stdout, "is here now")
		})
		return out
	}
	gateway := func(code int, want string, args ...string) {
		t.Helper()
		out, err := g.Sluice(ctx, append([]string{"probe", "--towards", "198.51.100.20,2001:db8:100::20"}, args...)...)
		if err != nil || out.Code != code || !strings.Contains(out.Stdout, want) {
			t.Errorf("probe %v: code %d, want %d with %q: %v\n%s%s", args, out.Code, code, want, err, out.Stdout, out.Stderr)
		}
	}
	t.Run("through", func(t *testing.T) {
		out, nonce := here("alice", "sink.example")
		if out.Code != 0 || strings.Count(out.Stdout, "through the gateway gw.example") != 2 {
			t.Errorf("code %d\n%s%s", out.Code, out.Stdout, out.Stderr)
		}
		if got := look(nonce); got.Code != 0 || !strings.Contains(got.Stdout, "of user alice") || !strings.Contains(got.Stdout, "(intercepted)") {
			t.Errorf("code %d\n%s", got.Code, got.Stdout)
		}
		gateway(0, "4 prefixes good, 0 not proven", "alice", "dave")
	})
	t.Run("shadow", func(t *testing.T) {
		out, nonce := here("dave", "198.51.100.20")
		if out.Code != 1 || !strings.Contains(out.Stdout, "the server itself did") || !strings.Contains(out.Stdout, "sluice probe --look "+nonce) {
			t.Errorf("code %d\n%s%s", out.Code, out.Stdout, out.Stderr)
		}
		if got := look(nonce); got.Code != 0 || !strings.Contains(got.Stdout, "of user dave") || !strings.Contains(got.Stdout, "(shadow)") {
			t.Errorf("code %d\n%s", got.Code, got.Stdout)
		}
	})
	t.Run("IPv6 goes around, answers come back", func(t *testing.T) {
		secondWayOut(ctx, t, l, "mallory", 6)
		out, nonce := here("mallory", "sink.example")
		if out.Code != 1 || !strings.Contains(out.Stdout, "IPv4 from 192.0.2.66 to 198.51.100.20: through the gateway gw.example") ||
			!strings.Contains(out.Stdout, "IPv6 from 2001:db8:66::66 to 2001:db8:100::20: no gateway answered") {
			t.Errorf("code %d\n%s%s", out.Code, out.Stdout, out.Stderr)
		}
		if got := look(nonce); !strings.Contains(got.Stdout, "192.0.2.66") {
			t.Errorf("code %d\n%s", got.Code, got.Stdout)
		}
		gateway(1, "answers came back for connections that did not go through here", "mallory")
		gateway(0, "goes through the gateway", "192.0.2.66")
		for _, args := range [][]string{{"status"}, {"doctor", "--no-dns"}} {
			got, err := g.Sluice(ctx, args...)
			if err != nil || !strings.Contains(got.Stdout, "asymmetric route") || !strings.Contains(got.Stdout, "2001:db8:66::66") || !strings.Contains(got.Stdout, "mallory") {
				t.Errorf("%v: %v\n%s", args, err, got.Stdout)
			}
		}
	})
	t.Run("the destination is away", func(t *testing.T) { // which is no matter: the gateway answers first
		if out, _ := here("alice", "198.51.100.41"); out.Code != 0 || !strings.Contains(out.Stdout, "through the gateway gw.example") {
			t.Errorf("code %d\n%s", out.Code, out.Stdout)
		}
	})
	t.Run("reset", func(t *testing.T) {
		if out, _ := here("alice", "198.51.100.20:99"); out.Code != 1 || !strings.Contains(out.Stdout, "warn  IPv4 to 198.51.100.20: refused at once") {
			t.Errorf("code %d\n%s", out.Code, out.Stdout)
		}
	})
	t.Run("what the routes say", func(t *testing.T) {
		if err := l.ip(ctx, HostGateway, []string{"link add mgmt0 type veth peer name mgmt1", "link set mgmt0 up", "link set mgmt1 up", "route replace 192.0.2.20/32 dev mgmt0"}); err != nil {
			t.Fatal(err)
		}
		gateway(1, "is routed to mgmt0, which is no customer interface", "bob")
		if err := l.ip(ctx, HostGateway, []string{"route replace 192.0.2.20/32 dev cust1", "route add 198.51.100.20/32 dev mgmt0"}); err != nil {
			t.Fatal(err)
		}
		gateway(1, "would leave by mgmt0, where no guard stands", "bob")
	})
	t.Run("nobody's number", func(t *testing.T) {
		if out, err := g.Sluice(ctx, "probe", "--look", strings.Repeat("0", 24)); err != nil || out.Code != 1 || !strings.Contains(out.Stdout, "did not come through here") {
			t.Errorf("%v %d %s", err, out.Code, out.Stdout)
		}
	})
}
