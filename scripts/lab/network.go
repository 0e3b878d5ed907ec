package lab

import (
	"context"
	"fmt"
	"os"
	"strings"
)

// Customers reach the gateway at these addresses, the same on every link.
const (
	customerRouterV4 = "192.0.2.1"
	customerRouterV6 = "fe80::1"
)

// Settings of each role, without /proc/sys/net/. The gateway is a plain
// router with strict settings of a kind that distributions choose; nothing
// here helps Sluice.
var (
	sysctlAll = []string{
		"ipv6/conf/all/accept_dad=0", "ipv6/conf/default/accept_dad=0",
		"ipv6/conf/all/accept_ra=0", "ipv6/conf/default/accept_ra=0",
	}
	sysctlRouter = []string{
		"ipv4/ip_forward=1", "ipv6/conf/all/forwarding=1", "ipv6/conf/default/forwarding=1",
		"ipv4/conf/all/rp_filter=2", "ipv4/conf/default/rp_filter=2",
		"ipv4/conf/all/accept_redirects=0", "ipv4/conf/default/accept_redirects=0",
		"ipv4/conf/all/send_redirects=0", "ipv4/conf/default/send_redirects=0",
	}
)

// network gives every host its links, addresses and routes.
func (l *Lab) network(ctx context.Context) error {
	if err := os.WriteFile(l.dir+"/resolv.conf",
		fmt.Appendf(nil, "nameserver %s\noptions timeout:2 attempts:2\n", ResolverV4), 0o644); err != nil {
		return err
	}
	for _, name := range []string{HostGateway, HostInternet} {
		if err := l.sysctl(name, append(append([]string{}, sysctlAll...), sysctlRouter...)); err != nil {
			return err
		}
	}
	if err := l.ip(ctx, HostInternet, internetLinks()); err != nil {
		return err
	}
	if err := l.ip(ctx, HostGateway, []string{
		"link set lo up",
		"link set up0 up",
		"addr add 203.0.113.1/29 dev up0",
		"addr add 2001:db8:203::1/64 dev up0 nodad",
		"route add default via " + routerV4.String(),
		"route add default via " + routerV6.String(),
	}); err != nil {
		return err
	}
	// Routes need the gateway's link up.
	if err := l.ip(ctx, HostInternet, internetRoutes()); err != nil {
		return err
	}
	for i, c := range l.customers {
		if err := l.link(ctx, i, c); err != nil {
			return err
		}
	}
	return nil
}

func internetLinks() []string {
	lines := []string{
		"link set lo up",
		"link add gw0 type veth peer name up0 netns " + HostGateway,
		"link set gw0 up",
		"addr add " + routerV4.String() + "/29 dev gw0",
		"addr add " + routerV6.String() + "/64 dev gw0 nodad",
		"addr add " + ResolverV4.String() + "/32 dev lo",
		"addr add " + ResolverV6.String() + "/128 dev lo nodad",
	}
	for _, m := range Hosts() {
		addrs := m.Addrs()
		if m.Kind.Foreign() {
			for _, d := range m.Doors() {
				if !d.TLS {
					addrs = append(addrs, d.Addr)
				}
			}
		}
		for _, a := range addrs {
			if m.Kind == KindDropped {
				lines = append(lines, fmt.Sprintf("route add blackhole %s/%d", a, a.BitLen()))
				continue
			}
			add := fmt.Sprintf("addr add %s/%d dev lo", a, a.BitLen())
			if a.Is6() { // else it is tentative until a work queue of the whole machine comes round to it
				add += " nodad"
			}
			lines = append(lines, add)
		}
	}
	return lines
}

func internetRoutes() []string {
	return []string{
		"route add 192.0.2.0/24 via " + GatewayV4.String(),
		"route add " + DeliveryV4.String() + " via " + GatewayV4.String(),
		"route add 2001:db8::/32 via " + GatewayV6.String(),
		"route add unreachable 2001:db8:100::/64",
	}
}

// link connects customer number i (interface cust<i> of the gateway).
func (l *Lab) link(ctx context.Context, i int, c Customer) error {
	if err := l.sysctl(c.Name, sysctlAll); err != nil {
		return err
	}
	port := fmt.Sprintf("cust%d", i)
	gateway := []string{
		"link add " + port + " type veth peer name eth0 netns " + c.Name,
		"link set " + port + " up",
	}
	customer := []string{"link set lo up", "link set eth0 up"}
	if c.V4.IsValid() {
		gateway = append(gateway,
			"addr add "+customerRouterV4+"/32 dev "+port,
			fmt.Sprintf("route add %s/32 dev %s", c.V4, port))
		customer = append(customer,
			fmt.Sprintf("addr add %s/32 dev eth0", c.V4),
			"route add default via "+customerRouterV4+" dev eth0 onlink")
	}
	if c.V6.IsValid() {
		net, err := c.V6.Prefix(64)
		if err != nil {
			return err
		}
		gateway = append(gateway,
			"addr add "+customerRouterV6+"/64 dev "+port+" nodad",
			fmt.Sprintf("addr add %s/64 dev %s nodad", net.Addr().Next(), port))
		customer = append(customer,
			fmt.Sprintf("addr add %s/64 dev eth0 nodad", c.V6),
			"route add default via "+customerRouterV6+" dev eth0")
	}
	if err := l.ip(ctx, HostGateway, gateway); err != nil {
		return err
	}
	return l.ip(ctx, c.Name, customer)
}

// AddCustomer connects one more customer to the running lab, on the gateway's
// next interface custN, which appears only now.
func (l *Lab) AddCustomer(ctx context.Context, c Customer) error {
	if _, err := l.must(ctx, HostInternet, Command{Args: []string{"nsenter", "-t", "1", "-m", "ip", "netns", "add", c.Name}}); err != nil {
		return err
	}
	if err := l.openHost(c.Name); err != nil {
		return err
	}
	l.mu.Lock()
	i := len(l.customers)
	l.customers = append(l.customers, c)
	l.mu.Unlock()
	if err := l.link(ctx, i, c); err != nil {
		return err
	}
	return l.dns.customer(c)
}

// ip runs one batch of ip(8) commands on host.
func (l *Lab) ip(ctx context.Context, host string, lines []string) error {
	_, err := l.must(ctx, host, Command{
		Args:  []string{"ip", "-batch", "-"},
		Stdin: strings.NewReader(strings.Join(lines, "\n") + "\n"),
	})
	return err
}

// sysctl writes key=value settings under /proc/sys/net on host.
func (l *Lab) sysctl(host string, settings []string) error {
	return l.In(host, func() error {
		for _, s := range settings {
			key, value, _ := strings.Cut(s, "=")
			// /proc/sys/net shows the namespace of the thread that looks.
			if err := os.WriteFile("/proc/sys/net/"+key, []byte(value), 0); err != nil {
				return fmt.Errorf("could not set %s on %s: %w", key, host, err)
			}
		}
		return nil
	})
}

// Sysctl sets one kernel setting (net.ipv4.conf.all.rp_filter style without
// the leading "net.", slashes instead of dots) on host.
func (l *Lab) Sysctl(host, key, value string) error {
	return l.sysctl(host, []string{key + "=" + value})
}
