package attach

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"

	"sluice/intercept/ruleset"
)

// pinName is where the link of a place is pinned. The program's name is in it, because a link must not outlive a change
// of the interface's header.
func pinName(pl ruleset.Place) string { return fmt.Sprintf("%d-%s-%s", pl.Link, pl.Hook, pl.Program) }

// putTCX attaches at the head and pins the link, or swaps the program of the link that is pinned there.
func (p *Programs) putTCX(pl ruleset.Place, prog *ebpf.Program) error {
	pin := filepath.Join(p.dir, pinName(pl))
	old, err := link.LoadPinnedLink(pin, nil)
	if err == nil {
		defer old.Close()
		if tcxAlive(old, pl) {
			if p.placed[pl] == TCX {
				return nil
			}
			if err := old.Update(prog); err != nil {
				return fmt.Errorf("could not swap %s: %w", pl.Program, err)
			}
			return nil
		}
		if err := os.Remove(pin); err != nil {
			return fmt.Errorf("could not remove the pin of a dead link: %w", err)
		}
	} else if !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("could not open the pinned link %s: %w", pin, err)
	}
	at := ebpf.AttachTCXIngress
	if pl.Hook == ruleset.Egress {
		at = ebpf.AttachTCXEgress
	}
	l, err := link.AttachTCX(link.TCXOptions{Interface: pl.Link, Program: prog, Attach: at, Anchor: link.Head()})
	if err != nil {
		return fmt.Errorf("could not attach %s: %w", pl.Program, err)
	}
	defer l.Close()
	if err := l.Pin(pin); err != nil {
		return fmt.Errorf("could not pin the link of %s: %w", pl.Program, err)
	}
	return nil
}

// tcxAlive tells whether a link still holds the interface; the kernel cuts it when the interface goes.
func tcxAlive(l link.Link, pl ruleset.Place) bool {
	info, err := l.Info()
	if err != nil || info.TCX() == nil {
		return false
	}
	return int(info.TCX().Ifindex) == pl.Link
}

// pinnedAlive tells whether an earlier process left a link at the place that still holds.
func (p *Programs) pinnedAlive(pl ruleset.Place) bool {
	old, err := link.LoadPinnedLink(filepath.Join(p.dir, pinName(pl)), nil)
	if err != nil {
		return false
	}
	defer old.Close()
	return tcxAlive(old, pl)
}

// removeTCX unpins, and so detaches, every link but those of the pins to keep.
func removeTCX(dir string, keep map[string]bool) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("could not read the pinned links: %w", err)
	}
	var errs []error
	for _, e := range entries {
		if !keep[e.Name()] {
			errs = append(errs, removePin(dir, e.Name()))
		}
	}
	return errors.Join(errs...)
}

func removePin(dir, name string) error {
	if err := os.Remove(filepath.Join(dir, name)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("could not detach %s: %w", name, err)
	}
	return nil
}
