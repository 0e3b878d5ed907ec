package main

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"sluice/cmd/internal/api"
	"sluice/cmd/internal/backup"
	"sluice/cmd/internal/config"
	"sluice/proxy/durable"
)

// restore is one restore.
type restore struct {
	file, config, socket string
	check, replace       bool

	dir    string   // store.dir
	before string   // where what stood there is now
	put    []string // files of the configuration
	differ []string // those that were there, and are other ones
}

// run puts the backup back. The configuration comes last, and itself as the last file: without it no daemon starts.
func (r *restore) run(h *backup.Head) error {
	if os.Geteuid() != 0 {
		return &api.Problem{What: "restore writes what belongs to root and to sluiced", Remedy: "become root; --check needs only the file"}
	}
	uid, gid, err := r.target(h)
	if err != nil {
		return err
	}
	if err := r.free(); err != nil {
		return err
	}
	if err := os.Mkdir(r.dir, 0o750); err == nil {
		err = os.Chown(r.dir, uid, gid)
		if err != nil {
			return err
		}
	} else if !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("could not make store.dir: %w", err)
	}
	if _, err := backup.Unpack(r.file, r.dir, uid, gid); err != nil {
		return err
	}
	err = r.free() // again: it may have been started meanwhile
	if err == nil {
		r.before, err = backup.Commit(r.dir)
	}
	if err == nil {
		err = r.configure(h)
	}
	return errors.Join(err, backup.Discard(r.dir))
}

// target finds store.dir and the account of sluiced, by the configuration of this host where it has one.
func (r *restore) target(h *backup.Head) (uid, gid int, err error) {
	own := cmp.Or(r.config, os.Getenv("SLUICE_CONFIG"), h.Config)
	dir, account := h.Dir, h.Account
	switch _, err := os.Stat(own); {
	case err == nil:
		c, err := config.Load(own)
		if err != nil {
			return 0, 0, fmt.Errorf("%w\nThis host has a configuration of its own, which says where to restore to: mend it, or move it away", err)
		}
		dir, account, r.socket = c.Store.Dir, c.Intercept.DaemonUser, c.API.Socket
	case r.config != "":
		return 0, 0, err
	}
	r.dir = dir
	u, err := user.Lookup(account)
	if err != nil {
		return 0, 0, &api.Problem{What: fmt.Sprintf("there is no account %s, as which sluiced runs", account), Remedy: "install Sluice, then run `systemd-sysusers`"}
	}
	if uid, err = strconv.Atoi(u.Uid); err == nil {
		gid, err = strconv.Atoi(u.Gid)
	}
	return uid, gid, err
}

// free makes sure that nobody uses store.dir, and that nothing in it would be lost.
func (r *restore) free() error {
	runs := api.Served(r.socket)
	if f, err := os.Open(filepath.Join(r.dir, "counts.0")); err == nil { // sluiced holds its lock, whatever its socket
		runs = runs || errors.Is(unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB), unix.EWOULDBLOCK)
		_ = durable.Release(f) // only looked at
	}
	if runs {
		return &api.Problem{What: "sluiced runs, and has " + r.dir + " open", Remedy: "`systemctl stop sluiced`, then restore; connections wait for a minute, or go by their fail mode"}
	}
	if _, err := os.Lstat(filepath.Join(r.dir, "sluice.db")); err == nil && !r.replace {
		return &api.Problem{What: "this host has a state of its own in " + r.dir, Remedy: "--replace moves it aside there, and restores"}
	}
	return nil
}

// configure puts the files of the configuration that this host does not have.
func (r *restore) configure(h *backup.Head) error {
	last := func(n backup.Named) int {
		if n.Path == h.Config {
			return 1
		}
		return 0
	}
	all := slices.SortedStableFunc(slices.Values(h.Files), func(a, b backup.Named) int { return last(a) - last(b) })
	for _, n := range all {
		b, err := backup.File(r.dir, n.Path)
		if err != nil {
			return fmt.Errorf("the state is restored, the configuration is not: %w", err)
		}
		there, same, err := fileIs(n.Path, b)
		switch {
		case err == nil && !there:
			err = place(n, b)
			r.put = append(r.put, n.Path)
		case !same:
			r.differ = append(r.differ, n.Path)
		}
		if err != nil {
			return fmt.Errorf("the state is restored, the configuration is not: %w; mend that, and run the same command with --replace", err)
		}
	}
	return nil
}

// place writes a file with its owner and mode.
func place(n backup.Named, b []byte) error {
	if err := os.MkdirAll(filepath.Dir(n.Path), 0o755); err != nil {
		return err
	}
	uid, gid := n.Owners()
	return durable.WriteFileOf(n.Path, b, n.Mode.Perm(), uid, gid)
}

func (r *restore) report(h *backup.Head) string {
	lines := []string{fmt.Sprintf("%s is restored in %s.", h.Gateway, r.dir)}
	if r.before != "" {
		lines = append(lines, "What stood there is in "+r.before+".")
	}
	for _, f := range r.put {
		lines = append(lines, f+" is put back.")
	}
	for _, f := range r.differ {
		lines = append(lines, f+" differs from the backup's, and stays as it is; `tar -xzOf "+r.file+" files"+f+"` prints that.")
	}
	return strings.Join(append(lines, "Next: see that the configuration names this host's interfaces, start sluice-intercept and sluiced, and run `sluice doctor`."), "\n")
}
