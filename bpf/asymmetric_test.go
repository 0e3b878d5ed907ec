//go:build bpftest

package bpf

import (
	"net/netip"
	"testing"
	"time"
)

// TestElsewhere: whose mail goes another way is known by address and user, dropped or not.
func TestElsewhere(t *testing.T) {
	t.Parallel()
	l := newLab(t, Options{})
	l.configure(Source{Mode: ModeIntercept, Fail: FailOpen})
	l.must(l.PutSources(Source{Prefix: prefix("192.0.2.10/32"), User: 7, Mode: ModeIntercept, Fail: FailClosed},
		Source{Prefix: prefix("2001:db8:1::/64"), User: 8, Mode: ModeIntercept, Fail: FailClosed},
		Source{Prefix: prefix("192.0.2.30/32"), User: 9, Mode: ModePass}))
	answer := func(src, dst string) frame {
		return frame{src: src, dst: dst, sport: 25, dport: 40000, flags: syn | ack}
	}
	for _, f := range []frame{
		answer("198.51.100.25", "192.0.2.10"), answer("198.51.100.25", "192.0.2.10"), answer("2001:db8:100::25", "2001:db8:1::10"),
		answer("198.51.100.25", "192.0.2.30"), // passed: its SYN was none of the proxy's
	} {
		l.run(UplinkIngress, f.build(), skb{})
	}
	got, err := l.Elsewhere()
	l.must(err)
	want := map[netip.Addr]Elsewhere{
		netip.MustParseAddr("192.0.2.10"):     {User: 7, Count: 2},
		netip.MustParseAddr("2001:db8:1::10"): {User: 8, Count: 1},
	}
	if len(got) != len(want) {
		t.Errorf("%d sources: %v", len(got), got)
	}
	for _, e := range got {
		w := want[e.Addr]
		if e.User != w.User || e.Count != w.Count || time.Since(e.Last) > time.Minute || time.Until(e.Last) > time.Second {
			t.Errorf("%+v, want %+v", e, w)
		}
	}
}

// TestPortsOfOneInterface: they come and go one by one, and only those that the configuration named.
func TestPortsOfOneInterface(t *testing.T) {
	t.Parallel()
	l := newLab(t, Options{})
	l.configure(Source{Mode: ModeDrop}, PortRule{Ifindex: Nowhere, Port: 2525})
	f := frame{src: "192.0.2.10", dst: "198.51.100.25", dport: 2525}
	judged := func(want uint32) {
		t.Helper()
		if ret, _, _ := l.run(MailIngress, f.build(), skb{}); ret != want {
			t.Errorf("answer %d, want %d", ret, want)
		}
	}
	judged(next)
	l.must(l.PutPorts(PortRule{Ifindex: 1, Port: 2525}))
	judged(shot)
	l.must(l.DeletePorts(1))
	judged(next)
	if err := l.PutPorts(PortRule{Ifindex: 1, Port: 26}); err == nil {
		t.Error("a port that the configuration does not name was taken")
	}
}
