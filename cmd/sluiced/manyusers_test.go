package main

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sluice/filter"
	"sluice/filter/identity"
	"sluice/filter/limit"
	"sluice/filter/lock"
	mail "sluice/filter/message"
	"sluice/filter/policy"
	"sluice/intercept/flow"
)

// crowd is many users with what decides about their mail, in one process.
type crowd struct {
	n     int
	users *flow.Table
	table *policy.Table
	book  *identity.Book
	rate  *limit.Rate
	locks *lock.Locks
	found *identity.Finder
	ids   flow.ID
}

// nobodyHears is a kernel and a disk that take everything.
type nobodyHears struct{}

func (nobodyHears) Block(*lock.Lock) error            { return nil }
func (nobodyHears) Unblock(uint32) error              { return nil }
func (nobodyHears) SaveLock(*lock.Lock) error         { return nil }
func (nobodyHears) SaveUnlocks(lock.Scope, int) error { return nil }
func (nobodyHears) LoadLocks() ([]lock.Lock, map[lock.Scope]int, error) {
	return nil, nil, nil
}

const identitiesEach = 10

// source is an address of a user, of either family.
func source(i int, v6 bool) netip.Addr {
	if v6 {
		return netip.AddrFrom16([16]byte{0x20, 0x01, 0x0d, 0xb8, 0, byte(i >> 16), byte(i >> 8), byte(i), 15: 1})
	}
	return netip.AddrFrom4([4]byte{198, 18 + byte(i>>16), byte(i >> 8), byte(i)})
}

