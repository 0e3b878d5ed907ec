package intercept

import (
	"sluice/bpf"
	"sluice/intercept/attach"
	"sluice/intercept/control"
)

// openPath opens the data path.
func (e *Engine) openPath() error {
	// Room for every prefix that may be set at run time; the tables are not allocated ahead.
	sizes := bpf.Options{MaxHosts: control.MaxEntries, MaxNets: control.MaxEntries, MaxUsers: control.MaxEntries}
	data, err := bpf.Open(e.cfg.PinDir, sizes)
	if err != nil {
		return err
	}
	e.data, e.adopted = data, data
	if maps := data.Migrated(); len(maps) > 0 {
		e.log.Info("maps of another version are carried over to new ones", "maps", maps)
	}
	e.seats, err = attach.NewPrograms(e.kernel, e.cfg.PinDir, e.cfg.Path, data.Program)
	return err
}
