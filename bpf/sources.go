package bpf

import (
	"fmt"
	"net"
	"net/netip"

	"github.com/cilium/ebpf"
)

// ReplaceSources makes the kernel's source table equal to the list, whatever stood there before; each prefix changes at
// once and without a gap. A prefix given twice is an error and nothing is changed.
func (d *Datapath) ReplaceSources(list []Source) (c Change, err error) {
	hosts := make(map[mailHostKey]mailSource)
	nets := make(map[mailNetKey]mailSource)
	var single []netip.Prefix
	long := false
	for _, s := range list {
		v, err := checkedSource(s)
		if err != nil {
			return Change{}, err
		}
		before := len(hosts) + len(nets)
		if isHost(s.Prefix) {
			hosts[hostKey(s.Prefix)] = v
		} else {
			nets[netKey(s.Prefix, 0)] = v
		}
		if len(hosts)+len(nets) == before {
			return Change{}, fmt.Errorf("could not use source %s: it is given twice", s.Prefix)
		}
		long = long || isLong6(s.Prefix)
		if s.Prefix.Bits() == 128 {
			single = append(single, s.Prefix)
		}
	}
	d.sourcing.Lock()
	defer d.sourcing.Unlock()
	defer d.settle(&err, 1)
	// The flag goes up before such prefixes come and down after they went.
	if long {
		if err := d.setLong6(true); err != nil {
			return Change{}, err
		}
	}
	c, err = d.hinted(mailNumberHINTED_HOSTS6, mailConfigFlagCONFIG_HINT_HOSTS6, single, func() (Change, error) { return d.replaceBoth(hosts, nets) })
	if err != nil {
		return Change{}, err
	}
	return c, d.setLong6(long)
}

// replaceBoth puts everything new before anything old goes: a prefix may become shorter or longer, and so change tables.
func (d *Datapath) replaceBoth(hosts map[mailHostKey]mailSource, nets map[mailNetKey]mailSource) (Change, error) {
	h, err := diffTable(d.objects.SourceHosts, hosts)
	if err != nil {
		return Change{}, err
	}
	n, err := diffTable(d.objects.SourceNets, nets)
	if err != nil {
		return Change{}, err
	}
	bound := 0
	for _, s := range hosts {
		if s.Flags&^mailSourceFlagSOURCE_RPF != 0 {
			bound++
		}
	}
	if err := d.quicken(len(hosts), bound); err != nil {
		return Change{}, err
	}
	put := func() error {
		if err := h.putNew(); err != nil {
			return err
		}
		for _, k := range h.fresh {
			err := d.quick.put(k, hosts[k])
			if d.settle(&err, mostTurning); err != nil {
				return err
			}
		}
		return nil
	}
	remove := func() error {
		if err := h.deleteGone(); err != nil {
			return err
		}
		for _, k := range h.gone {
			err := d.quick.remove(k)
			if d.settle(&err, mostTurning); err != nil {
				return err
			}
		}
		return nil
	}
	steps := []func() error{put, n.putNew, n.deleteGone, remove}
	if h.crowded || n.crowded {
		steps = []func() error{n.deleteGone, remove, put, n.putNew}
	}
	for _, step := range steps {
		if err := step(); err != nil {
			return Change{}, d.slowly(err)
		}
	}
	d.hosts = len(hosts)
	return h.plus(n.Change), nil
}

// PutSources adds or changes single sources.
func (d *Datapath) PutSources(list ...Source) (err error) {
	d.sourcing.Lock()
	defer d.sourcing.Unlock()
	defer d.settle(&err, 1)
	for _, s := range list {
		v, err := checkedSource(s)
		if err != nil {
			return err
		}
		if isLong6(s.Prefix) {
			if err := d.setLong6(true); err != nil {
				return err
			}
		}
		if s.Prefix.Bits() == 128 {
			if err := d.hint(mailNumberHINTED_HOSTS6, mailConfigFlagCONFIG_HINT_HOSTS6, s.Prefix); err != nil {
				return fmt.Errorf("could not write source %s: %w", s.Prefix, err)
			}
		}
		if err := d.sourceMap(s.Prefix).Put(sourceKey(s.Prefix), v); err != nil {
			return fmt.Errorf("could not write source %s: %w", s.Prefix, err)
		}
		if d.quick != nil && isHost(s.Prefix) {
			err := d.quick.put(hostKey(s.Prefix), v)
			if d.settle(&err, mostTurning); err != nil {
				return err
			}
		}
	}
	if d.quick != nil {
		d.hosts += len(list) // or fewer
		if crowded(d.hosts, len(d.quick.buckets)) {
			return d.quicken(2*d.hosts, len(d.quick.lines))
		}
	}
	return d.changed()
}

