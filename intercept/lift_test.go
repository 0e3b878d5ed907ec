package intercept

import (
	"net/netip"
	"testing"
	"time"

	"sluice/bpf"
	"sluice/intercept/control"
)

// heldPrefixes is a lock table that knows what is locked; nothing else is asked of it here.
type heldPrefixes struct {
	lockTable
	at map[netip.Prefix]uint32
}

func (h heldPrefixes) PutLocks(list ...bpf.Lock) error {
	for _, l := range list {
		h.at[l.Prefix] = l.ID
	}
	return nil
}

func (h heldPrefixes) Unlock(list ...netip.Prefix) error {
	for _, p := range list {
		delete(h.at, p)
	}
	return nil
}

// TestLockOnAPrefixThatMoved: what ends of one user's lock leaves alone what another's has taken over.
func TestLockOnAPrefixThatMoved(t *testing.T) {
	t.Parallel()
	p, q := prefix("192.0.2.1/32"), prefix("192.0.2.2/32")
	past := time.Now().Add(time.Minute)
	for name, end := range map[string]func(ls *locks, d heldPrefixes) error{
		"lifted": func(ls *locks, d heldPrefixes) error { return ls.remove(d, 1) },
		"over":   func(ls *locks, d heldPrefixes) error { return ls.expire(d, past.Add(time.Second)) },
		"without it now": func(ls *locks, d heldPrefixes) error {
			return ls.put(d, control.Lock{User: 1, Prefixes: []netip.Prefix{q}, Until: past})
		},
	} {
		d, ls := heldPrefixes{at: map[netip.Prefix]uint32{}}, new(locks)
		for _, l := range []control.Lock{{User: 1, Prefixes: []netip.Prefix{p, q}, Until: past}, {User: 2, Prefixes: []netip.Prefix{p}}} {
			if err := ls.put(d, l); err != nil {
				t.Fatal(err)
			}
		}
		if err := end(ls, d); err != nil || d.at[p] != 2 {
			t.Errorf("%s: %v, the kernel holds %v", name, err, d.at)
		}
		if err := ls.remove(d, 2); err != nil || d.at[p] != 0 {
			t.Errorf("%s: the second lock is lifted: %v, the kernel holds %v", name, err, d.at)
		}
	}
}
