// Package testbed builds the benchmark's network out of namespaces, starts programs in it and reads their CPU time.
//
// One client and one internet namespace are joined by one gateway namespace
// per way of forwarding, so that every way stays up for the whole run and the
// runs alternate without restarts. Which gateway a connection crosses follows
// from its destination address alone.
package testbed

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"sluice/scripts/bench/sink"
)

const (
	prefix  = "sluice-bench-"
	sources = 200 // client addresses
	// maxGates keeps the address plan inside its documentation prefixes.
	maxGates = 4
)

// Gate is one gateway namespace and the addresses that concern it.
type Gate struct {
	Name       string
	Namespace  string
	Customer   string       // interface towards the client
	Uplink     string       // interface towards the internet
	Customers  netip.Prefix // the client's addresses, behind Customer
	Delivery   netip.Prefix // addresses routed to this gateway, for its own deliveries
	UplinkAddr netip.Addr   // the gateway's own address on Uplink
	Targets    map[sink.Kind][]netip.AddrPort
}

// Bed is the whole network. Close removes it.
type Bed struct {
	Client   string // namespace
	Internet string // namespace
	Sources  []netip.Addr
	Gates    []Gate
}

// New builds the network with one gateway for each name. Namespaces left by a
// benchmark that was killed are removed first.
func New(ctx context.Context, names []string) (*Bed, error) {
	if len(names) == 0 || len(names) > maxGates {
		return nil, fmt.Errorf("could not build a network with %d gateways: 1 to %d are possible", len(names), maxGates)
	}
	if os.Geteuid() != 0 {
		return nil, errors.New("could not build the network: it needs root for network namespaces; run it with sudo")
	}
	if err := sweep(ctx); err != nil {
		return nil, err
	}
	b := plan(os.Getpid(), names)
	for _, ns := range b.namespaces() {
		if err := run(ctx, "ip", "netns", "add", ns); err != nil {
			return nil, errors.Join(err, b.Close())
		}
	}
	for _, s := range b.script() {
		if err := runIn(ctx, s.namespace, s.input, "ip", "-batch", "-"); err != nil {
			return nil, errors.Join(err, b.Close())
		}
	}
	for _, ns := range b.namespaces() {
		if err := tune(ctx, ns, ns != b.Client && ns != b.Internet); err != nil {
			return nil, errors.Join(err, b.Close())
		}
	}
	return b, nil
}

// plan lays out names and addresses; it touches nothing.
func plan(pid int, names []string) *Bed {
	base := Name(pid)
	b := &Bed{Client: base + "client", Internet: base + "net"}
	for i := range sources {
		b.Sources = append(b.Sources, netip.AddrFrom4([4]byte{192, 0, 2, byte(1 + i)}))
	}
	for i, name := range names {
		g := Gate{
			Name: name, Namespace: base + name, Customer: "cust0", Uplink: "up0",
			Customers:  netip.MustParsePrefix("192.0.2.0/24"),
			Delivery:   netip.PrefixFrom(netip.AddrFrom4([4]byte{203, 0, 113, byte(128 + 32*i)}), 27),
			UplinkAddr: link(i, 1, 1), Targets: map[sink.Kind][]netip.AddrPort{},
		}
		for _, kind := range []sink.Kind{sink.Plain, sink.TLS, sink.Slow} {
			for k := range sink.PerKind {
				g.Targets[kind] = append(g.Targets[kind], netip.AddrPortFrom(kind.Addr(i, k), 25))
			}
		}
		b.Gates = append(b.Gates, g)
	}
	return b
}

// link is the address of one end of gateway i's link: side 0 is the client's, 1 the internet's;
// end 1 is the gateway, 2 the other namespace.
func link(i, side, end int) netip.Addr {
	return netip.AddrFrom4([4]byte{203, 0, 113, byte(8*i + 4*side + end)})
}

func (b *Bed) namespaces() []string {
	all := []string{b.Client, b.Internet}
	for _, g := range b.Gates {
		all = append(all, g.Namespace)
	}
	return all
}

type step struct{ namespace, input string }

