//go:build labtest

package lab

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

// findingLine is one line of the doctor.
type findingLine struct{ Check, State, Text, Remedy string }

// machine are checks of the machine that the lab runs on, which no test mends.
var machine = map[string]bool{"clock": true, "connection tracking": true}

// modest is the usual configuration for as many sessions as this machine's limit of open files allows.
var modest = strings.Replace(GatewayConfig, "[smtp]", "[smtp]\nsessions = 1000", 1)

// examine runs the doctor on the gateway.
func examine(ctx context.Context, t *testing.T, g *Gateway, args ...string) (all []findingLine, code int) {
	t.Helper()
	out, err := g.Sluice(ctx, append([]string{"doctor", "--json"}, args...)...)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal([]byte(out.Stdout), &all); err != nil {
		t.Fatalf("%v: %s%s", err, out.Stdout, out.Stderr)
	}
	return all, out.Code
}

// illness breaks one thing of a healthy gateway and mends it again.
type illness struct {
	check, state, text, remedy string
	breaks, mends              []string // commands on the gateway, or "sysctl key=value"
}

var illnesses = []illness{
	{"net.ipv4.ip_forward", "fail", "no gateway", "sysctl -w net.ipv4.ip_forward=1", []string{"sysctl ipv4/ip_forward=0"}, []string{"sysctl ipv4/ip_forward=1"}},
	{"net.ipv6.conf.all.forwarding", "warn", "IPv6", "sysctl -w net.ipv6.conf.all.forwarding=1", []string{"sysctl ipv6/conf/all/forwarding=0"}, []string{"sysctl ipv6/conf/all/forwarding=1"}},
	{"net.core.somaxconn", "warn", "is 128", "sysctl -w net.core.somaxconn=4096", []string{"sysctl core/somaxconn=128"}, []string{"sysctl core/somaxconn=16384"}},
	{"net.ipv4.tcp_max_syn_backlog", "warn", "is 128", "sysctl -w", []string{"sysctl ipv4/tcp_max_syn_backlog=128"}, []string{"sysctl ipv4/tcp_max_syn_backlog=16384"}},
	{"net.ipv4.tcp_syncookies", "warn", "is 0", "sysctl -w", []string{"sysctl ipv4/tcp_syncookies=0"}, []string{"sysctl ipv4/tcp_syncookies=1"}},
	{"net.ipv4.ip_local_port_range", "warn", "connections at once", "sysctl -w", []string{"sysctl ipv4/ip_local_port_range=60000 60999"}, []string{"sysctl ipv4/ip_local_port_range=10240 65535"}},
	{"net.ipv4.ip_local_port_range", "warn", "listen_port 10025", "ip_local_reserved_ports=10025", []string{"sysctl ipv4/ip_local_port_range=10000 65535"}, []string{"sysctl ipv4/ip_local_port_range=10240 65535"}},
	{"user bob", "warn", "192.0.2.20/32 is routed to up0", "ip route get 192.0.2.20", []string{"ip route replace 192.0.2.20/32 via 203.0.113.2"}, []string{"ip route replace 192.0.2.20/32 dev cust1"}},
	{"interface cust0", "warn", "MTU 9000 is larger than the uplink's 1500", "ip link set cust0 mtu 1500", []string{"ip link set cust0 mtu 9000"}, []string{"ip link set cust0 mtu 1500"}},
}

// ruled are what only a path with policy rules suffers from.
var ruled = []illness{
	{"policy routing IPv4", "warn", "rule 50", "rule_priority below 50", []string{"ip rule add pref 50 from 192.0.2.0/24 lookup 77"}, []string{"ip rule del pref 50"}},
	{"policy routing IPv6", "warn", "rule 60", "rule_priority below 60", []string{"ip -6 rule add pref 60 from all lookup 77"}, []string{"ip -6 rule del pref 60"}},
	{"host firewall", "warn", "inet strict input", "nft insert rule inet strict input meta mark and 0x2000000 == 0x2000000 accept",
		[]string{"nft add table inet strict", "nft add chain inet strict input { type filter hook input priority 0 ; policy drop ; }",
			"nft add rule inet strict input udp sport 53 accept"}, []string{"nft delete table inet strict"}},
	{"host firewall", "warn", "iptables-legacy INPUT", "iptables-legacy -I INPUT -m mark", []string{"iptables-legacy -A INPUT -p udp -j ACCEPT", "iptables-legacy -A INPUT -j DROP"}, []string{"iptables-legacy -F"}},
}

