package intercept

import (
	"net/netip"
	"slices"
	"sync"
	"time"

	"sluice/bpf"
	"sluice/intercept/control"
)

// locks remembers which prefixes a user's lock stands on; the kernel holds them by prefix and knows nothing of users.
// A mutex of its own keeps a lock from waiting behind a source table.
type locks struct {
	mu   sync.Mutex
	user map[uint32]control.Lock
	held map[netip.Prefix]uint32 // whose lock stands on a prefix: the last that was put there
}

// holds notes that the user's lock stands on its prefixes. ls.mu is held.
func (ls *locks) holds(l control.Lock) {
	if ls.held == nil {
		ls.held = make(map[netip.Prefix]uint32)
	}
	for _, p := range l.Prefixes {
		ls.held[p] = l.User
	}
}

// lift takes a user's lock off prefixes, but not off those where another's stands by now. ls.mu is held.
func (ls *locks) lift(d lockTable, user uint32, prefixes []netip.Prefix) error {
	var own []netip.Prefix
	for _, p := range prefixes {
		if ls.held[p] == user {
			own = append(own, p)
		}
	}
	if err := d.Unlock(own...); err != nil {
		return err
	}
	for _, p := range own {
		delete(ls.held, p)
	}
	return nil
}

// adopt takes over what the kernel holds from an earlier helper.
func (ls *locks) adopt(have []bpf.Lock) {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	ls.user = make(map[uint32]control.Lock)
	for _, h := range have {
		l := ls.user[h.ID]
		l.User, l.Until, l.PerMinute, l.CutFlows = h.ID, h.Until, int(h.Budget), !h.KeepFlows
		l.Prefixes = append(l.Prefixes, h.Prefix)
		ls.user[h.ID] = l
	}
	ls.held = nil
	for _, l := range ls.user {
		ls.holds(l)
	}
}

// put puts one lock in force; prefixes that the user's former lock had beyond it are free again.
func (ls *locks) put(d lockTable, l control.Lock) error {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	if err := d.PutLocks(kernelLocks(l)...); err != nil {
		return err
	}
	var gone []netip.Prefix
	for _, p := range ls.user[l.User].Prefixes {
		if !slices.Contains(l.Prefixes, p) {
			gone = append(gone, p)
		}
	}
	if ls.user == nil {
		ls.user = make(map[uint32]control.Lock)
	}
	ls.user[l.User] = l
	ls.holds(l)
	return ls.lift(d, l.User, gone)
}

// remove lifts a user's lock.
func (ls *locks) remove(d lockTable, user uint32) error {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	if err := ls.lift(d, user, ls.user[user].Prefixes); err != nil {
		return err
	}
	delete(ls.user, user)
	return nil
}

// replace makes the list the whole set; what has expired is left out.
func (ls *locks) replace(d lockTable, list []control.Lock, now time.Time) error {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	user := make(map[uint32]control.Lock, len(list))
	var all []bpf.Lock
	for _, l := range list {
		if !l.Until.IsZero() && !l.Until.After(now) {
			continue
		}
		user[l.User] = l
		all = append(all, kernelLocks(l)...)
	}
	if _, err := d.ReplaceLocks(all); err != nil {
		return err
	}
	ls.user, ls.held = user, nil
	for _, l := range list {
		if _, live := user[l.User]; live {
			ls.holds(user[l.User])
		}
	}
	return nil
}

// live returns the locks that have not expired, ordered by user. Meanwhile no lock waits longer than a copy takes.
func (ls *locks) live(now time.Time) []control.Lock {
	ls.mu.Lock()
	out := make([]control.Lock, 0, len(ls.user))
	for _, l := range ls.user {
		if l.Until.IsZero() || l.Until.After(now) {
			out = append(out, l)
		}
	}
	ls.mu.Unlock()
	slices.SortFunc(out, func(a, b control.Lock) int { return int(int64(a.User) - int64(b.User)) })
	return out
}

// expire removes the entries of locks that the kernel no longer heeds, so that they take no room.
func (ls *locks) expire(d lockTable, now time.Time) error {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	for u, l := range ls.user {
		if l.Until.IsZero() || l.Until.After(now) {
			continue
		}
		if err := ls.lift(d, u, l.Prefixes); err != nil {
			return err
		}
		delete(ls.user, u)
	}
	return nil
}

func kernelLocks(l control.Lock) []bpf.Lock {
	out := make([]bpf.Lock, 0, len(l.Prefixes))
	for _, p := range l.Prefixes {
		out = append(out, bpf.Lock{
			Prefix: p, ID: l.User, Until: l.Until, KeepFlows: !l.CutFlows,
			Budget: uint16(min(l.PerMinute, 1<<16-1)),
		})
	}
	return out
}
