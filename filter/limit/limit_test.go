package limit

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"sluice/filter"
	"sluice/filter/message"
	"sluice/filter/policy"
	"sluice/intercept/flow"
)

// TestWindowAgainstExact compares the window with a list of all events: it never counts less than the true sliding
// window, and never more than one that is 1/64 longer.
func TestWindowAgainstExact(t *testing.T) {
	t.Parallel()
	type event struct {
		at time.Duration
		n  int
	}
	for _, length := range []time.Duration{time.Minute, time.Hour, 24 * time.Hour, 100 * time.Nanosecond} {
		rnd := rand.New(rand.NewPCG(7, uint64(length)))
		var w Window
		var all []event
		now := time.Duration(0)
		// A slot is rounded up to whole nanoseconds, which only the absurdly short window notices.
		longer := width(length) * (Slots + 1)
		for range 2000 {
			now += time.Duration(rnd.Int64N(int64(length)/20 + 1))
			if rnd.IntN(50) == 0 {
				now += length
			}
			if n := rnd.IntN(4); n > 0 {
				w.Add(now, length, n)
				all = append(all, event{now, n})
			}
			least, most := 0, 0
			for _, e := range all {
				if e.at > now-length {
					least += e.n
				}
				if e.at > now-longer {
					most += e.n
				}
			}
			if got := w.Sum(now, length); got < least || got > most {
				t.Fatalf("window %v at %v counts %d, want %d to %d", length, now, got, least, most)
			}
			if w.len() > Slots+1 {
				t.Fatalf("window holds %d marks", w.len())
			}
			if sum := w.Sum(now, length); sum > 0 {
				after := now + w.Wait(now, length, 1)
				cp := Window{newest: w.newest, older: slices.Clone(w.older), sum: w.sum}
				if cp.Sum(after, length) >= sum {
					t.Fatalf("nothing left the window of %v after the wait", length)
				}
			}
		}
	}
}

func TestReserveAndSettle(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := NewCounts(0)
		k := Key{User: 1, What: Messages, Window: time.Hour}
		for i := range 10 {
			if _, ok := c.Reserve(k, 1, 10); !ok {
				t.Fatalf("reservation %d of 10 was refused", i+1)
			}
		}
		if _, ok := c.Reserve(k, 1, 10); ok {
			t.Fatal("reservation 11 of 10 was granted")
		}
		c.Settle(k, 1, 0) // given back
		if _, ok := c.Reserve(k, 1, 10); !ok {
			t.Fatal("what was given back could not be reserved")
		}
		c.Settle(k, 10, 10)
		time.Sleep(59 * time.Minute)
		wait, ok := c.Reserve(k, 1, 10)
		if ok {
			t.Fatal("a message passed within the hour")
		}
		time.Sleep(wait)
		if _, ok := c.Reserve(k, 10, 10); !ok {
			b, r := c.Count(k)
			t.Fatalf("refused after the announced wait of %v: booked %d, reserved %d", wait, b, r)
		}
		if total := 59*time.Minute + wait; total > time.Hour+time.Hour/64+time.Second {
			t.Errorf("waited %v for an hour's window", total)
		}
	})
}

func TestIdleAndTooManyUsersAreForgotten(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := NewCounts(shards * 8)
		heavy := Key{User: 1, What: Messages, Window: time.Hour}
		c.Settle(heavy, 0, 400)
		for u := range uint32(20000) {
			c.Settle(Key{User: u + 2, What: Messages, Window: time.Hour}, 0, 1)
		}
		if n := c.Len(); n > shards*8 {
			t.Errorf("%d accounts are held, want at most %d", n, shards*8)
		}
		if b, _ := c.Count(heavy); b != 400 {
			t.Errorf("a flood of users washed out the heavy one: %d booked", b)
		}
		time.Sleep(2 * time.Hour)
		for u := range uint32(shards * 4) { // touches every shard
			c.Reserve(Key{User: u, What: Recipients, Window: time.Minute}, 1, 0)
		}
		time.Sleep(2 * time.Minute)
		for u := range uint32(shards * 4) {
			c.Reserve(Key{User: u, What: Recipients, Window: time.Minute}, 1, 0)
		}
		if n := c.Len(); n > shards*4 {
			t.Errorf("%d accounts are held after two idle hours", n)
		}
	})
}

