package lab

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

// nameServer is the lab's DNS server, a dnsmasq that knows the plan's names
// and re-reads a folder of names that tests add.
type nameServer struct {
	hosts string // folder of hosts(5) files; dnsmasq watches it
	proc  *Process
}

// startDNS starts the name server and waits until it answers.
func (l *Lab) startDNS(ctx context.Context) error {
	d := &nameServer{hosts: filepath.Join(l.dir, "dns-hosts")}
	if err := os.MkdirAll(d.hosts, 0o755); err != nil {
		return err
	}
	conf := filepath.Join(l.dir, "dnsmasq.conf")
	if err := os.WriteFile(conf, []byte(dnsmasqConf(d.hosts, l.customers)+txtRecords(l.txt)), 0o644); err != nil {
		return err
	}
	l.dns = d
	return l.runDNS(ctx, conf)
}

func (l *Lab) runDNS(ctx context.Context, conf string) error {
	p, err := l.Start(HostInternet, Command{Args: []string{"dnsmasq", "--keep-in-foreground", "--conf-file=" + conf}})
	if err != nil {
		return err
	}
	l.dns.proc = p
	return p.WaitLog(ctx, "started,")
}

// dnsmasqConf is the whole zone of the lab.
func dnsmasqConf(hostsdir string, customers []Customer) string {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	line("user=root\ngroup=root\npid-file=\nlog-facility=-\nno-resolv\nno-hosts\nno-negcache\nlocal-ttl=60")
	line("listen-address=%s,%s\nbind-interfaces\nhostsdir=%s", ResolverV4, ResolverV6, hostsdir)
	// Whatever is not here does not exist.
	line("local=/#/")
	for _, m := range Hosts() {
		line("host-record=%s%s", m.Hostname(), join(m.Addrs()))
		line("mx-host=%s,%s,10", m.Domain(), m.Hostname())
		if !m.Kind.Foreign() {
			continue
		}
		for _, d := range m.Doors() {
			line("host-record=mx.%[1]s,%[2]s\nmx-host=%[1]s,mx.%[1]s,10", d.Domain, d.Addr)
		}
	}
	for i := 1; i <= Domains; i++ {
		line("mx-host=d%02d.example,mx.sink.example,10", i)
	}
	for _, dead := range []struct{ domain, first string }{{"deadfirst", "refused"}, {"slowfirst", "dropped"}} {
		line("mx-host=%s.example,mx.%s.example,10", dead.domain, dead.first)
		line("mx-host=%s.example,mx.alive.example,20", dead.domain)
	}
	sink, _ := HostMX("sink")
	line("host-record=nomx.example%s", join(sink.Addrs()))
	line("mx-host=nullmx.example,.,0") // RFC 7505
	line("host-record=gw.example,%s,%s", GatewayV4, GatewayV6)
	line("host-record=router.example,%s,%s", routerV4, routerV6)
	line("host-record=smtp.provider.example,%s,%s", GatewayV4, GatewayV6)
	for _, a := range deliveryAddrs() {
		line("host-record=out%d.gw.example,%s,%s", a.n, a.v4, a.v6)
	}
	for _, c := range customers {
		line("%s", customerRecords(c))
	}
	line("txt-record=test.%s,\"the test entry\"", DNSList)
	line("address=/2.0.0.127.%s/127.0.0.2", DNSList)
	return b.String()
}

// PublishTXT adds TXT records, and CNAMEs by which other names lead to them. The name server begins anew, since it reads such records
// only then; PublishTXT returns when it answers.
func (l *Lab) PublishTXT(ctx context.Context, txt, aliases map[string]string) error {
	records := txtRecords(txt)
	for from, to := range aliases {
		records += fmt.Sprintf("cname=%s,%s\n", from, to)
	}
	return l.sayAlso(ctx, records)
}

// sayAlso has the name server begin anew with more lines of its configuration; it returns when it answers.
func (l *Lab) sayAlso(ctx context.Context, lines string) error {
	conf := filepath.Join(l.dir, "dnsmasq.conf")
	f, err := os.OpenFile(conf, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return fmt.Errorf("could not publish records: %w", err)
	}
	_, err = f.WriteString(lines)
	if err = errors.Join(err, f.Close(), l.dns.proc.Stop(ctx)); err != nil {
		return fmt.Errorf("could not publish records: %w", err)
	}
	return l.runDNS(ctx, conf)
}

// txtRecords are lines for records of any length: one string of a record has at most 255 bytes (RFC 1035 3.3).
func txtRecords(records map[string]string) string {
	var b strings.Builder
	for name, text := range records {
		b.WriteString("txt-record=" + name)
		for part := range slices.Chunk([]byte(text), 200) {
			fmt.Fprintf(&b, ",%q", part)
		}
		b.WriteString("\n")
	}
	return b.String()
}

