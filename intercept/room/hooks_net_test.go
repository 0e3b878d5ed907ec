//go:build nettest

package room

import (
	"fmt"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// hanging tells what stands at the ends of a door: programs by tcx, filters at ingress and egress.
func hanging(t *testing.T, r *Room, d Door) string {
	t.Helper()
	inner, err := r.inside.LinkByName(innerName)
	must(t, err)
	at := func(h *netlink.Handle, index int) string {
		q, err := link.QueryPrograms(link.QueryOptions{Target: index, Attach: ebpf.AttachTCXIngress})
		must(t, err)
		text := fmt.Sprint(programNames(t, q.Programs))
		for _, hook := range []uint32{netlink.HANDLE_MIN_INGRESS, netlink.HANDLE_MIN_EGRESS} {
			list, err := filters(h, index, hook)
			must(t, err)
			text += fmt.Sprintf(" %d", len(list))
		}
		return text
	}
	out := at(r.outside, d.Index)
	must(t, r.Do(func() error { out += ", " + at(r.inside, inner.Attrs().Index); return nil }))
	return out
}

func programNames(t *testing.T, list []link.AttachedProgram) (names []string) {
	t.Helper()
	for _, a := range list {
		p, err := ebpf.NewProgramFromID(a.ID)
		must(t, err)
		info, err := p.Info()
		must(t, err)
		names = append(names, info.Name)
		p.Close()
	}
	return names
}

// TestHooks: whatever stood at the door before, one program stands at each end afterwards, and those of others.
func TestHooks(t *testing.T) {
	t.Parallel()
	first, second, third := idle(t), idle(t), idle(t)
	first.TCX, second.TCX = true, true
	foreign := named(t, "foreign")
	gateway(t, func() {
		r, err := New()
		must(t, err)
		defer r.Close()
		d := furnished(t, r, first)
		const byTCX = "[outer] 0 0, [inner] 0 0"
		if got := hanging(t, r, d); got != byTCX {
			t.Errorf("at a new door there are %s, want %s", got, byTCX)
		}
		must(t, link.RawAttachProgram(link.RawAttachProgramOptions{Target: d.Index, Program: foreign, Attach: ebpf.AttachTCXIngress, Anchor: link.Head()}))
		for i, step := range []struct {
			p    Programs
			want string
		}{
			{first, "[foreign outer] 0 0, [inner] 0 0"},
			{second, "[foreign outer] 0 0, [inner] 0 0"}, // of a newer process: in the older one's place
			{third, "[foreign] 1 0, [] 1 0"},
			{first, "[outer foreign] 0 0, [inner] 0 0"},
		} {
			furnished(t, r, step.p)
			if got := hanging(t, r, d); got != step.want {
				t.Errorf("step %d: at the door there are %s, want %s", i, got, step.want)
			}
		}
		q, err := link.QueryPrograms(link.QueryOptions{Target: d.Index, Attach: ebpf.AttachTCXIngress})
		must(t, err)
		if id, err := idOf(first.Outer); err != nil || q.Programs[0].ID != id {
			t.Errorf("at the outer end is program %v, want %v, %v", q.Programs[0].ID, id, err)
		}
	})
}

// TestHooksOfAnOlderVersion has filters at all three places where it put them.
func TestHooksOfAnOlderVersion(t *testing.T) {
	t.Parallel()
	old, tcx := idle(t), idle(t)
	tcx.TCX = true
	gateway(t, func() {
		r, err := New()
		must(t, err)
		defer r.Close()
		for _, step := range []struct {
			p    Programs
			want string
		}{{old, "[] 1 0, [] 1 0"}, {tcx, "[outer] 0 0, [inner] 0 0"}} {
			d := furnished(t, r, old)
			inner, err := r.inside.LinkByName(innerName)
			must(t, err)
			must(t, r.inside.FilterReplace(&netlink.BpfFilter{
				FilterAttrs: netlink.FilterAttrs{LinkIndex: inner.Attrs().Index, Parent: netlink.HANDLE_MIN_EGRESS, Handle: filterHandle, Protocol: unix.ETH_P_ALL, Priority: filterPriority},
				Fd:          old.Inner.FD(), Name: filterName, DirectAction: true,
			}))
			furnished(t, r, step.p)
			if got := hanging(t, r, d); got != step.want {
				t.Errorf("at the door there are %s, want %s", got, step.want)
			}
		}
	})
}
