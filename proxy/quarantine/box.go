package quarantine

import (
	"crypto/rand"
	"encoding/base32"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/crypto/chacha20poly1305"

	"sluice/proxy/durable"
	"sluice/proxy/spool"
)

// Options of a Box.
type Options struct {
	Dir     string // where the files are
	KeyFile string
	Index   Index
	Keep    func() time.Duration // how long a message is kept; asked at each clean-up
	Most    func() int64         // bytes of messages that are kept at most
	Alarm   func(error)          // hears what an operator must know; may be nil
	Now     func() time.Time     // may be nil
	create  func(path string) (file, error)
}

// file is one being written.
type file interface {
	io.Writer
	Sync() error
	Close() error
}

// Box keeps messages. Safe for concurrent use; two processes may have one at once.
type Box struct {
	o Options

	rotating sync.RWMutex // held for writing while keys change, for reading from sealing a key until the index has it
	deciding sync.Mutex   // one release or deletion at a time
	tries    [64]sync.Mutex

	mu      sync.RWMutex // guards all below
	keys    *keyring
	users   map[uint32]int // how many entries each user has, as far as this process knows
	bytes   int64          // of messages that are held
	count   int
	counted map[string]counted // tries that the index has not heard of
}

// counted are tries to send a message since the index heard of the last.
type counted struct {
	n  int
	at time.Time // when the index heard of it
}

// tellEvery is how soon the index hears of further tries: a client may try often.
const tellEvery = time.Minute

// Open opens the folder, and makes it and the key file where they are missing. Files that no entry names are removed: what
// they are copies of was answered with a temporary refusal.
func Open(o Options) (*Box, error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Alarm == nil {
		o.Alarm = func(error) {}
	}
	if o.create == nil {
		o.create = func(path string) (file, error) {
			return os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
		}
	}
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("could not make the folder for held messages: %w", err)
	}
	keys, fresh, err := openKeys(o.KeyFile)
	if err != nil {
		return nil, err
	}
	b := &Box{o: o, keys: keys, counted: map[string]counted{}}
	all, err := b.Refresh()
	if err != nil {
		return nil, err
	}
	lost := 0
	for i := range all {
		if _, ok := keys.keys[all[i].KeyID]; !ok && all[i].State == Held {
			lost++
		}
	}
	if lost > 0 {
		how := "is not complete"
		if fresh {
			how = "was missing, a new one was made"
		}
		o.Alarm(fmt.Errorf("the key file of held messages, %s, %s: %d held messages cannot be read; put their keys back from a copy, as further lines before the last", o.KeyFile, how, lost))
	}
	return b, b.compare(all)
}

