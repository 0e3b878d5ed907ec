package main

import (
	"bufio"
	"context"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"sluice/cmd/internal/resolver"
	"sluice/proxy/delivery"
	"sluice/proxy/relay"
	"sluice/proxy/smtp"
	"sluice/proxy/spool"
	"sluice/proxy/tlspolicy"
)

// aliasZone is names that lead to others (RFC 5321 5.1, RFC 2181 10.3).
var aliasZone = []string{
	"real.example. 60 IN MX 10 mx.real.example.", "mx.real.example. 60 IN A 127.0.0.2",
	"alias.example. 60 IN CNAME step.example.", "step.example. 60 IN CNAME real.example.",
	"bare.example. 60 IN CNAME host.example.", "host.example. 60 IN A 127.0.0.3",
	"named.example. 60 IN MX 10 other.example.", "other.example. 60 IN CNAME mx.real.example.",
	"second.example. 60 IN MX 10 dangling.example.", "second.example. 60 IN MX 20 mx.real.example.",
	"dangling.example. 60 IN CNAME nowhere.example.",
	"loop.example. 60 IN CNAME pool.example.", "pool.example. 60 IN CNAME loop.example.",
	"null.example. 60 IN MX 0 .", "nullalias.example. 60 IN CNAME null.example.",
	"home.example. 60 IN CNAME ours.example.", "ours.example. 60 IN A 127.0.0.9",
}

// aliasServer answers from the zone as a resolver does: with the whole chain of aliases.
func aliasServer(t *testing.T) netip.AddrPort {
	t.Helper()
	zone := map[string][]dns.RR{}
	for _, text := range aliasZone {
		rr, err := dns.NewRR(text)
		if err != nil {
			t.Fatal(err)
		}
		zone[rr.Header().Name] = append(zone[rr.Header().Name], rr)
	}
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &dns.Server{PacketConn: pc, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		r := new(dns.Msg)
		r.SetReply(q)
		name := q.Question[0].Name
		for range 8 {
			next := ""
			for _, rr := range zone[name] {
				if c, ok := rr.(*dns.CNAME); ok {
					next = c.Target
				}
				if _, alias := rr.(*dns.CNAME); alias || rr.Header().Rrtype == q.Question[0].Qtype {
					r.Answer = append(r.Answer, rr)
				}
			}
			if next == "" {
				break
			}
			name = next
		}
		if zone[name] == nil {
			r.Rcode = dns.RcodeNameError
		}
		_ = w.WriteMsg(r) // who asked will ask again
	})}
	go func() { _ = s.ActivateAndServe() }() // ends with the test
	t.Cleanup(func() { _ = s.Shutdown() })
	return pc.LocalAddr().(*net.UDPAddr).AddrPort()
}

// taker is a mail server that takes everything, and tells to whom it was.
func taker(t *testing.T, at netip.AddrPort, to chan<- string) {
	t.Helper()
	l, err := net.Listen("tcp", at.String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	serve := func(c net.Conn) {
		defer c.Close()
		say := func(text string) { _, _ = c.Write([]byte(text + "\r\n")) } // a broken connection shows at the next read
		say("220 mx")
		for in, data := bufio.NewScanner(c), false; in.Scan(); {
			switch line := in.Text(); {
			case data && line != ".":
			case data:
				data = false
				say("250 ok")
			case line == "DATA":
				data = true
				say("354 go on")
			case strings.HasPrefix(line, "RCPT"):
				to <- at.Addr().String() + " " + line
				say("250 ok")
			default:
				say("250 ok")
			}
		}
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go serve(c)
		}
	}()
}

type triedLog chan delivery.Result

func (l triedLog) Tried(r *delivery.Result) { l <- *r }

// aliasDNS is what the daemon gives its queue.
type aliasDNS struct {
	*tlspolicy.Finder
	*resolver.Secure
}

func (d aliasDNS) Addresses(ctx context.Context, host string) ([]netip.Addr, error) {
	a, err := d.Look(ctx, host, tlspolicy.Addresses)
	return a.Addrs, err
}

// TestAliases: mail for a name that leads to another goes where that one's goes, and its recipients stay as they are written;
// a chain without an end fails, and one that leads back here does not go round.
func TestAliases(t *testing.T) {
	t.Parallel()
	secure := resolver.NewSecure(resolver.SecureOptions{Servers: []netip.AddrPort{aliasServer(t)}})
	finder, err := tlspolicy.NewFinder(tlspolicy.Options{DNS: secure})
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.2:0")
	if err != nil {
		t.Fatal(err)
	}
	port := uint16(l.Addr().(*net.TCPAddr).Port)
	l.Close()
	heard, results := make(chan string, 8), make(triedLog, 8)
	for _, a := range []string{"127.0.0.2", "127.0.0.3"} {
		taker(t, netip.AddrPortFrom(netip.MustParseAddr(a), port), heard)
	}
	dialer := relay.NewDialer(relay.Options{})
	q := delivery.New(delivery.Options{Name: "gw.example", Domains: aliasDNS{finder, secure}, Dialer: dialer, Log: results, Port: port,
		Self: func(a netip.Addr) bool { return a == netip.MustParseAddr("127.0.0.9") }})
	s, err := spool.Open(t.TempDir(), spool.Options{Arrived: q.Arrived})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	q.Start(ctx, s)
	t.Cleanup(func() {
		stop()
		q.Stop(context.Background())
		dialer.Close()
		s.Close()
	})
	for domain, want := range map[string]string{
		"alias.example": "127.0.0.2", "bare.example": "127.0.0.3", "named.example": "127.0.0.2", "second.example": "127.0.0.2",
		"dangling.example": "5.1.2", "loop.example": "5.1.2", "nullalias.example": "5.1.10", "home.example": "5.4.6",
	} {
		d, err := s.Create()
		if err != nil {
			t.Fatal(err)
		}
		body, err := smtp.BodyFromBytes([]byte("Subject: x\r\n\r\nx\r\n"))
		if err != nil {
			t.Fatal(err)
		}
		_, err = d.Commit(&spool.Envelope{Message: "m", Received: time.Now(), Rcpts: []spool.Rcpt{{Address: "u@" + domain}}}, nil, body)
		body.Release()
		if err != nil {
			t.Fatal(err)
		}
		var r delivery.Result
		select {
		case r = <-results:
		case <-time.After(time.Minute):
			t.Fatalf("%s: nothing was tried", domain)
		}
		o := r.Rcpts[0]
		if o.Fate == delivery.Failed {
			if got := o.Reply.Enh.String(); got != want {
				t.Errorf("%s: %s %s, want %s", domain, got, o.Reply.Text, want)
			}
			continue
		}
		if o.Fate != delivery.Delivered {
			t.Errorf("%s: %+v", domain, r)
			continue
		}
		if got := <-heard; !strings.HasPrefix(got, want+" RCPT TO:<u@"+domain+">") {
			t.Errorf("%s: %q, want %s", domain, got, want)
		}
	}
}
