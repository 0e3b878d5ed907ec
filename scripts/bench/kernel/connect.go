package kernel

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"sluice/bpf"
)

// Customers whose connections are counted: one that is passed, one that is not.
const (
	passedClient = "192.0.2.30"
	takenClient  = "192.0.2.40"
	clients      = 2 // threads
)

const tproxyRules = `table ip bench {
	chain pre {
		type filter hook prerouting priority mangle; policy accept;
		iifname "cust0" tcp dport 25 tproxy to :2525 meta mark set 0x100 accept
	}
}
`

// connections sets up connections, reads one byte and resets them, through each way in turn.
func (b *bench) connections(ctx context.Context) error {
	ways := []struct {
		name   string
		client string
		open   func(*gateway) error
	}{
		{plain, takenClient, func(*gateway) error { return nil }},
		{"sluice, passed", passedClient, b.openSluice},
		{"sluice, intercepted", takenClient, b.openSluice},
		{"nftables tproxy", takenClient, func(g *gateway) error { return errors.Join(g.proxy(nil), g.run(policy), g.nft(tproxyRules)) }},
		{"conntrack redirect", takenClient, func(g *gateway) error { return errors.Join(g.proxy(nil), g.nft(nftRedirect)) }},
	}
	gates := make([]*gateway, len(ways))
	for i, w := range ways {
		g, err := b.openGate(w.open)
		if g != nil {
			defer g.close()
		}
		if err != nil {
			return fmt.Errorf("%s: %w", w.name, err)
		}
		gates[i] = g
	}
	rates, cpus := make([][]float64, len(ways)), make([][]float64, len(ways))
	for range max(b.Rounds/6, 3) {
		if err := errors.Join(ctx.Err(), b.beat()); err != nil {
			return err
		}
		for i, w := range ways {
			rate, cpu, err := gates[i].connect(w.client, time.Duration(b.Seconds*float64(time.Second)))
			if err != nil {
				return fmt.Errorf("%s: %w", w.name, err)
			}
			rates[i], cpus[i] = append(rates[i], rate), append(cpus[i], cpu)
		}
	}
	for i, w := range ways {
		b.result.Connects = append(b.result.Connects, Connect{w.name, slices.Max(rates[i]), medianRatio(rates[i], rates[0]), slices.Min(cpus[i])})
		if strings.HasPrefix(w.name, "sluice") {
			n, err := gates[i].tracked()
			if err != nil {
				return err
			}
			b.result.Tracked += n
		}
	}
	return nil
}

func medianRatio(a, b []float64) float64 {
	r := make([]float64, len(a))
	for i := range a {
		r[i] = a[i] / b[i]
	}
	slices.Sort(r)
	return r[len(r)/2]
}

// openGate is a gateway with customers that connect and a server that answers.
func (b *bench) openGate(arrange func(*gateway) error) (*gateway, error) {
	g, err := newGateway()
	if err != nil {
		return g, err
	}
	err = g.client.run(func() error {
		return errors.Join(up("lo", passedClient+"/32", takenClient+"/32"), routeVia("c0", "203.0.113.5", "198.51.100.0/24"))
	})
	if err != nil {
		return g, err
	}
	err = g.server.run(func() error {
		if err := errors.Join(up("lo", server4.String()+"/32"), routeVia("u0", "203.0.113.1", "192.0.2.0/24")); err != nil {
			return err
		}
		l, err := net.Listen("tcp4", server4.String()+":25")
		if err != nil {
			return err
		}
		g.closers = append(g.closers, l.Close)
		go greet(l)
		return nil
	})
	return g, errors.Join(err, arrange(g))
}

// proxy opens the proxy's socket, which answers as the server does.
func (g *gateway) proxy(use func(net.Listener) error) error {
	l, err := g.listen("0.0.0.0:2525")
	if err != nil {
		return err
	}
	go greet(l)
	if use == nil {
		return nil
	}
	return use(l)
}

