package intercept

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"sluice/bpf"
	"sluice/intercept/attach"
	"sluice/intercept/control"
	"sluice/intercept/nft"
	"sluice/intercept/ruleset"
	"sluice/intercept/trial"
)

// openPath opens the data path: the one that the configuration names, or the first that a trial finds good.
func (e *Engine) openPath() error {
	const said = "the configuration says so"
	switch e.cfg.Path {
	case attach.TCX, attach.Clsact:
		return e.openBPF(e.cfg.Path, said)
	case nft.Path:
		return e.openNft(said)
	}
	var failed reasons
	c := chooser{e.cfg, e.kernel}
	path, reason := c.hook(&failed)
	if path != "" {
		err := e.openBPF(path, reason)
		if err == nil {
			return nil
		}
		failed.add("BPF", err)
	}
	if err := c.nftables(&failed); err != nil {
		return err
	}
	return e.openNft(failed.String())
}

// TryPath tells which data path a helper with this configuration would take on this host, and why. It changes nothing.
func TryPath(cfg *Config) (path, reason string, err error) {
	k, err := attach.Open()
	if err != nil {
		return "", "", err
	}
	defer k.Close()
	var failed reasons
	c := chooser{cfg, k}
	switch cfg.Path {
	case attach.TCX:
		err = c.try(trial.TCX)
	case attach.Clsact:
		err = c.try(trial.Clsact)
	case nft.Path:
		err = c.nftables(&failed)
	default:
		if path, reason = c.hook(&failed); path != "" {
			return path, reason, nil
		}
		err = c.nftables(&failed)
		return nft.Path, failed.String(), err
	}
	if err != nil && !errors.Is(err, trial.ErrNoNamespace) {
		return "", "", fmt.Errorf("could not send a trial connection by %s: %w", cfg.Path, err)
	}
	return cfg.Path, "the configuration says so", nil
}

// chooser tries data paths.
type chooser struct {
	cfg    *Config
	kernel *attach.Kernel
}

func (c chooser) try(divert func(*trial.Gateway) (func(), error)) error {
	return trial.Run(c.cfg.Plan(), trialListener, divert)
}

// reasons are why ways were not taken.
type reasons []string

func (r *reasons) add(way string, err error) {
	*r = append(*r, fmt.Sprintf("a trial of %s failed: %v", way, err))
}

func (r reasons) String() string { return strings.Join(r, "; ") }

// hook tries a connection by tcx, then by clsact. Where the rights do not suffice for that, it tries at least
// whether tcx is there. The path is "" if none works.
func (c chooser) hook(failed *reasons) (path, reason string) {
	for _, way := range []struct {
		path   string
		divert func(*trial.Gateway) (func(), error)
	}{{attach.TCX, trial.TCX}, {attach.Clsact, trial.Clsact}} {
		err := c.try(way.divert)
		if errors.Is(err, trial.ErrNoNamespace) {
			return c.blind(err)
		}
		if err == nil {
			return way.path, strings.Join(append(*failed, "a trial connection by "+way.path+" succeeded"), "; ")
		}
		failed.add(way.path, err)
	}
	return "", ""
}

func (c chooser) blind(why error) (path, reason string) {
	left := fmt.Sprintf("; no trial connection was made: %v", why)
	if err := c.kernel.TryTCX(); err != nil {
		return attach.Clsact, fmt.Sprintf("a trial of tcx failed: %v%s", err, left)
	}
	return attach.TCX, "a trial of tcx succeeded" + left
}

// trialListener listens on a port that the kernel chooses.
func trialListener() (*os.File, error) { return listen(0) }

// nftables sends a connection through the table. The error names every way that failed.
func (c chooser) nftables(failed *reasons) error {
	err := c.try(func(g *trial.Gateway) (func(), error) {
		return func() {}, nft.Try(c.cfg.datapath(), g.Port(), ruleset.Seat{Link: g.Link, Role: ruleset.Customer})
	})
	if err == nil || errors.Is(err, trial.ErrNoNamespace) {
		return nil
	}
	failed.add(nft.Path, err)
	return fmt.Errorf("could not find a data path: %s", failed)
}

// room tells why there can be no room for the proxy's sockets; nil means that a connection got there.
func (c chooser) room(path string) error {
	return c.try(trial.InRoom(path == attach.TCX))
}

// TryRoom tells why a helper with this configuration would need policy rules, though it takes a path that could do without;
// nil means that it would not. It changes nothing.
func TryRoom(cfg *Config, path string) error { return chooser{cfg: cfg}.room(path) }

func (e *Engine) openBPF(path, reason string) error {
	if err := attach.EnsurePinDir(e.cfg.PinDir); err != nil {
		return err
	}
	// Room for every prefix that may be set at run time; the tables are not allocated ahead.
	sizes := bpf.Options{MaxHosts: control.MaxEntries, MaxNets: control.MaxEntries, MaxUsers: control.MaxEntries, Slots: control.MaxEntries}
	data, err := bpf.Open(e.cfg.PinDir, sizes)
	if err != nil {
		return errors.Join(err, removeEmpty(e.cfg.PinDir))
	}
	programs, err := attach.NewPrograms(e.kernel, e.cfg.PinDir, path, reason, data.Program)
	if err != nil {
		return errors.Join(err, data.Close())
	}
	e.data, e.adopted, e.seats = data, data, programs
	if err := (chooser{e.cfg, e.kernel}).room(path); err != nil {
		e.log.Warn("policy rules deliver to the proxy, which slows down every packet that is forwarded", "error", err)
		e.quarters.set(nil, err)
	}
	e.others = nft.Remove
	if maps := data.Migrated(); len(maps) > 0 {
		e.log.Info("maps of another version are carried over to new ones", "maps", maps)
	}
	return nil
}

func (e *Engine) openNft(reason string) error {
	f, err := nft.Open(e.cfg.ListenPort, e.cfg.ports(), reason, e.log)
	if err != nil {
		return err
	}
	e.data, e.seats = f, f
	e.others = e.leaveBPF
	return nil
}

// removeEmpty removes the pin folder, unless an earlier helper left something in it.
func removeEmpty(pinDir string) error {
	if list, err := os.ReadDir(pinDir); err != nil || len(list) > 0 {
		return err
	}
	return attach.RemovePinDir(pinDir)
}

// removeBPF detaches every program of ours and unpins every map.
func removeBPF(k *attach.Kernel, pinDir string) error {
	return errors.Join(k.RemovePrograms(pinDir), k.RemoveObservers(), bpf.Remove(pinDir), attach.RemovePinDir(pinDir))
}
