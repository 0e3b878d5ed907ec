package bpf

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/cilium/ebpf"
)

// ReplaceExemptions makes the table of exempt destinations equal to the list.
func (d *Datapath) ReplaceExemptions(list []Exemption) (Change, error) {
	want, prefixes := make(map[mailNetKey]mailExemption, len(list)), make([]netip.Prefix, 0, len(list))
	spares := noExemptions
	for _, e := range list {
		spares &^= mailConfigFlagCONFIG_NO_EXEMPT
		if e.Port != 0 {
			spares &^= mailConfigFlagCONFIG_NO_EXEMPT_PORTS
		}
		if err := checkPrefix(e.Prefix); err != nil {
			return Change{}, err
		}
		if e.Mode == ModeNone || e.Mode > ModeDrop {
			return Change{}, fmt.Errorf("could not use the exemption of %s: mode %s is none that packets can have", e.Prefix, e.Mode)
		}
		until, err := deadline(e.Until)
		if err != nil {
			return Change{}, err
		}
		prefixes = append(prefixes, e.Prefix)
		want[netKey(e.Prefix, e.Port)] = mailExemption{UntilNs: until, Mode: mailMode(e.Mode), Bits: uint8(e.Prefix.Bits())}
	}
	// What spares look-ups is taken back before such exemptions come, and said after they went.
	if err := d.setFlags(0, noExemptions); err != nil {
		return Change{}, err
	}
	c, err := d.hinted(mailNumberHINTED_EXEMPT, mailConfigFlagCONFIG_HINT_EXEMPT, prefixes, func() (Change, error) {
		return replaceTable(d.objects.Exempt, want)
	})
	if err != nil {
		return c, err
	}
	return c, d.setFlags(spares, 0)
}

// noExemptions is what may be said of an empty table.
const noExemptions = mailConfigFlagCONFIG_NO_EXEMPT | mailConfigFlagCONFIG_NO_EXEMPT_PORTS

// ReplaceLockExempt sets the destinations that locks leave open: the MX of the administrator's address.
func (d *Datapath) ReplaceLockExempt(list []netip.Prefix) (Change, error) {
	c, err := replaceSet(d.objects.LockExempt, list)
	return c, errors.Join(err, d.changed())
}

// ReplaceLocal sets the gateway's own addresses: every address and prefix of its local routing table. A SYN to one of
// them is let alone; one that is missing here would be given to the proxy, which refuses it.
func (d *Datapath) ReplaceLocal(list []netip.Prefix) (Change, error) {
	c, err := d.hinted(mailNumberHINTED_LOCAL, mailConfigFlagCONFIG_HINT_LOCAL, list, func() (Change, error) {
		return replaceSet(d.objects.Local, list)
	})
	return c, errors.Join(err, d.changed())
}

// ReplaceDelivery sets the addresses that the proxy delivers from: a SYN from one of them at a customer interface is a loop.
func (d *Datapath) ReplaceDelivery(list []netip.Prefix) (Change, error) {
	return d.hinted(mailNumberHINTED_DELIVERY, mailConfigFlagCONFIG_HINT_DELIVERY, list, func() (Change, error) {
		return replaceSet(d.objects.Delivery, list)
	})
}

func replaceSet(m *ebpf.Map, list []netip.Prefix) (Change, error) {
	want := make(map[mailNetKey]uint32, len(list))
	for _, p := range list {
		if err := checkPrefix(p); err != nil {
			return Change{}, err
		}
		want[netKey(p, 0)] = 1
	}
	return replaceTable(m, want)
}
