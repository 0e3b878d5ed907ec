package identity

import (
	"fmt"
	"testing"
	"time"

	"sluice/filter"
)

func TestTooManyNewIdentitiesShareOne(t *testing.T) {
	t.Parallel()
	b, at := NewBook(0), time.Now().Add(time.Minute)
	for i := range NewPerHour {
		name := fmt.Sprint("script-", i)
		if got := b.Meet(1, name, at); got != name {
			t.Fatalf("identity %d is %q", i, got)
		}
	}
	for i := range 1000 {
		if got := b.Meet(1, fmt.Sprint("made-up-", i), at); got != Other {
			t.Fatalf("one too many is %q", got)
		}
	}
	if got := b.Meet(1, "script-3", at); got != "script-3" {
		t.Errorf("a known one is %q", got)
	}
	if got := b.Meet(2, "script-of-another", at); got != "script-of-another" {
		t.Errorf("another user's is %q", got)
	}
	if got := b.Meet(1, "late", at.Add(62*time.Minute)); got != "late" {
		t.Errorf("an hour later a new one is %q", got)
	}
	if n := b.Len(); n != NewPerHour+3 {
		t.Errorf("%d identities are known", n)
	}
}

func TestAccounts(t *testing.T) {
	t.Parallel()
	b, at := NewBook(0), time.Now()
	spam := filter.Judge([]filter.Hit{{Code: "SPAM", Class: filter.Spam, Action: filter.Reject}})
	b.Meet(1, "a", at)
	for range 9 {
		b.Count(1, "a", at, filter.Outcome{Accepted: 3})
	}
	b.Count(1, "a", at, filter.Outcome{Verdict: &spam})
	e, ok := b.Known(1, "a")
	if !ok || e.Messages != 10 || e.Recipients != 27 || e.Refused != 1 || e.Bad != 1 || e.Code != "SPAM" {
		t.Errorf("the account is %+v", e)
	}
	if all := b.List(1); len(all) != 1 || len(b.List(0)) != 1 || len(b.List(2)) != 0 {
		t.Errorf("listed: %v", all)
	}
	if e, ok := b.Begin(1, "a", at); !ok || e.Bad != 0 || !e.Reset.Equal(at) {
		t.Errorf("after a reset: %+v", e)
	}
	if _, ok := b.Begin(1, "nobody", at); ok {
		t.Error("an unknown one was reset")
	}
}

func TestWhatChangedIsToldOnce(t *testing.T) {
	t.Parallel()
	b, at := NewBook(0), time.Now()
	for i := range 100 {
		b.Meet(uint32(i), "x", at)
	}
	first, rest := b.Changed(30), b.Changed(1000)
	if len(first) != 30 || len(rest) != 70 || len(b.Changed(1000)) != 0 {
		t.Errorf("told %d, then %d", len(first), len(rest))
	}
	b.Unsaved(first)
	if n := len(b.Changed(1000)); n != 30 {
		t.Errorf("told again: %d", n)
	}
	c := NewBook(0)
	c.Count(7, "x", at, filter.Outcome{Accepted: 1})
	c.Load(Entry{User: 7, Name: "x", First: at.Add(-time.Hour), Messages: 5})
	c.Load(Entry{User: 8, Name: "y", First: at.Add(-time.Hour), Messages: 5})
	if e, _ := c.Known(7, "x"); e.Messages != 6 || !e.First.Equal(at.Add(-time.Hour)) {
		t.Errorf("loaded behind the first message: %+v", e)
	}
}

func TestBookIsBounded(t *testing.T) {
	t.Parallel()
	const most = 64 * 10
	b, at := NewBook(most), time.Now()
	for i := range 20_000 {
		b.Meet(uint32(i%3000), fmt.Sprint(i), at.Add(time.Duration(i)*time.Second))
	}
	if n := b.Len(); n > most {
		t.Errorf("%d identities are held, want at most %d", n, most)
	}
}

// BenchmarkMeetAmongAMillion finds one of a million identities of 100,000 users.
func BenchmarkMeetAmongAMillion(b *testing.B) {
	book, at := NewBook(2<<20), time.Now()
	for i := range 1_000_000 {
		book.Load(Entry{User: uint32(i % 100_000), Name: fmt.Sprint("script-", i/100_000), First: at, Last: at})
	}
	b.ReportAllocs()
	b.ResetTimer()
	for i := range b.N {
		book.Meet(uint32(i*7919%100_000), "script-7", at)
	}
	if book.Len() != 1_000_000 {
		b.Fatalf("%d are held", book.Len())
	}
}
