package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"sluice/cmd/internal/api"
	"sluice/cmd/internal/config"
)

func (p *program) doctorCommand() *cobra.Command {
	file, noDNS := "", false
	cmd := &cobra.Command{
		Use: "doctor", Short: "check daemons and host, and say what to do", Args: none,
		Long: `doctor checks the daemons, what the kernel can do (by trying it), sysctls, the way to the proxy, interfaces, where users'
prefixes are routed, other firewalls, delivery addresses, names, the DNS, clock, limits, disks and certificates.
Each line is ok, warn or fail, with the command that mends it. It ends with exit code 1 when something failed. As root it
sees more.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			h := thisHost()
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

// usualConfig is where the configuration is unless somebody says otherwise.
const usualConfig = "/etc/sluice/sluice.toml"

func configFile() string { return cmp.Or(os.Getenv("SLUICE_CONFIG"), usualConfig) }

func (p *program) doctor(ctx context.Context, h *host, file string) error {
	all := p.askDaemon(ctx)
	var st api.Status
	if err := p.client.Do(ctx, "GET", "/v1/status", nil, &st); err == nil { // else a finding says so already
		h.path = st.Helper.Path
		if file == "" {
			file = st.Config.File
		}
	}
	if file == "" {
		file = configFile()
	}
	all = append(all, h.kernel()...)
	all = append(all, h.system()...)
	cfg, err := config.Load(file)
	if errors.Is(err, os.ErrNotExist) {
		all = append(all, api.Finding{Check: "configuration file", State: api.Fail, Text: "there is no " + file, Remedy: "sluice setup"})
	} else if err != nil {
		for line := range strings.Lines(err.Error()) {
			all = append(all, api.Finding{Check: "configuration file", State: api.Fail, Text: strings.TrimSpace(line),
				Remedy: "correct it and try `sluiced -check`; `sluice setup` writes a first one"})
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

// askDaemon returns what sluiced finds, or that it cannot be asked.
func (p *program) askDaemon(ctx context.Context) []api.Finding {
	var all []api.Finding
	err := p.client.Do(ctx, "GET", "/v1/doctor", nil, &all)
	if err == nil {
		return all
	}
	f := api.Finding{Check: "sluiced", State: api.Fail, Text: err.Error(), Remedy: "systemctl status sluiced"}
	var problem *api.Problem
	if errors.As(err, &problem) {
		f.Text, f.Remedy = problem.What, problem.Remedy
	}
	return append(all, f)
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

// host is this machine as doctor sees it.
type host struct {
	proc       string   // /proc/sys
	names      names    // nil: not asked
	servers    []string // of the DNS, to be asked one by one
	probe      func(ctx context.Context, server, name string) error
	routes     routes
	rules      func(context.Context) ([]byte, error)                    // of the firewall, as nft's JSON
	tables     func(ctx context.Context, family string) ([]byte, error) // of iptables-legacy, as it saves them; nil: not asked
	trials     func() (missing []string, err error)                     // of what the kernel can do; nil: not asked
	clock      func() (synchronised bool, err error)                    // nil: not asked
	neighbours func() ([]neighbour, error)                              // nil: not asked
	path       string                                                   // of the data path; "" where the helper cannot be asked
}

func thisHost() *host {
	return &host{proc: "/proc/sys", neighbours: kernelNeighbours, names: net.DefaultResolver, servers: nameservers("/etc/resolv.conf"), probe: askServer,
		routes: &kernelRoutes{}, rules: listRules, tables: legacyTables, trials: tryKernel, clock: clockState}
}

// configured checks the host against the configuration.
func (h *host) configured(ctx context.Context, cfg *config.Config) []api.Finding {
	fs := []api.Finding{{Check: "configuration file", State: api.OK, Text: cfg.File + " is good"}}
	if h.path != pathNFT {
		fs = append(fs, pins(cfg.Intercept.PinDir))
	}
	fs = append(fs, h.ports(cfg))
	fs = append(fs, h.delivery(ctx, cfg)...)
	fs = append(fs, h.interfaces(cfg)...)
	fs = append(fs, h.userRoutes(cfg)...)
	fs = append(fs, h.shared(cfg)...)
	asks := h.names
	if asks != nil {
		dns, answers := h.dns(ctx, cfg.Gateway.Name)
		if fs = append(fs, dns...); !answers {
			asks = nil // each further question would wait in vain
		}
	}
	fs = append(fs, h.addresses(ctx, cfg, asks)...)
	if cfg.TLS.Certificate != "" {
		fs = append(fs, certificate(cfg))
	}
	return fs
}

// most bounds findings of one kind; there may be thousands of interfaces, users and addresses.
const most = 5

// some cuts a list of findings of one kind and says how many are left out.
func some(fs []api.Finding) []api.Finding {
	if len(fs) <= most {
		return fs
	}
	left := fs[most]
	left.Text, left.Remedy = fmt.Sprintf("and %d more like these", len(fs)-most), ""
	left.Check = strings.TrimSpace(left.Check[:strings.LastIndexByte(" "+left.Check, ' ')])
	return append(fs[:most:most], left)
}
