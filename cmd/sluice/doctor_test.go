package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sluice/cmd/internal/api"
	"sluice/cmd/internal/config"
	"sluice/intercept/ruleset"
)

// world is a host as doctor could find it. The zero value is a healthy one.
type world struct {
	foreign   bool              // addresses are not this host's
	ptr       string            // of all addresses
	noRecord  bool              // names have no addresses
	missing   int               // rules
	others    []ruleset.Foreign // rules of others
	noTable   bool
	route     map[string]string // interface by address
	customers int
	ruleless  bool            // no policy rule is ours
	door      map[string]bool // to the namespace of the proxy's sockets
}

func (w world) local(netip.Addr) (bool, error) { return !w.foreign, nil }
func (w world) diverts(int, int) (bool, error) { return !w.noTable, nil }
func (w world) towards(a netip.Addr) (string, error) {
	if dev, ok := w.route[a.String()]; ok {
		return dev, nil
	}
	return "cust0", nil
}
func (w world) policy(int) ([]ruleset.Rule, []ruleset.Foreign, error) {
	if w.ruleless {
		return nil, w.others, nil
	}
	all := ruleset.Desired(ruleset.Input{Mark: 0x02000000, Table: 5325, Priority: 90}).Rules
	return all[w.missing:], w.others, nil
}
func (w world) doors() (map[string]bool, error) { return w.door, nil }
func (w world) links() (map[string]int, error) {
	all := map[string]int{"up0": 1500, "cust0": 1500, "lo": 65536}
	for i := range w.customers {
		all[fmt.Sprintf("cust%d", i)] = 9000
	}
	return all, nil
}
func (w world) LookupAddr(_ context.Context, a string) ([]string, error) {
	if w.ptr == "" {
		return []string{map[string]string{"203.0.113.18": "out2.provider.example."}[a], "out1.provider.example."}, nil
	}
	return []string{w.ptr}, nil
}
func (w world) LookupNetIP(context.Context, string, string) ([]netip.Addr, error) {
	if w.noRecord {
		return nil, &net.DNSError{IsNotFound: true}
	}
	return []netip.Addr{netip.MustParseAddr("203.0.113.17"), netip.MustParseAddr("203.0.113.18"), netip.MustParseAddr("2001:db8:25::17")}, nil
}

// good are the settings of a healthy gateway.
var good = map[string]string{
	"net/ipv4/ip_forward": "1", "net/ipv6/conf/all/forwarding": "1", "net/core/somaxconn": "16384", "net/ipv4/tcp_max_syn_backlog": "16384",
	"net/ipv4/tcp_syncookies": "1", "net/ipv4/ip_local_port_range": "10240\t65535", "net/ipv4/ip_local_reserved_ports": "",
	"net/ipv4/conf/all/rp_filter": "2", "net/ipv4/conf/all/src_valid_mark": "0",
}

// healthy is a gateway on which change has broken something.
func healthy(t *testing.T, w world, settings map[string]string, change func(*host)) *host {
	t.Helper()
	proc := t.TempDir()
	for _, set := range []map[string]string{good, settings} {
		for name, value := range set {
			path := filepath.Join(proc, name)
			if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(value+"\n"), 0o600)); err != nil {
				t.Fatal(err)
			}
		}
	}
	h := &host{proc: proc, names: w, routes: w, servers: []string{"198.51.100.53"}, path: pathNFT,
		probe:  func(context.Context, string, string) error { return nil },
		rules:  func(context.Context) ([]byte, error) { return []byte(`{"nftables": []}`), nil },
		tables: func(context.Context, string) ([]byte, error) { return nil, nil },
		trials: func() ([]string, error) { return nil, nil },
		clock:  func() (bool, error) { return true, nil },
	}
	if change != nil {
		change(h)
	}
	return h
}