// script is the input of `ip -batch` for each namespace, in order.
func (b *Bed) script() []step {
	var client, internet strings.Builder
	client.WriteString("link set lo up\n")
	internet.WriteString("link set lo up\n")
	for _, a := range b.Sources {
		fmt.Fprintf(&client, "addr add %s/32 dev lo\n", a)
	}
	steps := make([]step, 0, len(b.Gates)+2)
	for i, g := range b.Gates {
		targets := netip.PrefixFrom(netip.AddrFrom4([4]byte{198, 51, 100, byte(64 * i)}), 26)
		steps = append(steps, step{g.Namespace, fmt.Sprintf(`link set lo up
link add %[1]s type veth peer name gw%[3]d netns %[4]s
link add %[2]s type veth peer name gw%[3]d netns %[5]s
addr add %[6]s/30 dev %[1]s
addr add %[7]s/30 dev %[2]s
link set %[1]s up
link set %[2]s up
route add 192.0.2.0/24 via %[8]s
route add %[10]s via %[9]s
`, g.Customer, g.Uplink, i, b.Client, b.Internet, link(i, 0, 1), link(i, 1, 1), link(i, 0, 2), link(i, 1, 2), targets)})
		fmt.Fprintf(&client, "addr add %s/30 dev gw%d\nlink set gw%[2]d up\nroute add %s via %s\n", link(i, 0, 2), i, targets, link(i, 0, 1))
		// Answers to a client go back by the gateway its packets came by.
		fmt.Fprintf(&internet, "addr add %s/30 dev gw%d\nlink set gw%[2]d up\nroute add 192.0.2.0/24 via %[3]s table %[4]d\nrule add from %[5]s lookup %[4]d pref %[4]d\nroute add %[6]s via %[3]s\n",
			link(i, 1, 2), i, link(i, 1, 1), 101+i, targets, g.Delivery)
		for _, kind := range g.Targets {
			for _, t := range kind {
				fmt.Fprintf(&internet, "addr add %s/32 dev lo\n", t.Addr())
			}
		}
	}
	return append(steps, step{b.Client, client.String()}, step{b.Internet, internet.String()})
}

// tune sets what a namespace would else inherit from the host, so that runs on different hosts compare.
func tune(ctx context.Context, namespace string, forward bool) error {
	settings := []string{
		"net.ipv4.conf.all.rp_filter=0", "net.ipv4.conf.default.rp_filter=0",
		"net.ipv4.ip_local_port_range=2048 65535", "net.ipv4.tcp_tw_reuse=1",
		"net.core.somaxconn=4096", "net.ipv4.tcp_max_syn_backlog=4096",
		"net.ipv4.conf.all.send_redirects=0", "net.ipv4.icmp_ratelimit=0",
	}
	if forward {
		settings = append(settings, "net.ipv4.ip_forward=1")
	}
	return runIn(ctx, namespace, "", "sysctl", append([]string{"-q", "-w"}, settings...)...)
}

// Close removes the namespaces; programs in them must have ended before.
func (b *Bed) Close() error {
	var errs []error
	for _, ns := range b.namespaces() {
		if _, err := os.Stat(filepath.Join(runDir, ns)); err == nil {
			errs = append(errs, run(context.Background(), "ip", "netns", "del", ns))
		}
	}
	return errors.Join(errs...)
}

// sweep removes namespaces whose benchmark no longer runs; the process id is in their names.
func sweep(ctx context.Context) error {
	left, err := filepath.Glob(filepath.Join(runDir, prefix+"*"))
	if err != nil {
		return err
	}
	for _, path := range left {
		if !Gone(path) {
			continue
		}
		if err := run(ctx, "ip", "netns", "del", filepath.Base(path)); err != nil {
			return err
		}
	}
	return nil
}

// Name begins the name of anything that outlives a benchmark which is killed.
func Name(pid int) string { return prefix + strconv.Itoa(pid) + "-" }

// Gone says that path is named by Name and that its benchmark no longer runs.
func Gone(path string) bool {
	rest, named := strings.CutPrefix(filepath.Base(path), prefix)
	number, _, _ := strings.Cut(rest, "-")
	pid, err := strconv.Atoi(number)
	return named && err == nil && errors.Is(syscall.Kill(pid, 0), syscall.ESRCH)
}

func run(ctx context.Context, name string, args ...string) error {
	return finish(exec.CommandContext(ctx, name, args...), func(c *exec.Cmd) error { return c.Start() })
}

func runIn(ctx context.Context, namespace, input, name string, args ...string) error {
	c := exec.CommandContext(ctx, name, args...)
	c.Stdin = strings.NewReader(input)
	return finish(c, func(c *exec.Cmd) error { return startIn(namespace, c) })
}

func finish(c *exec.Cmd, start func(*exec.Cmd) error) error {
	var out bytes.Buffer
	c.Stdout, c.Stderr = &out, &out
	err := start(c)
	if err == nil {
		err = c.Wait()
	}
	if err != nil {
		return fmt.Errorf("could not run %s: %w: %s", strings.Join(c.Args, " "), err, bytes.TrimSpace(out.Bytes()))
	}
	return nil
}

// Exec runs a program inside a namespace to its end, with input as its standard input.
func Exec(ctx context.Context, namespace, input, name string, args ...string) error {
	return runIn(ctx, namespace, input, name, args...)
}