// newCrowd makes n users with an address of each family: a tenth has settings of its own, each is in one of n/100 accounts,
// which share budgets of a plan; everybody's identities are told by a header.
func newCrowd(t testing.TB, n int) *crowd {
	t.Helper()
	c := &crowd{n: n}
	all, own, members := make([]flow.User, 0, 2*n), map[uint32]policy.Overrides{}, map[uint32]uint32{}
	for i := range n {
		id := uint32(i + 1)
		v4, err := source(i, false).Prefix(32)
		if err != nil {
			t.Fatal(err)
		}
		v6, err := source(i, true).Prefix(64)
		if err != nil {
			t.Fatal(err)
		}
		u := flow.User{ID: id, Name: "customer" + strconv.Itoa(i), Prefix: v4}
		all = append(all, u, flow.User{ID: id, Name: u.Name, Prefix: v6})
		members[id] = uint32(1<<24 + i%max(1, n/100))
		if i%10 == 0 {
			var o policy.Overrides
			if err := o.Set("messages_per_day", strconv.Itoa(100_000+i)); err != nil {
				t.Fatal(err)
			}
			own[id] = o
		}
	}
	var err error
	if c.users, err = flow.NewTable(all); err != nil {
		t.Fatal(err)
	}
	s := policy.Default()
	s.Lock.Automatic = true
	var rule policy.HeaderRule
	if err := rule.UnmarshalText([]byte("X-AuthUser")); err != nil {
		t.Fatal(err)
	}
	s.Identify = &policy.Identify{Method: policy.ByHeader, Headers: []policy.HeaderRule{rule}}
	c.table = policy.NewTable(s)
	most := int64(1 << 40)
	groups := []policy.Group{{ID: 1 << 25, Kind: policy.Plan, Name: "basic", Budget: policy.LimitChanges{"recipients_per_hour": {Max: &most}}}}
	for i := range max(1, n/100) {
		groups = append(groups, policy.Group{ID: uint32(1<<24 + i), Kind: policy.Account, Name: fmt.Sprint("account", i), Plan: 1 << 25})
	}
	c.table.Group(groups, members)
	c.table.OverrideAll(own)
	c.book = identity.NewBook(2 * n * identitiesEach)
	at := time.Now()
	for i := range n * identitiesEach {
		c.book.Load(identity.Entry{User: uint32(i/identitiesEach + 1), Name: "script" + strconv.Itoa(i%identitiesEach), First: at, Last: at})
	}
	c.found = identity.NewFinder(c.table, c.book)
	c.rate = limit.NewRate(limit.NewCounts(0), c.table, nil)
	if c.locks, err = lock.New(lock.Deps{Settings: c.table, Blocker: nobodyHears{}, Store: nobodyHears{}}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.locks.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

// instant is a moment by the clock, and by that of the thread's CPU time, on which nobody else's work counts.
type instant struct {
	wall time.Time
	cpu  time.Duration
}

func now() instant {
	var ts unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &ts) // it cannot fail for the calling thread
	return instant{time.Now(), time.Duration(ts.Nano())}
}

func (i instant) since(from instant) lapse { return lapse{i.wall.Sub(from.wall), i.cpu - from.cpu} }

// lapse is how long something took by both clocks.
type lapse struct{ wall, cpu time.Duration }

// spentOn is what the steps of one message took.
type spentOn struct{ lookUp, identity, limits, lock, booked lapse }

// send is a message of a user from accept to its end, as far as it is decided by who sends it.
func (c *crowd) send(t testing.TB, i int, spam bool) (took spentOn) {
	c.ids++
	begin := now()
	u, ok := c.users.Attribute(source(i, i%2 == 0))
	set := c.table.Settings(u.ID)
	took.lookUp = now().since(begin)
	if !ok || u.ID != uint32(i+1) || set.Budgets == nil {
		t.Fatalf("user %d is found as %+v", i, u)
	}
	m := &mail.Message{ID: c.ids.String() + ".1", Flow: &flow.Flow{ID: c.ids, User: u}, Received: time.Now(), Envelope: mail.Envelope{From: "a@customer.example"},
		Rcpt: "b@sink.example", Data: []byte("X-AuthUser: script" + strconv.Itoa(int(c.ids)%identitiesEach) + "\r\nSubject: x\r\n\r\nhello\r\n"), DataSize: 60}
	begin = now()
	m.Identity, m.Told = c.found.Identify(filter.Data, m)
	took.identity = now().since(begin)
	begin = now()
	hits := c.rate.Check(context.Background(), filter.Rcpt, m, nil)
	m.Envelope.To, m.Rcpt = append(m.Envelope.To, m.Rcpt), ""
	hits = c.rate.Check(context.Background(), filter.Data, m, hits)
	took.limits = now().since(begin)
	if len(hits) > 0 {
		t.Fatalf("user %d: %+v", i, hits)
	}
	if spam {
		hits = append(hits, filter.Hit{Check: "content", Code: "SPAM", Class: filter.Spam, Action: filter.Reject})
	}
	v := filter.Judge(hits)
	begin = now()
	c.locks.Judged(m, &v)
	c.locks.Locked(u.ID)
	c.locks.LockedIdentity(u.ID, m.Identity)
	took.lock = now().since(begin)
	begin = now()
	c.rate.Settle(m, filter.Outcome{Accepted: 1, Verdict: &v})
	took.booked = now().since(begin)
	c.found.Settle(m, filter.Outcome{Accepted: 1, Verdict: &v})
	return took
}

// TestManyUsers: who it is, of which identity, within which limits and whether locked, each is decided in microseconds,
// however many users there are; and a user costs a bounded amount of memory. SLUICE_USERS asks for more users, and then
// for figures: `make bench-users`. Not parallel: it counts what is on the heap.
func TestManyUsers(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	n, full := 2000, os.Getenv("SLUICE_USERS") != ""
	if full {
		var err error
		if n, err = strconv.Atoi(os.Getenv("SLUICE_USERS")); err != nil {
			t.Fatal(err)
		}
	}
	empty := heap()
	c := newCrowd(t, n)
	known := heap()
	t.Logf("%d users with %d identities: %d bytes of heap each", n, n*identitiesEach, (known-empty)/uint64(n))
	for i := range n { // everybody sends
		c.send(t, i, false)
	}
	active := heap()
	each := int64(active-known) / int64(n)
	t.Logf("each who sent a message within the hour: %d bytes more", each)
	if each > 4096 {
		t.Errorf("a user who sends costs %d bytes, want at most 4096", each)
	}
	for i := range n / 10 { // some of them in every part of the hour, and in every way
		for range 60 {
			c.send(t, i, false)
		}
	}
	busy := heap()
	t.Logf("each of %d who sent 61: %d bytes more than who sent none", n/10, int64(busy-active)/int64(max(1, n/10))+each)
	var lookUp, ident, limits, locked, booked, changed []lapse
	samples := min(20_000, 5*n)
	for k := range samples {
		took := c.send(t, (k*7919+13)%n, k%50 == 0)
		lookUp, ident = append(lookUp, took.lookUp), append(ident, took.identity)
		limits, locked = append(limits, took.limits), append(locked, took.lock)
		booked = append(booked, took.booked)
	}
	for k := range min(1000, n) {
		var o policy.Overrides
		if err := o.Set("messages_per_week", strconv.Itoa(1_000_000+k)); err != nil {
			t.Fatal(err)
		}
		begin := now()
		c.table.Override(uint32(k*31%n+1), o)
		got := c.table.Settings(uint32(k*31%n + 1)).Limits.Max[policy.MessagesWeek]
		changed = append(changed, now().since(begin))
		if got != int64(1_000_000+k) {
			t.Fatalf("change %d is not in force", k)
		}
	}
	for _, q := range []struct {
		what string
		took []lapse
		most time.Duration
	}{{"user look-up with settings", lookUp, 20 * time.Microsecond}, {"identity", ident, 20 * time.Microsecond}, {"limit check, at RCPT and at DATA", limits, 20 * time.Microsecond},
		{"booked at the end", booked, 20 * time.Microsecond},
		{"lock decision", locked, 20 * time.Microsecond}, {"change of a user's settings", changed, 100 * time.Millisecond}} {
		w50, w99 := p50p99(q.took, func(l lapse) time.Duration { return l.wall })
		c50, c99 := p50p99(q.took, func(l lapse) time.Duration { return l.cpu })
		t.Logf("%-34s CPU p50 %8v  p99 %8v, by the clock p50 %8v  p99 %8v", q.what, c50, c99, w50, w99)
		if full && c99 > q.most {
			t.Errorf("%s: p99 is %v of CPU, want at most %v", q.what, c99, q.most)
		}
	}
}

func p50p99(all []lapse, by func(lapse) time.Duration) (p50, p99 time.Duration) {
	some := make([]time.Duration, len(all))
	for i, l := range all {
		some[i] = by(l)
	}
	slices.Sort(some)
	return some[len(some)/2], some[len(some)*99/100]
}

// heap is what is in use.
func heap() uint64 {
	runtime.GC()
	runtime.GC() // what finalizers freed
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
