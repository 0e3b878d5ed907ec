//go:build bpftest

package bpf

import (
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// TestKnownFlows: a connection that was found to go on is not asked about again, until anything changes that could decide
// otherwise.
func TestKnownFlows(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	l := newLab(t, Options{})
	for _, f := range []frame{v4, v6} {
		data := with(f, func(f *frame) { f.flags = ack })
		host := netip.PrefixFrom(netip.MustParseAddr(f.src), netip.MustParseAddr(f.src).BitLen())
		wide := netip.PrefixFrom(host.Addr(), host.Bits()-12).Masked()
		dst := netip.PrefixFrom(netip.MustParseAddr(f.dst), netip.MustParseAddr(f.dst).BitLen())
		is := func(when, want string) {
			t.Helper()
			before := l.counts()
			l.run(MailIngress, data.build(), skb{})
			if l.counts()[want] != before[want]+1 {
				t.Errorf("%s, %s: %s did not move: %v, before %v", f.src, when, want, l.counts(), before)
			}
		}
		lockExempt := func(list ...netip.Prefix) {
			_, err := l.ReplaceLockExempt(list)
			l.must(err)
		}
		local := func(list ...netip.Prefix) {
			_, err := l.ReplaceLocal(list)
			l.must(err)
		}
		l.reset()
		l.sources(Source{Prefix: wide, User: 7, Mode: ModePass})
		for range 3 {
			is("passed", "old_flow")
		}
		for _, lock := range []netip.Prefix{host, wide} {
			l.must(l.PutLocks(Lock{Prefix: lock, ID: 7}))
			is("locked", "lock_cut")
			lockExempt(dst)
			is("locked, exempt", "old_flow")
			lockExempt()
			is("no longer exempt", "lock_cut")
			local(dst)
			is("locked, for the gateway", "old_flow")
			local()
			is("no longer the gateway's", "lock_cut")
			l.must(l.Unlock(lock))
			is("unlocked", "old_flow")
			l.locks(Lock{Prefix: lock, ID: 7})
			is("locked by a list", "lock_cut")
			l.locks()
			is("unlocked by a list", "old_flow")
		}
		l.locks(Lock{Prefix: wide, ID: 7})
		l.must(l.PutSources(Source{Prefix: host, User: 8, Mode: ModePass}))
		is("another's inside", "old_flow")
		l.must(l.DeleteSources(host))
		is("no longer another's", "lock_cut")
		l.locks()

		// A connection of the proxy's own begins with the same ports.
		is("before the proxy's", "old_flow")
		p.own(t, netip.MustParseAddr(f.src), netip.MustParseAddr(f.dst))
		p.connect(t, netip.MustParseAddr(f.src), netip.MustParseAddr(f.dst))
		is("without its SYN", "old_flow")
		l.run(MailIngress, f.build(), skb{})
		is("after its SYN", "established")
	}
}

// TestKnownPaths: that a source is routed back to where it came from is remembered for a second, and no longer.
func TestKnownPaths(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	l := newLab(t, Options{})
	l.reset()
	l.sources(Source{Prefix: prefix("203.0.113.0/24"), User: 7, Mode: ModePass, ReversePath: true}, Source{Prefix: prefix("2001:db8:2::/48"), User: 7, Mode: ModePass, ReversePath: true})
	for network, f := range map[string]frame{
		"203.0.113.0/24":  with(v4, func(f *frame) { f.src = "203.0.113.7" }),
		"2001:db8:2::/48": with(v6, func(f *frame) { f.src = "2001:db8:2::7" }),
	} {
		is := func(when string, device uint32, want string) {
			t.Helper()
			before := l.counts()[want]
			l.run(MailIngress, f.build(), skb{Ifindex: device, IngressIfindex: device})
			if l.counts()[want] != before+1 {
				t.Errorf("%s, %s: %s did not move: %v", f.src, when, want, l.counts())
			}
		}
		is("at its interface", p.tap.index, "pass")
		is("at another", p.tun.index, "spoof_path")
		is("at its interface again", p.tap.index, "pass")
		_, dst, err := net.ParseCIDR(network)
		l.must(err)
		l.must(netlink.RouteReplace(&netlink.Route{LinkIndex: int(p.tun.index), Dst: dst, Scope: unix.RT_SCOPE_LINK}))
		is("routed to another", p.tun.index, "pass")
		for i := range uint32(mailNumberKNOWN_PATHS) { // the words grow old
			var word uint64
			l.must(l.objects.KnownPaths.Lookup(i, &word))
			if word != 0 {
				l.must(l.objects.KnownPaths.Put(i, word-uint64(1300*time.Millisecond)>>28))
			}
		}
		is("routed elsewhere, a second later", p.tap.index, "spoof_path")
		l.must(l.PutLocks(Lock{Prefix: prefix("192.0.2.99/32"), ID: 1})) // any change
		is("routed to another, still", p.tun.index, "pass")
	}
}

// TestKnownPlace: what comes for a connection of the proxy's goes to where its socket was, also when that has just gone: the
// kernel answers it there. Only a SYN tells of another connection.
func TestKnownPlace(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	l := newLab(t, Options{})
	l.reset()
	l.configure(Source{Mode: ModeIntercept, Fail: FailOpen})
	l.beat(time.Hour, 0) // long gone: what is fresh goes on
	l.startedAgo(2 * time.Hour)
	for _, f := range []frame{v4, v6} {
		flags := func(flags uint8) frame { return with(f, func(f *frame) { f.flags = flags }) }
		is := func(when string, packet frame, want string, verdict uint32) {
			t.Helper()
			before := l.counts()
			got, _, _ := l.run(MailIngress, packet.build(), skb{})
			if l.counts()[want] != before[want]+1 || got != verdict {
				t.Errorf("%s, %s: verdict %d, want %d by %s: %v, before %v", f.src, when, got, verdict, want, l.counts(), before)
			}
		}
		p.own(t, netip.MustParseAddr(f.src), netip.MustParseAddr(f.dst))
		p.connect(t, netip.MustParseAddr(f.src), netip.MustParseAddr(f.dst))
		is("data", flags(ack), "established", okay)
		p.vanish(t)
		is("a late ACK", flags(ack), "established", okay)
		is("a late end", flags(fin|ack), "established", okay)
		is("a late reset", flags(rst), "established", okay)
		is("the ports again", f, "fail_open", next)
		is("their data", flags(ack), "old_flow", next)
		is("their reset", flags(rst), "old_flow", next)

		// What began under another mode may be known, too, when its ports are used again.
		l.must(l.PutSources(Source{Prefix: netip.PrefixFrom(netip.MustParseAddr(f.src), netip.MustParseAddr(f.src).BitLen()), User: 7, Mode: ModePass}))
		p.connect(t, netip.MustParseAddr(f.src), netip.MustParseAddr(f.dst))
		is("data of an earlier connection", flags(ack), "established", okay)
		p.vanish(t)
		is("its ports again", f, "pass", next)
		is("data of a passed one", flags(ack), "old_flow", next)
	}
}
