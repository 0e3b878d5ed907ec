package pool

import (
	"context"
	"fmt"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"
)

// TestWarmUp follows an address through its first days.
func TestWarmUp(t *testing.T) {
	t.Parallel()
	var l Ledger
	begin := time.Date(2026, 3, 1, 9, 0, 0, 0, time.UTC)
	l.Configure(Terms{WarmUp: []int{2, 4}, New: map[netip.Addr]time.Time{outA: begin}})
	send := func(from netip.Addr, at time.Time) (n int) {
		for ; n < 10 && l.May(from, "big.example", at); n++ {
			l.Sent(from, "big.example", at)
		}
		return n
	}
	if n := send(outA, begin); n != 2 {
		t.Errorf("%d on the first day", n)
	}
	if n := send(outA, begin.Add(23*time.Hour)); n != 0 || !l.May(outA, "other.example", begin) {
		t.Errorf("%d later that day", n)
	}
	var again Ledger
	again.Configure(*l.terms.Load())
	again.Restore(l.Counts())
	if again.May(outA, "big.example", begin.Add(23*time.Hour)) {
		t.Error("a restart forgets")
	}
	if n := send(outA, begin.Add(25*time.Hour)); n != 4 {
		t.Errorf("%d on the second day", n)
	}
	if n := send(outA, begin.Add(49*time.Hour)); n != 10 {
		t.Errorf("%d when it is warm", n)
	}
	if n := send(outB, begin); n != 10 {
		t.Errorf("%d from an address that was never new", n)
	}
}

func TestPerHour(t *testing.T) {
	t.Parallel()
	var l Ledger
	now := time.Date(2026, 3, 1, 9, 10, 0, 0, time.UTC)
	if l.Bounds() || !l.May(outA, "x.example", now) {
		t.Error("without terms something is bounded")
	}
	l.Configure(Terms{PerHour: 3})
	for range 3 {
		l.Sent(outA, "x.example", now)
	}
	if l.May(outA, "x.example", now) || !l.May(outB, "x.example", now) || !l.May(outA, "y.example", now) || !l.May(outA, "x.example", now.Add(time.Hour)) {
		t.Error("an hour has three, for each address and provider")
	}
	for i := range ledgerRoom + 10 {
		l.Sent(outA, fmt.Sprintf("d%d.example", i), now)
	}
	if n := len(l.Counts()); n > ledgerRoom {
		t.Errorf("%d accounts", n)
	}
}

// TestSpentAddressesGiveWay to others of the pool; with none left it is the customer's own, or nobody's.
func TestSpentAddressesGiveWay(t *testing.T) {
	t.Parallel()
	a, p, now := (&fakeDNS{}).authority(), threeAddresses(t), time.Now()
	a.Ledger.Configure(Terms{PerHour: 1})
	a.Exchangers.Get(context.Background(), "dest.example", now)
	q := &Question{Key: Key{7, "plain.example", "dest.example"}, To: mx, At: now}
	seen := map[netip.Addr]bool{}
	for range 3 {
		d := a.Decide(context.Background(), p, new(Choices), q)
		if d.Own || d.Why != Told || seen[d.IP] {
			t.Fatalf("%+v after %v", d, seen)
		}
		seen[d.IP] = true
		a.Sent(d.IP, "Dest.example", now)
	}
	if d := a.Decide(context.Background(), p, new(Choices), q); d.Why != Spent || d.Own {
		t.Errorf("%+v, want none", d)
	}
	q.Auto = true
	if d := a.Decide(context.Background(), p, new(Choices), q); d.Why != Spent || !d.Own {
		t.Errorf("%+v, want the customer's own", d)
	}
	other := *q
	other.To = six // another family
	if d := a.Decide(context.Background(), p, new(Choices), &other); d.Why != NoFamily {
		t.Errorf("%+v", d)
	}
}

func TestSlots(t *testing.T) {
	t.Parallel()
	var s Slots
	ctx := context.Background()
	if leave, err := s.Enter(ctx, outA, mx); err != nil {
		t.Fatal(err)
	} else {
		leave()
	}
	s.Configure(2)
	one, _ := s.Enter(ctx, outA, mx)
	two, _ := s.Enter(ctx, outA, mx)
	if _, err := s.Enter(ctx, outB, mx); err != nil {
		t.Error("another address has places of its own")
	}
	gone, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := s.Enter(gone, outA, mx); err == nil {
		t.Error("a third one came in")
	}
	var in atomic.Int32
	done := make(chan func())
	for range 5 {
		go func() {
			leave, err := s.Enter(ctx, outA, mx)
			if err != nil || in.Add(1) > 2 {
				t.Error("too many at once", err)
			}
			in.Add(-1)
			done <- leave
		}()
	}
	one()
	two()
	for range 5 {
		(<-done)()
	}
	if n := len(s.open); n != 1 { // outB's
		t.Errorf("%d pairs are remembered", n)
	}
}
