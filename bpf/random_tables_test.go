//go:build bpftest

package bpf

import (
	"math/rand/v2"
	"net"
	"net/netip"
	"time"

	"sluice/bpf/model"
)

const (
	ms  = uint64(time.Millisecond)
	sec = uint64(time.Second)
)

// Addresses that tables and packets have in common; those that end in 77 have sockets here.
var (
	customers = addresses("192.0.2.10", "192.0.2.11", "192.0.2.77", "192.0.2.200", "203.0.113.9",
		"2001:db8:1::10", "2001:db8:1::11", "2001:db8:1::77", "2001:db8:1:1::10", "2001:db8:2::9")
	servers = addresses("198.51.100.25", "198.51.100.26", "198.51.100.77", "203.0.113.25",
		"2001:db8:100::25", "2001:db8:100::77", "2001:db8:2::25")
	lengths4 = []int{0, 8, 16, 20, 24, 26, 28, 29, 30, 31, 32, 32, 32}
	lengths6 = []int{0, 16, 32, 47, 48, 56, 63, 64, 64, 65, 80, 96, 112, 124, 127, 128, 128}
	extras   = []uint16{587, 465, 2525, 26}
)

func addresses(list ...string) (all []netip.Addr) {
	for _, s := range list {
		all = append(all, netip.MustParseAddr(s))
	}
	return all
}

func pick[T any](r *rand.Rand, list []T) T { return list[r.IntN(len(list))] }

func chance(r *rand.Rand, percent int) bool { return r.IntN(100) < percent }

func randomPrefix(r *rand.Rand, around []netip.Addr) netip.Prefix {
	a := pick(r, around)
	n := pick(r, lengths6)
	if a.Is4() {
		n = pick(r, lengths4)
	}
	p, err := a.Prefix(n)
	if err != nil {
		panic(err) // the lengths fit
	}
	return p
}

// prefixes gives up to n different ones.
func prefixes(r *rand.Rand, n int, around []netip.Addr) (list []netip.Prefix) {
	seen := map[netip.Prefix]bool{}
	for range r.IntN(n + 1) {
		if p := randomPrefix(r, around); !seen[p] {
			seen[p] = true
			list = append(list, p)
		}
	}
	return list
}

// until is far enough from now that no packet of the same tables meets the moment itself.
func until(r *rand.Rand, now uint64) uint64 {
	return pick(r, []uint64{0, 1, now - 10*sec, now - sec, now + 10*sec, now + 3600*sec})
}

func randomTables(r *rand.Rand, devices [2]uint32, now uint64) (*model.Tables, *model.State) {
	t := &model.Tables{Intercept: markIntercept, Judged: markJudged, ReversePath: chance(r, 10), Start: now - pick(r, []uint64{100 * ms, 5 * sec, 40 * sec})}
	t.Unknown = randomSource(r, netip.Prefix{}, devices)
	for _, p := range prefixes(r, 12, customers) {
		t.Sources = append(t.Sources, randomSource(r, p, devices))
	}
	for _, p := range prefixes(r, 8, servers) {
		if chance(r, 50) {
			continue
		}
		e := model.Exemption{Prefix: p, Mode: randomMode(r), Until: until(r, now)}
		t.Exemptions = append(t.Exemptions, e)
		if chance(r, 40) {
			e.Port, e.Mode = pick(r, []uint16{25, 2525, 26}), randomMode(r)
			t.Exemptions = append(t.Exemptions, e)
		}
	}
	hosts := chance(r, 40) // for such the programs have a short way
	for _, p := range prefixes(r, 6, customers) {
		if chance(r, 60) && (!hosts || isHost(p)) {
			t.Locks = append(t.Locks, model.Lock{Prefix: p, User: uint32(r.IntN(4)), Budget: uint64(r.IntN(4)), KeepFlows: chance(r, 30), Until: until(r, now)})
		}
	}
	if chance(r, 30) {
		for _, p := range prefixes(r, 3, customers) {
			t.Bypasses = append(t.Bypasses, model.Bypass{Prefix: p, Until: max(until(r, now), 1)})
		}
		if chance(r, 20) {
			t.Bypasses = append(t.Bypasses, model.Bypass{Until: max(until(r, now), 1)})
		}
	}
	for _, set := range []struct {
		to      *[]netip.Prefix
		around  []netip.Addr
		percent int
	}{{&t.LockExempt, servers, 20}, {&t.Local, servers, 20}, {&t.Delivery, customers, 15}} {
		if chance(r, set.percent) {
			*set.to = prefixes(r, 3, set.around)
		}
	}
	for _, port := range extras {
		if chance(r, 40) {
			at := pick(r, []uint32{0, 0, devices[0], devices[1], 99})
			t.Ports = append(t.Ports, model.Port{Ifindex: at, Port: port, Mode: pick(r, []model.Mode{model.None, model.None, model.Pass, model.Reject})})
			if at != 0 && chance(r, 30) {
				t.Ports = append(t.Ports, model.Port{Port: port, Mode: pick(r, []model.Mode{model.None, model.Pass, model.Reject})})
			}
		}
	}
	t.Listener = chance(r, 70)
	t.Beat = pick(r, []uint64{0, now - 50*ms, now - 50*ms, now - 3*sec, now - 30*sec, now + 5*sec})
	if chance(r, 20) {
		t.RestartUntil = pick(r, []uint64{now - 5*sec, now + 10*sec, now + 3600*sec})
	}
	s := &model.State{LockBudgets: map[uint32]model.Budget{}, OpenBudgets: map[netip.Prefix]model.Budget{}, Buckets: map[model.Sender]uint64{}}
	if !t.Listener && chance(r, 50) {
		s.EmptySince = now - pick(r, []uint64{3 * sec, 30 * sec})
	}
	if chance(r, 30) {
		s.LockBudgets[uint32(r.IntN(4))] = randomBudget(r, now)
	}
	if chance(r, 30) {
		a := pick(r, customers)
		if p, err := a.Prefix(map[bool]int{true: 32, false: 64}[a.Is4()]); err == nil {
			s.OpenBudgets[p] = randomBudget(r, now)
		}
	}
	return t, s
}

