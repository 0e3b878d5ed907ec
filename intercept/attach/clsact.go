package attach

import (
	"errors"
	"fmt"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"sluice/intercept/ruleset"
)

const (
	filterHandle   = 0x51c5 // of our own: replacing by the usual handle 1 would silently evict another agent
	filterPriority = 1
	filterName     = "sluice/" // followed by the program's name
)

func parentOf(hook string) uint32 {
	if hook == ruleset.Egress {
		return netlink.HANDLE_MIN_EGRESS
	}
	return netlink.HANDLE_MIN_INGRESS
}

// putClsact adds our filter, or swaps its program in one step. The note names filters that come before ours.
func (p *Programs) putClsact(pl ruleset.Place, prog *ebpf.Program) (note string, err error) {
	found, err := p.k.filters(pl.Link, pl.Hook)
	if err != nil {
		return "", err
	}
	info, err := prog.Info()
	if err != nil {
		return "", fmt.Errorf("could not tell the id of %s: %w", pl.Program, err)
	}
	id, _ := info.ID()
	standing, current := false, false
	for _, f := range found {
		b, ours := ourFilter(f)
		switch a := f.Attrs(); {
		case ours:
			standing, current = true, b.Name == filterName+pl.Program && b.Id == int(id)
		case a.Priority == filterPriority && (f.Type() != "bpf" || a.Protocol != unix.ETH_P_ALL || a.Handle == filterHandle):
			return "", fmt.Errorf("could not attach %s: a foreign filter %s has priority %d and handle %#x; move it to another priority", pl.Program, filterText(f), a.Priority, a.Handle)
		case a.Priority <= filterPriority:
			note = fmt.Sprintf("the foreign filter %s runs before ours and may accept packets that we then never see", filterText(f))
		}
	}
	if current {
		return note, nil
	}
	if !standing {
		if err := p.k.ensureClsact(pl.Link); err != nil {
			return "", err
		}
	}
	err = p.k.h.FilterReplace(&netlink.BpfFilter{
		FilterAttrs: netlink.FilterAttrs{
			LinkIndex: pl.Link, Parent: parentOf(pl.Hook), Handle: filterHandle, Protocol: unix.ETH_P_ALL, Priority: filterPriority,
		},
		Fd: prog.FD(), Name: filterName + pl.Program, DirectAction: true,
	})
	if err != nil {
		return note, fmt.Errorf("could not attach %s by clsact: %w", pl.Program, err)
	}
	return note, nil
}

// AttachClsact adds one program to the ingress of an interface on which nobody else has any.
func (k *Kernel) AttachClsact(index int, prog *ebpf.Program) error {
	if err := k.ensureClsact(index); err != nil {
		return err
	}
	err := k.h.FilterReplace(&netlink.BpfFilter{
		FilterAttrs: netlink.FilterAttrs{
			LinkIndex: index, Parent: parentOf(ruleset.Ingress), Handle: filterHandle, Protocol: unix.ETH_P_ALL, Priority: filterPriority,
		},
		Fd: prog.FD(), Name: filterName + "trial", DirectAction: true,
	})
	if err != nil {
		return fmt.Errorf("could not attach a program by clsact: %w", err)
	}
	return nil
}

func filterText(f netlink.Filter) string {
	if b, ok := f.(*netlink.BpfFilter); ok {
		return fmt.Sprintf("%q (bpf, tag %s)", b.Name, b.Tag)
	}
	return f.Type()
}

// ourFilter recognises a filter of ours by handle and name.
func ourFilter(f netlink.Filter) (*netlink.BpfFilter, bool) {
	b, ok := f.(*netlink.BpfFilter)
	if !ok || b.Attrs().Handle != filterHandle || !strings.HasPrefix(b.Name, filterName) {
		return nil, false
	}
	return b, true
}

func (k *Kernel) filters(index int, hook string) ([]netlink.Filter, error) {
	l := &netlink.Dummy{LinkAttrs: netlink.LinkAttrs{Index: index}}
	list, err := dump(func() ([]netlink.Filter, error) { return k.h.FilterList(l, parentOf(hook)) })
	if err != nil {
		return nil, fmt.Errorf("could not list the filters of interface %d: %w", index, err)
	}
	return list, nil
}

// clsactOf returns the kind of qdisc that stands at the ingress hook: "clsact", "ingress" or "". The kernel tells the
// qdiscs of all interfaces or of none, so this is nothing to do for each of thousands.
func (k *Kernel) clsactOf(index int) (string, error) {
	list, err := k.qdiscs()
	if err != nil {
		return "", err
	}
	for _, q := range list {
		if q.Attrs().Parent == netlink.HANDLE_CLSACT && q.Attrs().LinkIndex == index {
			return q.Type(), nil
		}
	}
	return "", nil
}

func (k *Kernel) qdiscs() ([]netlink.Qdisc, error) {
	list, err := dump(func() ([]netlink.Qdisc, error) { return k.h.QdiscList(nil) })
	if err != nil {
		return nil, fmt.Errorf("could not list the qdiscs: %w", err)
	}
	return list, nil
}

func clsactQdisc(index int) *netlink.GenericQdisc {
	return &netlink.GenericQdisc{
		QdiscAttrs: netlink.QdiscAttrs{LinkIndex: index, Handle: netlink.MakeHandle(0xffff, 0), Parent: netlink.HANDLE_CLSACT},
		QdiscType:  "clsact",
	}
}

func (k *Kernel) ensureClsact(index int) error {
	err := k.h.QdiscAdd(clsactQdisc(index))
	if err == nil {
		return nil
	}
	if !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("could not add the qdisc clsact: %w", err)
	}
	kind, err := k.clsactOf(index)
	if err == nil && kind != "clsact" {
		err = fmt.Errorf("could not attach by clsact: the interface has a foreign qdisc %q at its ingress; replace it by clsact", kind)
	}
	return err
}

// which tells filters at a hook of an interface that are meant from all others.
type which func(f netlink.Filter, index int, hook string) bool

// oursBut means our filters at all places but those to keep.
func oursBut(keep func(ruleset.Place) bool) which {
	return func(f netlink.Filter, index int, hook string) bool {
		b, ours := ourFilter(f)
		return ours && !keep(ruleset.Place{Link: index, Hook: hook, Program: strings.TrimPrefix(b.Name, filterName)})
	}
}

// removeClsact removes the filters that are meant from all interfaces, and the qdisc where nothing else uses it.
func (k *Kernel) removeClsact(meant which) error {
	qdiscs, err := k.qdiscs()
	if err != nil {
		return err
	}
	var errs []error
	for _, q := range qdiscs {
		if q.Type() != "clsact" {
			continue
		}
		if err := k.removeFilters(q.Attrs().LinkIndex, meant); err != nil && !k.vanished(q.Attrs().LinkIndex) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

func (k *Kernel) removeFilters(index int, meant which) error {
	removed, left := 0, 0
	for _, hook := range []string{ruleset.Ingress, ruleset.Egress} {
		list, err := k.filters(index, hook)
		if err != nil {
			return err
		}
		for _, f := range list {
			if !meant(f, index, hook) {
				left++
				continue
			}
			f.Attrs().Parent = parentOf(hook)
			if err := k.h.FilterDel(f); err != nil && !errors.Is(err, unix.ENOENT) {
				return fmt.Errorf("could not remove our filter from interface %d: %w", index, err)
			}
			removed++
		}
	}
	if removed == 0 || left > 0 {
		return nil
	}
	if err := k.h.QdiscDel(clsactQdisc(index)); err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("could not remove the empty qdisc clsact: %w", err)
	}
	return nil
}