func customerRecords(c Customer) string {
	domain := c.Name + ".example"
	// only.<domain> allows the customer's own host and nobody else.
	return fmt.Sprintf("host-record=mail.%[1]s%[2]s\nmx-host=%[1]s,mail.%[1]s,10\ntxt-record=%[1]s,\"v=spf1 mx ip4:%[3]s ip6:%[4]s -all\"\n"+
		"txt-record=only.%[1]s,\"v=spf1 a:mail.%[1]s -all\"",
		domain, join([]netip.Addr{c.V4, c.V6}), DeliveryV4, DeliveryV6)
}

type deliveryAddr struct {
	n      int
	v4, v6 netip.Addr
}

// deliveryAddrs pairs the delivery addresses: out16.gw.example has the IPv4
// address that ends in 16 and the IPv6 address that ends in ::16.
func deliveryAddrs() []deliveryAddr {
	var all []deliveryAddr
	for a := DeliveryV4.Addr(); DeliveryV4.Contains(a); a = a.Next() {
		n := int(a.As4()[3])
		all = append(all, deliveryAddr{n, a, netip.MustParseAddr(fmt.Sprintf("2001:db8:203:1::%d", n))})
	}
	return all
}

func join(addrs []netip.Addr) string {
	var b strings.Builder
	for _, a := range addrs {
		if a.IsValid() {
			b.WriteString("," + a.String())
		}
	}
	return b.String()
}

// customer makes a late customer's host name known. MX and SPF of late
// customers are not served: dnsmasq reads only addresses at run time.
func (d *nameServer) customer(c Customer) error {
	var b strings.Builder
	for _, a := range []netip.Addr{c.V4, c.V6} {
		if a.IsValid() {
			fmt.Fprintf(&b, "%s mail.%s.example\n", a, c.Name)
		}
	}
	return d.write("customer-"+c.Name, b.String())
}

func (d *nameServer) write(file, text string) error {
	// Written aside and renamed: dnsmasq must not read half a file.
	tmp := filepath.Join(filepath.Dir(d.hosts), ".dns-"+file)
	if err := os.WriteFile(tmp, []byte(text), 0o644); err != nil {
		return fmt.Errorf("could not write DNS names: %w", err)
	}
	if err := os.Rename(tmp, filepath.Join(d.hosts, file)); err != nil {
		return fmt.Errorf("could not add DNS names: %w", err)
	}
	return nil
}

// List enters an address into the lab's DNS block list with the answer
// 127.0.0.2. It returns when the name server gives that answer.
func (l *Lab) List(ctx context.Context, addr string) error {
	a, err := netip.ParseAddr(addr)
	if err != nil {
		return fmt.Errorf("could not list %q: %w", addr, err)
	}
	name := listName(a)
	if err := l.dns.write("list-"+a.String(), "127.0.0.2 "+name+"\n"); err != nil {
		return err
	}
	for {
		addrs, err := l.Resolver(HostInternet).LookupHost(ctx, name)
		if err == nil && len(addrs) > 0 {
			return nil
		}
		if err := sleep(ctx, logPoll); err != nil {
			return fmt.Errorf("the DNS list does not show %s: %w", addr, err)
		}
	}
}

// Unlist takes an address off the list again. It returns when the name server does not give the answer any more.
func (l *Lab) Unlist(ctx context.Context, addr string) error {
	a, err := netip.ParseAddr(addr)
	if err != nil {
		return fmt.Errorf("could not unlist %q: %w", addr, err)
	}
	if err := os.Remove(filepath.Join(l.dns.hosts, "list-"+a.String())); err != nil {
		return fmt.Errorf("could not unlist %v: %w", a, err)
	}
	if err := l.dns.proc.Signal(syscall.SIGHUP); err != nil {
		return err
	}
	for {
		addrs, err := l.Resolver(HostInternet).LookupHost(ctx, listName(a))
		if d := (*net.DNSError)(nil); errors.As(err, &d) && d.IsNotFound && len(addrs) == 0 {
			return nil
		}
		if err := sleep(ctx, logPoll); err != nil {
			return fmt.Errorf("the DNS list still shows %v: %w", a, err)
		}
	}
}

// listName is the name to ask for an address in the DNS list (RFC 5782 2).
func listName(a netip.Addr) string {
	var labels []string
	if a.Is4() {
		for _, b := range a.As4() {
			labels = append([]string{fmt.Sprint(b)}, labels...)
		}
	} else {
		for _, b := range a.As16() {
			labels = append([]string{fmt.Sprintf("%x", b&15), fmt.Sprintf("%x", b>>4)}, labels...)
		}
	}
	return strings.Join(labels, ".") + "." + DNSList
}