// TestNoMessageSlipsPast lets many sessions race for a small limit.
func TestNoMessageSlipsPast(t *testing.T) {
	t.Parallel()
	set := policy.Default()
	set.Limits = perHour(50, 0)
	r := NewRate(NewCounts(0), policy.NewTable(set), nil)
	var wg sync.WaitGroup
	var mu sync.Mutex
	sent := 0
	for s := range 40 {
		wg.Go(func() {
			for range 20 {
				m := mail(flow.ID(s+1), 1)
				if s%4 > 0 { // else each limit is asked by itself
					m.Envelope.From = "b@example.org"
				}
				if refused(r, m, "a@example.org") {
					r.Settle(m, filter.Outcome{})
					continue
				}
				mu.Lock()
				sent++
				mu.Unlock()
				r.Settle(m, filter.Outcome{Accepted: 1})
			}
		})
	}
	wg.Wait()
	if sent != 50 {
		t.Errorf("%d messages were sent, want exactly 50", sent)
	}
}

func perHour(messages, recipients int64) *policy.Limits {
	l := &policy.Limits{}
	l.Max[policy.MessagesHour], l.Max[policy.RecipientsHour] = messages, recipients
	return l
}

func mail(id flow.ID, user uint32) *message.Message {
	return &message.Message{ID: id.String() + ".1", Flow: &flow.Flow{ID: id, User: flow.User{ID: user}}}
}

func refused(c filter.Check, m *message.Message, rcpt message.Address) bool {
	m.Rcpt = rcpt
	v := filter.Judge(c.Check(context.Background(), filter.Rcpt, m, nil))
	if !v.Refused() {
		m.Envelope.To = append(m.Envelope.To, rcpt)
	}
	return v.Refused()
}

// TestBytesOfABeginning are reserved as they come, and what the whole has more at its end; one reservation is settled.
func TestBytesOfABeginning(t *testing.T) {
	t.Parallel()
	set := policy.Default()
	set.Limits, set.MessageSize = &policy.Limits{}, 900
	set.Limits.Max[policy.BytesDay] = 1000
	c, ctx := NewCounts(0), context.Background()
	r, size := NewRate(c, policy.NewTable(set), nil), NewSize(policy.NewTable(set))
	k := Key{User: 9, What: Bytes, Window: policy.BytesDay.Window()}
	m := mail(1, 9)
	for _, x := range []struct {
		n              int64
		p              filter.Phase
		over, tooLarge bool
		reserved       int
	}{{600, filter.Part, false, false, 600}, {800, filter.Part, false, false, 800}, {800, filter.Data, false, false, 800}, {1100, filter.Part, true, true, 800}} {
		m.DataSize = x.n
		h := r.Check(ctx, x.p, m, nil)
		if _, n := c.Count(k); n != x.reserved || (len(h) > 0) != x.over || (len(size.Check(ctx, x.p, m, nil)) > 0) != x.tooLarge {
			t.Errorf("%d bytes: %d reserved, %+v", x.n, n, h)
		}
	}
	m.DataSize = 800
	r.Settle(m, filter.Outcome{Accepted: 1})
	if booked, reserved := c.Count(k); booked != 800 || reserved != 0 {
		t.Errorf("%d bytes are booked, %d reserved", booked, reserved)
	}
}

func TestRateOfRecipients(t *testing.T) {
	t.Parallel()
	set := policy.Default()
	set.Limits = perHour(3, 5)
	c := NewCounts(0)
	r := NewRate(c, policy.NewTable(set), nil)

	m := mail(1, 9)
	if refused(r, m, "a@example.org") || refused(r, m, "b@example.org") {
		t.Fatal("refused within the limit")
	}
	m.Envelope.To = m.Envelope.To[:1] // the remote refused b: c takes its place
	if refused(r, m, "c@example.org") {
		t.Fatal("refused within the limit")
	}
	if _, n := c.Count(hourly(9, Recipients)); n != 2 {
		t.Errorf("%d recipients are reserved, want 2", n)
	}
	r.Settle(m, filter.Outcome{Accepted: 2})

	m = mail(1, 9)
	for i := range 3 {
		if refused(r, m, "d@example.org") {
			t.Fatalf("recipient %d was refused within the limit", i+3)
		}
	}
	m.Rcpt = "e@example.org"
	hits := r.Check(context.Background(), filter.Rcpt, m, nil)
	if len(hits) != 1 {
		t.Fatalf("recipient 6 of 5 got %v", hits)
	}
	h := hits[0]
	if h.Code != "RATE-RCPT" || h.SMTP != 451 || h.Enhanced != "4.7.1" || h.Class != filter.Policy || h.Action != filter.Defer {
		t.Errorf("hit is %+v", h)
	}
	if want := "this sender has reached its limit of 5 recipients per hour; try again in 6"; !strings.HasPrefix(h.Text, want) {
		t.Errorf("text is %q", h.Text)
	}
	r.Settle(m, filter.Outcome{}) // 4xx at the end: all given back
	if b, n := c.Count(hourly(9, Recipients)); b != 2 || n != 0 {
		t.Errorf("booked %d, reserved %d; want 2, 0", b, n)
	}
	if b, n := c.Count(hourly(9, Messages)); b != 1 || n != 0 {
		t.Errorf("messages: booked %d, reserved %d; want 1, 0", b, n)
	}
	for range 2 {
		m = mail(2, 9)
		if refused(r, m, "f@example.org") {
			t.Fatal("message refused within the limit")
		}
		r.Settle(m, filter.Outcome{Accepted: 1})
	}
	m = mail(2, 9)
	m.Rcpt = "g@example.org"
	if hits := r.Check(context.Background(), filter.Rcpt, m, nil); len(hits) != 1 || hits[0].Code != "RATE-MSG" {
		t.Errorf("message 4 of 3 got %v", hits)
	}
	r.Settle(m, filter.Outcome{})
	if m.Reserved != (message.Reserved{}) {
		t.Errorf("reservations are left: %v", m.Reserved)
	}
}

