package proxy

import (
	"context"
	"net"
	"net/netip"
	"strings"
	"testing"

	"sluice/filter/policy"
	"sluice/proxy/pool"
	"sluice/proxy/relay"
)

// fromHere connects from a customer's own address, as far as the test's host has it.
type fromHere struct{}

func (fromHere) DialOwn(ctx context.Context, src netip.Addr, dst netip.AddrPort) (net.Conn, error) {
	d := net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(src, 0))}
	return d.DialContext(ctx, "tcp", dst.String())
}

// auto has the rig's user deliver as the DNS tells: sink.example is at home at exchanger, and SPF of every sender says leave.
func auto(exchanger netip.Addr, leave pool.Leave) func(*rig) {
	return func(r *rig) {
		r.policy = &policy.Settings{Delivery: policy.Auto}
		r.cfg.Dialer = relay.NewDialer(relay.Options{Own: fromHere{}, Timeouts: relay.Timeouts{Connect: wait, Greeting: wait, Command: wait, Final: wait, Handshake: wait}})
		r.cfg.Authority = pool.NewAuthority(
			func(context.Context, pool.SPFQuestion) (pool.Leave, bool) { return leave, leave != pool.Unasked },
			func(_ context.Context, domain string) (pool.Exchangers, bool) {
				return pool.Exchangers{Addrs: []netip.Addr{exchanger}}, domain == "sink.example"
			})
		r.cfg.Authority.Wait = wait
	}
}

func TestDeliveryAuto(t *testing.T) {
	t.Parallel()
	here, elsewhere := netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("192.0.2.1")
	managed := netip.MustParseAddr("127.0.0.9")
	for _, tt := range []struct {
		name      string
		exchanger netip.Addr
		leave     pool.Leave
		from      netip.Addr
		way       pool.Why
	}{
		{"exchanger, SPF passes", here, pool.Allowed, managed, pool.Exchanger},
		{"exchanger, SPF fails", here, pool.Forbidden, here, pool.NotAllowed},
		{"smart host", elsewhere, pool.Allowed, here, pool.Relayed},
		{"the DNS is silent", here, pool.Unasked, here, pool.Unanswered},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			mx := newRemote(t)
			r := newRig(t, mx.addr(), auto(tt.exchanger, tt.leave))
			for n := range 3 {
				if from := usualMail(r, n+1); from != tt.from {
					t.Errorf("mail %d left from %v, want %v", n+1, from, tt.from)
				}
				if rec := r.log.wait(t, n+1)[n]; rec.Way != tt.way.String() || rec.Status != Delivered {
					t.Errorf("mail %d is %v, because %q; want %q", n+1, rec.Status, rec.Way, tt.way)
				}
			}
			for _, said := range mx.commands() {
				hello := strings.Contains(said, "EHLO out.gw.example")
				if tt.from == here && hello {
					t.Errorf("the destination, which may know the customer by address, heard the gateway's name: %q", said)
				}
			}
		})
	}
}

// TestAutoOpensOnce: once the way is known, a mail costs one session, opened under the name it leaves by.
func TestAutoOpensOnce(t *testing.T) {
	t.Parallel()
	mx := newRemote(t)
	r := newRig(t, mx.addr(), auto(netip.MustParseAddr("127.0.0.1"), pool.Allowed))
	usualMail(r, 1)
	before := len(mx.sessions())
	usualMail(r, 2)
	if got := mx.sessions(); len(got) != before+1 || got[before] != "EHLO MAIL RCPT DATA . QUIT " {
		t.Errorf("the second mail took the sessions %q", got[before:])
	}
}

// TestAutoOfOneTransaction stays with the first's way.
func TestAutoOfOneTransaction(t *testing.T) {
	t.Parallel()
	mx := newRemote(t)
	r := newRig(t, mx.addr(), auto(netip.MustParseAddr("127.0.0.1"), pool.Allowed))
	p := r.hello()
	p.cmd("MAIL FROM:<a@client.example>", "250")
	p.cmd("RCPT TO:<b@sink.example>", "250")
	p.cmd("RCPT TO:<b@other.example>", "250")
	p.send(goodMail, "250")
	p.cmd("MAIL FROM:<a@client.example>", "250")
	p.cmd("RCPT TO:<b@other.example>", "250") // of which the DNS knows nothing
	p.send(goodMail, "250")
	p.cmd("QUIT", "221")
	all := r.log.wait(t, 2)
	if all[0].Source != netip.MustParseAddr("127.0.0.9") || all[1].Source != netip.MustParseAddr("127.0.0.1") || all[1].Way != pool.Unanswered.String() {
		t.Errorf("left from %v and %v (%s)", all[0].Source, all[1].Source, all[1].Way)
	}
}
