//go:build nettest

package nft

import (
	"fmt"
	"log/slog"
	"net/netip"
	"runtime"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sluice/bpf"
	"sluice/intercept/ruleset"
)

// alone runs a test in a network namespace of its own, which ends with the test.
func alone(t *testing.T, test func(f *Filter)) {
	t.Helper()
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			done <- fmt.Errorf("no network namespace: %w; run as root", err)
			return
		}
		defer close(done) // also when the test fails at once
		f, err := newFilter(10025, []uint16{25}, "", slog.New(slog.DiscardHandler))
		if err != nil {
			done <- err
			return
		}
		defer f.heart.Close()
		defer f.beat.Close()
		test(f)
	}()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

var usual = bpf.Config{InterceptMark: 0x01000000, JudgedMark: 0x02000000, ReversePath: true,
	Default: bpf.Source{Mode: bpf.ModeIntercept, Fail: bpf.FailClosed}}

func inForce(t *testing.T, f *Filter) {
	if err := f.SetConfig(usual); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Sync([]ruleset.Seat{{Link: ruleset.Link{Name: "cust0"}, Role: ruleset.Customer}, {Link: ruleset.Link{Name: "up0"}, Role: ruleset.Uplink}}); err != nil {
		t.Fatal(err)
	}
}

// What a helper that dies leaves in the table, the next one reads back.
func TestStandingLocks(t *testing.T) {
	t.Parallel()
	alone(t, func(f *Filter) {
		if _, stands, err := StandingLocks(time.Now()); err != nil || stands {
			t.Errorf("without a table: %v %v", stands, err)
		}
		inForce(t, f)
		if _, err := f.ReplaceSources([]bpf.Source{
			{Prefix: prefix("192.0.2.0/24"), User: 1, Mode: bpf.ModeIntercept}, {Prefix: prefix("192.0.2.128/25"), User: 2, Mode: bpf.ModeIntercept},
		}); err != nil {
			t.Error(err)
		}
		locks := []bpf.Lock{
			{Prefix: prefix("192.0.2.0/24"), ID: 1, Budget: 10, Until: time.Now().Add(time.Hour)},
			{Prefix: prefix("2001:db8::/32"), ID: 3, Budget: 0, KeepFlows: true},
			{Prefix: prefix("255.255.255.255/32"), ID: 4, Budget: 7, Until: time.Now().Add(time.Minute)},
		}
		if err := f.PutLocks(locks...); err != nil {
			t.Error(err)
		}
		got, stands, err := StandingLocks(time.Now())
		if err != nil || !stands {
			t.Error(stands, err)
		}
		slices.SortFunc(got, func(a, b bpf.Lock) int { return int(a.ID) - int(b.ID) })
		locks[0].Prefix = prefix("192.0.2.0/25") // the other half belongs to somebody else
		for i, want := range locks {
			if i >= len(got) {
				t.Fatalf("locks read back: %+v", got)
			}
			if d := want.Until.Sub(got[i].Until).Abs(); d > 5*time.Second {
				t.Errorf("%v ends at %v, want %v", want.Prefix, got[i].Until, want.Until)
			}
			got[i].Until = want.Until
			if got[i] != want {
				t.Errorf("read back %+v, want %+v", got[i], want)
			}
		}
		if err := f.Unlock(prefix("192.0.2.0/24"), prefix("2001:db8::/32"), prefix("255.255.255.255/32"), prefix("198.51.100.0/24")); err != nil {
			t.Error(err)
		}
		if got, _, err := StandingLocks(time.Now()); err != nil || len(got) != 0 {
			t.Errorf("after the end of all locks: %v %v", got, err)
		}
		if err := Remove(); err != nil {
			t.Error(err)
		}
		if err := Remove(); err != nil {
			t.Errorf("once more: %v", err)
		}
		if stands, err := Stands(); err != nil || stands {
			t.Errorf("after removal: %v %v", stands, err)
		}
	})
}

