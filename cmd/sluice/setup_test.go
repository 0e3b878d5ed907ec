package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sluice/cmd/internal/config"
)

func nets(text ...string) (ps []netip.Prefix) {
	for _, t := range text {
		ps = append(ps, netip.MustParsePrefix(t))
	}
	return ps
}

// messy is a gateway with one of everything.
func messy() []*nic {
	return []*nic{
		{name: "lo", kind: "device", up: true, refused: "lo is the loopback, where no customer is", addrs: nets("203.0.113.40/32")},
		{name: "bond0", kind: "bond", up: true, default4: true, default6: true, addrs: nets("203.0.113.1/29"), routes: nets("203.0.113.0/29")},
		{name: "eno1", kind: "device", up: true, refused: "eno1 is part of bond0 (bond), which receives its packets; name bond0 instead"},
		{name: "eno2", kind: "device", up: true},
		{name: "eno2.100", kind: "vlan", up: true, addrs: nets("192.0.2.1/26"), routes: nets("192.0.2.0/26", "192.0.2.64/26", "192.0.2.128/26")},
		{name: "eno2.101", kind: "vlan", up: true, routes: nets("2001:db8:1::/64")},
		{name: "br0", kind: "bridge", up: true, addrs: nets("198.51.100.1/24")},
		{name: "port1", kind: "device", up: true, refused: "port1 is a port of the bridge br0", routes: nets("192.0.2.0/26")},
		{name: "red0", kind: "veth", up: true, refused: "red0 belongs to the VRF red", routes: nets("192.0.2.0/26"), default4: true},
		{name: "docker0", kind: "bridge", up: true, routes: nets("172.17.0.0/16")},
		{name: "virbr1", kind: "bridge", up: true, routes: nets("192.168.122.0/24")},
		{name: "dummy0", kind: "dummy", up: true, addrs: nets("203.0.113.41/32"), routes: nets("203.0.113.41/32")},
		{name: "wg0", kind: "wireguard", up: true, routes: nets("2001:db8:99::/48")},
		{name: "eth9", kind: "device", routes: nets("192.0.2.0/26")},
	}
}

func TestChoosesInterfaces(t *testing.T) {
	t.Parallel()
	var got strings.Builder
	for _, c := range choose(messy(), nil, nil) {
		fmt.Fprintf(&got, "%s %s: %s\n", c.Name, c.Role, c.Why)
	}
	want := `lo : lo is the loopback, where no customer is
bond0 uplink: the default route (IPv4 and IPv6) leads there
eno1 : eno1 is part of bond0 (bond), which receives its packets; name bond0 instead
eno2 : no address, and no route leads there
eno2.100 customer: 192.0.2.0/26, 192.0.2.64/26 and 1 more behind it
eno2.101 customer: 2001:db8:1::/64 behind it
br0 customer: has the address 198.51.100.1
port1 : port1 is a port of the bridge br0
red0 : red0 belongs to the VRF red
docker0 : looks like a bridge for guests of this host; --customer docker0 takes it in
virbr1 : looks like a bridge for guests of this host; --customer virbr1 takes it in
dummy0 : a dummy, which leads nowhere
wg0 customer: 2001:db8:99::/48 behind it
eth9 : is down
`
	if got.String() != want {
		t.Errorf("got\n%s\nwant\n%s", got.String(), want)
	}
	named := choose(messy(), []string{"docker*", "eth9"}, []string{"eno2"})
	for _, c := range named {
		if role := map[string]string{"docker0": customer, "eth9": customer, "eno2": uplink}[c.Name]; c.Role != role {
			t.Errorf("%s is %q, want %q: flags overrule what was found", c.Name, c.Role, role)
		}
	}
}

func TestPatternsOfInterfaces(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ customers, others, want string }{
		{"cust0 cust1 cust12", "up0", "[cust*]"},
		{"cust0", "up0", "[cust0]"},
		{"eth1 eth2", "eth0", "[eth1 eth2]"},
		{"eth0.100 eth0.101", "eth0", "[eth0.*]"},
		{"br0 wg0 vlan7 vlan8", "bond0", "[br0 wg0 vlan*]"},
		{"100 101", "up0", "[100 101]"},
		{"", "up0", "[]"},
	} {
		var cs []choice
		for _, n := range strings.Fields(tt.customers) {
			cs = append(cs, choice{Name: n, Role: customer})
		}
		for _, n := range strings.Fields(tt.others) {
			cs = append(cs, choice{Name: n, Role: uplink})
		}
		if got := fmt.Sprint(patterns(cs, customer)); got != tt.want {
			t.Errorf("%s beside %s: %s, want %s", tt.customers, tt.others, got, tt.want)
		}
	}
}

// reverse is a DNS that knows one name.
type reverse struct{ world }

func (reverse) LookupAddr(_ context.Context, a string) ([]string, error) {
	if a == "203.0.113.1" {
		return []string{"Out1.Provider.example."}, nil
	}
	return nil, fmt.Errorf("no name for %s", a)
}

// prepared is a setup on the messy gateway.
func prepared(t *testing.T, change func(*setup)) (*setup, *bytes.Buffer, error) {
	t.Helper()
	var out bytes.Buffer
	s := &setup{file: filepath.Join(t.TempDir(), "etc", "sluice.toml"), name: "gw1.provider.example", names: reverse{},
		screen: &screen{out: &out, now: time.Now, zone: time.UTC}}
	if change != nil {
		change(s)
	}
	s.choices = choose(messy(), s.customers, s.uplinks)
	return s, &out, s.decide(t.Context(), messy())
}

