package kernel

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"sluice/bpf"
)

// way is one arrangement that packets are forwarded through: a gateway, and what is done to it before a sample and undone
// after it.
type way struct {
	name string
	*gateway
	at   customer
	set  func() error
	undo func() error
}

const (
	plain      = "plain forwarding"
	empty      = "an empty program"
	rulesAlone = "policy rules alone"
	byRules    = "policy rules and the program" // where the proxy's sockets can have no namespace of their own
)

func nothing() error { return nil }

// forwarding compares everything in the same rounds, sample after sample. A namespace that has had a policy rule once never
// forwards as before, so each arrangement with rules has a gateway of its own.
func (b *bench) forwarding(ctx context.Context) error {
	p := b.near(100_000)
	gates := []struct {
		rules bool
		nft   string
		ways  func(*gateway) []way
	}{
		{false, "", func(g *gateway) []way {
			return []way{{plain, g, g.main(), nothing, nothing}, attachWay(empty, g, b.empty), g.clsactWay(empty+", clsact", b.empty),
				attachWay(sluiceWay(p), g, p.Program(bpf.MailIngress)), g.guardedWay(sluiceWay(p)+guarded, p)}
		}},
		{true, "", func(g *gateway) []way {
			return []way{{rulesAlone, g, g.main(), nothing, nothing}, attachWay(byRules, g, p.Program("mail_ingress"))}
		}},
		{false, "", func(g *gateway) []way {
			return []way{{"plain forwarding, another gateway", g, g.main(), nothing, nothing}}
		}},
		{false, nftMap("", bulkUsers4(p.users)), func(g *gateway) []way {
			return []way{{"nftables, hash map of verdicts", g, g.main(), nothing, nothing}}
		}},
		{false, nftMap("flags interval;", bulkUsers4(p.users)), func(g *gateway) []way {
			return []way{{"nftables, interval map of verdicts", g, g.main(), nothing, nothing}}
		}},
		{false, nftNothing, func(g *gateway) []way {
			return []way{{"an empty nftables chain", g, g.main(), nothing, nothing}}
		}},
		{false, nftRedirect, func(g *gateway) []way {
			return []way{{"conntrack redirect", g, g.main(), nothing, nothing}}
		}},
	}
	var ways []way
	for _, gate := range gates {
		g, err := newGateway()
		if err != nil {
			return err
		}
		defer g.close()
		switch {
		case gate.rules:
			err = g.run(policy)
		case gate.nft == "":
			err = g.house(p)
		}
		if err := errors.Join(err, g.count(), g.nft(gate.nft)); err != nil {
			return err
		}
		ways = append(ways, gate.ways(g)...)
	}
	var err error
	if b.result.Forwards, err = b.compare(ctx, ways); err != nil {
		return err
	}
	return b.manyInterfaces(ctx, p)
}

func (g *gateway) main() customer { return customer{g.cust, gatewayMAC} }

func sluiceWay(p *population) string { return fmt.Sprintf("sluice, %d users", p.users) }

// near is the population with that many users, or the largest.
func (b *bench) near(users int) *population {
	for _, p := range b.populations {
		if p.users >= users {
			return p
		}
	}
	return b.populations[len(b.populations)-1]
}

// attachWay attaches a program for each sample.
func attachWay(name string, g *gateway, p *ebpf.Program) way {
	var k link.Link
	return way{name, g, g.main(), func() (err error) { k, err = attach(g.cust, p); return err }, func() error { return k.Close() }}
}

// clsactWay attaches a program by the older hook.
func (g *gateway) clsactWay(name string, p *ebpf.Program) way {
	return way{name, g, g.main(), func() error { return filter(g.cust, p) }, func() error { return netlink.QdiscDel(clsact(g.cust)) }}
}

func clsact(ifindex int) *netlink.GenericQdisc {
	return &netlink.GenericQdisc{QdiscAttrs: netlink.QdiscAttrs{LinkIndex: ifindex, Handle: netlink.MakeHandle(0xffff, 0), Parent: netlink.HANDLE_CLSACT}, QdiscType: "clsact"}
}

// filter attaches a program by clsact, which of many interfaces is the faster way to do so.
func filter(ifindex int, p *ebpf.Program) error {
	if err := netlink.QdiscAdd(clsact(ifindex)); err != nil {
		return fmt.Errorf("could not add clsact to interface %d: %w", ifindex, err)
	}
	f := &netlink.BpfFilter{FilterAttrs: netlink.FilterAttrs{LinkIndex: ifindex, Parent: netlink.HANDLE_MIN_INGRESS, Handle: 1, Protocol: unix.ETH_P_ALL, Priority: 1},
		Fd: p.FD(), Name: "bench", DirectAction: true}
	if err := netlink.FilterAdd(f); err != nil {
		return fmt.Errorf("could not attach a program to interface %d by clsact: %w", ifindex, err)
	}
	return nil
}

// filterAll attaches a program to many interfaces.
func (g *gateway) filterAll(list []customer, p *ebpf.Program) error {
	for _, c := range list {
		if err := filter(c.index, p); err != nil {
			return err
		}
	}
	return nil
}

// guardedWay attaches all that a forwarded packet meets where the uplink is guarded.
func (g *gateway) guardedWay(name string, p *population) way {
	var in, out link.Link
	return way{name, g, g.main(), func() (err error) {
		if in, err = attach(g.cust, p.Program(bpf.MailIngress)); err != nil {
			return err
		}
		out, err = link.AttachTCX(link.TCXOptions{Interface: g.up, Program: p.Program(bpf.UplinkGuard), Attach: ebpf.AttachTCXEgress})
		if err != nil {
			return errors.Join(fmt.Errorf("could not attach the guard: %w", err), in.Close())
		}
		return nil
	}, func() error { return errors.Join(in.Close(), out.Close()) }}
}

