//go:build labtest

package lab

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// flooding says how large a flood is: small in every test run, the whole of it in a campaign (SLUICE_SOAK is its seconds).
type flooding struct {
	sources   int // that send mail meanwhile
	perSecond int // connections that one host opens
	time      time.Duration
	measured  bool // else only what happens counts, not how fast
}

func floodSize() flooding {
	if n, err := strconv.Atoi(os.Getenv("SLUICE_SOAK")); err == nil && n > 0 {
		return flooding{sources: 100, perSecond: 8000, time: time.Duration(n) * time.Second, measured: true}
	}
	return flooding{sources: 12, perSecond: 2000, time: 2 * time.Second}
}

// floodRate is the default of limits.connections_per_second.
const floodRate = 100

// TestFloodOfConnections: one host opens thousands of connections a second. It gets its rate; others send as before, in
// both families; and its own ordinary connections get through, since its kernel repeats their SYNs.
func TestFloodOfConnections(t *testing.T) { onPaths(t, floodBy, "tcx", "nftables") }

func floodBy(t *testing.T, path string) {
	size := floodSize()
	ctx, l := testContext(t), ForTest(t, Options{})
	g := startGatewayWith(t, l, by(path, GatewayConfig))
	crowd, err := addCrowd(ctx, l, size.sources)
	if err != nil {
		t.Fatal(err)
	}
	send := func() []time.Duration { // for about the flood's time
		var mu sync.Mutex
		var took []time.Duration
		var wg sync.WaitGroup
		end := time.Now().Add(size.time)
		for i, from := range crowd {
			wg.Go(func() {
				for time.Now().Before(end) {
					d, err := oneMail(ctx, l, from, sinkOf46[0])
					if err != nil {
						t.Errorf("%v: %v", from, err)
						return
					}
					mu.Lock()
					took = append(took, d)
					mu.Unlock()
					if sleep(ctx, time.Duration(300+i)*time.Millisecond) != nil { // a customer's pace
						return
					}
				}
			})
		}
		wg.Go(func() { served(t, l, "alice", "", sinkOf46[1]) })
		wg.Wait()
		slices.Sort(took)
		return took
	}
	before := send()
	came, err := l.Capture(ctx, HostGateway, "cust2", "tcp dst port 25") // mallory's
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	var flood sync.WaitGroup
	var tried int
	flood.Go(func() {
		if err := l.In("mallory", func() (err error) { tried, err = openMany(sinkOf46[0], size); return err }); err != nil {
			t.Error(err)
		}
	})
	during := send()
	flood.Wait()
	// An ordinary connection right after the flood: the bucket is still empty, and a repeated SYN finds it filled.
	served(t, l, "mallory", "", sinkOf46[0])

	var detail struct{ Kernel map[string]uint64 }
	if err := sluiceJSON(ctx, g, &detail, "users", "show", "mallory"); err != nil {
		t.Fatal(err)
	}
	k := detail.Kernel
	most := uint64(floodRate * (time.Since(began).Seconds() + 2)) // as many as in two seconds may come at once
	packets, err := came.Stop()
	if err != nil {
		t.Fatal(err)
	}
	syns := uint64(len(packets.SYNs())) // some again, and on a busy machine not all get this far
	if k["intercepted"] > most || k["syn_limited"] == 0 || k["syn"] != syns || k["syn"] != k["intercepted"]+k["syn_limited"] {
		t.Errorf("of %d connections of the flood, in %d SYNs, the kernel says %v; want at most %d intercepted, the rest limited", tried, syns, k, most)
	}
	for _, user := range []string{"alice", crowd[0].String()} {
		var other struct{ Kernel map[string]uint64 }
		if err := sluiceJSON(ctx, g, &other, "users", "show", user); err != nil || other.Kernel["syn_limited"] != 0 {
			t.Errorf("%s: %v %v", user, other.Kernel, err)
		}
	}
	t.Logf("%d connections in %v: %d intercepted, %d limited", tried, size.time, k["intercepted"], k["syn_limited"])
	if len(before) == 0 || len(during) == 0 {
		t.Fatal("nobody sent")
	}
	p99 := func(d []time.Duration) time.Duration { return d[len(d)*99/100] }
	t.Logf("%d sources, connection to answer: before p50 %v, p99 %v of %d; during p50 %v, p99 %v of %d", len(crowd), before[len(before)/2], p99(before),
		len(before), during[len(during)/2], p99(during), len(during))
	if size.measured && p99(during) > p99(before)*3/2 {
		t.Errorf("p99 of the others is %v during the flood, more than 1.5 times %v", p99(during), p99(before))
	}
}

