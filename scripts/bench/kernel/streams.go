package kernel

import (
	"context"
	"errors"
	"fmt"
	"math"
	"runtime"
	"slices"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"sluice/bpf"
)

// flood is something that hosts send as fast as it goes.
type flood struct {
	name       string
	payload    int  // of a datagram; 0: TCP
	single     bool // TCP whose every segment is a packet, not one of many that devices cut or put together
	sixteenths int  // so many of b.Packets make a sample
}

// floods are the streams, in the order of the table. What a network card puts together (GRO) arrives large.
func floods() []flood {
	return []flood{
		{name: "TCP, up to 64 KiB in a packet", sixteenths: 1},
		{name: "TCP, a packet for each segment", single: true, sixteenths: 4},
		{name: "UDP, 1,400 bytes", payload: 1400, sixteenths: 16},
		{name: "UDP, 64 bytes", payload: 64, sixteenths: 16},
	}
}

// streams sends what hosts send, by real sockets, through a gateway whose programs alternate. Sender, gateway and receiver
// are on one processor: what the three of them use is what a packet costs, and its inverse what can be forwarded at most.
func (b *bench) streams(ctx context.Context) error {
	p := b.near(100_000)
	mail, uplink, guard := p.Program(bpf.MailIngress), p.Program(bpf.UplinkIngress), p.Program(bpf.UplinkGuard)
	one := []hooks{{name: plain}, {empty, b.empty, b.empty, nil}, {sluiceWay(p), mail, uplink, nil}, {sluiceWay(p) + guarded, mail, uplink, guard}, {name: plain + " once more"}}
	if err := b.streamsThrough(ctx, p, 1, one); err != nil {
		return err
	}
	among := fmt.Sprintf(", one of %d interfaces", b.Interfaces)
	return b.streamsThrough(ctx, p, b.Interfaces, []hooks{{name: plain + among}, {sluiceWay(p) + among, mail, uplink, nil}})
}

// streamsThrough compares the ways with the first of them, there and back in each round, so that what becomes slower or faster
// meanwhile does so for all of them alike.
func (b *bench) streamsThrough(ctx context.Context, p *population, interfaces int, ways []hooks) error {
	s, err := openStreams(p, interfaces)
	if s != nil {
		defer s.close()
	}
	if err != nil {
		return err
	}
	all := make(map[[2]string][]sample)
	order := slices.Clone(ways)
	slices.Reverse(order)
	order = append(slices.Clone(ways), order...)
	for range b.Rounds {
		if err := errors.Join(ctx.Err(), b.beat()); err != nil {
			return err
		}
		sums := make(map[[2]string]sample)
		for _, w := range order {
			got, err := s.round(w, b.Packets)
			if err != nil {
				return fmt.Errorf("%s: %w", w.name, err)
			}
			for i, f := range floods() {
				k := [2]string{w.name, f.name}
				sums[k] = sums[k].plus(got[i])
			}
		}
		for k, one := range sums {
			all[k] = append(all[k], one)
		}
	}
	for _, f := range floods() {
		base := all[[2]string{ways[0].name, f.name}]
		for _, w := range ways {
			b.result.Streams = append(b.result.Streams, stream(w.name, f.name, all[[2]string{w.name, f.name}], base))
		}
	}
	return nil
}

// stream makes one line of the table: each round of a way beside the same round of what it is compared with.
func stream(way, kind string, list, base []sample) Stream {
	var ns, bytes, share, cheaper, faster []float64
	for i, s := range list {
		ns = append(ns, s.ns())
		bytes = append(bytes, float64(s.bytes)/float64(s.packets))
		share = append(share, float64(s.cpu)/float64(s.took))
		cheaper = append(cheaper, base[i].ns()/s.ns())
		faster = append(faster, s.rate()/base[i].rate())
	}
	return Stream{way, kind, median(ns).Median, median(bytes).Median, median(share).Median, median(cheaper), median(faster)}
}

// sample is what became of one stream.
type sample struct {
	packets uint64 // that left the gateway by the uplink; one of many segments counts as so many
	bytes   uint64
	took    time.Duration
	cpu     time.Duration // of everything
}

func (s sample) ns() float64   { return float64(s.cpu.Nanoseconds()) / float64(s.packets) }
func (s sample) rate() float64 { return float64(s.bytes) / s.took.Seconds() }

func (s sample) plus(o sample) sample {
	return sample{s.packets + o.packets, s.bytes + o.bytes, s.took + o.took, s.cpu + o.cpu}
}

// Middle is the median of many, and the bounds between which that of all that could be measured lies with a chance of 95 %.
type Middle struct {
	Median float64 `json:"median"`
	Low    float64 `json:"low"`
	High   float64 `json:"high"`
}

// median needs no assumption about how the list is spread: of n values more than half a deviation of a coin thrown n times, 0.98
// times the root of n, lie beyond either bound with a chance of 2.5 %.
func median(list []float64) Middle {
	s := slices.Sorted(slices.Values(list))
	n := len(s)
	k := max(0, int((float64(n)-1.96*math.Sqrt(float64(n)))/2))
	return Middle{(s[(n-1)/2] + s[n/2]) / 2, s[k], s[n-1-k]}
}

// streamGate is a gateway with sockets at both sides, all of it on one processor.
type streamGate struct {
	*gateway
	in   int    // the interface that they come in by
	ends []ends // of each flood
}

