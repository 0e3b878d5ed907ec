package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/user"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"sluice/cmd/internal/api"
	"sluice/cmd/internal/config"
)

// setup is one call of the command with what it has found so far.
type setup struct {
	file, name, contact, helpURL, admin string
	customers, uplinks                  []string
	delivery                            []string // ADDRESS=NAME
	prefixes                            []string
	set                                 []string // section.key=value
	dryRun, force, yes, noDNS           bool

	screen    *screen
	names     names
	in        *bufio.Reader // nil: nobody to ask
	choices   []choice
	addresses []config.Address // that mail could leave from, with their names
}

func (p *program) setupCommand() *cobra.Command {
	s := &setup{screen: p.screen, names: net.DefaultResolver}
	cmd := &cobra.Command{
		Use: "setup", Short: "write a first configuration for this host, in which mail is only watched", Args: none,
		Long: `setup looks at interfaces, routes and names of this host and writes a configuration in which every customer's mail is
forwarded untouched and observed. It attaches and starts nothing.

Uplinks are where a default route leads; customers are behind all other interfaces that have addresses or routes, but
loopback, ports of bridges and bonds, and bridges for guests of this host. Each choice is printed with its reason; flags
overrule it, and on a terminal it is asked for. An existing file is kept unless --force is given, and then stays beside the
new one with the ending .old.`,
		Example: "  sluice setup\n  sluice setup --dry-run --yes\n  sluice setup --yes --name gw1.provider.example --customer 'vlan*' --uplink bond0 --delivery-address 203.0.113.17=out1.provider.example",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if s.noDNS {
				s.names = nil
			}
			if in, ok := cmd.InOrStdin().(*os.File); ok && !s.yes && !p.screen.json && term.IsTerminal(int(in.Fd())) {
				s.in = bufio.NewReader(in)
			}
			return s.run(cmd.Context())
		},
	}
	f := cmd.Flags()
	f.StringVar(&s.file, "config", configFile(), "`file` to write")
	f.StringVar(&s.name, "name", "", "fully qualified `name` of the gateway (default: this host's name, else that of an uplink's address)")
	f.StringVar(&s.contact, "contact", "", "`mailbox` or telephone number that refusals name for questions")
	f.StringVar(&s.helpURL, "help-url", "", "start of the link in refusals")
	f.StringVar(&s.admin, "admin-address", "", "`mailbox` to which even a locked user's mail passes")
	f.StringArrayVar(&s.customers, "customer", nil, "name or pattern of `interfaces` towards customers; may be repeated (default: found by routes)")
	f.StringArrayVar(&s.uplinks, "uplink", nil, "name or pattern of `interfaces` towards the internet; may be repeated (default: found by routes)")
	f.StringArrayVar(&s.delivery, "delivery-address", nil, "deliver from this `ADDRESS[=NAME]` of the gateway instead of from the customers' own; the name is that of its PTR; may be repeated")
	f.StringArrayVar(&s.prefixes, "delivery-prefix", nil, "`prefix` routed to this host that holds delivery addresses; may be repeated")
	f.StringArrayVar(&s.set, "set", nil, "any other key, as `section.key=value` in the file's own words, such as intercept.table=77; may be repeated")
	f.BoolVar(&s.dryRun, "dry-run", false, "print the configuration instead of writing it")
	f.BoolVar(&s.force, "force", false, "write over an existing file, which is kept with the ending .old")
	f.BoolVarP(&s.yes, "yes", "y", false, "ask nothing")
	f.BoolVar(&s.noDNS, "no-dns", false, "ask the DNS for no names")
	return cmd
}

// outcome is what setup prints for programs.
type outcome struct {
	File       string        `json:"file"`
	Written    bool          `json:"written"`
	Interfaces []choice      `json:"interfaces"`
	Findings   []api.Finding `json:"findings,omitempty"` // what is to be done on this host
	Config     string        `json:"config"`
}