// addCrowd gives one more customer n addresses, each an unknown source.
func addCrowd(ctx context.Context, l *Lab, n int) ([]netip.Addr, error) {
	port := fmt.Sprintf("cust%d", len(DefaultCustomers()))
	c := Customer{Name: "crowd", V4: netip.MustParseAddr("192.0.2.50"), V6: netip.MustParseAddr("2001:db8:50::50")}
	if err := l.AddCustomer(ctx, c); err != nil {
		return nil, err
	}
	var all []netip.Addr
	var lines []string
	for i := range n {
		a := netip.AddrFrom4([4]byte{198, 18, 0, byte(i + 1)})
		all, lines = append(all, a), append(lines, fmt.Sprintf("addr add %v/32 dev eth0", a))
	}
	return all, errors.Join(l.ip(ctx, "crowd", lines), l.ip(ctx, HostGateway, []string{"route add 198.18.0.0/24 via 192.0.2.50 dev " + port + " onlink"}))
}

// oneMail sends one message in a connection of its own and tells how long that took, to the answer.
func oneMail(ctx context.Context, l *Lab, from netip.Addr, to string) (time.Duration, error) {
	begin := time.Now()
	c, err := l.Hello(ctx, "crowd", from.String(), to)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	_, r, err := c.Send("a@crowd.example", []string{"u@sink.example"}, []byte("Subject: in a flood\r\n\r\ngood\r\n"))
	if err != nil || r.Code != 250 {
		return 0, fmt.Errorf("%v %w", r, err)
	}
	took := time.Since(begin)
	return took, c.Quit()
}

// openMany begins connections at a rate, holds each for a while, and tells how many there were. It makes its sockets on
// this thread.
func openMany(to string, size flooding) (n int, err error) {
	at := netip.MustParseAddrPort(to)
	held := make([]int, 0, 2000)
	defer func() {
		for _, fd := range held {
			_ = unix.Close(fd)
		}
	}()
	begin := time.Now()
	for time.Since(begin) < size.time {
		due := int(time.Since(begin).Seconds() * float64(size.perSecond))
		for ; n < due; n++ {
			fd, err := beginConnection(at)
			if err != nil {
				return n, err
			}
			held = append(held, fd)
			if len(held) == cap(held) {
				_ = unix.Close(held[0]) // it was open for a while, or never
				held = append(held[:0], held[1:]...)
			}
		}
		time.Sleep(time.Millisecond) // the flood's pace
	}
	return n, nil
}

// beginConnection sends a SYN and does not wait for the answer. The socket is of this thread's namespace.
func beginConnection(to netip.AddrPort) (fd int, err error) {
	family, addr := unix.AF_INET6, unix.Sockaddr(&unix.SockaddrInet6{Port: int(to.Port()), Addr: to.Addr().As16()})
	if to.Addr().Is4() {
		family, addr = unix.AF_INET, &unix.SockaddrInet4{Port: int(to.Port()), Addr: to.Addr().As4()}
	}
	if fd, err = unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0); err != nil {
		return -1, err
	}
	if err := unix.Connect(fd, addr); err != nil && !errors.Is(err, unix.EINPROGRESS) {
		return -1, errors.Join(err, unix.Close(fd))
	}
	return fd, nil
}