// ends are a sender in the customer's namespace and, of a TCP connection, a receiver in the server's.
type ends struct{ from, to int }

// nowhere is an address for which the server drops what comes, without a word.
const nowhere = "198.51.100.65"

func openStreams(p *population, interfaces int) (*streamGate, error) {
	g, err := newGateway()
	if err != nil {
		return nil, err
	}
	s := &streamGate{gateway: g, in: g.cust}
	if err := g.house(p); err != nil {
		return s, err
	}
	to := gatewayMAC
	if interfaces > 1 {
		list, err := g.customers(interfaces)
		if err != nil {
			return s, err
		}
		at := len(list) / 2
		s.in, to = list[at].index, list[at].mac
		if err := g.run(func() error { return g.filterAll(slices.Delete(list, at, at+1), p.Program(bpf.MailIngress)) }); err != nil {
			return s, err
		}
	}
	for _, at := range []*space{g.client, g.server} {
		if err := at.run(stayOn(runtime.NumCPU() - 1)); err != nil {
			return s, err
		}
	}
	err = errors.Join(
		g.client.run(func() error {
			return errors.Join(up("lo", takenClient+"/32"), routeVia("c0", "203.0.113.5", "198.51.100.0/24"), neighbour("c0", "203.0.113.5", to))
		}),
		g.server.run(func() error {
			return errors.Join(up("lo", server4.String()+"/32"), routeVia("u0", "203.0.113.1", "192.0.2.0/24"), blackhole(nowhere+"/32"))
		}))
	if err != nil {
		return s, err
	}
	for _, f := range floods() {
		e, err := s.connect(f)
		if err != nil {
			return s, fmt.Errorf("%s: %w", f.name, err)
		}
		s.ends = append(s.ends, e)
	}
	return s, nil
}

// stayOn keeps the thread on one processor.
func stayOn(cpu int) func() error {
	return func() error {
		var set unix.CPUSet
		set.Set(cpu)
		if err := unix.SchedSetaffinity(0, &set); err != nil {
			return fmt.Errorf("could not stay on processor %d: %w", cpu, err)
		}
		return nil
	}
}

func blackhole(prefix string) error {
	dst, err := netlink.ParseIPNet(prefix)
	if err == nil {
		err = netlink.RouteReplace(&netlink.Route{Dst: dst, Type: unix.RTN_BLACKHOLE})
	}
	if err != nil {
		return fmt.Errorf("could not route %s into the void: %w", prefix, err)
	}
	return nil
}

// hooks are the programs of a gateway: at the customer's interface, and at the uplink for what comes back and what leaves.
type hooks struct {
	name          string
	in, back, out *ebpf.Program // nil: none
}

// attach puts them there, to be closed afterwards.
func (s *streamGate) attach(h hooks) (held []link.Link, err error) {
	for _, at := range []struct {
		index   int
		program *ebpf.Program
		where   ebpf.AttachType
	}{{s.in, h.in, ebpf.AttachTCXIngress}, {s.up, h.back, ebpf.AttachTCXIngress}, {s.up, h.out, ebpf.AttachTCXEgress}} {
		if at.program == nil {
			continue
		}
		k, err := link.AttachTCX(link.TCXOptions{Interface: at.index, Program: at.program, Attach: at.where})
		if err != nil {
			return held, fmt.Errorf("could not attach a program to interface %d: %w", at.index, err)
		}
		held = append(held, k)
	}
	return held, nil
}

const guarded = ", with the guard at the uplink"

// round is a sample of each flood by one way.
func (s *streamGate) round(h hooks, packets int) (got []sample, err error) {
	var held []link.Link
	err = s.run(func() (err error) { held, err = s.attach(h); return err })
	for i, f := range floods() {
		if err != nil {
			break
		}
		var one sample
		if one, err = s.sample(f, s.ends[i], f.sixteenths*packets/16); err != nil {
			err = fmt.Errorf("%s: %w", f.name, err)
		}
		got = append(got, one)
	}
	return got, errors.Join(err, s.run(func() (err error) {
		for _, k := range held {
			err = errors.Join(err, k.Close())
		}
		return err
	}))
}

// sample sends so many packets, or a little more.
func (s *streamGate) sample(f flood, e ends, packets int) (one sample, err error) {
	before, err := s.left()
	if err != nil {
		return one, err
	}
	used, err := processCPU()
	if err != nil {
		return one, err
	}
	began := time.Now()
	one.bytes, err = s.send(f, e, packets)
	one.took = time.Since(began)
	now, cpuErr := processCPU()
	after, leftErr := s.left()
	one.cpu, one.packets = now-used, after-before
	if err := errors.Join(err, cpuErr, leftErr); err != nil {
		return one, err
	}
	if f.payload > 0 && one.packets < uint64(packets)*9/10 || one.packets == 0 {
		return one, fmt.Errorf("%d of %d packets were forwarded", one.packets, packets)
	}
	return one, nil
}

// left counts the packets that left by the uplink.
func (s *streamGate) left() (n uint64, err error) {
	err = s.run(func() error {
		l, err := netlink.LinkByIndex(s.up)
		if err != nil {
			return err
		}
		n = l.Attrs().Statistics.TxPackets
		return nil
	})
	return n, err
}
