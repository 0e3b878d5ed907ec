package bpf

import (
	"fmt"
	"math/bits"
	"math/rand/v2"
	"net/netip"
	"slices"
)

// SetConfig replaces the configuration and the port rules. Sources, locks and bypass are not touched.
func (d *Datapath) SetConfig(c Config) error {
	if err := checkMarks(c.InterceptMark, c.JudgedMark); err != nil {
		return err
	}
	fallback, err := sourceValue(c.Default)
	if err != nil {
		return fmt.Errorf("could not use the default for unknown sources: %w", err)
	}
	rules, ports, err := portRules(c.Ports)
	if err != nil {
		return err
	}
	if _, err := replaceTable(d.objects.PortRules, rules); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.config.MarkIntercept, d.config.MarkJudged = c.InterceptMark, c.JudgedMark
	d.config.Fallback, d.config.Ports = fallback, ports
	d.setFlag(mailConfigFlagCONFIG_RPF, c.ReversePath)
	return d.writeConfig()
}

// Default gives what holds for unknown sources now, also when an earlier process set it.
func (d *Datapath) Default() Source {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.config.Fallback.source(netip.Prefix{})
}

// Nowhere is the number of no interface: what is said of it waits for one.
const Nowhere = ^uint32(0)

// PutPorts adds rules for ports of single interfaces. SetConfig must have named each port, if only for Nowhere.
func (d *Datapath) PutPorts(rules ...PortRule) error {
	table, _, err := portRules(rules)
	if err != nil {
		return err
	}
	d.mu.Lock()
	known := d.config.Ports
	d.mu.Unlock()
	for k, v := range table {
		if !slices.Contains(known[:], k.Port) {
			return fmt.Errorf("could not use port %d at interface %d: the configuration does not name it", htons(k.Port), k.Ifindex)
		}
		if err := d.objects.PortRules.Put(k, v); err != nil {
			return fmt.Errorf("could not write port %d of interface %d: %w", htons(k.Port), k.Ifindex, err)
		}
	}
	return nil
}

// DeletePorts takes the rules of an interface away.
func (d *Datapath) DeletePorts(ifindex uint32) error {
	d.mu.Lock()
	known := d.config.Ports
	d.mu.Unlock()
	var keys []mailPortKey
	for _, p := range known {
		if p != 0 {
			keys = append(keys, mailPortKey{Ifindex: ifindex, Port: p})
		}
	}
	return deleteKeys(d.objects.PortRules, keys)
}

func checkMarks(intercept, judged uint32) error {
	if bits.OnesCount32(intercept) != 1 || bits.OnesCount32(judged) != 1 || intercept == judged {
		return fmt.Errorf("could not use marks %#x and %#x: each must be one bit, and not the same", intercept, judged)
	}
	return nil
}

// portRules makes the table of rules and the short list that packets are compared with first.
func portRules(rules []PortRule) (map[mailPortKey]mailPortRule, [mailNumberEXTRA_PORTS]uint16, error) {
	table := make(map[mailPortKey]mailPortRule, len(rules))
	var list [mailNumberEXTRA_PORTS]uint16
	seen := make(map[uint16]bool)
	for _, r := range rules {
		switch {
		case r.Port == 0 || r.Port == uint16(mailNumberMAIL_PORT):
			return nil, list, fmt.Errorf("could not use port %d: 25 is a mail port always, 0 never", r.Port)
		case r.Mode != ModeNone && r.Mode != ModePass && r.Mode != ModeReject:
			return nil, list, fmt.Errorf("could not use mode %s for port %d: only pass and reject, or none for the source's own", r.Mode, r.Port)
		}
		if !seen[r.Port] {
			if len(seen) == len(list) {
				return nil, list, fmt.Errorf("could not use port %d: no more than %d mail ports beside 25", r.Port, len(list))
			}
			list[len(seen)] = htons(r.Port)
			seen[r.Port] = true
		}
		table[mailPortKey{Ifindex: r.Ifindex, Port: htons(r.Port)}] = mailPortRule{Mode: mailMode(r.Mode)}
	}
	return table, list, nil
}

func (d *Datapath) setFlag(f mailConfigFlag, on bool) {
	if on {
		d.config.Flags |= f
	} else {
		d.config.Flags &^= f
	}
}

// setFlags sets some and takes others back in one step.
func (d *Datapath) setFlags(on, off mailConfigFlag) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.setFlag(off, false)
	d.setFlag(on, true)
	return d.writeConfig()
}

// changed has the programs ask the tables anew about connections that they know.
func (d *Datapath) changed() error { return d.setFlags(0, 0) }

// writeConfig needs the lock.
func (d *Datapath) writeConfig() error {
	now, err := monotonic()
	if err != nil {
		return err
	}
	d.config.ChangedNs = max(now, d.config.ChangedNs+1)
	if d.config.Seed == 0 {
		d.config.Seed = rand.Uint64() // from the system's generator, per process
	}
	if err := d.objects.Config.Put(uint32(0), d.config); err != nil {
		return fmt.Errorf("could not write map config: %w", err)
	}
	return nil
}
