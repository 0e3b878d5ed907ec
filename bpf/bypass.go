package bpf

import (
	"errors"
	"fmt"
	"math"
	"net/netip"
	"time"

	"github.com/cilium/ebpf"
)

// Bypass forwards untouched what would be intercepted, shadowed or observed. Locks, reject and drop stay in force, and
// connections that are open already end as they began.
type Bypass struct {
	Prefix netip.Prefix // of sources; the zero prefix is everybody
	Until  time.Time    // BypassForGood: until it is taken away
}

// BypassForGood is the time for a bypass without an end.
var BypassForGood = time.Unix(1<<40, 0)

// OpenBypass opens no more of the maps pinned in dir than bypasses need, and loads nothing: for a time when no helper
// runs while the programs that are attached go on. Only the methods for bypasses may be called.
func OpenBypass(dir string) (*Datapath, error) {
	set, err := onlySet(dir)
	if err != nil {
		return nil, err
	}
	spec, err := loadMail()
	if err != nil {
		return nil, fmt.Errorf("could not read the built-in programs: %w", err)
	}
	d := &Datapath{dir: dir}
	for name, m := range map[string]**ebpf.Map{"config": &d.objects.Config, "bypass_nets": &d.objects.BypassNets} {
		if *m, err = openShared(set, name, spec.Maps[name]); err != nil {
			return nil, errors.Join(err, d.Close())
		}
	}
	if err := d.objects.Config.Lookup(uint32(0), &d.config); err != nil {
		return nil, errors.Join(fmt.Errorf("could not read map config: %w", err), d.Close())
	}
	return d, nil
}

// ReplaceBypasses makes the bypasses in force equal to the list; each ends by itself in the kernel. What is given twice,
// or inside a wider one, lasts as long as the longest of them.
func (d *Datapath) ReplaceBypasses(list []Bypass) error {
	all := uint64(0)
	nets := make(map[mailNetKey]uint64)
	for _, b := range list {
		until := uint64(0)
		for _, wide := range list {
			if !covers(wide.Prefix, b.Prefix) {
				continue
			}
			ns, err := bypassEnd(wide.Until)
			if err != nil {
				return err
			}
			until = max(until, ns)
		}
		if b.Prefix == (netip.Prefix{}) {
			all = until
			continue
		}
		if err := checkPrefix(b.Prefix); err != nil {
			return err
		}
		nets[netKey(b.Prefix, 0)] = until
	}
	if _, err := replaceTable(d.objects.BypassNets, nets); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.config.BypassUntilNs = all
	d.setFlag(mailConfigFlagCONFIG_BYPASS_NETS, len(nets) > 0)
	return d.writeConfig()
}

// covers tells whether wide is p or around it, but never for everybody against a prefix: that is asked first anyway.
func covers(wide, p netip.Prefix) bool {
	return wide == p || wide.IsValid() && p.IsValid() && wide.Bits() <= p.Bits() && wide.Contains(p.Addr())
}

func bypassEnd(t time.Time) (uint64, error) {
	if t.Equal(BypassForGood) {
		return math.MaxUint64, nil
	}
	return deadline(t)
}

// Bypasses reads those in force back, in no order; their ends are as exact as two clocks are read together.
func (d *Datapath) Bypasses() ([]Bypass, error) {
	d.mu.Lock()
	all := d.config.BypassUntilNs
	d.mu.Unlock()
	nets, err := readTable[mailNetKey, uint64](d.objects.BypassNets)
	if err != nil {
		return nil, err
	}
	now, err := monotonic()
	if err != nil {
		return nil, err
	}
	var list []Bypass
	add := func(p netip.Prefix, ns uint64) error {
		if ns <= now {
			return nil
		}
		b := Bypass{Prefix: p, Until: BypassForGood}
		if ns != math.MaxUint64 {
			if b.Until, err = wallTime(ns); err != nil {
				return fmt.Errorf("could not read the bypass of %v: %w", p, err)
			}
		}
		list = append(list, b)
		return nil
	}
	err = add(netip.Prefix{}, all)
	for k, ns := range nets {
		if err == nil {
			err = add(k.prefix(), ns)
		}
	}
	return list, err
}