func TestSetupWritesWhatTheDaemonsTake(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*setup){
		"plain": nil,
		"managed": func(s *setup) {
			s.delivery, s.prefixes = []string{"203.0.113.17=out1.provider.example", "203.0.113.1"}, []string{"203.0.113.0/27"}
			s.contact, s.admin, s.helpURL = "abuse@provider.example", "postmaster@provider.example", "https://help.provider.example/"
		},
		"set": func(s *setup) {
			s.set = []string{"intercept.table=77", `intercept.default_mode="pass"`, `log.dir = "/srv/log"`}
		},
	} {
		s, _, err := prepared(t, change)
		if err != nil {
			t.Fatal(name, err)
		}
		golden(t, "testdata/setup-"+name+".toml", []byte(s.text()))
		c, err := config.Parse(s.file, []byte(s.text()))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if got := fmt.Sprint(c.Intercept.CustomerInterfaces, c.Intercept.Uplinks); got != "[eno2.* br0 wg0] [bond0]" {
			t.Errorf("%s: interfaces %s", name, got)
		}
		switch {
		case name == "set" && (c.Intercept.Table != 77 || c.Intercept.DefaultMode != "pass" || c.Log.Dir != "/srv/log"):
			t.Errorf("--set was not heard: %+v", c.Intercept)
		case name == "plain" && (c.Intercept.DefaultMode != "observe" || c.Delivery.Mode != "own"):
			t.Errorf("not in observe: %+v", c.Intercept)
		case name == "managed" && (c.Delivery.Mode != "auto" || len(c.Delivery.Address) != 2 || c.Delivery.Address[1].Helo != "out1.provider.example"):
			t.Errorf("%+v", c.Delivery)
		}
	}
}

func TestSetupAsks(t *testing.T) {
	t.Parallel()
	s, out, err := prepared(t, func(s *setup) {
		s.in = bufio.NewReader(strings.NewReader("\nbr0, wg0\n\nabuse@provider.example\nno\n"))
	})
	if err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprintln(s.uplinks, s.customers, s.name, s.contact); strings.TrimSpace(got) != "[bond0] [br0 wg0] gw1.provider.example abuse@provider.example" {
		t.Errorf("answers became %s", got)
	}
	if ok, err := s.agreed(t.Context(), "Write it?"); ok || err != nil || !strings.Contains(out.String(), "nothing was written") {
		t.Errorf("%v, %v, %s", ok, err, out)
	}
	if _, _, err := prepared(t, func(s *setup) { s.in = bufio.NewReader(strings.NewReader("")) }); err == nil {
		t.Error("an end of input passed for an answer")
	}
	in, _ := io.Pipe() // nobody ever answers
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	s.in = bufio.NewReader(in)
	if _, err := s.ask(ctx, "Name", "", ""); !errors.Is(err, context.Canceled) {
		t.Errorf("Ctrl-C: %v", err)
	}
}

func TestSetupRefuses(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		change func(*setup)
		want   string
	}{
		{func(s *setup) { s.delivery = []string{"out1"} }, "is no address"},
		{func(s *setup) { s.delivery = []string{"203.0.113.9"} }, "has no PTR in the DNS; give its name"},
	} {
		if _, _, err := prepared(t, tt.change); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%v, want %s", err, tt.want)
		}
	}
	s := &setup{screen: &screen{}}
	if err := s.decide(t.Context(), nil); err == nil || !strings.Contains(err.Error(), "--uplink") {
		t.Errorf("a host without routes: %v", err)
	}
	file := filepath.Join(t.TempDir(), "sluice.toml")
	if err := os.WriteFile(file, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ args, want string }{
		{"--config " + file, "exists already"},
		{"--config x --dry-run --yes --no-dns --name gw.example --customer c* --uplink eth0 --set nonsense", "is not section.key=value"},
		{"--dry-run --yes --no-dns --name gw.example --customer c* --uplink eth0 --set intercept.tabel=7", "intercept.tabel"},
		{"--dry-run --yes --no-dns --name gw --customer c* --uplink eth0", "not a fully qualified host name"},
		{"--dry-run --yes --no-dns --name gw.example --customer * --uplink eth0", "matches every interface"},
	} {
		code, out, errs := call("none", 0, append([]string{"setup"}, strings.Fields(tt.args)...)...)
		if code == 0 || !strings.Contains(errs, tt.want) {
			t.Errorf("setup %s: code %d, %s%s; want %s", tt.args, code, out, errs, tt.want)
		}
	}
	if b, err := os.ReadFile(file); err != nil || string(b) != "mine" {
		t.Errorf("the file that was there has become %q, %v", b, err)
	}
	code, out, errs := call("none", 0, "setup", "--force", "--yes", "--no-dns", "--config", file, "--name", "gw.example", "--customer", "c*", "--uplink", "eth0")
	old, err := os.ReadFile(file + ".old")
	if code != 0 || err != nil || string(old) != "mine" || !strings.Contains(out, "systemctl enable --now") {
		t.Errorf("--force: code %d, %s%s, kept %q, %v", code, out, errs, old, err)
	}
	if _, err := config.Load(file); err != nil {
		t.Errorf("what was written: %v", err)
	}
}
