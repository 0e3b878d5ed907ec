//go:build labtest

package lab

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"
)

// everyMode is the usual configuration with a customer in each mode, and one destination that is let alone, one that is
// refused.
var everyMode = strings.Replace(GatewayConfig, `name = "{{.Name}}"`, `name = "{{.Name}}"{{if eq .Name "bob"}}
mode = "pass"{{else if eq .Name "dave"}}
mode = "reject"{{else if eq .Name "mallory"}}
mode = "drop"{{end}}`, 1) + `
[[exempt]]
prefix = "2001:db8:100::20/128"
mode = "pass"
reason = "let alone"
[[exempt]]
prefix = "198.51.100.41/32"
port = 25
mode = "reject"
reason = "never"
[[exempt]]
prefix = "198.51.100.0/24"
port = 2525
mode = "drop"
reason = "not by this port"
`

// TestModes: what happens to a customer's connections is what his mode and the destination's exemption say, and counted,
// by every way on which packets come; a reload changes it in one step.
func TestModes(t *testing.T) { onEachPath(t, modesBy) }

func modesBy(t *testing.T, path string) {
	ctx, l := testContext(t), ForTest(t, Options{})
	g := startGatewayWith(t, l, by(path, strings.Replace(everyMode, "[intercept]\n", "[intercept]\nports = [2525]\n", 1)))
	const sink4, sink6 = "198.51.100.20:25", "[2001:db8:100::20]:25"
	const peer6 = "[2001:db8:100::101]:25" // nobody's exemption
	const ours, theirs, reset, nothing = "220 gw.example", "220 mx.sink.example", "reset", "nothing"
	expect := func(host, to, want string) {
		t.Helper()
		a := try(ctx, l, host, to)
		switch {
		case want == reset && errors.Is(a.err, syscall.ECONNREFUSED):
		case want == nothing && a.err != nil && os.IsTimeout(a.err):
		case strings.HasPrefix(want, "220") && strings.HasPrefix(a.greeting, want):
		default:
			t.Errorf("%s to %s: %q, %v; want %s", host, to, a.greeting, a.err, want)
		}
	}
	for _, c := range []struct{ host, to, want string }{
		{"alice", sink4, ours}, {"alice", peer6, ours}, {"alice", sink6, theirs}, {"alice", "198.51.100.41:25", reset},
		{"alice", "198.51.100.20:2525", nothing},
		{"bob", sink4, theirs}, {"bob", sink6, theirs}, {"bob", "198.51.100.41:25", reset},
		{"dave", sink4, reset}, {"dave", peer6, reset}, {"dave", sink6, theirs},
		{"mallory", sink4, nothing}, {"mallory", peer6, nothing},
	} {
		expect(c.host, c.to, c.want)
	}
	var st struct {
		Helper struct{ Path, PathReason string }
	}
	if err := sluiceJSON(ctx, g, &st, "status"); err != nil || st.Helper.Path != path {
		t.Errorf("status tells of the path %q, %v", st.Helper.Path, err)
	}
	if out := sluice(t, g, "status"); !strings.Contains(out, path+" (the configuration says so)") {
		t.Errorf("status does not say which path and why:\n%s", out)
	}
	counters := sluice(t, g, "status", "--counters")
	for began := time.Now(); !counted(counters, "intercept") && time.Since(began) < 20*time.Second; {
		expect("alice", sink4, ours) // the first may have come before the first sign of life, which is counted as waiting
		counters = sluice(t, g, "status", "--counters")
	}
	for _, reason := range []string{"intercept", "pass", "reject", "drop", "established", "old_flow"} {
		if !counted(counters, reason) {
			t.Errorf("nothing is counted as %s:\n%s", reason, counters)
		}
	}
	for user, counter := range map[string]string{"alice": "intercepted", "bob": "passed", "dave": "rejected", "mallory": "dropped"} {
		var u struct{ Kernel map[string]uint64 }
		if err := sluiceJSON(ctx, g, &u, "users", "show", user); err != nil || u.Kernel[counter] == 0 {
			t.Errorf("%s of %s is not counted: %v %v", counter, user, u.Kernel, err)
		}
	}
	if err := g.Configure(by(path, GatewayConfig), ""); err != nil {
		t.Fatal(err)
	}
	if err := g.Reload(); err != nil {
		t.Fatal(err)
	}
	for began := time.Now(); ; {
		a := try(ctx, l, "dave", sink6)
		if strings.HasPrefix(a.greeting, ours) {
			break
		}
		if time.Since(began) > 10*time.Second {
			t.Fatalf("10 s after the reload dave gets %+v", a)
		}
	}
	for _, host := range []string{"alice", "bob", "dave", "mallory"} {
		expect(host, sink4, ours)
		expect(host, sink6, ours)
	}
}