// TestDoctorNamesWhatIsBroken breaks one thing after the other.
func TestDoctorNamesWhatIsBroken(t *testing.T) {
	t.Parallel()
	cfg, err := config.Load("../../deploy/sluice.toml")
	if err != nil {
		t.Fatal(err)
	}
	foreign := func(priority uint32) world {
		return world{others: []ruleset.Foreign{{Family: 4, Priority: priority, Text: "from all lookup 7"}}}
	}
	for _, tt := range []struct {
		check, state, text, remedy string
		w                          world
		settings                   map[string]string
		change                     func(*host)
	}{
		{check: "net.ipv4.ip_forward", state: api.Fail, text: "no gateway", remedy: "sysctl -w net.ipv4.ip_forward=1", settings: map[string]string{"net/ipv4/ip_forward": "0"}},
		{check: "net.ipv6.conf.all.forwarding", state: api.Warn, text: "IPv6", remedy: "sysctl -w net.ipv6.conf.all.forwarding=1", settings: map[string]string{"net/ipv6/conf/all/forwarding": "0"}},
		{check: "net.core.somaxconn", state: api.Warn, text: "is 128", remedy: "sysctl -w net.core.somaxconn=4096", settings: map[string]string{"net/core/somaxconn": "128"}},
		{check: "net.ipv4.tcp_max_syn_backlog", state: api.Warn, text: "is 512", remedy: "sysctl -w", settings: map[string]string{"net/ipv4/tcp_max_syn_backlog": "512"}},
		{check: "net.ipv4.tcp_syncookies", state: api.Warn, text: "is 0", remedy: "sysctl -w", settings: map[string]string{"net/ipv4/tcp_syncookies": "0"}},
		{check: "net.ipv4.ip_local_port_range", state: api.Warn, text: "1001 connections", remedy: `sysctl -w net.ipv4.ip_local_port_range="10240 65535"`, settings: map[string]string{"net/ipv4/ip_local_port_range": "50000 51000"}},
		{check: "net.ipv4.ip_local_port_range", state: api.Warn, text: "intercept.listen_port 10025", remedy: "sysctl -w net.ipv4.ip_local_reserved_ports=10025", settings: map[string]string{"net/ipv4/ip_local_port_range": "10000 65535"}},
		{check: "connection tracking", state: api.Warn, text: "990 of 1000", remedy: "nf_conntrack_max=4000", settings: map[string]string{"net/netfilter/nf_conntrack_count": "990", "net/netfilter/nf_conntrack_max": "1000"}},
		{check: "clock", state: api.Warn, text: "not synchronised", remedy: "systemctl enable --now systemd-timesyncd", change: func(h *host) { h.clock = func() (bool, error) { return false, nil } }},
		{check: "kernel", state: api.Fail, text: "lacks socket maps", remedy: `intercept.path = "nftables"`, change: func(h *host) {
			h.path = "tcx"
			h.trials = func() ([]string, error) { return []string{"socket maps", "sk_assign"}, nil }
		}},
		{check: "kernel", state: api.Warn, text: "may not be tried", remedy: "as root", change: func(h *host) { h.trials = func() ([]string, error) { return nil, os.ErrPermission } }},
		{check: "policy routing IPv4", state: api.Fail, text: "missing: rule pref 90 iif lo goto 110", remedy: "systemctl restart sluice-intercept", w: world{missing: 1}},
		{check: "policy routing IPv4", state: api.Fail, text: "table 5325 does not deliver", remedy: "systemctl restart", w: world{noTable: true}},
		{check: "policy routing IPv4", state: api.Warn, text: "rule 50 (from all lookup 7) comes before ours", remedy: "rule_priority below 50", w: foreign(50)},
		{check: "policy routing IPv4", state: api.Warn, text: "stands between ours", remedy: "intercept.rule_priority", w: foreign(105)},
		{check: "sysctls about marks", state: api.Fail, text: "net.ipv4.conf.all.src_valid_mark, net.ipv4.tcp_fwmark_accept turn", remedy: "systemctl restart", w: world{missing: 1},
			settings: map[string]string{"net/ipv4/conf/all/src_valid_mark": "1", "net/ipv4/tcp_fwmark_accept": "1"}},
		{check: "way to the proxy", state: api.Fail, text: "neither", remedy: "systemctl restart sluice-intercept", w: world{ruleless: true}, change: byTCX},
		{check: "way to the proxy", state: api.Fail, text: "sluice0, which leads", remedy: "ip link set sluice0 up", w: world{ruleless: true, door: map[string]bool{"sluice0": false}}, change: byTCX},
		{check: "way to the proxy", state: api.OK, text: "sluice0 leads", w: world{ruleless: true, door: map[string]bool{"sluice0": true}}, change: byTCX},
		{check: "host firewall", state: api.Warn, text: "inet filter input", remedy: "nft insert rule inet filter input meta mark and 0x2000000 == 0x2000000 accept",
			change: func(h *host) {
				h.rules = func(context.Context) ([]byte, error) { return []byte(dropByDefault + "]}"), nil }
			}},
		{check: "host firewall", state: api.Warn, text: "ip6tables-legacy INPUT", remedy: "ip6tables-legacy -I INPUT -m mark --mark 0x2000000/0x2000000 -j ACCEPT",
			change: func(h *host) {
				h.tables = func(_ context.Context, family string) ([]byte, error) {
					return map[string][]byte{"ip6": []byte("*filter\n:INPUT DROP [0:0]\n-A INPUT -i lo -j ACCEPT\nCOMMIT\n")}[family], nil
				}
			}},
		{check: "interface up0", state: api.Warn, text: "no uplink interface", remedy: "ip link", change: func(h *host) { h.routes = noLinks{world{}} }},
		{check: "interface cust4", state: api.Warn, text: "MTU 9000 is larger than the uplink's 1500", remedy: "ip link set cust4 mtu 1500", w: world{customers: 5}},
		{check: "interface", state: api.Warn, text: "and 95 more like these", w: world{customers: 100}},
		{check: "user alice", state: api.Warn, text: "192.0.2.0/29 is routed to up0, which is no customer interface", remedy: "ip route get 192.0.2.1", w: world{route: map[string]string{"192.0.2.1": "up0"}}},
		{check: "delivery address 203.0.113.17", state: api.Fail, text: "is not this host's", remedy: "delivery.prefixes", w: world{foreign: true}},
		{check: "delivery address 203.0.113.17", state: api.Warn, text: "PTR is other.example., HELO out1.provider.example", remedy: "set the PTR of 203.0.113.17 to out1.provider.example", w: world{ptr: "other.example."}},
		{check: "delivery address 203.0.113.17", state: api.Warn, text: "has no address record 203.0.113.17", remedy: "add the A", w: world{noRecord: true}},
		{check: "gateway name", state: api.Warn, text: "gw1.provider.example does not resolve", remedy: "add an address record", w: world{noRecord: true}},
		{check: "DNS server 198.51.100.53", state: api.Fail, text: "does not answer: no route", remedy: "/etc/resolv.conf", change: func(h *host) {
			h.probe = func(context.Context, string, string) error { return errors.New("no route") }
		}},
		{check: "DNS server 198.51.100.53", state: api.Warn, text: "answers after ", remedy: "nearer", change: func(h *host) {
			h.probe = func(context.Context, string, string) error { time.Sleep(dnsSlow + time.Millisecond); return nil }
		}},
		{check: "DNS", state: api.Fail, text: "names no server", remedy: "resolv.conf", change: func(h *host) { h.servers = nil }},
	} {
		t.Run(tt.check+" "+tt.text, func(t *testing.T) {
			t.Parallel()
			h := healthy(t, tt.w, tt.settings, tt.change)
			fs := append(append(h.kernel(), h.system()...), h.configured(t.Context(), cfg)...)
			for _, f := range fs {
				if f.Check == tt.check && f.State == tt.state && strings.Contains(f.Text, tt.text) && strings.Contains(f.Remedy, tt.remedy) {
					return
				}
			}
			t.Errorf("no such finding in %+v", fs)
		})
	}
}

