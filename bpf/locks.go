package bpf

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/cilium/ebpf"
)

// ReplaceLocks makes the table of locks equal to the list. Budgets that are used up stay so.
func (d *Datapath) ReplaceLocks(list []Lock) (Change, error) {
	want := make(map[mailNetKey]mailLock, len(list))
	for _, l := range list {
		v, err := lockValue(l)
		if err != nil {
			return Change{}, err
		}
		want[netKey(l.Prefix, 0)] = v
	}
	return replaceTable(d.objects.Locks, want)
}

// PutLocks adds or changes locks; each is in force for the next packet.
func (d *Datapath) PutLocks(list ...Lock) error {
	for _, l := range list {
		v, err := lockValue(l)
		if err != nil {
			return err
		}
		if err := d.objects.Locks.Put(netKey(l.Prefix, 0), v); err != nil {
			return fmt.Errorf("could not lock %s: %w", l.Prefix, err)
		}
	}
	return nil
}

// Unlock takes locks away, and the budgets that went with them; a prefix without a lock is no error.
func (d *Datapath) Unlock(prefixes ...netip.Prefix) error {
	for _, p := range prefixes {
		if err := checkPrefix(p); err != nil {
			return err
		}
		key := netKey(p, 0)
		// A trie's look-up gives the longest match, which may be a shorter prefix than this one.
		var v mailLock
		err := d.objects.Locks.Lookup(key, &v)
		if errors.Is(err, ebpf.ErrKeyNotExist) || err == nil && int(v.Bits) != p.Bits() {
			continue
		}
		if err != nil {
			return fmt.Errorf("could not read the lock of %s: %w", p, err)
		}
		if err := deleteKeys(d.objects.Locks, []mailNetKey{key}); err != nil {
			return err
		}
		if err := deleteKeys(d.objects.LockBudgets, []uint32{v.Id}); err != nil {
			return err
		}
	}
	return nil
}

// Locks reads the table back, expired ones included, in no order.
func (d *Datapath) Locks() ([]Lock, error) {
	have, err := readTable[mailNetKey, mailLock](d.objects.Locks)
	if err != nil {
		return nil, err
	}
	list := make([]Lock, 0, len(have))
	for k, v := range have {
		until, err := wallTime(v.UntilNs)
		if err != nil {
			return nil, err
		}
		list = append(list, Lock{
			Prefix: k.prefix(), ID: v.Id, Until: until, Budget: v.Budget,
			KeepFlows: v.Flags&mailLockFlagLOCK_KEEP_FLOWS != 0,
		})
	}
	return list, nil
}

func lockValue(l Lock) (mailLock, error) {
	if err := checkPrefix(l.Prefix); err != nil {
		return mailLock{}, err
	}
	until, err := deadline(l.Until)
	if err != nil {
		return mailLock{}, err
	}
	v := mailLock{UntilNs: until, Id: l.ID, Budget: l.Budget, Bits: uint8(l.Prefix.Bits())}
	if l.KeepFlows {
		v.Flags = mailLockFlagLOCK_KEEP_FLOWS
	}
	return v, nil
}
