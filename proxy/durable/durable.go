// Package durable replaces small files so that a crash at any moment leaves the old or the new one, never a part, and gives up the
// locks of files.
package durable

import (
	"errors"
	"os"
	"path/filepath"
)

// WriteFile puts b into the file at path, with permissions perm. It returns nil only when the text and its name are on the disk.
// On an error the file is as it was, unless only the last step failed, the sync of the folder: then it is the new one.
func WriteFile(path string, b []byte, perm os.FileMode) error {
	return WriteFileOf(path, b, perm, -1, -1)
}

// WriteFileOf does as WriteFile; the file is uid's and gid's before it has its name. With -1 it is whose the process is.
func WriteFileOf(path string, b []byte, perm os.FileMode, uid, gid int) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".new-*")
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if uid != -1 || gid != -1 {
		err = errors.Join(err, f.Chown(uid, gid))
	}
	if err = errors.Join(err, f.Chmod(perm), f.Sync(), f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return SyncFolder(filepath.Dir(path))
}

// SyncFolder puts the names in a folder on the disk.
func SyncFolder(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