// byTCX is a host whose packets are diverted by programs.
func byTCX(h *host) { h.path = "tcx" }

// noLinks is a host without interfaces.
type noLinks struct{ world }

func (noLinks) links() (map[string]int, error) { return nil, nil }

func TestDoctorIsContentWithAHealthyHost(t *testing.T) {
	t.Parallel()
	cfg, err := config.Load("../../deploy/sluice.toml")
	if err != nil {
		t.Fatal(err)
	}
	for name, settings := range map[string]map[string]string{
		"plain": nil,
		// What others set harms nobody while our rules stand.
		"marks":    {"net/ipv4/conf/all/src_valid_mark": "1", "net/ipv4/tcp_fwmark_accept": "1", "net/ipv4/fwmark_reflect": "1", "net/ipv4/conf/up0/rp_filter": "1", "net/ipv4/conf/all/rp_filter": "1"},
		"reserved": {"net/ipv4/ip_local_port_range": "10000 65535", "net/ipv4/ip_local_reserved_ports": "8080,10020-10030"},
	} {
		h := healthy(t, world{}, settings, nil)
		for _, f := range append(append(h.kernel(), h.system()...), h.configured(t.Context(), cfg)...) {
			if f.State != api.OK || f.Text == "" {
				t.Errorf("%s: %+v", name, f)
			}
		}
	}
}

// TestDoctorKnowsTheRoom: where the proxy's sockets have a namespace of their own, nothing of the host's rules matters.
func TestDoctorKnowsTheRoom(t *testing.T) {
	t.Parallel()
	cfg, err := config.Load("../../deploy/sluice.toml")
	if err != nil {
		t.Fatal(err)
	}
	w := world{ruleless: true, door: map[string]bool{"sluice0": true}, others: []ruleset.Foreign{{Family: 4, Priority: 50, Text: "from all lookup 7"}}}
	h := healthy(t, w, map[string]string{"net/ipv4/conf/all/src_valid_mark": "1"}, func(h *host) {
		byTCX(h)
		h.rules = func(context.Context) ([]byte, error) { return []byte(dropByDefault + "]}"), nil }
	})
	for _, f := range h.delivery(t.Context(), cfg) {
		if f.State != api.OK || f.Text == "" {
			t.Errorf("%+v", f)
		}
	}
}

func TestFindingsAreAligned(t *testing.T) {
	t.Parallel()
	var out strings.Builder
	s := &screen{out: &out, width: 60}
	s.findings([]api.Finding{
		{Check: "clock", State: api.OK, Text: "synchronised"},
		{Check: "delivery address 203.0.113.17", State: api.Fail, Text: "is not this host's", Remedy: "ip address add 203.0.113.17 dev lo"},
	})
	want := `ok    clock                          synchronised
fail  delivery address 203.0.113.17  is not this host's
                                     help: ip address add 203.0.113.17 dev lo
1 ok, 0 warnings, 1 failure
`
	if out.String() != want {
		t.Errorf("got\n%s\nwant\n%s", out.String(), want)
	}
}
