package quarantine

import (
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"sluice/proxy/spool"
)

// memIndex is an index in memory that may fail.
type memIndex struct {
	mu   sync.Mutex
	all  map[string]Entry
	fail error
	puts int
}

func (m *memIndex) PutHeld(es ...Entry) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.puts++
	if m.fail != nil {
		return m.fail
	}
	for _, e := range es {
		m.all[e.ID] = e
	}
	return nil
}

func (m *memIndex) FindHeld(q Query) (out []Entry, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for e := range maps.Values(m.all) {
		if q.Matches(&e) {
			out = append(out, e)
		}
	}
	slices.SortFunc(out, func(a, b Entry) int { return b.At.Compare(a.At) })
	if q.Most > 0 {
		out = out[:min(len(out), q.Most)]
	}
	return out, nil
}

func (m *memIndex) RemoveHeld(ids ...string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, id := range ids {
		delete(m.all, id)
	}
	return nil
}

// vault is a box with all around it.
type vault struct {
	t     *testing.T
	o     Options
	index *memIndex
	now   time.Time
	keep  time.Duration
	most  int64
	alarm []string
	*Box
}

func newVault(t *testing.T) *vault {
	dir := t.TempDir()
	v := &vault{t: t, index: &memIndex{all: map[string]Entry{}}, now: time.Now(), keep: 14 * 24 * time.Hour}
	v.o = Options{Dir: filepath.Join(dir, "held"), KeyFile: filepath.Join(dir, "key"), Index: v.index, Keep: func() time.Duration { return v.keep }, Most: func() int64 { return v.most },
		Now: func() time.Time { return v.now }, Alarm: func(err error) { v.alarm = append(v.alarm, err.Error()) }}
	v.open()
	return v
}

func (v *vault) open() {
	v.t.Helper()
	b, err := Open(v.o)
	if err != nil {
		v.t.Fatal(err)
	}
	v.Box = b
}

const secretSubject, secretText = "The merger with Turnip Ltd", "Nobody may know before Friday that we buy the turnip fields. "

func letter(user uint32, to string) *Letter {
	text := "Received: from here\r\nSubject: " + secretSubject + "\r\n\r\n" + strings.Repeat(secretText, 3000) + to + "\r\n"
	print, _ := Fingerprint(user, "boss@x.example", []string{to}, []byte(text[:strings.Index(text, "\r\n\r\n")+4]), strings.NewReader(text))
	return &Letter{Entry: Entry{User: user, UserName: fmt.Sprint("user", user), From: "boss@x.example", To: []string{to}, Size: int64(len(text)), Print: print, Code: "SPAM"},
		Envelope: &spool.Envelope{User: user, From: "boss@x.example", Rcpts: []spool.Rcpt{{Address: to}}}, Trace: []byte("Received: by us\r\n"), Text: strings.NewReader(text)}
}

func (v *vault) put(user uint32, to string) Entry {
	v.t.Helper()
	e, err := v.Keep(letter(user, to))
	if err != nil {
		v.t.Fatal(err)
	}
	return e
}

func (v *vault) file(id string) string { return filepath.Join(v.o.Dir, id+suffix) }

// badFile takes some bytes, then fails.
type badFile struct {
	file
	left int
	sync error
}

func (f *badFile) Write(p []byte) (int, error) {
	if f.left -= len(p); f.left < 0 {
		return 0, syscall.ENOSPC
	}
	return f.file.Write(p)
}

func (f *badFile) Sync() error { return errors.Join(f.sync, f.file.Sync()) }

type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, errors.New("input/output error") }