func randomBudget(r *rand.Rand, now uint64) model.Budget {
	return model.Budget{Start: now - pick(r, []uint64{10 * sec, 61 * sec}), Count: pick(r, []uint64{0, 1, 28, 29, 30, 500})}
}

func randomMode(r *rand.Rand) model.Mode {
	return pick(r, []model.Mode{model.Pass, model.Observe, model.Shadow, model.Intercept, model.Intercept, model.Reject, model.Drop})
}

func randomSource(r *rand.Rand, p netip.Prefix, devices [2]uint32) model.Source {
	s := model.Source{Prefix: p, User: uint32(r.IntN(4)), Mode: randomMode(r), Closed: chance(r, 50), ReversePath: chance(r, 10)}
	if p.IsValid() && chance(r, 30) { // a mode inside a user's network, or nobody's
		s.Owner, _ = p.Addr().Prefix(r.IntN(p.Bits() + 1))
	}
	if chance(r, 10) {
		s.Ifindex = pick(r, devices[:])
	}
	if chance(r, 30) { // a bucket that is not filled again while the table is in use, or never empty
		s.PerSecond = pick(r, []uint64{1, 1, 65535})
	}
	if chance(r, 10) {
		s.MAC = pick(r, [][]byte{custMAC, {2, 0, 0, 0, 0, 0x11}})
	}
	return s
}

// load writes the model's tables into the kernel's.
func (l *lab) load(t *model.Tables, s *model.State, listener func()) {
	l.Helper()
	wall := func(ns uint64) time.Time {
		if ns == 0 {
			return time.Time{}
		}
		at, err := wallTime(ns)
		l.must(err)
		return at
	}
	c := Config{InterceptMark: t.Intercept, JudgedMark: t.Judged, ReversePath: t.ReversePath, Default: kernelSource(t.Unknown)}
	for _, p := range t.Ports {
		c.Ports = append(c.Ports, PortRule{Ifindex: p.Ifindex, Port: p.Port, Mode: Mode(p.Mode)})
	}
	l.must(l.SetConfig(c))
	var sources []Source
	for _, s := range t.Sources {
		sources = append(sources, kernelSource(s))
	}
	l.sources(sources...)
	var exemptions []Exemption
	for _, e := range t.Exemptions {
		exemptions = append(exemptions, Exemption{Prefix: e.Prefix, Port: e.Port, Mode: Mode(e.Mode), Until: wall(e.Until)})
	}
	l.exemptions(exemptions...)
	var locks []Lock
	for _, k := range t.Locks {
		locks = append(locks, Lock{Prefix: k.Prefix, ID: k.User, Budget: uint16(k.Budget), KeepFlows: k.KeepFlows, Until: wall(k.Until)})
	}
	l.locks(locks...)
	var bypasses []Bypass
	for _, b := range t.Bypasses {
		bypasses = append(bypasses, Bypass{Prefix: b.Prefix, Until: wall(b.Until)})
	}
	l.must(l.ReplaceBypasses(bypasses))
	for _, set := range []struct {
		replace func([]netip.Prefix) (Change, error)
		list    []netip.Prefix
	}{{l.ReplaceLockExempt, t.LockExempt}, {l.ReplaceLocal, t.Local}, {l.ReplaceDelivery, t.Delivery}} {
		_, err := set.replace(set.list)
		l.must(err)
	}
	l.must(l.ClearListener())
	if t.Listener {
		listener()
	}
	l.mu.Lock()
	l.config.StartNs = t.Start
	l.must(l.writeConfig())
	l.mu.Unlock()
	l.must(l.objects.Heartbeat.Put(uint32(0), mailHeartbeat{BeatNs: t.Beat, RestartUntilNs: t.RestartUntil}))
	l.loadState(s)
}

func (l *lab) loadState(s *model.State) {
	l.Helper()
	l.must(l.objects.Runtime.Put(uint32(0), mailRuntime{EmptySinceNs: s.EmptySince}))
	locks := map[number]mailBudget{}
	for user, b := range s.LockBudgets {
		locks[number(user)] = mailBudget{StartNs: b.Start, Count: b.Count}
	}
	open := map[mailHostKey]mailBudget{}
	for p, b := range s.OpenBudgets {
		open[hostKey(p)] = mailBudget{StartNs: b.Start, Count: b.Count}
	}
	_, err := replaceTable(l.objects.LockBudgets, locks)
	l.must(err)
	_, err = replaceTable(l.objects.OpenBudgets, open)
	l.must(err)
	buckets, users := map[mailHostKey]uint64{}, map[uint32]mailUserCounts{}
	for who, due := range s.Buckets {
		if who.User != 0 {
			users[who.User] = mailUserCounts{SynDue: due}
		} else {
			buckets[hostKey(who.Host)] = due
		}
	}
	_, err = replaceTable(l.objects.SynBuckets, buckets)
	l.must(err)
	l.setCounts(users)
}

func kernelSource(s model.Source) Source {
	k := Source{Prefix: s.Prefix, User: s.User, Owner: s.Owner, Mode: Mode(s.Mode), ReversePath: s.ReversePath, Ifindex: s.Ifindex, MAC: net.HardwareAddr(s.MAC), PerSecond: uint16(s.PerSecond)}
	if s.Closed {
		k.Fail = FailClosed
	}
	return k
}
