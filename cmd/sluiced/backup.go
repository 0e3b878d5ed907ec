package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"sluice/cmd/internal/api"
	"sluice/cmd/internal/backup"
	"sluice/cmd/internal/store"
)

// gathering begins the name of the folder in store.dir where a backup is gathered.
const gathering = ".backup-"

// largestNamed bounds a file that the configuration names.
const largestNamed = 64 << 20

// Backup writes what makes this gateway the one it is. All is copied before begin is called, so that nothing waits for who reads.
func (b backend) Backup(_ context.Context, who string, begin func(name string) io.Writer) error {
	d := b.d
	if d.retired() {
		return errRetired
	}
	if !d.backing.TryLock() {
		return &api.Problem{Status: http.StatusConflict, Code: "busy", What: "another backup is being written", Remedy: "wait for its end"}
	}
	defer d.backing.Unlock()
	cfg := d.cfg.Load().Config
	dir, err := os.MkdirTemp(cfg.Store.Dir, gathering+"*")
	if err != nil {
		return fmt.Errorf("could not begin a backup: %w", err)
	}
	defer func() { _ = os.RemoveAll(dir) }() // a later start does it, else
	h := backup.Head{Version: version, Gateway: cfg.Gateway.Name, At: time.Now().UTC().Truncate(time.Second), Config: cfg.File, Dir: cfg.Store.Dir, Account: cfg.Intercept.DaemonUser}
	if h.Files, err = named(append(cfg.Files(), cfg.File), filepath.Join(dir, "files")); err != nil {
		return &api.Problem{Status: http.StatusConflict, Code: "refused", What: "could not copy what the configuration names: " + err.Error(), Remedy: "mend that, and begin again"}
	}
	if err := d.gather(cfg.Store.Dir, filepath.Join(dir, "state")); err != nil {
		return fmt.Errorf("could not copy what is kept: %w", err)
	}
	if err := d.store.Audit(store.Act{Who: who, What: "backup", Subject: cfg.Gateway.Name}); err != nil {
		return err
	}
	d.log.Info("backup written", "by", who)
	return backup.Write(begin(cfg.Gateway.Name+".sluice"), h, dir)
}

// gather copies what a backup has of store.dir: first what is written by turns, each at a moment when it is whole.
func (d *daemon) gather(from, to string) error {
	if err := os.Mkdir(to, 0o700); err != nil {
		return err
	}
	done := map[string]bool{"sluice.db": true}
	for _, f := range d.keptFiles() {
		names, err := f.copyTo(to)
		if err != nil {
			return err
		}
		for _, n := range names {
			done[n] = true
		}
	}
	if err := errors.Join(d.school.saveLessons(), d.saveIdentities(), d.distrust.Save()); err != nil {
		return err
	}
	d.school.saving.Lock()
	defer d.school.saving.Unlock()
	d.dkim.change.Lock()
	defer d.dkim.change.Unlock()
	d.savingGuessers.Lock()
	defer d.savingGuessers.Unlock()
	list, err := os.ReadDir(from)
	if err != nil {
		return err
	}
	for _, e := range list {
		if !backup.Holds(e.Name()) || done[e.Name()] {
			continue
		}
		if err := copyTree(filepath.Join(from, e.Name()), filepath.Join(to, e.Name())); err != nil {
			return err
		}
	}
	return d.store.Backup(filepath.Join(to, "sluice.db"))
}

func (d *daemon) keptFiles() []*keptFile {
	return []*keptFile{&d.counts.keptFile, &d.choices.keptFile, &d.school.keptFile, &d.campaigns.keptFile, &d.habits.keptFile, &d.senders.keptFile, &d.patience.keptFile, d.conduct}
}

// copyTo saves and copies the newer of both files, or both where another process has them, and returns the names of both.
func (c *keptFile) copyTo(dir string) (names []string, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.owner {
		if err := c.save(); err != nil {
			return nil, err
		}
	}
	for i, f := range c.files {
		names = append(names, filepath.Base(f.Name()))
		if c.owner && uint64(i) != c.seq%2 {
			continue
		}
		if err := copyFrom(io.NewSectionReader(f, 0, 1<<40), filepath.Join(dir, names[i])); err != nil {
			return nil, err
		}
	}
	return names, nil
}

// copyTree copies a file, or the files of a folder that are whole.
func copyTree(from, to string) error {
	return filepath.WalkDir(from, func(path string, e fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) || err == nil && strings.HasPrefix(e.Name(), ".") { // gone, or half written
			return nil
		}
		if err != nil {
			return err
		}
		rest, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		switch {
		case e.IsDir():
			return os.MkdirAll(filepath.Join(to, rest), 0o700)
		case !e.Type().IsRegular():
			return nil
		}
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		return errors.Join(copyFrom(f, filepath.Join(to, rest)), f.Close())
	})
}

func copyFrom(r io.Reader, to string) error {
	f, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, r)
	return errors.Join(err, f.Close())
}

// named copies the files at paths, and those in folders of that name, below a folder.
func named(paths []string, to string) (all []backup.Named, err error) {
	for _, path := range paths {
		err := filepath.Walk(path, func(path string, _ fs.FileInfo, err error) error {
			if err != nil {
				return err
			}
			st, err := os.Stat(path) // a link is as good as a file, and becomes one
			if err != nil || !st.Mode().IsRegular() {
				return err
			}
			if st.Size() > largestNamed {
				return fmt.Errorf("%s is larger than %d MiB", path, largestNamed>>20)
			}
			if err := os.MkdirAll(filepath.Join(to, filepath.Dir(path)), 0o700); err != nil {
				return err
			}
			all = append(all, backup.NamedAs(path, st))
			return copyTree(followed(path), filepath.Join(to, path))
		})
		if err != nil {
			return nil, err
		}
	}
	return all, nil
}

// followed is what a link leads to.
func followed(path string) string {
	if to, err := filepath.EvalSymlinks(path); err == nil {
		return to
	}
	return path
}

// strayGathering is how old what a backup gathers has to be until nobody can be writing it any more.
const strayGathering = 10 * time.Minute

// removeGathered removes what backups left that were killed.
func removeGathered(dir string) error {
	list, err := filepath.Glob(filepath.Join(dir, gathering+"*"))
	for _, one := range list {
		if st, serr := os.Stat(one); serr == nil && time.Since(st.ModTime()) > strayGathering {
			err = errors.Join(err, os.RemoveAll(one))
		}
	}
	return err
}
