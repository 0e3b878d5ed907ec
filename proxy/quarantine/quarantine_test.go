package quarantine

import (
	"errors"
	"io"
	"os"
	"strings"
	"sync"
	"testing"
	"time"
)

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

// TestFileLost: an entry whose file is gone, as after a restore of the database alone, is told of at the start, and a further try of
// the message is kept anew.
func TestFileLost(t *testing.T) {
	t.Parallel()
	v := newVault(t)
	lost, there := v.put(7, "r@sink.example"), v.put(7, "s@sink.example")
	if err := os.Remove(v.file(lost.ID)); err != nil {
		t.Fatal(err)
	}
	v.open()
	if len(v.alarm) != 1 || !strings.Contains(v.alarm[0], "1 held messages are listed whose files are not in ") {
		t.Errorf("alarms: %q", v.alarm)
	}
	again := v.put(7, "r@sink.example")
	if _, err := v.Read(again.ID); err != nil || again.ID == lost.ID || again.Tries != 1 {
		t.Errorf("kept anew: %+v, %v", again, err)
	}
	if n, _ := v.Figures(); n != 2 {
		t.Errorf("%d are held", n)
	}
	if e := v.put(7, "s@sink.example"); e.ID != there.ID || e.Tries != 2 {
		t.Errorf("a further try of what is there: %+v", e)
	}
}
