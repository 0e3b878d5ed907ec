package quarantine

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
)

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
