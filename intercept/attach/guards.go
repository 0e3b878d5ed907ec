package attach

import (
	"errors"
	"os"
	"path/filepath"
	"strings"

	"github.com/vishvananda/netlink"
)

// RemoveGuards takes the guards off the uplinks, whoever attached them, and leaves all other programs.
func (k *Kernel) RemoveGuards(dir string) error {
	links := filepath.Join(dir, "links")
	entries, err := os.ReadDir(links)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	keep := make(map[string]bool)
	for _, e := range entries {
		keep[e.Name()] = !strings.Contains(e.Name(), guard)
	}
	return errors.Join(removeTCX(links, keep), k.removeClsact(func(f netlink.Filter, _ int, _ string) bool {
		b, ours := ourFilter(f)
		return ours && strings.HasPrefix(b.Name, filterName+guard)
	}))
}

const guard = "uplink_guard" // also with a suffix