// cure breaks one thing after the other and mends it.
func cure(ctx context.Context, t *testing.T, l *Lab, g *Gateway, list []illness) {
	for _, i := range list {
		t.Run(i.check+" "+i.text, func(t *testing.T) {
			on(ctx, t, l, i.breaks)
			all, code := examine(ctx, t, g)
			if !says(all, i) || (code == 1) != (i.state == "fail") {
				t.Errorf("code %d and no such finding in %+v", code, all)
			}
			on(ctx, t, l, i.mends)
			if all, _ := examine(ctx, t, g); says(all, i) {
				t.Error("it is still said when it was mended")
			}
		})
	}
}

// TestDoctor: a healthy gateway has nothing but ok; whatever is broken is named with the command that mends it.
func TestDoctor(t *testing.T) {
	t.Parallel()
	ctx, l := testContext(t), ForTest(t, Options{})
	tuned(t, l)
	g := startGatewayWith(t, l, modest)
	all, code := examine(ctx, t, g)
	for _, f := range all {
		if f.State != "ok" && !machine[f.Check] {
			t.Errorf("of a healthy gateway the doctor says %+v", f)
		}
	}
	if code != 0 {
		t.Errorf("a healthy gateway ends with code %d", code)
	}
	cure(ctx, t, l, g, illnesses)
	if out := sluice(t, g, "doctor", "--no-dns"); !strings.Contains(out, "0 failures") {
		t.Errorf("healthy again, but:\n%s", out)
	}
	deadParts(ctx, t, l, g)
}

// TestDoctorOnEachPath: a healthy gateway is healthy whatever path its packets take, and the doctor says which.
func TestDoctorOnEachPath(t *testing.T) {
	t.Parallel()
	for _, path := range []string{"clsact", "nftables"} {
		t.Run(path, func(t *testing.T) {
			t.Parallel()
			ctx, l := testContext(t), ForTest(t, Options{})
			tuned(t, l)
			g := startGatewayWith(t, l, strings.Replace(modest, "[intercept]", "[intercept]\npath = \""+path+"\"", 1))
			all, code := examine(ctx, t, g)
			for _, f := range all {
				if f.State != "ok" && !machine[f.Check] {
					t.Errorf("on %s the doctor says %+v", path, f)
				}
			}
			if code != 0 || !says(all, illness{check: "data path", state: "ok", text: path}) {
				t.Errorf("code %d, and the path is not said in %+v", code, all)
			}
			if path == "nftables" {
				cure(ctx, t, l, g, ruled)
				deadRules(ctx, t, l, g)
			}
		})
	}
}

// tuned gives the gateway the settings that installation brings.
func tuned(t *testing.T, l *Lab) {
	t.Helper()
	if err := l.sysctl(HostGateway, []string{"core/somaxconn=16384", "ipv4/tcp_max_syn_backlog=16384", "ipv4/ip_local_port_range=10240 65535", "ipv4/tcp_syncookies=1"}); err != nil {
		t.Fatal(err)
	}
}

func says(all []findingLine, i illness) bool {
	for _, f := range all {
		if f.Check == i.check && f.State == i.state && strings.Contains(f.Text, i.text) && strings.Contains(f.Remedy, i.remedy) {
			return true
		}
	}
	return false
}

// on runs commands on the gateway.
func on(ctx context.Context, t *testing.T, l *Lab, commands []string) {
	t.Helper()
	for _, c := range commands {
		if setting, ok := strings.CutPrefix(c, "sysctl "); ok {
			if err := l.sysctl(HostGateway, []string{setting}); err != nil {
				t.Fatal(err)
			}
			continue
		}
		if _, err := l.must(ctx, HostGateway, Command{Args: strings.Fields(c)}); err != nil {
			t.Fatal(err)
		}
	}
}

// deadRules has a dead helper's rules gone, and brings them back.
func deadRules(ctx context.Context, t *testing.T, l *Lab, g *Gateway) {
	if err := g.Intercept.Kill(); err != nil {
		t.Fatal(err)
	}
	on(ctx, t, l, []string{"ip rule del pref 90", "ip -6 route flush table 5325", "sysctl ipv4/conf/all/src_valid_mark=1"})
	all, _ := examine(ctx, t, g)
	for _, i := range []illness{
		{check: "policy routing IPv4", state: "fail", text: "missing: rule pref 90 iif lo goto 110", remedy: "systemctl restart sluice-intercept"},
		{check: "policy routing IPv6", state: "fail", text: "does not deliver", remedy: "systemctl restart sluice-intercept"},
		{check: "sysctls about marks", state: "fail", text: "src_valid_mark", remedy: "systemctl restart sluice-intercept"},
	} {
		if !says(all, i) {
			t.Errorf("no %+v in %+v", i, all)
		}
	}
	if err := g.StartIntercept(ctx); err != nil {
		t.Fatal(err)
	}
	if all, _ := examine(ctx, t, g); !says(all, illness{check: "policy routing IPv4", state: "ok", text: "mark 0x2000000 leads to table 5325"}) {
		t.Errorf("with a new helper the doctor says %+v", all)
	}
}

