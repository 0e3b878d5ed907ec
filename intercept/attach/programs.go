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

	mu      sync.Mutex
	placed  map[ruleset.Place]string // places that hold the program of this process, and by which way
	clean   bool                     // what other processes left was removed
	guarded bool                     // guards are wanted
}

// NewPrograms attaches by path, tcx or clsact; the reason is why. The program function gives programs by name; dir is the
// pin folder.
func NewPrograms(k *Kernel, dir, path, reason string, program func(name string) *ebpf.Program) (*Programs, error) {
	p := &Programs{k: k, dir: filepath.Join(dir, "links"), program: program, path: path, reason: reason, placed: make(map[ruleset.Place]string)}
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

// RemovePrograms detaches every program of ours, whoever attached it.
func (k *Kernel) RemovePrograms(dir string) error {
	links := filepath.Join(dir, "links")
	if err := errors.Join(removeTCX(links, nil), k.removeClsact(oursBut(func(ruleset.Place) bool { return false }))); err != nil {
		return err
	}
	if err := os.Remove(links); err != nil && !errors.Is(err, os.ErrNotExist) && !errors.Is(err, unix.ENOTEMPTY) {
		return fmt.Errorf("could not remove %s: %w", links, err)
	}
	return nil
}
