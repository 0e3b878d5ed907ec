package kernel

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"sluice/bpf"
)

// population is a data path with so many users: each has an IPv6 /64 and, as far as 198.18.0.0/15 goes, an IPv4 address.
type population struct {
	*bpf.Datapath
	users int
	dir   string
	page  []byte // the heartbeat
	took  time.Duration
}

// fewSources is how many different sources a measurement of many begins with.
const fewSources = 100

// bulkUsers4 is how many users have an IPv4 address.
func bulkUsers4(users int) int { return min(users, 1<<17) }

// settle makes a data path in a folder of a BPF file system and fills its tables.
func settle(dir string, users, cust int) (*population, error) {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, err
	}
	room := uint32(max(2*users+1000, 1000))
	d, err := bpf.Open(dir, bpf.Options{MaxHosts: room, MaxUsers: room, Slots: room})
	if err != nil {
		return nil, err
	}
	p := &population{Datapath: d, users: users, dir: dir}
	p.page, err = unix.Mmap(d.HeartbeatFD(), 0, os.Getpagesize(), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return p, errors.Join(fmt.Errorf("could not map the heartbeat: %w", err), p.close())
	}
	if err := p.fill(cust); err != nil {
		return p, errors.Join(err, p.close())
	}
	return p, nil
}

func (p *population) close() error {
	err := p.Close()
	if p.page != nil {
		err = errors.Join(err, unix.Munmap(p.page))
	}
	return err
}

func (p *population) fill(cust int) error {
	err := p.SetConfig(bpf.Config{InterceptMark: interceptMark, JudgedMark: judgedMark, Default: bpf.Source{Mode: bpf.ModeDrop}})
	if err != nil {
		return err
	}
	list := make([]bpf.Source, 0, 2*p.users+4)
	for i := range p.users {
		list = append(list, bpf.Source{Prefix: bulkHost(true, uint32(i)), User: uint32(i + 1), Mode: bpf.ModePass})
		if i < bulkUsers4(p.users) {
			list = append(list, bpf.Source{Prefix: bulkHost(false, uint32(i)), User: uint32(i + 1), Mode: bpf.ModePass})
		}
	}
	for _, a := range []netip.Addr{checked4, checked6} {
		list = append(list, bpf.Source{Prefix: host(a), User: uint32(p.users) + 1, Mode: bpf.ModeIntercept, Fail: bpf.FailClosed,
			ReversePath: true, Ifindex: uint32(cust), MAC: farMAC, PerSecond: 1<<16 - 1})
	}
	for _, a := range []netip.Addr{taken4, taken6} {
		list = append(list, bpf.Source{Prefix: host(a), User: uint32(p.users) + 2, Mode: bpf.ModeIntercept, Fail: bpf.FailClosed})
	}
	began := time.Now()
	if _, err := p.ReplaceSources(list); err != nil {
		return err
	}
	p.took = time.Since(began)
	return p.fillOthers()
}

// fillOthers gives every table something that a SYN must be compared with and that does not concern it.
func (p *population) fillOthers() error {
	var locks []bpf.Lock
	var exemptions []bpf.Exemption
	for i := range 1000 {
		elsewhere := netip.PrefixFrom(netip.AddrFrom16([16]byte{0x20, 1, 0x0d, 0xb8, 0, 3, byte(i >> 8), byte(i)}), 64)
		locks = append(locks, bpf.Lock{Prefix: elsewhere, ID: uint32(i), Budget: 10})
		if i < 20 {
			exemptions = append(exemptions, bpf.Exemption{Prefix: elsewhere, Mode: bpf.ModePass})
		}
	}
	for i := range 100 {
		a := netip.PrefixFrom(netip.AddrFrom4([4]byte{203, 0, 113, byte(100 + i)}), 32)
		locks = append(locks, bpf.Lock{Prefix: a, ID: uint32(2000 + i), Budget: 10})
		if i < 20 {
			exemptions = append(exemptions, bpf.Exemption{Prefix: a, Mode: bpf.ModePass})
		}
	}
	_, lockErr := p.ReplaceLocks(locks)
	_, exemptErr := p.ReplaceExemptions(exemptions)
	_, localErr := p.ReplaceLocal([]netip.Prefix{netip.MustParsePrefix("203.0.113.1/32"), netip.MustParsePrefix("203.0.113.5/32"), netip.MustParsePrefix("2001:db8:ffff::1/128")})
	_, deliveryErr := p.ReplaceDelivery([]netip.Prefix{netip.MustParsePrefix("203.0.113.32/27"), netip.MustParsePrefix("2001:db8:4::/64")})
	bypassErr := p.ReplaceBypasses([]bpf.Bypass{{Prefix: netip.MustParsePrefix("203.0.113.99/32"), Until: bpf.BypassForGood}})
	return errors.Join(lockErr, exemptErr, localErr, deliveryErr, bypassErr)
}

func host(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, a.BitLen()) }

// beat is the proxy's sign of life; a restart is announced as well, so that a machine that pauses changes nothing.
func (p *population) beat() error {
	now, err := monotonic()
	if err != nil {
		return err
	}
	putUint64(p.page, now)
	putUint64(p.page[8:], now+uint64(time.Minute))
	return nil
}

// listen opens the proxy's listening socket.
func (g *gateway) listen(at string) (net.Listener, error) {
	var l net.Listener
	err := g.sockets(func() error {
		lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
			var set error
			err := c.Control(func(fd uintptr) { set = unix.SetsockoptInt(int(fd), unix.SOL_IP, unix.IP_TRANSPARENT, 1) })
			return errors.Join(err, set)
		}}
		lc.SetMultipathTCP(false)
		var err error
		l, err = lc.Listen(context.Background(), "tcp", at)
		return err
	})
	if err == nil {
		g.closers = append(g.closers, l.Close)
	}
	return l, err
}

// memory is what the tables of one name hold in the kernel, in bytes.
func (p *population) memory(table string) (uint64, error) {
	var sum uint64
	err := filepath.WalkDir(p.dir, func(path string, e os.DirEntry, err error) error {
		if err != nil || e.IsDir() || e.Name() != table {
			return err
		}
		n, err := pinnedMemory(path)
		sum += n
		return err
	})
	return sum, err
}