func (b *bench) openSluice(g *gateway) error {
	p, err := settle(filepath.Join(b.Dir, "connect"+strconv.Itoa(len(b.populations))), 0, g.cust)
	if err != nil {
		return err
	}
	b.populations = append(b.populations, p)
	err = p.PutSources(bpf.Source{Prefix: prefix32(passedClient), User: 1, Mode: bpf.ModePass},
		bpf.Source{Prefix: prefix32(takenClient), User: 2, Mode: bpf.ModeIntercept, Fail: bpf.FailClosed})
	if err != nil {
		return err
	}
	return errors.Join(g.house(p), g.proxy(func(l net.Listener) error { return p.SetListener(l.(syscall.Conn)) }), g.run(func() error {
		k, err := attach(g.cust, p.Program("mail_ingress"))
		if err != nil {
			return err
		}
		g.closers = append(g.closers, k.Close)
		return nil
	}))
}

// greet says one byte to everybody and waits until he is gone.
func greet(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer c.Close()
			if _, err := c.Write([]byte{'2'}); err == nil {
				_, _ = io.Copy(io.Discard, c) // a reset ends it
			}
		}()
	}
}

// connect opens connections for a while: how many per second, and microseconds of CPU time of everything for each.
func (g *gateway) connect(from string, d time.Duration) (rate, cpu float64, err error) {
	before, err := processCPU()
	if err != nil {
		return 0, 0, err
	}
	began := time.Now()
	var done atomic.Int64
	errs := make([]error, clients)
	var all sync.WaitGroup
	for i := range clients {
		all.Add(1)
		go inSpaceOf(g.client, &all, func() error {
			for time.Since(began) < d {
				if err := connectOnce(from); err != nil {
					return err
				}
				done.Add(1)
			}
			return nil
		}, &errs[i])
	}
	all.Wait()
	took := time.Since(began)
	after, cpuErr := processCPU()
	if err := errors.Join(append(errs, cpuErr)...); err != nil {
		return 0, 0, err
	}
	n := float64(done.Load())
	return n / took.Seconds(), float64((after - before).Microseconds()) / n, nil
}

func connectOnce(from string) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, unix.IPPROTO_TCP)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	err = errors.Join(
		unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1}),
		unix.SetsockoptInt(fd, unix.SOL_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1),
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &unix.Timeval{Sec: 10}),
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 10}),
		unix.Bind(fd, &unix.SockaddrInet4{Addr: prefix32(from).Addr().As4()}))
	if err != nil {
		return err
	}
	if err := unix.Connect(fd, &unix.SockaddrInet4{Addr: server4.As4(), Port: 25}); err != nil && !errors.Is(err, unix.EINTR) {
		return fmt.Errorf("could not connect from %s: %w", from, err)
	}
	for { // the runtime's signals interrupt; a connection that is being made goes on, and reading waits for it
		n, err := unix.Read(fd, make([]byte, 1))
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil || n != 1 {
			return fmt.Errorf("could not read the greeting: %d bytes, %w", n, err)
		}
		return nil
	}
}

// tracked is the number of entries that connection tracking has in the gateway.
func (g *gateway) tracked() (n int, err error) {
	err = g.run(func() error {
		b, err := os.ReadFile("/proc/sys/net/netfilter/nf_conntrack_count")
		if errors.Is(err, os.ErrNotExist) { // a kernel without it
			return nil
		}
		if err != nil {
			return err
		}
		n, err = strconv.Atoi(strings.TrimSpace(string(b)))
		return err
	})
	return n, err
}

// memories fills the counters of all users and reads what the tables hold.
func (b *bench) memories(ctx context.Context) error {
	for _, p := range b.populations {
		if p.users == 0 || ctx.Err() != nil {
			continue
		}
		for _, table := range []string{"source_hosts", "host_cells_now", "user_slots", "user_counters"} {
			if table == "user_slots" {
				if err := b.everybody(p); err != nil {
					return err
				}
			}
			n, err := p.memory(table)
			if err != nil {
				return err
			}
			b.result.Memory = append(b.result.Memory, Memory{table, p.users, n, p.took.Seconds()})
		}
	}
	return ctx.Err()
}

// everybody sends a SYN of nearly every user, in an order that jumps about.
func (b *bench) everybody(p *population) error {
	return b.run(func() error {
		k, err := attach(b.cust, p.Program("mail_ingress"))
		if err != nil {
			return err
		}
		defer k.Close()
		for _, kind := range kinds() {
			if !kind.v6 || kind.from.IsValid() || kind.flags != syn {
				continue
			}
			if err := b.generator.aim(kind, p.users, gatewayMAC); err != nil {
				return err
			}
			_, err := b.generator.send(b.cust, 5*p.users+64)
			return err
		}
		return nil
	})
}
