package attach

import (
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"sluice/intercept/ruleset"
)

// The passive programs' place at clsact: behind ours that decide, under a handle of their own.
const (
	observeHandle   = 0x51c6
	observePriority = 0x51c
	observeName     = "sluice/observe"
)

// PutObserver attaches the passive programs of an interface by clsact, in place of those of an earlier observer.
func (k *Kernel) PutObserver(index int, ingress, egress *ebpf.Program) error {
	if err := k.ensureClsact(index); err != nil {
		return err
	}
	for hook, prog := range map[string]*ebpf.Program{ruleset.Ingress: ingress, ruleset.Egress: egress} {
		err := k.h.FilterReplace(&netlink.BpfFilter{
			FilterAttrs: netlink.FilterAttrs{
				LinkIndex: index, Parent: parentOf(hook), Handle: observeHandle, Protocol: unix.ETH_P_ALL, Priority: observePriority,
			},
			Fd: prog.FD(), Name: observeName, DirectAction: true,
		})
		if err != nil {
			return fmt.Errorf("could not observe interface %d by clsact at its %s: %w", index, hook, err)
		}
	}
	return nil
}

// JudgesByClsact tells whether our program that decides stands at the ingress of an interface by clsact, which tcx comes
// before: the passive programs must stand behind it.
func (k *Kernel) JudgesByClsact(index int) bool {
	kind, err := k.clsactOf(index)
	if err != nil || kind != "clsact" {
		return false
	}
	list, err := k.filters(index, ruleset.Ingress)
	if err != nil {
		return false
	}
	for _, f := range list {
		if _, ours := ourFilter(f); ours {
			return true
		}
	}
	return false
}

// RemoveObserver takes the passive programs off an interface, and the qdisc where nothing else uses it. What is not there
// is no error.
func (k *Kernel) RemoveObserver(index int) error {
	kind, err := k.clsactOf(index)
	if err != nil || kind != "clsact" {
		return err
	}
	return k.removeFilters(index, passive)
}

// RemoveObservers does so at every interface.
func (k *Kernel) RemoveObservers() error { return k.removeClsact(passive) }

// passive means the filters of observers.
func passive(f netlink.Filter, _ int, _ string) bool {
	b, ok := f.(*netlink.BpfFilter)
	return ok && b.Attrs().Handle == observeHandle && b.Name == observeName
}
