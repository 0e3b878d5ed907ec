package intercept

import (
	"os"
	"path/filepath"
	"slices"

	"sluice/bpf"
	"sluice/intercept/attach"
	"sluice/intercept/control"
)

// openPath opens the data path.
func (e *Engine) openPath() error {
	_, err := os.Stat(filepath.Join(e.cfg.PinDir, "config")) // a BPF file system does not outlive a boot
	adopted := err == nil
	// Room for every prefix that may be set at run time; the tables are not allocated ahead.
	sizes := bpf.Options{MaxHosts: control.MaxEntries, MaxNets: control.MaxEntries, MaxUsers: control.MaxEntries}
	data, err := bpf.Open(e.cfg.PinDir, sizes)
	if err != nil {
		return err
	}
	e.data = data
	if r := data.Replaced(); len(r) > 0 {
		e.log.Info("pinned maps of another layout were made anew", "maps", r)
	}
	if adopted {
		e.adopted = data
	}
	e.seats, err = attach.NewPrograms(e.kernel, e.cfg.PinDir, e.cfg.Path, data.Program)
	return err
}

// lost tells whether a table that an earlier helper left could not be adopted.
func (e *Engine) lost(table string) bool {
	return e.adopted != nil && slices.Contains(e.adopted.Replaced(), table)
}
