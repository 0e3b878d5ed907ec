package proxy

import (
	"bufio"
	"context"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"

	"sluice/filter/policy"
	"sluice/proxy/relay"
)

// countingConn counts the calls that a connection costs.
type countingConn struct {
	net.Conn
	reads, writes *atomic.Int32
}

func (c countingConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.reads.Add(1)
	return n, err
}

func (c countingConn) Write(p []byte) (int, error) {
	c.writes.Add(1)
	return c.Conn.Write(p)
}

// countingDialer connects with counting.
type countingDialer struct{ reads, writes *atomic.Int32 }

func (d countingDialer) DialOwn(ctx context.Context, _ netip.Addr, dst netip.AddrPort) (net.Conn, error) {
	var nd net.Dialer
	nc, err := nd.DialContext(ctx, "tcp", dst.String())
	return countingConn{nc, d.reads, d.writes}, err
}

// TestOneMessageCostsFewCalls holds what the proxy's cost mostly is: reads and writes. Four and four with the client,
// three and three with the destination, which gets MAIL and RCPT in one write; two each where the client sends MAIL, RCPT
// and DATA in one. The one read more from the client is the look whether it is still there before the message leaves, the one
// more from the destination is the look whether it has said what nobody asked; on a socket that is not hidden in a wrapper each
// is a peek.
func TestOneMessageCostsFewCalls(t *testing.T) {
	t.Parallel()
	t.Run("lockstep", func(t *testing.T) {
		t.Parallel()
		countCalls(t, [4]int32{5, 4, 4, 3}, func(p *peer) { p.envelope(); p.send("Subject: x\r\n\r\nx", "250") })
	})
	t.Run("pipelined", func(t *testing.T) {
		t.Parallel()
		countCalls(t, [4]int32{3, 2, 3, 2}, func(p *peer) { p.together("Subject: x\r\n\r\nx", "250") })
	})
}

func countCalls(t *testing.T, want [4]int32, one func(*peer)) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer ln.Close()
	go lockstep(ln)
	var cr, cw, rr, rw atomic.Int32
	r := newRig(t, ln.Addr().(*net.TCPAddr).AddrPort(), func(r *rig) {
		r.policy.Delivery = policy.Own
		r.cfg.Dialer = relay.NewDialer(relay.Options{Own: countingDialer{&rr, &rw}})
	})
	front, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer front.Close()
	go func() {
		nc, err := front.Accept()
		if err == nil {
			r.srv.ServeConn(context.Background(), countingConn{nc, &cr, &cw}, r.flow(addrPort("192.0.2.10:40000")), func() {})
		}
	}()
	nc, err := net.Dial("tcp", front.Addr().String())
	must(t, err)
	defer nc.Close()
	p := &peer{t: t, nc: nc, br: bufio.NewReader(nc)}
	p.want("220")
	p.cmd("EHLO client.example", "250")
	one(p)
	const n = 10
	for i := range want {
		want[i] *= n
	}
	var got [4]int32
	for range 5 { // a client that waits 100 ms for its answer is looked at once more, which a busy machine brings about
		before := [4]int32{cr.Load(), cw.Load(), rr.Load(), rw.Load()}
		for range n {
			one(p)
		}
		got = [4]int32{cr.Load() - before[0], cw.Load() - before[1], rr.Load() - before[2], rw.Load() - before[3]}
		if got == want {
			return
		}
	}
	t.Errorf("%d messages cost client reads, client writes, remote reads, remote writes of %v, want %v", n, got, want)
}

// lockstep is a destination that answers what came in one segment in one write.
func lockstep(ln net.Listener) {
	nc, err := ln.Accept()
	if err != nil {
		return
	}
	defer nc.Close()
	br := bufio.NewReader(nc)
	out := "220 mx\r\n"
	for data := false; ; {
		if br.Buffered() == 0 && out != "" {
			if _, err := nc.Write([]byte(out)); err != nil {
				return
			}
			out = ""
		}
		line, err := br.ReadString('\n')
		switch {
		case err != nil:
			return
		case data && line != ".\r\n":
		case data:
			data, out = false, out+"250 taken\r\n"
		case strings.HasPrefix(line, "EHLO"):
			out += "250-mx\r\n250 PIPELINING\r\n"
		case strings.HasPrefix(line, "DATA"):
			data, out = true, out+"354 go\r\n"
		default:
			out += "250 ok\r\n"
		}
	}
}