// deadParts breaks what does not heal by itself: an observer that is missing, names, a dead helper with its door gone, a
// dead DNS, a dead daemon.
func deadParts(ctx context.Context, t *testing.T, l *Lab, g *Gateway) {
	expect := func(i illness, args ...string) {
		t.Helper()
		var all []findingLine
		for {
			if all, _ = examine(ctx, t, g, args...); says(all, i) {
				return
			}
			if err := sleep(ctx, 50*time.Millisecond); err != nil {
				t.Fatalf("no %+v in %+v", i, all)
			}
		}
	}
	secondWay(ctx, t, l)
	expect(illness{check: "asymmetric routes", state: "warn", text: "another way", remedy: "ip route get"})
	text := strings.Replace(modest, `name = "{{.Name}}"`, `name = "{{.Name}}"{{if eq .Name "bob"}}
mode = "observe"{{end}}`, 1)
	text = strings.Replace(text, `uplinks = ["up*"]`, `uplinks = ["up*", "wan7"]`, 1)
	if err := g.Configure(text, "[[delivery.address]]\naddress = \"203.0.113.20\"\nhelo = \"wrong.gw.example\"\n"); err != nil {
		t.Fatal(err)
	}
	if err := g.Reload(); err != nil {
		t.Fatal(err)
	}
	expect(illness{check: "observer", state: "warn", text: "nobody watches", remedy: "systemctl enable --now sluice-observe"})
	expect(illness{check: "interface wan7", state: "warn", text: "no uplink", remedy: "ip link"})
	expect(illness{check: "delivery address 203.0.113.20", state: "warn", text: "PTR is out20.gw.example., HELO wrong.gw.example", remedy: "set the PTR"})
	if err := g.Configure(modest, "[[delivery.address]]\naddress = \"198.51.100.99\"\nhelo = \"out1.gw.example\"\n"); err != nil {
		t.Fatal(err)
	}
	expect(illness{check: "delivery address 198.51.100.99", state: "fail", text: "is not this host's", remedy: "add its prefix to delivery.prefixes"})
	if err := g.Configure(modest, "[[delivery.address]]\naddress = \"198.51.100.99\"\nhelo = \"out1\"\n"); err != nil {
		t.Fatal(err)
	}
	expect(illness{check: "configuration file", state: "fail", text: "is not a fully qualified host name", remedy: "sluiced -check"})
	if err := g.Configure(modest, ""); err != nil {
		t.Fatal(err)
	}
	if err := g.Intercept.Kill(); err != nil {
		t.Fatal(err)
	}
	expect(illness{check: "sluice-intercept", state: "fail", text: "not connected", remedy: "systemctl"})
	on(ctx, t, l, []string{"ip link set sluice0 down"})
	expect(illness{check: "way to the proxy", state: "fail", text: "sluice0, which leads", remedy: "ip link set sluice0 up"})
	on(ctx, t, l, []string{"ip link del sluice0"})
	expect(illness{check: "way to the proxy", state: "fail", text: "neither", remedy: "systemctl restart sluice-intercept"})
	if err := g.StartIntercept(ctx); err != nil {
		t.Fatal(err)
	}
	expect(illness{check: "way to the proxy", state: "ok", text: "sluice0 leads"})
	if err := l.dns.proc.Kill(); err != nil {
		t.Fatal(err)
	}
	expect(illness{check: "DNS server " + ResolverV4.String(), state: "fail", text: "does not answer", remedy: "/etc/resolv.conf"})
	if err := g.Sluiced.Kill(); err != nil {
		t.Fatal(err)
	}
	expect(illness{check: "sluiced", state: "fail", text: "sluiced", remedy: "systemctl"}, "--no-dns", "--config", g.Config)
	if _, err := os.Stat(g.Config); err != nil {
		t.Error(fmt.Errorf("the doctor changes nothing: %w", err))
	}
}

// secondWay lets a connection of alice's go around the gateway, to which only the answer comes.
func secondWay(ctx context.Context, t *testing.T, l *Lab) {
	t.Helper()
	if err := l.ip(ctx, HostInternet, []string{"link add alt0 type veth peer name alt1 netns alice", "link set alt0 up", "addr add 203.0.113.9/30 dev alt0"}); err != nil {
		t.Fatal(err)
	}
	if err := l.ip(ctx, "alice", []string{"link set alt1 up", "addr add 203.0.113.10/30 dev alt1", "route add 198.51.100.20/32 via 203.0.113.9 src 192.0.2.10"}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(ctx, 500*time.Millisecond)
	defer cancel()
	if c, err := l.Dial(ctx, "alice", "", "198.51.100.20:25"); err == nil {
		t.Error("a connection around the gateway came to be")
		_ = c.Close()
	}
}
