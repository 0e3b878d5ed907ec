package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"sluice/cmd/internal/config"
	"sluice/filter/sign"
	"sluice/proxy/durable"
)

// dkimKeys are the keys that sign, on disk: a folder with a file for each, named as its record in the DNS.
type dkimKeys struct {
	dir  string
	ring *sign.Ring
	log  *slog.Logger

	change sync.Mutex // one change of the folder at a time
	mu     sync.Mutex // guards what follows
	told   map[string]time.Time
	alarm  func(key string, err error) // hears of keys that cannot be read; nil: not yet
	looked map[string]looked
}

// looked is what the DNS said of a key's record when it was asked last.
type looked struct {
	at  time.Time
	err error
}

// tellAgain is how long nobody is told again of a key that cannot be read.
const tellAgain = time.Hour

const recordInfix = "._domainkey."

func dkimDir(cfg *config.Config) string { return filepath.Join(cfg.Store.Dir, "dkim") }

// openDKIM reads the folder.
func openDKIM(dir string, log *slog.Logger) *dkimKeys {
	k := &dkimKeys{dir: dir, log: log, told: map[string]time.Time{}, looked: map[string]looked{}, ring: sign.NewRing(nil)}
	k.read()
	return k
}

// read reads the folder anew. A key that cannot be read is told of, and signs nothing: mail goes on.
func (k *dkimKeys) read() {
	k.change.Lock()
	defer k.change.Unlock()
	files, err := os.ReadDir(k.dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		k.log.Error("could not read the folder of the keys that sign mail; those known before go on", "folder", k.dir, "err", err)
		return
	}
	var all []*sign.Held
	for _, f := range files {
		selector, domain, ok := strings.Cut(f.Name(), recordInfix)
		if !ok || strings.HasPrefix(selector, ".") { // half written
			continue
		}
		h, err := readKey(filepath.Join(k.dir, f.Name()))
		if err == nil && (h.Selector != selector || h.Domain != domain) {
			err = fmt.Errorf("it holds the key %s of %s; put the right file back", h.Selector, h.Domain)
		}
		if err != nil {
			h = &sign.Held{Domain: domain, Selector: selector, Err: err}
			k.unreadable(f.Name(), err)
		}
		all = append(all, h)
	}
	k.ring.Replace(all)
}

func readKey(path string) (*sign.Held, error) {
	st, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if st.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("others may read it (mode %04o); chmod 600 it, and rotate the key", st.Mode().Perm())
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	h := new(sign.Held)
	if err := json.Unmarshal(text, h); err != nil {
		return nil, errors.New("it is no key file; put a copy back, or remove the key")
	}
	return h, nil
}

// unreadable tells of a key that cannot be read, once an hour.
func (k *dkimKeys) unreadable(name string, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if time.Since(k.told[name]) < tellAgain {
		return
	}
	k.told[name] = time.Now()
	k.log.Error("a key that signs mail cannot be read; its mail goes unsigned", "key", name, "err", err)
	if k.alarm != nil {
		k.alarm(name, err)
	}
}

// hear has alarm hear of keys that cannot be read, also of those that were found before. It must not wait for anything.
func (k *dkimKeys) hear(alarm func(key string, err error)) {
	k.mu.Lock()
	k.alarm = alarm
	k.mu.Unlock()
	for _, h := range k.ring.All() {
		if h.Err != nil {
			alarm(h.Name(), h.Err)
		}
	}
}

// put writes a key and has it sign. After an error nothing has changed.
func (k *dkimKeys) put(h *sign.Held) error {
	text, err := json.Marshal(h)
	if err == nil {
		err = os.MkdirAll(k.dir, 0o700)
	}
	if err == nil {
		err = durable.WriteFile(filepath.Join(k.dir, h.Name()), text, 0o600)
	}
	if err != nil {
		return fmt.Errorf("could not write the key %s: %w", h.Name(), err)
	}
	k.ring.Put(h)
	return nil
}

// remove removes a key for good.
func (k *dkimKeys) remove(h *sign.Held) error {
	err := os.Remove(filepath.Join(k.dir, h.Name()))
	if err == nil || errors.Is(err, fs.ErrNotExist) {
		err = durable.SyncFolder(k.dir)
	}
	if err != nil {
		return fmt.Errorf("could not remove the key %s: %w", h.Name(), err)
	}
	k.ring.Remove(h.Domain, h.Selector)
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.looked, h.Name())
	delete(k.told, h.Name())
	return nil
}

// note keeps what the DNS said of a key's record.
func (k *dkimKeys) note(h *sign.Held, at time.Time, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.looked[h.Name()] = looked{at, err}
}

func (k *dkimKeys) last(h *sign.Held) (looked, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	l, ok := k.looked[h.Name()]
	return l, ok
}
