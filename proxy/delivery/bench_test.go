package delivery

import (
	"context"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"sluice/proxy/relay"
	"sluice/proxy/smtp"
	"sluice/proxy/spool"
	"sluice/proxy/tlspolicy"
)

// benchDomains is one domain whose exchanger is at a loopback address.
type benchDomains struct{ d tlspolicy.Domain }

func (b *benchDomains) Domain(context.Context, string) (*tlspolicy.Domain, error) { return &b.d, nil }
func (b *benchDomains) Addresses(context.Context, string) ([]netip.Addr, error)   { return nil, nil }

// delivered counts.
type delivered struct {
	n    atomic.Int64
	want int64
	done chan struct{}
}

func (d *delivered) Tried(r *Result) {
	if r.Rcpts[0].Fate == Delivered && d.n.Add(1) == d.want {
		close(d.done)
	}
}

// BenchmarkDeliver commits messages of 10 KiB from 100 sessions and delivers them to a server in the same process: durable,
// then delivered, then removed. The server's work counts, too.
func BenchmarkDeliver(b *testing.B) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	go benchSink(l)
	at := l.Addr().(*net.TCPAddr).AddrPort()
	dom := &benchDomains{tlspolicy.Domain{Name: "sink.example", Hosts: []tlspolicy.Host{{MX: tlspolicy.MX{Host: "mx.sink.example"}, Policy: &tlspolicy.Policy{},
		Answer: tlspolicy.Answer{Addrs: []netip.Addr{at.Addr()}}}}}}
	dialer := relay.NewDialer(relay.Options{Keep: time.Second})
	defer dialer.Close()
	log := &delivered{want: int64(b.N), done: make(chan struct{})}
	q := New(Options{Name: "gw.example", Domains: dom, Dialer: dialer, Log: log, Port: at.Port(), Settings: Settings{Bounds: Bounds{PerSite: 100, PerWay: 1000}}})
	s, err := spool.Open(b.TempDir(), spool.Options{Arrived: q.Arrived})
	if err != nil {
		b.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	q.Start(ctx, s)
	body, err := smtp.BodyFromBytes([]byte("Subject: x\r\n\r\n" + strings.Repeat(strings.Repeat("x", 62)+"\r\n", 160)))
	if err != nil {
		b.Fatal(err)
	}
	env := &spool.Envelope{Message: "m", User: 1, From: "a@sender.example", Received: time.Now(), Rcpts: []spool.Rcpt{{Address: "x@sink.example"}}}
	var before, after syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &before); err != nil {
		b.Fatal(err)
	}
	b.ResetTimer()
	var left atomic.Int64
	left.Store(int64(b.N))
	var wg sync.WaitGroup
	for range 100 {
		wg.Go(func() {
			for left.Add(-1) >= 0 {
				d, err := s.Create()
				if err == nil {
					_, err = d.Commit(env, nil, body)
				}
				if err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	<-log.done
	b.StopTimer()
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &after); err != nil {
		b.Fatal(err)
	}
	cpu := after.Utime.Nano() + after.Stime.Nano() - before.Utime.Nano() - before.Stime.Nano()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "messages/s")
	b.ReportMetric(float64(cpu)/float64(b.N)/1000, "cpu-µs/op")
	stop()
	q.Stop(context.Background())
	if n := s.Figures().Deliveries; n != 0 {
		b.Errorf("%d deliveries are left", n)
	}
	if err := s.Close(); err != nil {
		b.Error(err)
	}
}

// benchSink takes everything.
func benchSink(l net.Listener) {
	for {
		nc, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			c := smtp.NewConn(nc, smtp.Options{})
			defer c.Close()
			c.WriteReply(220, smtp.Enhanced{}, "mx")
			for {
				cmd, err := c.ReadCommand()
				if err != nil {
					return
				}
				switch cmd.Verb.String() {
				case "EHLO":
					c.WriteReply(250, smtp.Enhanced{}, "mx", "PIPELINING", "8BITMIME", "SIZE 0")
				case "DATA":
					c.WriteReply(354, smtp.Enhanced{}, "go on")
					body, err := c.ReadData(nil)
					if err != nil {
						return
					}
					body.Release()
					c.WriteReply(250, smtp.Enhanced{2, 0, 0}, "ok")
				case "QUIT":
					c.WriteReply(221, smtp.Enhanced{}, "bye")
					_ = c.Flush() // it is over either way
					return
				default:
					c.WriteReply(250, smtp.Enhanced{2, 0, 0}, "ok")
				}
			}
		}()
	}
}