func (s *setup) run(ctx context.Context) error {
	for _, text := range s.set {
		if _, _, _, err := setting(text); err != nil {
			return err
		}
	}
	if err := s.vacant(); err != nil {
		return err
	}
	nics, err := survey()
	if err != nil {
		return err
	}
	s.choices = choose(nics, s.customers, s.uplinks)
	if !s.screen.json && !s.dryRun {
		s.show()
	}
	if err := s.decide(ctx, nics); err != nil {
		return err
	}
	text := s.text()
	c, err := config.Parse(s.file, []byte(text))
	if err != nil {
		return fmt.Errorf("could not make a configuration that the daemons take; correct the flags:\n%w", err)
	}
	out := outcome{File: s.file, Interfaces: s.choices, Findings: s.findings(c), Config: text}
	if s.dryRun {
		if s.screen.json {
			return s.screen.writeJSON(out)
		}
		fmt.Fprint(s.screen.out, text)
		return nil
	}
	if ok, err := s.agreed(ctx, "Write "+s.file+"?"); err != nil || !ok {
		return err
	}
	if err := s.write(text); err != nil {
		return err
	}
	out.Written = true
	if s.screen.json {
		return s.screen.writeJSON(out)
	}
	s.next(out.Findings)
	return nil
}

// vacant refuses early to write over a file.
func (s *setup) vacant() error {
	_, err := os.Stat(s.file)
	switch {
	case s.dryRun || s.force || errors.Is(err, os.ErrNotExist):
		return nil
	case err != nil:
		return fmt.Errorf("could not look for %s: %w", s.file, err)
	}
	return &api.Problem{What: s.file + " exists already", Remedy: "edit it; --force writes a new one and keeps it as " + s.file + ".old; --dry-run prints only"}
}

// show prints the choices with their reasons.
func (s *setup) show() {
	rows, more := s.reasons()
	s.screen.table([]column{{head: "INTERFACE"}, {head: "ROLE"}, {head: "BECAUSE", cut: true}}, rows)
	s.screen.say("%s", more)
}

// mostShown bounds the interfaces of one role that are listed one by one.
const mostShown = 12

// reasons are the choices as rows; more tells how many of the same kind are left out.
func (s *setup) reasons() (rows [][]string, more string) {
	n := map[string]int{}
	for _, c := range s.choices {
		role := c.Role
		if role == "" {
			role = "-"
		}
		if n[role]++; n[role] <= mostShown {
			rows = append(rows, []string{c.Name, role, c.Why})
		}
	}
	for _, role := range []string{uplink, customer, "-"} {
		if left := n[role] - mostShown; left > 0 {
			more += fmt.Sprintf("… and %d more of role %s\n", left, role)
		}
	}
	return rows, more
}

// decide settles what the file needs: from flags, else from the host, and asks where there is somebody to ask.
func (s *setup) decide(ctx context.Context, nics []*nic) (err error) {
	if len(s.uplinks) == 0 {
		s.uplinks = patterns(s.choices, uplink)
	}
	if len(s.customers) == 0 {
		s.customers = patterns(s.choices, customer)
	}
	if s.uplinks, err = s.askList(ctx, "Uplinks", s.uplinks, "no default route leads anywhere: name the interface towards the internet with --uplink"); err != nil {
		return err
	}
	if s.customers, err = s.askList(ctx, "Customer interfaces", s.customers, "no interface has customers behind it: name them with --customer, patterns of later ones included"); err != nil {
		return err
	}
	own := s.ownNames(ctx, nics)
	if s.name == "" {
		s.name = hostName(own)
	}
	if s.name, err = s.ask(ctx, "Name of the gateway", s.name, "this host has no fully qualified name: give one with --name"); err != nil {
		return err
	}
	if s.contact, err = s.ask(ctx, "Contact in refusals (mailbox, may be empty)", s.contact, ""); err != nil {
		return err
	}
	return s.deliver(ctx, own)
}

// ownNames finds the global addresses of this host that are not customers' side, with the names that the DNS has for
// them.
func (s *setup) ownNames(ctx context.Context, nics []*nic) (out []config.Address) {
	roles := map[string]string{}
	for _, c := range s.choices {
		roles[c.Name] = c.Role
	}
	for _, n := range nics {
		if roles[n.name] == customer || !n.up {
			continue
		}
		for _, a := range n.addrs {
			if !a.Addr().IsPrivate() {
				out = append(out, config.Address{Address: a.Addr(), Helo: s.ptr(ctx, a.Addr())})
			}
		}
	}
	return out
}

