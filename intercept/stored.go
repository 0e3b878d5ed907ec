package intercept

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"sluice/intercept/control"
)

// stored is what the helper keeps on disk for the next boot. Everything else comes from root's configuration.
type stored struct {
	Version int              `json:"version"`
	Sources []control.Source `json:"sources,omitempty"` // of helpers that had no journal
	Locks   []control.Lock   `json:"locks"`
}

const (
	storedVersion = 1
	storedName    = "applied.json"
)

// loadStored reads the last applied state; a folder that has none gives an empty one.
func loadStored(dir string) (*stored, error) {
	name := filepath.Join(dir, storedName)
	b, err := os.ReadFile(name)
	if errors.Is(err, os.ErrNotExist) {
		return &stored{Version: storedVersion}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("could not read the last applied state: %w", err)
	}
	s := new(stored)
	err = json.Unmarshal(b, s)
	if err == nil && s.Version != storedVersion {
		err = fmt.Errorf("version %d instead of %d", s.Version, storedVersion)
	}
	if err != nil {
		return nil, fmt.Errorf("could not read the last applied state in %s: %w; remove the file: the proxy sends its users and locks again", name, err)
	}
	return s, nil
}

// save writes the state so that a crash at any moment leaves the old or the new one.
func (s *stored) save(dir string) error {
	b, err := json.Marshal(s)
	if err != nil {
		return fmt.Errorf("could not write the applied state: %w", err)
	}
	if err := writeDurably(dir, storedName, b); err != nil {
		return fmt.Errorf("could not write the applied state to %s: %w", dir, err)
	}
	return nil
}

func writeDurably(dir, name string, b []byte) (err error) {
	f, err := os.CreateTemp(dir, name+".*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(f.Name()))
		}
	}()
	_, err = f.Write(b)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), filepath.Join(dir, name)); err != nil {
		return err
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// removeStored removes the state, and what a crash may have left of writing it.
func removeStored(dir string) error {
	var files []string
	for _, name := range []string{storedName, bypassName, journalName, exemptName} {
		found, err := filepath.Glob(filepath.Join(dir, name+"*"))
		if err != nil {
			return err
		}
		files = append(files, found...)
	}
	for _, f := range files {
		if err := os.Remove(f); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("could not remove the applied state: %w", err)
		}
	}
	return nil
}
