package bpf

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/cilium/ebpf"
)

// ReplaceLocks makes the table of locks equal to the list. Budgets that are used up stay so.
func (d *Datapath) ReplaceLocks(list []Lock) (Change, error) {
	want, hosts := make(map[mailNetKey]mailLock, len(list)), make(map[mailHostKey]mailLock)
	prefixes := make([]netip.Prefix, 0, len(list))
	flags := mailConfigFlagCONFIG_LOCK_HOSTS
	for _, l := range list {
		v, err := lockValue(l)
		if err != nil {
			return Change{}, err
		}
		want[netKey(l.Prefix, 0)], prefixes = v, append(prefixes, l.Prefix)
		if isHost(l.Prefix) {
			hosts[hostKey(l.Prefix)] = v
		} else {
			flags &^= mailConfigFlagCONFIG_LOCK_HOSTS
		}
		if l.Prefix.Bits() == 128 {
			flags |= mailConfigFlagCONFIG_LOCK_128
		}
	}
	// Two tables, and one of them is in force: the short way is taken back before and said after both are the same.
	if err := d.setFlags(flags&mailConfigFlagCONFIG_LOCK_128, 0); err != nil {
		return Change{}, err
	}
	c, err := d.hinted(mailNumberHINTED_LOCKS, mailConfigFlagCONFIG_HINT_LOCKS, prefixes, func() (Change, error) {
		if _, err := replaceTable(d.objects.LockHosts, hosts); err != nil {
			return Change{}, err
		}
		return replaceTable(d.objects.Locks, want)
	})
	if err != nil {
		return c, err
	}
	return c, d.setFlags(flags, ^flags&lockFlags)
}

const lockFlags = mailConfigFlagCONFIG_LOCK_HOSTS | mailConfigFlagCONFIG_LOCK_128

// PutLocks adds or changes locks; each is in force for the next packet.
func (d *Datapath) PutLocks(list ...Lock) error {
	for _, l := range list {
		v, err := lockValue(l)
		if err != nil {
			return err
		}
		if err := d.hint(mailNumberHINTED_LOCKS, mailConfigFlagCONFIG_HINT_LOCKS, l.Prefix); err != nil {
			return fmt.Errorf("could not lock %s: %w", l.Prefix, err)
		}
		if err := d.putHostLock(l.Prefix, v); err != nil {
			return fmt.Errorf("could not lock %s: %w", l.Prefix, err)
		}
		if err := d.objects.Locks.Put(netKey(l.Prefix, 0), v); err != nil {
			return fmt.Errorf("could not lock %s: %w", l.Prefix, err)
		}
		if err := d.widenLocks(l.Prefix); err != nil {
			return err
		}
	}
	return nil
}

// putHostLock writes a lock into the table of the short way, if it belongs there.
func (d *Datapath) putHostLock(p netip.Prefix, v mailLock) error {
	if !isHost(p) {
		return nil
	}
	if p.Bits() == 128 && !d.hasFlag(mailConfigFlagCONFIG_LOCK_128) {
		if err := d.setFlags(mailConfigFlagCONFIG_LOCK_128, 0); err != nil {
			return err
		}
	}
	return d.objects.LockHosts.Put(hostKey(p), v)
}

// widenLocks leaves the short way once there is a lock that it does not know; only ReplaceLocks leads back to it. Either way
// connections that are known are judged anew.
func (d *Datapath) widenLocks(p netip.Prefix) error {
	if isHost(p) {
		return d.changed()
	}
	return d.setFlags(0, mailConfigFlagCONFIG_LOCK_HOSTS)
}

func (d *Datapath) hasFlag(f mailConfigFlag) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.config.Flags&f != 0
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
		if isHost(p) {
			if err := deleteKeys(d.objects.LockHosts, []mailHostKey{hostKey(p)}); err != nil {
				return err
			}
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