// ptr is the name of an address, "" where there is none to be had.
func (s *setup) ptr(ctx context.Context, a netip.Addr) string {
	if s.names == nil {
		return ""
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	found, err := s.names.LookupAddr(ctx, a.String())
	if err != nil || len(found) == 0 {
		return ""
	}
	return strings.ToLower(strings.TrimSuffix(found[0], "."))
}

// hostName is this host's name where it is fully qualified, else the first that the DNS has for one of its addresses.
func hostName(own []config.Address) string {
	if name, err := os.Hostname(); err == nil && strings.Contains(strings.Trim(name, "."), ".") {
		return strings.ToLower(strings.TrimSuffix(name, "."))
	}
	for _, a := range own {
		if a.Helo != "" {
			return a.Helo
		}
	}
	return ""
}

// deliver reads the delivery addresses that were asked for. Without any, those that could serve are noted in the file.
func (s *setup) deliver(ctx context.Context, own []config.Address) error {
	if len(s.delivery) == 0 {
		s.addresses = own
		return nil
	}
	for _, text := range s.delivery {
		ip, name, _ := strings.Cut(text, "=")
		a, err := netip.ParseAddr(ip)
		if err != nil {
			return usageError{fmt.Errorf("--delivery-address: %q is no address; write it like 203.0.113.17=out1.provider.example", ip)}
		}
		if name == "" {
			name = s.ptr(ctx, a)
		}
		if name == "" {
			return usageError{fmt.Errorf("--delivery-address: %s has no PTR in the DNS; give its name: %s=out1.provider.example", a, a)}
		}
		s.addresses = append(s.addresses, config.Address{Address: a, Helo: name})
	}
	return nil
}

// ask asks for one line, with what it is unless told; missing is the error where it stays empty, "" where it may.
func (s *setup) ask(ctx context.Context, what, unless, missing string) (string, error) {
	answer := unless
	if s.in != nil {
		prompt := what
		if unless != "" {
			prompt += " [" + unless + "]"
		}
		fmt.Fprint(s.screen.out, prompt+": ")
		line, err := s.line(ctx)
		if err != nil {
			return "", err
		}
		if line != "" {
			answer = line
		}
	}
	if answer == "" && missing != "" {
		what, remedy, _ := strings.Cut(missing, ": ")
		return "", &api.Problem{What: what, Remedy: remedy}
	}
	return answer, nil
}

// line waits for one line, or for Ctrl-C.
func (s *setup) line(ctx context.Context) (string, error) {
	type read struct {
		text string
		err  error
	}
	done := make(chan read, 1)
	go func() {
		text, err := s.in.ReadString('\n')
		done <- read{text, err}
	}()
	select {
	case r := <-done:
		if r.err != nil && (r.err != io.EOF || r.text == "") {
			return "", errors.New("nothing was written: there was no answer")
		}
		return strings.TrimSpace(r.text), nil
	case <-ctx.Done():
		s.screen.say("\nnothing was written")
		return "", ctx.Err()
	}
}

func (s *setup) askList(ctx context.Context, what string, unless []string, missing string) ([]string, error) {
	text, err := s.ask(ctx, what, strings.Join(unless, " "), missing)
	return strings.FieldsFunc(text, func(r rune) bool { return r == ' ' || r == ',' }), err
}

func (s *setup) agreed(ctx context.Context, what string) (bool, error) {
	if s.in == nil {
		return true, nil
	}
	answer, err := s.ask(ctx, what+" (yes/no)", "yes", "")
	if err == nil && !strings.HasPrefix(strings.ToLower(answer), "y") {
		s.screen.say("nothing was written")
		return false, nil
	}
	return err == nil, err
}

// findings is what has to be done on this host before the daemons can work.
func (s *setup) findings(c *config.Config) (out []api.Finding) {
	h := &host{proc: "/proc/sys"}
	low := api.Finding{Check: "sysctls", State: api.Warn, Remedy: "sysctl --system (the installed 60-sluice.conf raises them)"}
	for _, f := range h.system() {
		if f.State == api.OK {
			continue
		}
		if f.State == api.Fail {
			low.State = api.Fail
		}
		if low.Text != "" {
			low.Text += "; "
		}
		low.Text += f.Check + " " + f.Text
	}
	if low.Text != "" {
		out = append(out, low)
	}
	if _, err := user.Lookup(c.Intercept.DaemonUser); err != nil {
		out = append(out, api.Finding{Check: "account", State: api.Fail, Text: "there is no account " + c.Intercept.DaemonUser,
			Remedy: "systemd-sysusers && systemd-tmpfiles --create"})
	}
	return out
}

// next tells what was done and the two commands that follow.
func (s *setup) next(findings []api.Finding) {
	s.screen.say("%s is written: mail of all customers is forwarded untouched and observed. Nothing runs yet.", s.file)
	if len(findings) > 0 {
		s.screen.say("\nFirst, on this host:\n")
		s.screen.list(findings)
	}
	s.screen.say("\nNext:\n\n  systemctl enable --now sluice-intercept sluiced sluice-observe\n  sluice doctor\n\nLater, step by step: sluice rollout")
}