// Refresh looks into the index for what other processes did, and returns all entries.
func (b *Box) Refresh() ([]Entry, error) {
	all, err := b.o.Index.FindHeld(Query{})
	if err != nil {
		return nil, fmt.Errorf("could not read the index of held messages: %w", err)
	}
	users, bytes, count := map[uint32]int{}, int64(0), 0
	for i := range all {
		users[all[i].User]++
		if all[i].State != Released {
			bytes, count = bytes+all[i].Size, count+1
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.users, b.bytes, b.count = users, bytes, count
	return all, nil
}

// strayAge is how old a file without an entry must be: a younger one may be on its way.
const strayAge = 10 * time.Minute

// compare removes files without entries, and tells of entries without files: a database that was restored has them where the
// folder is another one.
func (b *Box) compare(all []Entry) error {
	missing := 0
	for i := range all {
		if !b.there(&all[i]) {
			missing++
		}
	}
	if missing > 0 {
		b.o.Alarm(fmt.Errorf("%d held messages are listed whose files are not in %s, as after a restore: put the files there from a copy, if there is one", missing, b.o.Dir))
	}
	known := make(map[string]bool, len(all))
	for i := range all {
		known[all[i].ID+suffix] = true
	}
	list, err := os.ReadDir(b.o.Dir)
	if err != nil {
		return fmt.Errorf("could not list held messages: %w", err)
	}
	for _, f := range list {
		st, err := f.Info()
		if err != nil || known[f.Name()] || !strings.HasSuffix(f.Name(), suffix) || b.o.Now().Sub(st.ModTime()) < strayAge {
			continue
		}
		if err := os.Remove(filepath.Join(b.o.Dir, f.Name())); err != nil {
			return fmt.Errorf("could not remove a file that belongs to no held message: %w", err)
		}
	}
	return nil
}

const suffix = ".held"

func (b *Box) path(id string) string { return filepath.Join(b.o.Dir, id+suffix) }

// Has tells whether something is kept of a user's mail. It costs a few nanoseconds.
func (b *Box) Has(user uint32) bool {
	b.mu.RLock()
	defer b.mu.RUnlock()
	return b.users[user] > 0
}

// Figures tell how much is held.
func (b *Box) Figures() (count int, bytes int64) {
	b.mu.RLock()
	defer b.mu.RUnlock()
	return b.count, b.bytes
}

// Letter is a message as it comes.
type Letter struct {
	Entry    Entry // without ID, keys and state
	Envelope *spool.Envelope
	Trace    []byte // our trace field, put before the message when it is released
	Text     io.Reader
}

// head stands before the text in a file.
type head struct {
	Envelope spool.Envelope `json:"envelope"`
	Trace    []byte         `json:"trace"`
}

// Keep keeps one copy of a message. One that is known by its fingerprint is only counted. It returns once all is on disk.
func (b *Box) Keep(l *Letter) (Entry, error) {
	if p := l.Entry.Print; p != "" { // two tries at the same time are one message
		lock := &b.tries[p[0]%64^p[len(p)-1]%64]
		lock.Lock()
		defer lock.Unlock()
	}
	switch e, err := b.Known(l.Entry.Print); {
	case err == nil && b.there(&e):
		return b.again(e)
	case err == nil: // its file is lost, and here it is once more
		if err := b.drop([]Entry{e}); err != nil {
			return Entry{}, err
		}
	case !errors.Is(err, ErrUnknown):
		return Entry{}, err
	}
	if most := b.o.Most(); most > 0 {
		if _, bytes := b.Figures(); bytes+l.Entry.Size > most {
			return Entry{}, fmt.Errorf("%w: %d bytes are held, %d at most; release or delete some, or raise quarantine.space", ErrFull, bytes, most)
		}
	}
	e := l.Entry
	e.ID, e.At, e.Tries, e.State = newID(), b.o.Now().UTC(), 1, Held
	e.Last = e.At
	own := make([]byte, chacha20poly1305.KeySize)
	_, _ = rand.Read(own)
	if err := b.write(e.ID, own, l); err != nil {
		_ = os.Remove(b.path(e.ID)) // else it is a stray, and removed later
		return Entry{}, full(err)
	}
	b.rotating.RLock()
	defer b.rotating.RUnlock()
	e.KeyID, e.Key = b.keys.seal(own, e.ID)
	if err := b.o.Index.PutHeld(e); err != nil {
		_ = os.Remove(b.path(e.ID))
		return Entry{}, full(err)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.users[e.User]++
	b.bytes, b.count = b.bytes+e.Size, b.count+1
	return e, nil
}

// there tells whether what an entry is about is kept, or needs to be no longer.
func (b *Box) there(e *Entry) bool {
	if e.State == Released {
		return true
	}
	_, err := os.Lstat(b.path(e.ID))
	return !errors.Is(err, fs.ErrNotExist)
}

// full tells a lack of room from other failures.
func full(err error) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return fmt.Errorf("%w: %w; make room on its file system", ErrFull, err)
	}
	return fmt.Errorf("could not keep a message: %w", err)
}

// again counts one more try.
func (b *Box) again(e Entry) (Entry, error) {
	now := b.o.Now().UTC()
	b.mu.Lock()
	c := b.counted[e.ID]
	c.n++
	tell := now.Sub(c.at) >= tellEvery
	e.Tries, e.Last = e.Tries+c.n, now
	if tell {
		c = counted{at: now}
	}
	b.counted[e.ID] = c
	b.mu.Unlock()
	if !tell {
		return e, nil
	}
	b.deciding.Lock() // what is decided meanwhile must not be undone
	defer b.deciding.Unlock()
	fresh, err := b.Find(e.ID)
	if err != nil {
		return e, err
	}
	fresh.Tries, fresh.Last = e.Tries, now
	return fresh, b.o.Index.PutHeld(fresh)
}

// write makes the file of a message and syncs it.
func (b *Box) write(id string, own []byte, l *Letter) error {
	f, err := b.o.create(b.path(id))
	if err != nil {
		return err
	}
	if err := errors.Join(writeSealed(f, own, l), f.Sync(), f.Close()); err != nil {
		return err
	}
	return durable.SyncFolder(b.o.Dir)
}

func writeSealed(f io.Writer, own []byte, l *Letter) error {
	text, err := json.Marshal(head{*l.Envelope, l.Trace})
	if err != nil {
		return err
	}
	s, err := newSealer(f, own)
	if err != nil {
		return err
	}
	if _, err := s.Write(append(binary.AppendUvarint(nil, uint64(len(text))), text...)); err != nil {
		return err
	}
	if _, err := io.Copy(s, l.Text); err != nil {
		return err
	}
	return s.Close()
}

// Known returns the entry of a fingerprint, or ErrUnknown.
func (b *Box) Known(print string) (Entry, error) { return b.one(Query{Print: print, Most: 1}) }

// Find returns one entry, or ErrUnknown.
func (b *Box) Find(id string) (Entry, error) { return b.one(Query{ID: id}) }

func (b *Box) one(q Query) (Entry, error) {
	all, err := b.o.Index.FindHeld(q)
	if err != nil {
		return Entry{}, fmt.Errorf("could not read the index of held messages: %w", err)
	}
	if len(all) == 0 {
		return Entry{}, ErrUnknown
	}
	return all[0], nil
}

// List returns entries, newest first.
func (b *Box) List(q Query) ([]Entry, error) { return b.o.Index.FindHeld(q) }

// Content is a message as it was kept.
type Content struct {
	Envelope spool.Envelope
	Trace    []byte
	Text     []byte
}

// Read opens a message.
func (b *Box) Read(id string) (*Content, error) {
	e, err := b.Find(id)
	if err != nil {
		return nil, err
	}
	if e.State == Released {
		return nil, ErrState
	}
	own, err := b.own(&e)
	if err != nil {
		return nil, err
	}
	sealed, err := os.ReadFile(b.path(e.ID))
	if err != nil {
		return nil, damaged(id, err)
	}
	text, err := unseal(sealed, own)
	if err != nil {
		return nil, damaged(id, err)
	}
	n, k := binary.Uvarint(text)
	if k <= 0 || n > uint64(len(text)-k) {
		return nil, damaged(id, errTampered)
	}
	var h head
	if err := json.Unmarshal(text[k:k+int(n)], &h); err != nil {
		return nil, damaged(id, err)
	}
	return &Content{h.Envelope, h.Trace, text[k+int(n):]}, nil
}

// own opens a message's own key; a key file that another process, or a person, has added to is read again.
func (b *Box) own(e *Entry) ([]byte, error) {
	b.rotating.RLock()
	own, err := b.keys.open(e)
	b.rotating.RUnlock()
	if !errors.Is(err, ErrNoKey) {
		return own, err
	}
	keys, fresh, kerr := openKeys(b.o.KeyFile)
	if kerr != nil || fresh {
		return nil, errors.Join(err, kerr)
	}
	b.rotating.Lock()
	defer b.rotating.Unlock()
	b.keys = keys
	return b.keys.open(e)
}

var encoding = base32.NewEncoding("0123456789abcdefghjkmnpqrstvwxyz").WithPadding(base32.NoPadding)

// newID names a message so that it is not met twice and can be read out.
func newID() string {
	b := make([]byte, 8)
	_, _ = rand.Read(b)
	return "q" + encoding.EncodeToString(b)[:12]
}
