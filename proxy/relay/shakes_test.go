package relay

import (
	"context"
	"crypto/tls"
	"net/netip"
	"strings"
	"testing"
	"time"

	"sluice/proxy/tlspolicy"
)

func TestMemoryOfBrokenTLS(t *testing.T) {
	t.Parallel()
	m := newMX(t, serverOf(newIdentity(t, nil, time.Now().Add(time.Hour), "mx.a.example")))
	good := m.tls
	ancient := serverOf()
	ancient.MaxVersion = tls.VersionTLS11
	m.set(func(m *mx) { m.tls = ancient })
	d := NewDialer(Options{})
	r := Route{Target: m.addr, Helo: "gw.example"}
	open := func(want bool, conns int) {
		t.Helper()
		before := m.opened()
		s, err := d.Open(context.Background(), r)
		must(t, err)
		s.Close()
		if s.Caps().Encrypted != want || m.opened()-before != conns {
			t.Fatalf("encrypted %v after %d connections, want %v after %d", s.Caps().Encrypted, m.opened()-before, want, conns)
		}
	}
	later := func(by time.Duration) { // as if so much time had passed
		d.shakes.mu.Lock()
		defer d.shakes.mu.Unlock()
		for _, b := range d.shakes.m {
			b.Again, b.Last, b.Since = b.Again.Add(-by), b.Last.Add(-by), b.Since.Add(-by)
		}
	}
	open(false, 3) // with all, with little, without
	open(false, 1) // not tried again
	other := r
	other.Source = netip.MustParseAddr("127.0.0.5")
	if s, err := d.Open(context.Background(), other); err != nil || s.Caps().Encrypted || m.opened() != 5 {
		t.Errorf("from another address: %v, %d connections", err, m.opened())
	}
	all := d.Broken()
	if len(all) != 1 || all[0].Target != m.addr || all[0].Failures != 1 || !strings.Contains(all[0].Why, "protocol version") {
		t.Fatalf("remembered %+v", all)
	}
	for i, pause := range []time.Duration{firstPause, 2 * firstPause, 4 * firstPause} {
		later(pause - time.Minute)
		open(false, 1)
		later(2 * time.Minute)
		open(false, 3) // tried again, and failed again
		if got := d.Broken()[0]; got.Failures != i+2 || got.Again.Sub(got.Last) != 2*pause {
			t.Fatalf("after %d failures it waits for %v", got.Failures, got.Again.Sub(got.Last))
		}
	}
	if _, err := d.OpenUnder(context.Background(), r, &tlspolicy.Policy{Level: tlspolicy.Encrypt}); err == nil {
		t.Error("what is required is lifted by the memory")
	}
	known := func() bool {
		_, one := d.Known(&r)
		_, two := d.Known(&other)
		return one && two
	}
	m.set(func(m *mx) { m.tls = good })
	open(false, 1) // not yet
	if !known() || !d.TryAgain(m.addr) || known() || d.TryAgain(m.addr) {
		t.Error("forgetting by hand")
	}
	open(true, 1)
	open(true, 1)
	m.set(func(m *mx) { m.tls = ancient })
	open(false, 3)
	if s, err := d.Open(context.Background(), other); err != nil || s.Caps().Encrypted || !known() {
		t.Error(err)
	}
	m.set(func(m *mx) { m.tls = good })
	if s, err := d.OpenUnder(context.Background(), r, &tlspolicy.Policy{Level: tlspolicy.Encrypt}); err != nil || !s.Caps().Encrypted || known() {
		t.Errorf("it works again, and is known from elsewhere as it was: %v", err)
	}
	if len(d.Broken()) != 0 {
		t.Errorf("remembered after success: %+v", d.Broken())
	}
	if l := d.Legs(); l.Failed.Load() < 4 || l.Avoided.Load() < 8 || l.Encrypted.Load() != 3 || l.Plain.Load() != 0 {
		t.Errorf("%d failed, %d avoided, %d encrypted, %d plain", l.Failed.Load(), l.Avoided.Load(), l.Encrypted.Load(), l.Plain.Load())
	}
}

// TestPlainSessionsGoWithTheirReason: a kept session is in plain text because the handshake fails; once that is tried again,
// no mail goes over it.
func TestPlainSessionsGoWithTheirReason(t *testing.T) {
	t.Parallel()
	ancient := serverOf(newIdentity(t, nil, time.Now().Add(time.Hour), "mx.a.example"))
	ancient.MaxVersion = tls.VersionTLS11
	for name, over := range map[string]func(*Dialer, netip.AddrPort){
		"still fails": nil,
		"by hand":     func(d *Dialer, at netip.AddrPort) { d.TryAgain(at) },
		"it works":    func(d *Dialer, at netip.AddrPort) { d.shakes.worked(at) },
		"it is time":  func(d *Dialer, at netip.AddrPort) { d.shakes.m[at].Again = time.Now() },
	} {
		m := newMX(t, ancient)
		d := NewDialer(Options{Keep: wait})
		t.Cleanup(d.Close)
		r := Route{Target: m.addr, Helo: "gw.example"}
		s := spoken(t, d, r)
		if s.Caps().Encrypted || !d.Keep(7, s) {
			t.Fatalf("%s: encrypted %v, or not kept", name, s.Caps().Encrypted)
		}
		if over != nil {
			over(d, m.addr)
		}
		if got := d.Take(7, r); (got == s) != (over == nil) {
			t.Errorf("%s: given is %v", name, got)
		}
	}
}

func TestOneSessionTriesABrokenHandshakeAgain(t *testing.T) {
	t.Parallel()
	var h shakes
	at, now := netip.MustParseAddrPort("192.0.2.1:25"), time.Now()
	if h.skip(at, now) {
		t.Error("skipped without a failure")
	}
	h.failed(at, &Failure{Err: errHandshake}, now)
	h.failed(at, &Failure{Err: errHandshake}, now.Add(time.Second)) // began at once
	now = now.Add(firstPause)
	if h.m[at].Failures != 1 || h.skip(at, now) || !h.skip(at, now) || !h.skip(at, now.Add(probeTime-time.Second)) || h.skip(at, now.Add(probeTime)) {
		t.Errorf("%+v", h.m[at])
	}
	for range 30 {
		now = h.m[at].Again
		h.failed(at, &Failure{Err: errHandshake}, now)
	}
	if got := h.m[at].Again.Sub(now); got != mostPause {
		t.Errorf("it waits for %v at most", got)
	}
	for i := range 3 * mostBroken {
		h.failed(netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 18, byte(i >> 8), byte(i)}), uint16(i>>16)+25), &Failure{Err: errHandshake}, now)
	}
	if len(h.m) > mostBroken {
		t.Errorf("%d are remembered", len(h.m))
	}
}
