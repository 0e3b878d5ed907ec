package quarantine

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
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

// TestNothingIsReadableOnDisk: neither text, nor subject, nor any line of it; with the key all of it is.
func TestNothingIsReadableOnDisk(t *testing.T) {
	t.Parallel()
	v := newVault(t)
	e := v.put(7, "r@sink.example")
	for _, path := range []string{v.file(e.ID), v.o.KeyFile} {
		st, err := os.Stat(path)
		if err != nil || st.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", path, st, err)
		}
	}
	b, err := os.ReadFile(v.file(e.ID))
	if err != nil || len(b) < 100_000 {
		t.Fatalf("%d bytes, %v", len(b), err)
	}
	for _, secret := range []string{"Turnip", "turnip", "Subject", "merger", "r@sink", "boss", "Received"} {
		if bytes.Contains(b, []byte(secret)) || bytes.Contains(e.Key, []byte(secret)) {
			t.Errorf("%q stands on disk", secret)
		}
	}
	v.open() // as after a restart
	c, err := v.Read(e.ID)
	if err != nil || !strings.Contains(string(c.Text), secretSubject) || c.Envelope.Rcpts[0].Address != "r@sink.example" || string(c.Trace) != "Received: by us\r\n" || int64(len(c.Text)) != e.Size {
		t.Fatalf("read: %v", err)
	}
	if !v.Has(7) || v.Has(8) {
		t.Error("whose messages are held is forgotten")
	}
	if n, size := v.Figures(); n != 1 || size != e.Size {
		t.Errorf("%d messages of %d bytes", n, size)
	}
}