// forwardKinds are what a gateway forwards most, and mail that is passed.
func forwardKinds() []kind {
	return slices.DeleteFunc(kinds(), func(k kind) bool { return k.v6 || k.from.IsValid() })
}

func (b *bench) compare(ctx context.Context, ways []way) ([]Forward, error) {
	times := make(map[[2]string][]float64)
	for range b.Rounds {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if err := b.beat(); err != nil {
			return nil, err
		}
		for _, k := range forwardKinds() {
			for _, w := range ways {
				ns, err := b.sampleForward(w, k)
				if err != nil {
					return nil, fmt.Errorf("%s, %s: %w", w.name, k, err)
				}
				times[[2]string{w.name, k.name}] = append(times[[2]string{w.name, k.name}], ns)
			}
		}
	}
	var list []Forward
	for _, k := range forwardKinds() {
		base := times[[2]string{ways[0].name, k.name}]
		for _, w := range ways {
			ns := times[[2]string{w.name, k.name}]
			list = append(list, Forward{w.name, k.name, slices.Min(ns), ratio(base, ns)})
		}
	}
	return list, nil
}

// ratio is the least of one divided by the least of the other: what either takes when nothing disturbs it.
func ratio(a, b []float64) float64 { return slices.Min(a) / slices.Min(b) }

// sampleForward is nanoseconds per packet; every packet must have arrived.
func (b *bench) sampleForward(w way, k kind) (ns float64, err error) {
	err = w.run(func() error {
		if err := w.set(); err != nil {
			return err
		}
		took, err := b.sendCounted(w, k)
		ns = took
		return errors.Join(err, w.undo())
	})
	return ns, err
}

func (b *bench) sendCounted(w way, k kind) (float64, error) {
	if err := b.generator.aim(k, 1000, w.at.mac); err != nil {
		return 0, err
	}
	before, err := w.received()
	if err != nil {
		return 0, err
	}
	took, err := b.generator.send(w.at.index, b.Packets)
	if err != nil {
		return 0, err
	}
	after, err := w.received()
	if err != nil {
		return 0, err
	}
	// What waits in a queue of the far side when the sample ends arrives in the next one.
	if arrived := after - before; arrived < uint64(b.Packets/2) {
		return 0, fmt.Errorf("%d of %d packets were forwarded", arrived, b.Packets)
	}
	return took, nil
}

// manyInterfaces compares one customer interface with many, each with the program on it.
func (b *bench) manyInterfaces(ctx context.Context, p *population) error {
	var ways []way
	for _, n := range []int{1, b.Interfaces} {
		for _, sluice := range []bool{false, true} {
			g, err := newGateway()
			if err != nil {
				return err
			}
			defer g.close()
			list, err := g.customers(n)
			if err := errors.Join(err, g.count()); err != nil {
				return err
			}
			name := fmt.Sprintf("%s, %d", plain, n)
			if sluice {
				name = fmt.Sprintf("%s, %d", sluiceWay(p), n)
				if err := errors.Join(g.house(p), g.run(func() error { return g.attachAll(list, p) })); err != nil {
					return err
				}
			}
			ways = append(ways, way{name, g, list[len(list)/2], nothing, nothing})
		}
	}
	got, err := b.compare(ctx, ways)
	for i, f := range got { // each Sluice beside plain forwarding with as many interfaces
		if i%2 == 1 {
			f.Ratio = f.Ratio / got[i-1].Ratio
		}
		b.result.Many = append(b.result.Many, f)
	}
	return err
}

func (g *gateway) attachAll(list []customer, p *population) error {
	for _, c := range list {
		k, err := attach(c.index, p.Program("mail_ingress"))
		if err != nil {
			return err
		}
		g.closers = append(g.closers, k.Close)
	}
	return nil
}

// nftMap asks a map with an entry for every host about mail.
func nftMap(flags string, hosts int) string {
	var b strings.Builder
	fmt.Fprintf(&b, "table ip bench {\n\tmap users {\n\t\ttype ipv4_addr : verdict\n\t\t%s\n\t\telements = {\n", flags)
	for i := range hosts {
		fmt.Fprintf(&b, "%s : accept,\n", bulkHost(false, uint32(i)).Addr())
	}
	b.WriteString("\t\t}\n\t}\n\tchain pre {\n\t\ttype filter hook prerouting priority mangle; policy accept;\n\t\tiifname \"cust0\" tcp dport 25 ip saddr vmap @users\n\t}\n}\n")
	return b.String()
}

// nftNothing is a chain that every packet passes and that says nothing.
const nftNothing = `table inet bench {
	chain pre {
		type filter hook prerouting priority mangle; policy accept;
	}
}
`

// nftRedirect redirects one customer's mail, which is enough to have every packet of the gateway tracked.
const nftRedirect = `table ip bench {
	chain pre {
		type nat hook prerouting priority dstnat; policy accept;
		iifname "cust0" ip saddr 192.0.2.40 tcp dport 25 redirect to :2525
	}
}
`

// nft loads rules into the gateway.
func (g *gateway) nft(rules string) error {
	if rules == "" {
		return nil
	}
	return g.run(func() error {
		c := exec.Command("nft", "-f", "-")
		c.Stdin = strings.NewReader(rules)
		if out, err := c.CombinedOutput(); err != nil {
			return fmt.Errorf("could not load nftables rules: %w: %.300s", err, out)
		}
		return nil
	})
}