// DeleteSources takes single sources away; one that is not there is no error.
func (d *Datapath) DeleteSources(prefixes ...netip.Prefix) (err error) {
	d.sourcing.Lock()
	defer d.sourcing.Unlock()
	defer d.settle(&err, 1)
	for _, p := range prefixes {
		if err := deleteKeys(d.sourceMap(p), []any{sourceKey(p)}); err != nil {
			return err
		}
		if d.quick != nil && isHost(p) {
			err := d.quick.remove(hostKey(p))
			if d.settle(&err, mostTurning); err != nil {
				return err
			}
		}
	}
	return d.changed()
}

// Sources reads the table back, in no order.
func (d *Datapath) Sources() ([]Source, error) {
	hosts, err := readTable[mailHostKey, mailSource](d.objects.SourceHosts)
	if err != nil {
		return nil, err
	}
	nets, err := readTable[mailNetKey, mailSource](d.objects.SourceNets)
	if err != nil {
		return nil, err
	}
	list := make([]Source, 0, len(hosts)+len(nets))
	for k, v := range hosts {
		list = append(list, v.source(k.prefix()))
	}
	for k, v := range nets {
		list = append(list, v.source(k.prefix()))
	}
	return list, nil
}

func (d *Datapath) sourceMap(p netip.Prefix) *ebpf.Map {
	if isHost(p) {
		return d.objects.SourceHosts
	}
	return d.objects.SourceNets
}

func sourceKey(p netip.Prefix) any {
	if isHost(p) {
		return hostKey(p)
	}
	return netKey(p, 0)
}

func (d *Datapath) setLong6(on bool) error {
	if on {
		return d.setFlags(mailConfigFlagCONFIG_LONG6, 0)
	}
	return d.setFlags(0, mailConfigFlagCONFIG_LONG6)
}

func checkedSource(s Source) (mailSource, error) {
	if err := checkPrefix(s.Prefix); err != nil {
		return mailSource{}, err
	}
	v, err := sourceValue(s)
	if err != nil {
		return mailSource{}, fmt.Errorf("could not use source %s: %w", s.Prefix, err)
	}
	v.Bits = uint8(s.Prefix.Bits())
	v.Owner = v.Bits
	if s.Owner.IsValid() {
		if s.Owner.Bits() > s.Prefix.Bits() || !s.Owner.Contains(s.Prefix.Addr()) {
			return mailSource{}, fmt.Errorf("could not use source %s: its owner's prefix %s is not around it", s.Prefix, s.Owner)
		}
		v.Owner = uint8(s.Owner.Bits())
	}
	return v, nil
}

func sourceValue(s Source) (mailSource, error) {
	if s.Mode == ModeNone || s.Mode > ModeDrop {
		return mailSource{}, fmt.Errorf("mode %s is none that packets can have", s.Mode)
	}
	v := mailSource{User: s.User, Mode: mailMode(s.Mode), Fail: mailFail(s.Fail), Ifindex: s.Ifindex, SynRate: s.PerSecond}
	if s.ReversePath {
		v.Flags |= mailSourceFlagSOURCE_RPF
	}
	if s.Ifindex != 0 {
		v.Flags |= mailSourceFlagSOURCE_BIND_IF
	}
	if s.MAC != nil {
		if len(s.MAC) != len(v.Mac) {
			return mailSource{}, fmt.Errorf("%s is not an Ethernet address", s.MAC)
		}
		copy(v.Mac[:], s.MAC)
		v.Flags |= mailSourceFlagSOURCE_BIND_MAC
	}
	return v, nil
}

func (v mailSource) source(p netip.Prefix) Source {
	s := Source{Prefix: p, User: v.User, Mode: Mode(v.Mode), Fail: Fail(v.Fail), Ifindex: v.Ifindex, PerSecond: v.SynRate}
	if v.Owner < v.Bits {
		s.Owner, _ = p.Addr().Prefix(int(v.Owner)) // shorter than p's, so it is one
	}
	s.ReversePath = v.Flags&mailSourceFlagSOURCE_RPF != 0
	if v.Flags&mailSourceFlagSOURCE_BIND_MAC != 0 {
		s.MAC = net.HardwareAddr(append([]byte(nil), v.Mac[:]...))
	}
	return s
}