func TestNoLimitStillCounts(t *testing.T) {
	t.Parallel()
	set := policy.Default()
	set.Limits = perHour(0, 0)
	c := NewCounts(0)
	r := NewRate(c, policy.NewTable(set), nil)
	m := mail(1, 1)
	if refused(r, m, "a@example.org") {
		t.Fatal("refused without a limit")
	}
	r.Settle(m, filter.Outcome{Accepted: 1})
	if b, _ := c.Count(hourly(1, Messages)); b != 1 {
		t.Errorf("%d messages booked, want 1", b)
	}
}

func TestSizeAndRecipientsPerMail(t *testing.T) {
	t.Parallel()
	set := policy.Default()
	set.MessageSize, set.RecipientsPerMail = 1000, 2
	tab := policy.NewTable(set)
	ask := func(p filter.Phase, m *message.Message) string {
		var c filter.Check = NewSize(tab)
		if p == filter.Rcpt {
			c = NewPerMail(tab)
		}
		hits := c.Check(context.Background(), p, m, nil)
		if len(hits) == 0 {
			return ""
		}
		return fmt.Sprint(hits[0].Code, " ", hits[0].SMTP, " ", hits[0].Enhanced, " ", hits[0].Action)
	}
	m := mail(1, 1)
	for _, c := range []struct {
		phase          filter.Phase
		declared, real int64
		to             int
		want           string
	}{
		{filter.Mail, 0, 0, 0, ""},
		{filter.Mail, 1000, 0, 0, ""},
		{filter.Mail, 1001, 0, 0, "SIZE 552 5.3.4 reject"},
		{filter.Data, 1, 1000, 0, ""},
		{filter.Data, 1, 1001, 0, "SIZE 552 5.3.4 reject"},
		{filter.Rcpt, 0, 0, 1, ""},
		{filter.Rcpt, 0, 0, 2, "RCPT-MAX 452 4.5.3 defer"},
	} {
		m.Envelope.FromSize, m.DataSize, m.Envelope.To = c.declared, c.real, make([]message.Address, c.to)
		if got := ask(c.phase, m); got != c.want {
			t.Errorf("phase %v, declared %d, real %d, %d recipients: %q, want %q", c.phase, c.declared, c.real, c.to, got, c.want)
		}
	}
}

func addr(n int) netip.Addr { return netip.AddrFrom4([4]byte{192, 0, 2, byte(n)}) }

func BenchmarkRatePerMessage(b *testing.B) {
	r := NewRate(NewCounts(0), policy.NewTable(policy.Settings{Limits: perHour(1<<40, 1<<40)}), nil)
	m := mail(1, 1)
	ctx := context.Background()
	b.ReportAllocs()
	for i := range b.N {
		m.Flow.User.ID = uint32(i & 1023)
		if hits := r.Check(ctx, filter.Rcpt, m, nil); len(hits) != 0 {
			b.Fatal(hits)
		}
		r.Settle(m, filter.Outcome{Accepted: 1})
	}
}

// TestABudgetOfBytesIsNotWashedOut: many users who are new do not take its place, though it counts no messages.
func TestABudgetOfBytesIsNotWashedOut(t *testing.T) {
	t.Parallel()
	c := NewCounts(shards * 8)
	k := Key{User: 7, Scope: policy.OfPlan, What: Bytes, Window: policy.BytesDay.Window()}
	c.Settle(k, 0, 10<<20)
	for user := range uint32(shards * 100) {
		c.SettleHour(user, Hour{}, Hour{1, 1})
	}
	if n, _ := c.Count(k); n != 10<<20 {
		t.Errorf("%d bytes are booked, want %d", n, 10<<20)
	}
}
