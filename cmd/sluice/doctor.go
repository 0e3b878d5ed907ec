package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"sluice/cmd/internal/api"
	"sluice/cmd/internal/config"
)

func (p *program) doctorCommand() *cobra.Command {
	file, noDNS := "", false
	cmd := &cobra.Command{
		Use: "doctor", Short: "check daemon and host, and say what to do", Args: cobra.NoArgs,
		Long: `doctor checks the daemons, the kernel, sysctls, rules, routes, interfaces, delivery addresses, names and certificates.
Each line is ok, warn or fail, with a remedy. It ends with exit code 1 when something failed.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			h := &host{proc: "/proc/sys", names: net.DefaultResolver, routes: kernelRoutes{}, rules: listRules}
			if noDNS {
				h.names = nil
			}
			return p.doctor(cmd.Context(), h, file)
		},
	}
	cmd.Flags().StringVar(&file, "config", "", "configuration `file` to compare the host with (default: the one that sluiced has read)")
	cmd.Flags().BoolVar(&noDNS, "no-dns", false, "leave out what needs the DNS")
	return cmd
}

// configFile is the file that was asked for, else the one that is in force, else the usual one.
func (p *program) configFile(ctx context.Context, asked string) string {
	if asked != "" {
		return asked
	}
	var st api.Status
	if err := p.client.Do(ctx, "GET", "/v1/status", nil, &st); err == nil && st.Config.File != "" {
		return st.Config.File
	}
	return "/etc/sluice/sluice.toml" // sluiced cannot be asked, which a finding of its own says
}

func (p *program) doctor(ctx context.Context, h *host, file string) error {
	var all []api.Finding
	if err := p.client.Do(ctx, "GET", "/v1/doctor", nil, &all); err != nil {
		f := api.Finding{Check: "sluiced", State: api.Fail, Text: err.Error()}
		var problem *api.Problem
		if errors.As(err, &problem) {
			f.Text, f.Remedy = problem.What, problem.Remedy
		}
		all = append(all, f)
	}
	all = append(all, h.system()...)
	cfg, err := config.Load(p.configFile(ctx, file))
	if err != nil {
		for line := range strings.Lines(err.Error()) {
			all = append(all, api.Finding{Check: "configuration file", State: api.Fail, Text: strings.TrimSpace(line), Remedy: "name it with --config, or correct it"})
		}
	} else {
		all = append(all, h.configured(ctx, cfg)...)
	}
	failed := 0
	for _, f := range all {
		if f.State == api.Fail {
			failed++
		}
	}
	if p.screen.json {
		if err := p.screen.writeJSON(all); err != nil {
			return err
		}
	} else {
		p.screen.findings(all)
	}
	if failed > 0 {
		return errFindings
	}
	return nil
}

func (s *screen) findings(all []api.Finding) {
	counts := map[string]int{}
	for _, f := range all {
		counts[f.State]++
	}
	s.list(all)
	s.say("%d ok, %s, %s", counts[api.OK], count(counts[api.Warn], "warning", "warnings"), count(counts[api.Fail], "failure", "failures"))
}

// list prints findings, the texts below each other, and what to do below each that is not ok.
func (s *screen) list(all []api.Finding) {
	const state, most = 6, 36 // a longer name stands out alone
	wide := 0
	for _, f := range all {
		if n := len([]rune(plain(f.Check))); n <= most {
			wide = max(wide, n)
		}
	}
	colours := map[string]string{api.OK: green, api.Warn: yellow, api.Fail: red}
	indent := state + wide + 2
	print := func(first, text, style string) {
		for i, l := range wrap(text, s.width-indent) {
			if i > 0 {
				first = strings.Repeat(" ", indent)
			}
			fmt.Fprintln(s.out, first+s.paint(style, l))
		}
	}
	for _, f := range all {
		head := s.paint(colours[f.State], fmt.Sprintf("%-*s", state, f.State)) + fmt.Sprintf("%-*s  ", wide, plain(f.Check))
		print(head, plain(f.Text), "")
		if f.Remedy != "" && f.State != api.OK {
			print(strings.Repeat(" ", indent), "help: "+plain(f.Remedy), faint)
		}
	}
}

// names asks the DNS.
type names interface {
	LookupAddr(ctx context.Context, addr string) ([]string, error)
	LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error)
}

// routes asks the kernel about routing.
type routes interface {
	// local reports whether packets to a are for this host.
	local(a netip.Addr) (bool, error)
	// divert reports whether packets with mark are routed to this host by a rule that leads to table.
	divert(mark uint32, table, family int) (bool, error)
	// links are the interfaces' names with their MTU.
	links() (map[string]int, error)
}

// host is this machine as doctor sees it.
type host struct {
	proc   string // /proc/sys
	names  names  // nil: not asked
	routes routes
	rules  func(context.Context) ([]byte, error) // of the firewall, as nft's JSON
}

func (h *host) sysctl(name string) (string, error) {
	b, err := os.ReadFile(filepath.Join(h.proc, strings.ReplaceAll(name, ".", "/")))
	return strings.TrimSpace(string(b)), err
}

// system checks what holds for every configuration.
func (h *host) system() []api.Finding {
	var fs []api.Finding
	for _, want := range []struct {
		name  string
		least int
		state string
		why   string
	}{
		{"net.ipv4.ip_forward", 1, api.Fail, "without it this host is no gateway"},
		{"net.ipv6.conf.all.forwarding", 1, api.Warn, "without it IPv6 customers are not routed"},
	} {
		fs = append(fs, h.atLeast(want.name, want.least, want.state, want.why))
	}
	return fs
}

// pins checks that programs and maps can stay in the kernel.
func pins(dir string) api.Finding {
	f := api.Finding{Check: "bpf file system", State: api.OK, Text: "pins are in " + dir}
	var st unix.Statfs_t
	err := unix.Statfs(dir, &st)
	if errors.Is(err, unix.ENOENT) { // before the first start of sluice-intercept
		err = unix.Statfs(filepath.Dir(dir), &st)
	}
	switch {
	case errors.Is(err, unix.EACCES):
		f.State, f.Text, f.Remedy = api.Warn, dir+" may not be looked at", "run doctor as root"
	case err != nil || st.Type != unix.BPF_FS_MAGIC:
		f.State, f.Text = api.Fail, dir+" is not on a BPF file system"
		f.Remedy = "mount -t bpf bpf /sys/fs/bpf (systemd does it by itself), or correct intercept.pin_dir"
	}
	return f
}

func (h *host) atLeast(name string, least int, state, why string) api.Finding {
	f := api.Finding{Check: name, State: api.OK}
	text, err := h.sysctl(name)
	n, nerr := strconv.Atoi(text)
	switch {
	case err != nil:
		f.State, f.Text = api.Warn, "could not be read: "+err.Error()
	case nerr != nil || n < least:
		f.State, f.Text = state, fmt.Sprintf("is %s: %s", text, why)
		f.Remedy = fmt.Sprintf("sysctl -w %s=%d, and in /etc/sysctl.d/ for good", name, least)
	default:
		f.Text = "is " + text
	}
	return f
}

// configured checks the host against the configuration.
func (h *host) configured(ctx context.Context, cfg *config.Config) []api.Finding {
	fs := []api.Finding{{Check: "configuration file", State: api.OK, Text: cfg.File + " is good"}}
	fs = append(fs, pins(cfg.Intercept.PinDir))
	fs = append(fs, h.diversion(cfg)...)
	fs = append(fs, h.firewall(ctx, cfg))
	fs = append(fs, h.interfaces(cfg)...)
	for _, a := range cfg.Delivery.Address {
		fs = append(fs, h.address(ctx, a)...)
	}
	if h.names != nil {
		fs = append(fs, h.gateway(ctx, cfg.Gateway.Name))
	}
	if cfg.TLS.Certificate != "" {
		fs = append(fs, certificate(cfg))
	}
	return fs
}

func (h *host) diversion(cfg *config.Config) []api.Finding {
	var fs []api.Finding
	for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
		f := api.Finding{Check: "policy routing " + map[int]string{unix.AF_INET: "IPv4", unix.AF_INET6: "IPv6"}[family], State: api.OK, Text: fmt.Sprintf("mark %#x leads to table %d and to this host", cfg.Intercept.Mark, cfg.Intercept.Table)}
		ok, err := h.routes.divert(cfg.Intercept.Mark, int(cfg.Intercept.Table), family)
		if err != nil || !ok {
			f.State, f.Text = api.Fail, "intercepted packets are not routed to this host"
			f.Remedy = "restart sluice-intercept; if another program removes rules, see `ip rule` and its configuration"
		}
		if err != nil {
			f.Text += ": " + err.Error()
		}
		fs = append(fs, f)
	}
	return fs
}

func (h *host) interfaces(cfg *config.Config) []api.Finding {
	links, err := h.routes.links()
	if err != nil {
		return []api.Finding{{Check: "interfaces", State: api.Warn, Text: "could not be listed: " + err.Error()}}
	}
	var fs []api.Finding
	up := 1 << 30
	for _, role := range []struct {
		name     string
		patterns []string
	}{{"uplink", cfg.Intercept.Uplinks}, {"customer", cfg.Intercept.CustomerInterfaces}} {
		for _, p := range role.patterns {
			matched := 0
			for _, name := range slices.Sorted(maps.Keys(links)) {
				mtu := links[name]
				if ok, _ := filepath.Match(p, name); !ok {
					continue
				}
				matched++
				f := api.Finding{Check: "interface " + name, State: api.OK, Text: fmt.Sprintf("%s, MTU %d", role.name, mtu)}
				if role.name == "uplink" {
					up = min(up, mtu)
				} else if mtu > up {
					f.State = api.Warn
					f.Text += fmt.Sprintf(" is larger than the uplink's %d", up)
					f.Remedy = "forwarded connections depend on path MTU discovery: let ICMP errors through, or make them equal"
				}
				fs = append(fs, f)
			}
			if matched == 0 {
				fs = append(fs, api.Finding{Check: "interface " + p, State: api.Warn, Text: "no " + role.name + " interface has that name now", Remedy: "it is attached as it appears; `ip link` lists what there is"})
			}
		}
	}
	return fs
}

// dnsPatience is how long one question to the DNS may take.
const dnsPatience = 3 * time.Second

func (h *host) address(ctx context.Context, a config.Address) []api.Finding {
	check := "delivery address " + a.Address.String()
	f := api.Finding{Check: check, State: api.OK, Text: "is local"}
	if ok, err := h.routes.local(a.Address); err != nil || !ok {
		f.State, f.Text = api.Fail, "is not this host's"
		f.Remedy = "add its prefix to delivery.prefixes and restart sluice-intercept, or configure the address on an interface"
	}
	fs := []api.Finding{f}
	if h.names == nil {
		return fs
	}
	n := api.Finding{Check: check, State: api.OK, Text: "PTR, address and HELO agree on " + a.Helo}
	ctx, cancel := context.WithTimeout(ctx, 2*dnsPatience)
	defer cancel()
	ptr, err := h.names.LookupAddr(ctx, a.Address.String())
	var dns *net.DNSError
	switch {
	case errors.As(err, &dns) && !dns.IsNotFound:
		n.State, n.Text, n.Remedy = api.Warn, "PTR not checked: "+dns.Err, "is the resolver in /etc/resolv.conf reachable? --no-dns leaves this out"
		return append(fs, n)
	case err != nil || !hasName(ptr, a.Helo):
		n.State = api.Warn
		n.Text = fmt.Sprintf("PTR is %s, HELO %s", orNone(ptr), a.Helo)
		n.Remedy = "let PTR and HELO be one name: receivers refuse or mistrust mail otherwise"
	case !h.resolves(ctx, a.Helo, a.Address):
		n.State = api.Warn
		n.Text = fmt.Sprintf("%s has no address record %s", a.Helo, a.Address)
		n.Remedy = "add the A or AAAA record"
	}
	return append(fs, n)
}

func (h *host) resolves(ctx context.Context, name string, want netip.Addr) bool {
	as, err := h.names.LookupNetIP(ctx, "ip", name)
	if err != nil {
		return false
	}
	for _, a := range as {
		if a.Unmap() == want {
			return true
		}
	}
	return false
}

func (h *host) gateway(ctx context.Context, name string) api.Finding {
	ctx, cancel := context.WithTimeout(ctx, dnsPatience)
	defer cancel()
	f := api.Finding{Check: "gateway name", State: api.OK, Text: name + " resolves"}
	if as, err := h.names.LookupNetIP(ctx, "ip", name); err != nil || len(as) == 0 {
		f.State, f.Text, f.Remedy = api.Warn, name+" does not resolve", "add an address record: clients see the name in every reply"
	}
	return f
}

func hasName(ptr []string, name string) bool {
	for _, p := range ptr {
		if strings.EqualFold(strings.TrimSuffix(p, "."), name) {
			return true
		}
	}
	return false
}

func orNone(list []string) string {
	if len(list) == 0 {
		return "missing"
	}
	return strings.Join(list, ", ")
}

// kernelRoutes asks by netlink, which needs no privilege.
type kernelRoutes struct{}

func (kernelRoutes) local(a netip.Addr) (bool, error) {
	rs, err := netlink.RouteGet(a.AsSlice())
	if err != nil {
		return false, err
	}
	return len(rs) > 0 && rs[0].Type == unix.RTN_LOCAL, nil
}

func (kernelRoutes) divert(mark uint32, table, family int) (bool, error) {
	rules, err := netlink.RuleList(family)
	if err != nil {
		return false, err
	}
	ruled := false
	for _, r := range rules {
		ruled = ruled || r.Mark == mark && r.Table == table
	}
	rs, err := netlink.RouteListFiltered(family, &netlink.Route{Table: table, Type: unix.RTN_LOCAL}, netlink.RT_FILTER_TABLE|netlink.RT_FILTER_TYPE)
	return ruled && len(rs) > 0, err
}

func (kernelRoutes) links() (map[string]int, error) {
	ls, err := net.Interfaces()
	m := make(map[string]int, len(ls))
	for _, l := range ls {
		m[l.Name] = l.MTU
	}
	return m, err
}
