package attach

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"sluice/intercept/ruleset"
)

// The ways to attach a program.
const (
	TCX    = "tcx"
	Clsact = "clsact"
)

// Interface is one interface with what stands there.
type Interface struct {
	Link    ruleset.Link
	Role    string
	Path    string // "" when nothing is attached
	Problem string // why not, or what is in the way
}

// Programs keeps the programs of one pin folder at the interfaces. Its methods may be called at the same time.
type Programs struct {
	k       *Kernel
	dir     string
	program func(name string) *ebpf.Program
	path    string
	reason  string

	mu    sync.Mutex
	fresh map[ruleset.Place]bool // places that hold the program of this process
}

// NewPrograms attaches by path, tcx or clsact; the reason is why. The program function gives programs by name; dir is the
// pin folder.
func NewPrograms(k *Kernel, dir, path, reason string, program func(name string) *ebpf.Program) (*Programs, error) {
	p := &Programs{k: k, dir: filepath.Join(dir, "links"), program: program, path: path, reason: reason, fresh: make(map[ruleset.Place]bool)}
	if path != TCX && path != Clsact {
		return nil, fmt.Errorf("could not attach by %q: use tcx or clsact", path)
	}
	if p.path != TCX {
		return p, nil
	}
	if err := os.MkdirAll(p.dir, 0o700); err != nil {
		return nil, fmt.Errorf("could not make the folder of the pinned links: %w", err)
	}
	return p, nil
}

// Path returns the way in use and why.
func (p *Programs) Path() (path, reason string) { return p.path, p.reason }

// TryTCX attaches a program that does nothing to the loopback by tcx, for a moment.
func (k *Kernel) TryTCX() error {
	lo, err := k.h.LinkByName("lo")
	if err != nil {
		return err
	}
	prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "sluice_trial", Type: ebpf.SchedCLS, License: "MIT",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, -1), asm.Return()}, // -1: go on to the next program
	})
	if err != nil {
		return err
	}
	defer prog.Close()
	l, err := link.AttachTCX(link.TCXOptions{Interface: lo.Attrs().Index, Program: prog, Attach: ebpf.AttachTCXIngress})
	if err != nil {
		return err
	}
	return l.Close()
}

// Sync makes programs stand where the seats say and nowhere else. A seat that fails does not keep the others from being
// served; its interface carries the problem. The error is about removing what is no longer wanted.
func (p *Programs) Sync(seats []ruleset.Seat) ([]Interface, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	wanted := make(map[ruleset.Place]bool)
	out := make([]Interface, 0, len(seats))
	for _, s := range seats {
		i := Interface{Link: s.Link, Role: s.Role, Problem: s.Refused}
		for _, pl := range s.Places {
			wanted[pl] = true
			note, err := p.put(pl)
			switch {
			case err != nil:
				i.Path, i.Problem = "", err.Error()
			case i.Problem == "":
				i.Path, i.Problem = p.path, note
			}
			if err != nil {
				break
			}
		}
		out = append(out, i)
	}
	for pl := range p.fresh {
		if !wanted[pl] {
			delete(p.fresh, pl)
		}
	}
	return out, p.removeOthers(wanted)
}

// put lets one program stand at one place; the note names what is not wrong but worth knowing.
func (p *Programs) put(pl ruleset.Place) (note string, err error) {
	prog := p.program(pl.Program)
	if prog == nil {
		return "", fmt.Errorf("could not attach %s: no such program", pl.Program)
	}
	if p.path == TCX {
		err = p.putTCX(pl, prog)
	} else {
		note, err = p.putClsact(pl, prog)
	}
	if err == nil {
		p.fresh[pl] = true
	}
	return note, err
}

// removeOthers detaches our programs from places that are not wanted, and those of the way that is not in use.
func (p *Programs) removeOthers(wanted map[ruleset.Place]bool) error {
	tcx, clsact := wanted, wanted
	if p.path == TCX {
		clsact = nil
	} else {
		tcx = nil
	}
	return errors.Join(removeTCX(p.dir, tcx), p.k.removeClsact(clsact))
}

// RemovePrograms detaches every program of ours, whoever attached it.
func (k *Kernel) RemovePrograms(dir string) error {
	links := filepath.Join(dir, "links")
	if err := errors.Join(removeTCX(links, nil), k.removeClsact(nil)); err != nil {
		return err
	}
	if err := os.Remove(links); err != nil && !errors.Is(err, os.ErrNotExist) && !errors.Is(err, unix.ENOTEMPTY) {
		return fmt.Errorf("could not remove %s: %w", links, err)
	}
	return nil
}
