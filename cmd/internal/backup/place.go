package backup

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"sluice/proxy/durable"
)

// Folders in store.dir while a backup is put back. What has been unpacked and checked is renamed to ready: from then on the
// old state is moved to old, by whoever comes next; then ready is renamed to coming, and what it has moved into its place.
const (
	unpacked = ".restore"
	ready    = ".restore-whole"
	coming   = ".restore-coming"
	old      = ".restore-old"

	aside = "before-restore-" // and the time: what stood there before
)

// Unpack checks a backup and unpacks it beside what is in dir, for the account to own. An interrupted one is removed first.
func Unpack(file, dir string, uid, gid int) (*Content, error) {
	to := filepath.Join(dir, unpacked)
	if err := os.RemoveAll(to); err != nil {
		return nil, err
	}
	if err := os.Mkdir(to, 0o700); err != nil {
		return nil, err
	}
	c, err := read(file, to)
	if err == nil {
		err = settle(to, uid, gid)
	}
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(to))
	}
	return c, nil
}

// settle gives what is below root to an account, and has all names on the disk.
func settle(root string, uid, gid int) error {
	return filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		if err == nil {
			err = os.Lchown(path, uid, gid)
		}
		if err == nil && e.IsDir() {
			err = durable.SyncFolder(path)
		}
		return err
	})
}

// File is what a backup that was unpacked into dir has of the configuration's file at path.
func File(dir, path string) ([]byte, error) {
	return os.ReadFile(filepath.Join(dir, unpacked, filesFolder, path))
}

// Commit puts what was unpacked in the place of what is in dir, whatever interrupts it: it is there in whole, or Finish makes
// it so. It returns the folder of what stood there before, "" where nothing did.
func Commit(dir string) (before string, err error) {
	if err := os.Rename(filepath.Join(dir, unpacked, stateFolder), filepath.Join(dir, ready)); err != nil {
		return "", err
	}
	if err := durable.SyncFolder(dir); err != nil {
		return "", err
	}
	return Finish(dir)
}

// Discard removes what else was unpacked.
func Discard(dir string) error { return os.RemoveAll(filepath.Join(dir, unpacked)) }

// Finish ends a Commit that was interrupted. Who opens what is in dir has to call it first.
func Finish(dir string) (before string, err error) {
	from, to, away := filepath.Join(dir, ready), filepath.Join(dir, coming), filepath.Join(dir, old)
	if st, err := os.Stat(from); err == nil {
		if err := moveOld(dir, away, st); err != nil {
			return "", fmt.Errorf("could not move away what stood in %s before the restore: %w", dir, err)
		}
		if err := errors.Join(os.Rename(from, to), durable.SyncFolder(dir)); err != nil {
			return "", fmt.Errorf("could not go on with the restore in %s: %w", dir, err)
		}
	}
	if err := moveAll(to, dir, func(string) bool { return true }); err != nil {
		return "", fmt.Errorf("could not put what was restored into %s: %w", dir, err)
	}
	if err := os.Remove(to); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	return keepOld(dir, away)
}

// moveOld moves what a backup may have, and the journals of the database, which would be taken for the new one's.
func moveOld(dir, away string, like fs.FileInfo) error {
	if err := os.Mkdir(away, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	if st, ok := like.Sys().(*syscall.Stat_t); ok {
		if err := os.Lchown(away, int(st.Uid), int(st.Gid)); err != nil {
			return err
		}
	}
	for _, name := range indexed {
		if err := linkAll(filepath.Join(dir, name), filepath.Join(away, name)); err != nil {
			return err
		}
	}
	return moveAll(dir, away, func(name string) bool { return Holds(name) || slices.Contains(journals, name) })
}

// indexed are folders whose files the database lists: what it does not know is removed from them, so what is moved aside has them, too.
var indexed = []string{"quarantine", "samples"}

// linkAll gives the files of a folder second names in another one.
func linkAll(from, to string) error {
	list, err := os.ReadDir(from)
	if errors.Is(err, fs.ErrNotExist) || err == nil && len(list) == 0 {
		return nil
	}
	if err != nil {
		return err
	}
	if err := os.Mkdir(to, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	for _, e := range list {
		if !e.Type().IsRegular() {
			continue
		}
		if err := os.Link(filepath.Join(from, e.Name()), filepath.Join(to, e.Name())); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	return durable.SyncFolder(to)
}

// moveAll moves what takes says out of one folder into another, and has that on the disk.
func moveAll(from, to string, takes func(name string) bool) error {
	list, err := os.ReadDir(from)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range list {
		if !takes(e.Name()) {
			continue
		}
		if err := os.Rename(filepath.Join(from, e.Name()), filepath.Join(to, e.Name())); err != nil {
			return err
		}
	}
	return errors.Join(durable.SyncFolder(to), durable.SyncFolder(from))
}

// keepOld gives the folder of what stood there before its name, or removes it where it is empty.
func keepOld(dir, away string) (string, error) {
	if err := os.Remove(away); err == nil || errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	name := filepath.Join(dir, aside+time.Now().UTC().Format("20060102-150405.000"))
	if err := os.Rename(away, name); err != nil {
		return "", err
	}
	return name, durable.SyncFolder(dir)
}