// counted tells whether a table of counters has one above zero.
func counted(table, name string) bool {
	for line := range strings.Lines(table) {
		f := strings.Fields(line)
		if len(f) == 3 && f[0] == "kernel" && f[1] == name && f[2] != "0" {
			return true
		}
	}
	return false
}

// TestOtherPath: a helper that finds another path in its configuration puts that in force before it takes the old one
// away. No SYN goes round the proxy, nobody is reset, and nothing of the old path is left.
func TestOtherPath(t *testing.T) {
	t.Parallel()
	ctx, l := testContext(t), ForTest(t, Options{})
	g := startGatewayWith(t, l, by("tcx", GatewayConfig+"[limits]\nmessages_per_hour = 0\nrecipients_per_hour = 0\nconnections_per_second = 0\n"))
	up, err := l.Capture(ctx, HostGateway, "up0", "tcp port 25 and (tcp[tcpflags] & tcp-syn != 0 or ip6)")
	if err != nil {
		t.Fatal(err)
	}
	in, err := l.Capture(ctx, "alice", "eth0", "tcp port 25")
	if err != nil {
		t.Fatal(err)
	}
	sluice(t, g, "lock", "mallory", "--reason", "a test")
	f := &fleet{lab: l, told: map[string]int{}, what: map[string]string{}}
	f.start("alice", "198.51.100.20:25")
	f.start("bob", "[2001:db8:100::20]:25")
	for _, path := range []string{"nftables", "clsact", "nftables", "tcx"} {
		for want := f.seq.Load() + fleetSize; f.seq.Load() < want; {
			if err := sleep(ctx, 10*time.Millisecond); err != nil {
				t.Fatalf("before %s nothing is sent any more: %v", path, err)
			}
		}
		if err := g.Configure(by(path, GatewayConfig+"[limits]\nmessages_per_hour = 0\nrecipients_per_hour = 0\nconnections_per_second = 0\n"), ""); err != nil {
			t.Fatal(err)
		}
		if err := g.RestartIntercept(ctx); err != nil {
			t.Fatal(err)
		}
		var left Output
		for {
			if left, err = l.Exec(ctx, HostGateway, "sh", "-c", `nft list tables
				tc filter show dev cust0 ingress; find "$1/bpf" -mindepth 1`, "sh", g.Dir); err != nil {
				t.Fatal(err)
			}
			if path != "nftables" || !strings.Contains(left.Stdout, "/bpf/sluice") && !strings.Contains(left.Stdout, "sluice/mail_ingress") {
				break
			}
			if err := sleep(ctx, 50*time.Millisecond); err != nil { // programs stay as long as connections need them
				t.Fatalf("by %s there is still\n%s", path, left.Stdout)
			}
		}
		for _, w := range []struct {
			what string
			want bool
		}{
			{"table inet sluice", path == "nftables"}, {"sluice/mail_ingress", path == "clsact"}, {"-ingress-mail_ingress", path == "tcx"},
			{"/bpf/sluice", path != "nftables"},
		} {
			if strings.Contains(left.Stdout, w.what) != w.want {
				t.Errorf("by %s there is %q: %v\n%s", path, w.what, !w.want, left.Stdout)
			}
		}
	}
	f.end()
	packets, err := up.Stop()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range DefaultCustomers() {
		for _, a := range []string{c.V4.String(), c.V6.String()} {
			if n := len(packets.SYNs(From(a), To("25"))); n != 0 {
				t.Errorf("%d SYNs left %s unfiltered", n, a)
			}
		}
	}
	cust, err := in.Stop()
	if err != nil {
		t.Fatal(err)
	}
	resets(t, cust)
	books(t, ctx, l, g, f)
	if locked := fmt.Sprint(lockedUsers(ctx, t, g)); locked != "[mallory]" {
		t.Errorf("locked are %s", locked)
	}
}
