package kernel

import (
	"context"
	"errors"
	"fmt"
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
	name     string
	payload  int  // of a datagram; 0: TCP
	single   bool // TCP whose every segment is a packet, not one of many that devices cut or put together
	quarters int  // so many quarters of b.Packets make a sample
}

// floods are the streams, in the order of the table. What a network card puts together (GRO) arrives large.
func floods() []flood {
	return []flood{
		{name: "TCP, up to 64 KiB in a packet", quarters: 1},
		{name: "TCP, a packet for each segment", single: true, quarters: 8},
		{name: "UDP, 1,400 bytes", payload: 1400, quarters: 16},
		{name: "UDP, 64 bytes", payload: 64, quarters: 16},
	}
}

// streams sends what hosts send, by real sockets, through a gateway whose programs alternate. Sender, gateway and receiver
// are on one processor: what the three of them use is what a packet costs.
func (b *bench) streams(ctx context.Context) error {
	p := b.near(100_000)
	s, err := openStreams(p)
	if s != nil {
		defer s.close()
	}
	if err != nil {
		return err
	}
	ways := s.ways(b.empty, p)
	all := make(map[[2]string][]sample)
	for range b.Rounds {
		if err := errors.Join(ctx.Err(), b.beat()); err != nil {
			return err
		}
		for _, w := range ways { // a program's coming and going takes longer than a sample
			got, err := s.round(w, b.Packets)
			if err != nil {
				return fmt.Errorf("%s: %w", w.name, err)
			}
			for i, f := range floods() {
				k := [2]string{w.name, f.name}
				all[k] = append(all[k], got[i])
			}
		}
	}
	for _, f := range floods() {
		base := best(all[[2]string{ways[0].name, f.name}])
		for _, w := range ways {
			got := best(all[[2]string{w.name, f.name}])
			b.result.Streams = append(b.result.Streams, Stream{w.name, f.name, got.ns(), got.rate() / 1e6, float64(got.bytes) / float64(got.packets), base.ns() / got.ns()})
		}
	}
	return nil
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

// best is the sample that was disturbed least.
func best(list []sample) sample {
	return slices.MinFunc(list, func(a, b sample) int {
		if a.ns() < b.ns() {
			return -1
		}
		return 1
	})
}

// streamGate is a gateway with sockets at both sides, all of it on one processor.
type streamGate struct {
	*gateway
	ends []ends // of each flood
}

// ends are a sender in the customer's namespace and, of a TCP connection, a receiver in the server's.
type ends struct{ from, to int }

// nowhere is an address for which the server drops what comes, without a word.
const nowhere = "198.51.100.65"

func openStreams(p *population) (*streamGate, error) {
	g, err := newGateway()
	if err != nil {
		return nil, err
	}
	s := &streamGate{gateway: g}
	if err := g.house(p); err != nil {
		return s, err
	}
	for _, at := range []*space{g.client, g.server} {
		if err := at.run(stayOn(runtime.NumCPU() - 1)); err != nil {
			return s, err
		}
	}
	err = errors.Join(
		g.client.run(func() error {
			return errors.Join(up("lo", takenClient+"/32"), routeVia("c0", "203.0.113.5", "198.51.100.0/24"))
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

// ways are the programs that a gateway of ours has, beside others at the same places.
func (s *streamGate) ways(idle *ebpf.Program, p *population) []way {
	at := func(name string, in, back, out *ebpf.Program) way {
		var held []link.Link
		add := func(index int, p *ebpf.Program, where ebpf.AttachType) error {
			if p == nil {
				return nil
			}
			k, err := link.AttachTCX(link.TCXOptions{Interface: index, Program: p, Attach: where})
			if err != nil {
				return fmt.Errorf("could not attach a program to interface %d: %w", index, err)
			}
			held = append(held, k)
			return nil
		}
		return way{name: name, gateway: s.gateway, set: func() error {
			return errors.Join(add(s.cust, in, ebpf.AttachTCXIngress), add(s.up, back, ebpf.AttachTCXIngress), add(s.up, out, ebpf.AttachTCXEgress))
		}, undo: func() (err error) {
			for _, k := range held {
				err = errors.Join(err, k.Close())
			}
			held = nil
			return err
		}}
	}
	mail, uplink, guard := p.Program(bpf.MailIngress), p.Program(bpf.UplinkIngress), p.Program(bpf.UplinkGuard)
	return []way{
		at(plain, nil, nil, nil), at(empty, idle, idle, nil), at(sluiceWay(p), mail, uplink, nil),
		at(sluiceWay(p)+guarded, mail, uplink, guard), at(empty+", also for what leaves", idle, idle, idle), at("plain forwarding once more", nil, nil, nil),
	}
}

const guarded = ", with the guard at the uplink"

// round is a sample of each flood by one way.
func (s *streamGate) round(w way, packets int) (got []sample, err error) {
	err = s.run(w.set)
	for i, f := range floods() {
		if err != nil {
			break
		}
		var one sample
		if one, err = s.sample(f, s.ends[i], f.quarters*packets/4); err != nil {
			err = fmt.Errorf("%s: %w", f.name, err)
		}
		got = append(got, one)
	}
	return got, errors.Join(err, s.run(w.undo))
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
