package room

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// The filters of the programs at the door.
const (
	filterHandle   = 0x51c8
	filterPriority = 1
	filterName     = "sluice-door"
)

// hang puts the programs at the door's ends, or in the place of others of ours, and takes away what an earlier process left
// that came by the other way or stood where nothing stands any more.
func (r *Room) hang(p Programs, outer, inner int) error {
	for _, e := range []struct {
		h     *netlink.Handle
		index int
		prog  *ebpf.Program
		there func(func() error) error
	}{
		{r.outside, outer, p.Outer, func(f func() error) error { return f() }},
		{r.inside, inner, p.Inner, r.Do},
	} {
		var err error
		if p.TCX {
			if err = e.there(func() error { return putTCX(e.index, e.prog) }); err == nil {
				err = removeFilters(e.h, e.index, true)
			}
		} else if err = putFilter(e.h, e.index, e.prog); err == nil {
			err = errors.Join(e.there(func() error { return removeTCX(e.index, e.prog) }), removeFilters(e.h, e.index, false))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// putTCX attaches a program before all others, or in the place of an older one of its name.
func putTCX(index int, p *ebpf.Program) error {
	id, err := idOf(p)
	if err != nil {
		return err
	}
	at, err := atTCX(index)
	if err != nil {
		return fmt.Errorf("could not list the programs of the door: %w", err)
	}
	for _, a := range at {
		if a.ID == id {
			return nil
		}
	}
	old, err := sameName(at, p)
	if err != nil {
		return err
	}
	o := link.RawAttachProgramOptions{Target: index, Program: p, Attach: ebpf.AttachTCXIngress, Anchor: link.Head()}
	if old != nil {
		defer old.Close()
		o.Anchor = link.ReplaceProgram(old)
	}
	if err := link.RawAttachProgram(o); err != nil {
		return fmt.Errorf("could not attach a program to the door: %w", err)
	}
	return nil
}

// removeTCX takes away a program of that name. A kernel without tcx has none.
func removeTCX(index int, p *ebpf.Program) error {
	at, err := atTCX(index)
	if err != nil || len(at) == 0 {
		return nil
	}
	old, err := sameName(at, p)
	if old == nil || err != nil {
		return err
	}
	defer old.Close()
	if err := link.RawDetachProgram(link.RawDetachProgramOptions{Target: index, Program: old, Attach: ebpf.AttachTCXIngress}); err != nil {
		return fmt.Errorf("could not take a program from the door: %w", err)
	}
	return nil
}

func atTCX(index int) ([]link.AttachedProgram, error) {
	q, err := link.QueryPrograms(link.QueryOptions{Target: index, Attach: ebpf.AttachTCXIngress})
	if err != nil {
		return nil, err
	}
	return q.Programs, nil
}

// sameName finds the program that an earlier process attached; nil is none. Only who may enter the room may look at programs of
// others, so whatever stands there where that is forbidden is not ours.
func sameName(at []link.AttachedProgram, p *ebpf.Program) (*ebpf.Program, error) {
	mine, err := p.Info()
	if err != nil {
		return nil, fmt.Errorf("could not tell the name of a program: %w", err)
	}
	for _, a := range at {
		if _, linked := a.LinkID(); linked {
			continue // somebody else's
		}
		old, err := ebpf.NewProgramFromID(a.ID)
		if errors.Is(err, unix.EPERM) || errors.Is(err, unix.ENOENT) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("could not look at a program of the door: %w", err)
		}
		if info, err := old.Info(); err == nil && info.Name == mine.Name {
			return old, nil
		}
		old.Close()
	}
	return nil, nil
}

func idOf(p *ebpf.Program) (ebpf.ProgramID, error) {
	info, err := p.Info()
	if err != nil {
		return 0, fmt.Errorf("could not tell the id of a program: %w", err)
	}
	id, _ := info.ID()
	return id, nil
}

// putFilter does the same by a filter of the qdisc clsact.
func putFilter(h *netlink.Handle, index int, p *ebpf.Program) error {
	id, err := idOf(p)
	if err != nil {
		return err
	}
	if err := h.QdiscAdd(clsact(index)); err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("could not add the qdisc clsact to the door: %w", err)
	}
	list, err := filters(h, index, netlink.HANDLE_MIN_INGRESS)
	if err != nil {
		return err
	}
	for _, f := range list {
		if b, ours := ourFilter(f); ours && b.Id == int(id) {
			return nil
		}
	}
	err = h.FilterReplace(&netlink.BpfFilter{
		FilterAttrs: netlink.FilterAttrs{LinkIndex: index, Parent: netlink.HANDLE_MIN_INGRESS, Handle: filterHandle, Protocol: unix.ETH_P_ALL, Priority: filterPriority},
		Fd:          p.FD(), Name: filterName, DirectAction: true,
	})
	if err != nil {
		return fmt.Errorf("could not attach a program to the door: %w", err)
	}
	return nil
}

// removeFilters takes our filters away from an end's egress, where earlier versions had one, and if told so from its ingress,
// too, and the qdisc where nothing else uses it: it alone would have every packet of the machine that leaves look for programs.
func removeFilters(h *netlink.Handle, index int, ingress bool) error {
	removed, left := 0, 0
	for _, hook := range []uint32{netlink.HANDLE_MIN_INGRESS, netlink.HANDLE_MIN_EGRESS} {
		list, err := filters(h, index, hook)
		if err != nil {
			return err
		}
		for _, f := range list {
			if _, ours := ourFilter(f); !ours || hook == netlink.HANDLE_MIN_INGRESS && !ingress {
				left++
				continue
			}
			f.Attrs().Parent = hook
			if err := h.FilterDel(f); err != nil && !errors.Is(err, unix.ENOENT) {
				return fmt.Errorf("could not take a filter from the door: %w", err)
			}
			removed++
		}
	}
	if removed == 0 || left > 0 {
		return nil
	}
	if err := h.QdiscDel(clsact(index)); err != nil && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.EINVAL) {
		return fmt.Errorf("could not take the qdisc clsact from the door: %w", err)
	}
	return nil
}

func filters(h *netlink.Handle, index int, hook uint32) ([]netlink.Filter, error) {
	list, err := h.FilterList(&netlink.Dummy{LinkAttrs: netlink.LinkAttrs{Index: index}}, hook)
	if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
		return nil, fmt.Errorf("could not list the filters of the door: %w", err)
	}
	return list, nil
}

func ourFilter(f netlink.Filter) (*netlink.BpfFilter, bool) {
	b, ok := f.(*netlink.BpfFilter)
	return b, ok && b.Attrs().Handle == filterHandle
}

func clsact(index int) *netlink.GenericQdisc {
	return &netlink.GenericQdisc{QdiscType: "clsact", QdiscAttrs: netlink.QdiscAttrs{
		LinkIndex: index, Handle: netlink.MakeHandle(0xffff, 0), Parent: netlink.HANDLE_CLSACT}}
}