// A hundred thousand sources that all differ from their neighbours arrive whole, and a change of one does not wait for
// the others.
func TestManySources(t *testing.T) {
	t.Parallel()
	alone(t, func(f *Filter) {
		inForce(t, f)
		list := make([]bpf.Source, 100_000)
		for i := range list {
			a := netip.AddrFrom4([4]byte{198, 18 + byte(i>>16), byte(i >> 8), byte(i)})
			p := netip.PrefixFrom(a, 32)
			if i%4 == 1 {
				p = netip.PrefixFrom(netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, 0, byte(i >> 16), byte(i >> 8), byte(i)}), 64)
			}
			list[i] = bpf.Source{Prefix: p, User: uint32(i + 1), Mode: []bpf.Mode{bpf.ModePass, bpf.ModeReject}[i%2], Fail: bpf.Fail(i % 2)}
		}
		began := time.Now()
		if _, err := f.ReplaceSources(list); err != nil {
			t.Error(err)
			return
		}
		t.Logf("100,000 sources in %v", time.Since(began))
		if n := len(f.have["host4"]); n != 75_000 {
			t.Errorf("%d single addresses, want 75,000", n)
		}
		began = time.Now()
		if err := f.PutSources(bpf.Source{Prefix: prefix("192.0.2.7/32"), User: 9, Mode: bpf.ModeIntercept, Fail: bpf.FailClosed}); err != nil {
			t.Error(err)
		}
		t.Logf("one that is like the default in %v", time.Since(began))
		began = time.Now()
		if err := f.PutSources(bpf.Source{Prefix: prefix("192.0.2.7/32"), User: 9, Mode: bpf.ModeReject, Fail: bpf.FailClosed}); err != nil {
			t.Error(err)
		}
		t.Logf("one that is not in %v", time.Since(began))
		began = time.Now()
		if err := f.PutLocks(bpf.Lock{Prefix: list[0].Prefix, ID: 1, Budget: 10}); err != nil {
			t.Error(err)
		}
		t.Logf("a lock in %v", time.Since(began))
		began = time.Now()
		if err := f.tell(); err != nil {
			t.Error(err)
		}
		t.Logf("a heartbeat in %v", time.Since(began))
		if _, err := f.ReplaceSources(nil); err != nil {
			t.Error(err)
		}
		if n := len(f.have["host4"]) + len(f.have["net4"]) + len(f.have["subnet6"]); n != 0 {
			t.Errorf("%d elements are left", n)
		}
	})
}

// What this way cannot give is refused with the reason, and what stood before stands.
func TestRefused(t *testing.T) {
	t.Parallel()
	alone(t, func(f *Filter) {
		inForce(t, f)
		before, err := generation()
		if err != nil {
			t.Error(err)
		}
		bound := bpf.Source{Prefix: prefix("192.0.2.7/32"), Mode: bpf.ModeIntercept, Ifindex: 3}
		config := usual
		config.Ports = []bpf.PortRule{{Port: 2525, Ifindex: 3}}
		twice := bpf.Source{Prefix: prefix("192.0.2.7/32"), Mode: bpf.ModeIntercept}
		_, listed := f.ReplaceSources([]bpf.Source{twice, twice})
		_, badMode := f.ReplaceExemptions([]bpf.Exemption{{Prefix: prefix("192.0.2.0/24"), Mode: 99}})
		_, badPrefix := f.ReplaceLocks([]bpf.Lock{{Prefix: netip.PrefixFrom(netip.MustParseAddr("192.0.2.7"), 24)}})
		for what, err := range map[string]error{
			"a binding": f.PutSources(bound), "a port of an interface": f.SetConfig(config), "a source twice": listed,
			"an unknown mode": badMode, "a prefix with bits behind it": badPrefix,
		} {
			if err == nil {
				t.Errorf("%s is taken", what)
			} else {
				t.Log(err)
			}
		}
		if after, err := generation(); err != nil || after != before {
			t.Errorf("the kernel's rules changed: %v", err)
		}
	})
}
