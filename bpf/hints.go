package bpf

import (
	"fmt"
	"net/netip"
)

// hintOf has a bit for the beginning of each prefix; see hint.h, which asks for them.
func hintOf(list []netip.Prefix) (h mailHint) {
	for _, p := range list {
		a, near, half, family := p.Addr().As16(), 48, 4, mailFamilyFAMILY_6
		b := a[:]
		if p.Addr().Is4() {
			b, near, half, family = a[12:], 24, 0, mailFamilyFAMILY_4
		}
		if p.Bits() < near {
			first := int(b[0])
			for i := first; i <= first|0xff>>min(p.Bits(), 8); i++ {
				h.Wide[half+i/64] |= 1 << (i % 64)
			}
			continue
		}
		var word uint64
		for i := range near / 8 {
			word |= uint64(b[i]) << (8 * i)
		}
		at := mix(uint64(family), word)
		h.Near[at>>6%uint64(len(h.Near))] |= 1 << (at % 64)
	}
	return h
}

// hintFlags say that hints are complete.
const hintFlags = mailConfigFlagCONFIG_HINT_LOCAL | mailConfigFlagCONFIG_HINT_DELIVERY |
	mailConfigFlagCONFIG_HINT_EXEMPT | mailConfigFlagCONFIG_HINT_LOCKS | mailConfigFlagCONFIG_HINT_HOSTS6

// mix is that of hint.h.
func mix(h, v uint64) uint64 {
	h = (h ^ v) * 0x9e3779b97f4a7c15
	return h ^ h>>32
}

// hinted replaces a table whose prefixes have hints. At every moment there is a hint for each that it holds.
func (d *Datapath) hinted(kind mailNumber, flag mailConfigFlag, list []netip.Prefix, replace func() (Change, error)) (Change, error) {
	for _, p := range list {
		if err := checkPrefix(p); err != nil {
			return Change{}, err
		}
	}
	d.hinting.Lock()
	defer d.hinting.Unlock()
	want := hintOf(list)
	if err := d.addHint(kind, flag, want); err != nil {
		return Change{}, err
	}
	c, err := replace()
	if err != nil {
		return c, err // perhaps half of it is done: the hints are for both
	}
	if err := d.putHint(kind, want); err != nil || d.hasFlag(flag) {
		return c, err
	}
	return c, d.setFlags(flag, 0)
}

// hint adds prefixes to a table's hints before they come into it. That they went again is seen when all are replaced.
func (d *Datapath) hint(kind mailNumber, flag mailConfigFlag, list ...netip.Prefix) error {
	d.hinting.Lock()
	defer d.hinting.Unlock()
	return d.addHint(kind, flag, hintOf(list))
}

// addHint needs the lock.
func (d *Datapath) addHint(kind mailNumber, flag mailConfigFlag, more mailHint) error {
	if !d.hasFlag(flag) {
		return nil // nobody looks
	}
	var have mailHint
	if err := d.objects.Hints.Lookup(uint32(kind), &have); err != nil {
		return fmt.Errorf("could not read map hints: %w", err)
	}
	both := have
	for i, w := range more.Wide {
		both.Wide[i] |= w
	}
	for i, w := range more.Near {
		both.Near[i] |= w
	}
	if both == have {
		return nil
	}
	return d.putHint(kind, both)
}

func (d *Datapath) putHint(kind mailNumber, h mailHint) error {
	if err := d.objects.Hints.Put(uint32(kind), h); err != nil {
		return fmt.Errorf("could not write map hints: %w", err)
	}
	return nil
}