// TestSizes around those of a piece come back as they were.
func TestSizes(t *testing.T) {
	t.Parallel()
	key := make([]byte, 32)
	r := rand.New(rand.NewPCG(1, 2))
	for _, n := range []int{0, 1, piece - 1, piece, piece + 1, 3 * piece, 3*piece + 7} {
		text := make([]byte, n)
		for i := range text {
			text[i] = byte(r.Uint32())
		}
		var b bytes.Buffer
		s, err := newSealer(&b, key)
		if err != nil {
			t.Fatal(err)
		}
		for at := 0; at < n; { // in odd cuts
			k := min(n-at, 1+r.IntN(piece))
			if _, err := s.Write(text[at : at+k]); err != nil {
				t.Fatal(err)
			}
			at += k
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		if got, err := unseal(b.Bytes(), key); err != nil || !bytes.Equal(got, text) {
			t.Errorf("%d bytes: %v", n, err)
		}
	}
}

// TestTamperedFiles are found out: a bit, a cut, a piece left out, two exchanged, another message's file.
func TestTamperedFiles(t *testing.T) {
	t.Parallel()
	v := newVault(t)
	e, other := v.put(7, "r@sink.example"), v.put(7, "other@sink.example")
	whole, err := os.ReadFile(v.file(e.ID))
	if err != nil {
		t.Fatal(err)
	}
	foreign, err := os.ReadFile(v.file(other.ID))
	if err != nil {
		t.Fatal(err)
	}
	const sealed = piece + 16
	flip := func(at int) []byte { b := slices.Clone(whole); b[at] ^= 1; return b }
	m := len(magic)
	for name, b := range map[string][]byte{
		"a bit of the head": flip(3), "a bit of the text": flip(70_000), "the last bit": flip(len(whole) - 1), "cut": whole[:len(whole)-1], "cut at a piece": whole[:m+sealed],
		"without its first piece": slices.Concat(whole[:m], whole[m+sealed:]), "exchanged": slices.Concat(whole[:m], whole[m+sealed:m+2*sealed], whole[m:m+sealed], whole[m+2*sealed:]),
		"another's": foreign, "empty": {}, "longer": append(slices.Clone(whole), 0),
	} {
		if err := os.WriteFile(v.file(e.ID), b, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := v.Read(e.ID); !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), e.ID) {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := v.Release(e.ID, "ann", "x", false, func(*Content) error { t.Errorf("%s was released", name); return nil }); !errors.Is(err, ErrDamaged) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := os.Remove(v.file(e.ID)); err != nil {
		t.Fatal(err)
	}
	if _, err := v.Read(e.ID); !errors.Is(err, ErrDamaged) {
		t.Errorf("gone: %v", err)
	}
	if err := os.WriteFile(v.file(e.ID), whole, 0o600); err != nil {
		t.Fatal(err)
	}
	v.index.mu.Lock()
	stolen := v.index.all[e.ID]
	stolen.Key = v.index.all[other.ID].Key
	v.index.all[e.ID] = stolen
	v.index.mu.Unlock()
	if _, err := v.Read(e.ID); !errors.Is(err, ErrDamaged) {
		t.Errorf("another message's key: %v", err)
	}
	if n, err := v.Delete(e.ID); n != 1 || err != nil {
		t.Errorf("what is damaged cannot be deleted: %v", err)
	}
}

// TestLostKey: what was held cannot be read and says so, new messages are held, and the key put back opens all again.
func TestLostKey(t *testing.T) {
	t.Parallel()
	v := newVault(t)
	e := v.put(7, "r@sink.example")
	old, err := os.ReadFile(v.o.KeyFile)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(v.o.KeyFile); err != nil {
		t.Fatal(err)
	}
	v.open()
	if len(v.alarm) != 1 || !strings.Contains(v.alarm[0], "1 held messages cannot be read; put their keys back") {
		t.Errorf("alarms: %q", v.alarm)
	}
	if _, err := v.Read(e.ID); !errors.Is(err, ErrNoKey) || !strings.Contains(err.Error(), "put it back") {
		t.Errorf("without its key: %v", err)
	}
	fresh := v.put(8, "s@sink.example")
	now, err := os.ReadFile(v.o.KeyFile)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(v.o.KeyFile, append(old, now...), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{e.ID, fresh.ID} { // without a restart
		if _, err := v.Read(id); err != nil {
			t.Errorf("with both keys: %v", err)
		}
	}
	for text, says := range map[string]string{"# nothing\n": "there is no key in it", "a\n": "ends early", "a bm90IGEga2V5\n": "key a is none"} {
		if err := os.WriteFile(v.o.KeyFile, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(v.o); err == nil || !strings.Contains(err.Error(), says) || !strings.Contains(err.Error(), "put a copy back") {
			t.Errorf("%q: %v", text, err)
		}
	}
	if err := os.WriteFile(v.o.KeyFile, old, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(v.o.KeyFile, 0o640); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(v.o); err == nil || !strings.Contains(err.Error(), "chmod 600 it") {
		t.Errorf("a key file that others may read: %v", err)
	}
}

// TestRotation: after it the old key opens nothing; a failure in between leaves all readable.
func TestRotation(t *testing.T) {
	t.Parallel()
	v := newVault(t)
	e := v.put(7, "r@sink.example")
	v.index.fail = errors.New("disk full")
	if _, err := v.Rotate(); err == nil || !strings.Contains(err.Error(), "older keys stay") {
		t.Errorf("a rotation that failed: %v", err)
	}
	v.index.fail = nil
	v.open()
	if _, err := v.Read(e.ID); err != nil {
		t.Fatalf("after a rotation that failed: %v", err)
	}
	first := e.KeyID
	for range 2 {
		if n, err := v.Rotate(); n != 1 || err != nil {
			t.Fatalf("%d messages, %v", n, err)
		}
	}
	text, err := os.ReadFile(v.o.KeyFile)
	if err != nil || strings.Contains(string(text), first) || strings.Count(string(text), "\n") != 3 {
		t.Errorf("the key file holds %q, %v", text, err)
	}
	v.open()
	if c, err := v.Read(e.ID); err != nil || !strings.Contains(string(c.Text), secretSubject) {
		t.Errorf("after two rotations: %v", err)
	}
	if now, _ := v.Find(e.ID); now.KeyID == first {
		t.Error("it is sealed under the old key still")
	}
}

// TestOneCopyForEachMessage: tries are counted, at the same time, too; after the release a try finds it released.
func TestOneCopyForEachMessage(t *testing.T) {
	t.Parallel()
	v := newVault(t)
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			if _, err := v.Keep(letter(7, "r@sink.example")); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if list, _ := v.List(Query{}); len(list) != 1 {
		t.Fatalf("%d copies", len(list))
	}
	puts := v.index.puts
	for range 100 { // within a minute
		v.put(7, "r@sink.example")
	}
	v.now = v.now.Add(2 * time.Minute)
	e := v.put(7, "r@sink.example")
	if e.Tries != 109 || v.index.puts-puts > 3 {
		t.Errorf("%d tries, the index was written %d times", e.Tries, v.index.puts-puts)
	}
	sent := 0
	send := func(c *Content) error { sent++; return nil }
	if got, err := v.Release(e.ID, "ann", "it is good", false, send); err != nil || got.State != Released || got.By != "ann" {
		t.Fatalf("%+v, %v", got, err)
	}
	if _, err := v.Release(e.ID, "ann", "again", false, send); !errors.Is(err, ErrState) || sent != 1 {
		t.Errorf("sent %d times: %v", sent, err)
	}
	if _, err := os.Stat(v.file(e.ID)); !os.IsNotExist(err) {
		t.Error("the file of what was released is there still")
	}
	again := v.put(7, "r@sink.example")
	if again.State != Released || again.ID != e.ID || !v.Has(7) {
		t.Errorf("a try after the release: %+v", again)
	}
	if n, size := v.Figures(); n != 0 || size != 0 {
		t.Errorf("%d messages of %d bytes are held", n, size)
	}
	if other := v.put(7, "other@sink.example"); other.ID == e.ID || other.State != Held {
		t.Error("another recipient's message is the same")
	}
}

// TestReleaseThatFails leaves the message held; one that a crash interrupted is released only when that is said.
func TestReleaseThatFails(t *testing.T) {
	t.Parallel()
	v := newVault(t)
	e := v.put(7, "r@sink.example")
	if _, err := v.Release(e.ID, "ann", "x", false, func(*Content) error { return errors.New("the spool is full") }); err == nil {
		t.Error("it was released")
	}
	if now, _ := v.Find(e.ID); now.State != Held || now.By != "" {
		t.Errorf("it is %+v", now)
	}
	crashed := func(*Content) error { v.index.fail = errors.New("killed"); return nil }
	if _, err := v.Release(e.ID, "ann", "x", false, crashed); err == nil {
		t.Error("it was noted")
	}
	v.index.fail = nil
	v.open()
	if _, err := v.Release(e.ID, "ann", "x", false, func(*Content) error { return nil }); !errors.Is(err, ErrState) || !strings.Contains(err.Error(), "--again") {
		t.Errorf("after a crash: %v", err)
	}
	if got, err := v.Release(e.ID, "ann", "x", true, func(*Content) error { return nil }); err != nil || got.State != Released {
		t.Errorf("again: %v", err)
	}
}

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

// TestNoRoom: nothing is kept by half, the caller hears why, and there is room again later.
func TestNoRoom(t *testing.T) {
	t.Parallel()
	v := newVault(t)
	bad := &badFile{left: 100_000}
	v.o.create = func(path string) (file, error) {
		f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
		bad.file = f
		return bad, err
	}
	v.open()
	if _, err := v.Keep(letter(7, "r@sink.example")); !errors.Is(err, ErrFull) {
		t.Errorf("a full disk: %v", err)
	}
	bad.left, bad.sync = 1<<30, errors.New("input/output error")
	if _, err := v.Keep(letter(7, "r@sink.example")); err == nil || errors.Is(err, ErrFull) {
		t.Errorf("a sync that fails: %v", err)
	}
	bad.sync, v.index.fail = nil, errors.New("the database is locked")
	if _, err := v.Keep(letter(7, "r@sink.example")); err == nil {
		t.Error("kept without an index")
	}
	v.index.fail = nil
	if list, err := os.ReadDir(v.o.Dir); err != nil || len(list) != 0 || v.Has(7) {
		t.Errorf("left behind: %v, %v", list, err)
	}
	v.most = 100
	if _, err := v.Keep(letter(7, "r@sink.example")); !errors.Is(err, ErrFull) || !strings.Contains(err.Error(), "quarantine.space") {
		t.Errorf("more than there may be: %v", err)
	}
	v.most = 0
	v.put(7, "r@sink.example")
}

// TestSweep drops what was held long enough, and files without entries once they are old.
func TestSweep(t *testing.T) {
	t.Parallel()
	v := newVault(t)
	old := v.put(7, "r@sink.example")
	v.now = v.now.Add(13 * 24 * time.Hour)
	young := v.put(8, "s@sink.example")
	if n, err := v.Sweep(); n != 0 || err != nil {
		t.Errorf("too early: %d, %v", n, err)
	}
	v.now = v.now.Add(25 * time.Hour)
	if n, err := v.Sweep(); n != 1 || err != nil || v.Has(7) || !v.Has(8) {
		t.Errorf("%d, %v", n, err)
	}
	if _, err := v.Read(old.ID); !errors.Is(err, ErrUnknown) {
		t.Errorf("what is over: %v", err)
	}
	stray, fresh := v.file("qstray"), v.file("qfresh")
	for _, path := range []string{stray, fresh} {
		if err := os.WriteFile(path, []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chtimes(stray, v.now.Add(-time.Hour), v.now.Add(-time.Hour)); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(fresh, v.now, v.now); err != nil {
		t.Fatal(err)
	}
	v.open()
	if _, err := os.Stat(stray); !os.IsNotExist(err) {
		t.Error("a stray file stays")
	}
	for _, path := range []string{fresh, v.file(young.ID)} {
		if _, err := os.Stat(path); err != nil {
			t.Errorf("gone: %v", err)
		}
	}
}

func TestQuery(t *testing.T) {
	t.Parallel()
	e := &Entry{ID: "q1", UserName: "alice", From: "a@Shop.example", To: []string{"b@one.example", "c@two.example"}, Code: "SPAM", Group: 7}
	held := Held
	released := Released
	for i, c := range []struct {
		q  Query
		is bool
	}{{Query{}, true}, {Query{User: "alice", Sender: "shop.example", Rcpt: "c@two.example", Code: "SPAM", Group: 7, State: &held}, true}, {Query{Sender: "a@shop.EXAMPLE", Rcpt: "one.example"}, true},
		{Query{User: "bob"}, false}, {Query{Rcpt: "example"}, false}, {Query{Sender: "b@one.example"}, false}, {Query{Group: 8}, false}, {Query{State: &released}, false}, {Query{Before: time.Unix(1, 0)}, true}} {
		if c.q.Matches(e) != c.is {
			t.Errorf("query %d: %t", i, !c.is)
		}
	}
}

// TestFingerprint: trace fields of a further try do not count, anything else does.
func TestFingerprint(t *testing.T) {
	t.Parallel()
	of := func(from, to, header, text string) string {
		p, err := Fingerprint(7, from, []string{to}, []byte(header+"\r\n"), strings.NewReader(text))
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	one := of("a@x.example", "b@y.example", "Subject: x\r\n", "text")
	if of("A@x.example", "b@Y.example", "Received: again\r\n\tfolded\r\nSubject: x\r\n", "text") != one {
		t.Error("a further try is another message")
	}
	for _, other := range []string{of("c@x.example", "b@y.example", "Subject: x\r\n", "text"), of("a@x.example", "c@y.example", "Subject: x\r\n", "text"), of("a@x.example", "b@y.example", "Subject: y\r\n", "text"), of("a@x.example", "b@y.example", "Subject: x\r\n", "texts")} {
		if other == one {
			t.Error("another message is the same")
		}
	}
	if _, err := Fingerprint(7, "", nil, nil, io.MultiReader(strings.NewReader("x"), failing{})); err == nil {
		t.Error("a message that cannot be read has a fingerprint")
	}
}

type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, errors.New("input/output error") }
