package msglog

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"sluice/filter"
	"sluice/intercept/flow"
	"sluice/proxy"
)

// sealedAll seals what finished segments there are and waits for it.
func sealedAll(t testing.TB, l *Log) {
	t.Helper()
	names, err := segments(l.dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if err := l.seal(finished{name: name}); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(name + logSuffix); !errors.Is(err, os.ErrNotExist) {
			t.Fatalf("%s is not sealed (%v)", name, err)
		}
	}
}

// files returns how many there are of each kind.
func files(t testing.TB, dir string) (open, done int) {
	t.Helper()
	for suffix, n := range map[string]*int{logSuffix: &open, segSuffix: &done} {
		all, err := filepath.Glob(filepath.Join(dir, "*"+suffix))
		if err != nil {
			t.Fatal(err)
		}
		*n = len(all)
	}
	return open, done
}

// TestSealedSegmentsAnswerAlike: whatever is asked, sealed segments say what open ones said, in the same order.
func TestSealedSegmentsAnswerAlike(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	l := openAt(t, dir, Options{SegmentBytes: 300 << 10})
	const n = 2000
	for i := range n {
		r := rec(i)
		r.Flow.Target = netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 51, 100, byte(i % 50)}), 25)
		if i%500 == 7 {
			r.Status, r.Ticket, r.Identity = proxy.Refused, "4K7M-2QXB", "shop"
			r.Verdict = filter.Judge([]filter.Hit{{Check: "content", Code: "GTUBE", Class: filter.Spam, Action: filter.Reject}})
		}
		if i%700 == 9 { // a session without a message, of IPv6
			r = &proxy.Record{ID: rec(i).Flow.ID.String(), Flow: rec(i).Flow, Start: rec(i).Start, Status: proxy.NoMessage, Verdict: filter.Judge(nil)}
			r.Flow.Client = netip.MustParseAddrPort("[2001:db8:0:7::5]:999")
		}
		l.Put(r)
		if i%37 == 0 {
			if err := l.Flush(); err != nil {
				t.Fatal(err)
			}
		}
	}
	refused, none := proxy.Refused, proxy.NoMessage
	queries := map[string]Query{
		"all": {Limit: n}, "newest": {Limit: 3}, "id": {ID: rec(77).ID}, "flow": {ID: flow.ID(1500).String()}, "none": {ID: "zzzzzz.1"}, "no id": {ID: "!"},
		"ticket": {Ticket: "4k7m-2qxb"}, "status": {Status: &refused}, "sessions": {Status: &none}, "user": {User: 4, Limit: n}, "identity": {Identity: "SHOP"},
		"sender": {Sender: "SENDER42@S42.example.org"}, "domain": {Sender: "s42.example.org"}, "recipient": {Recipient: "rcpt43@example.net"},
		"of all": {Recipient: "example.com", Limit: 5}, "client": {Client: netip.MustParsePrefix("192.0.2.17/32")}, "network": {Client: netip.MustParsePrefix("2001:db8:0:7::/64")},
		"half of one": {Client: netip.MustParsePrefix("192.0.2.128/25"), Limit: n}, "wide": {Client: netip.MustParsePrefix("2001:db8::/32")},
		"time": {From: rec(500).Start, Until: rec(520).Start}, "user and time": {User: 4, From: rec(500).Start, Until: rec(900).Start},
		"target": {Target: netip.MustParseAddr("198.51.100.13")}, "code": {Code: "gtube"}, "code and user": {Code: "GTUBE", User: 8},
		"anything":    {Match: func(r *proxy.Record) bool { return r.Flow.ID%333 == 0 }},
		"all at once": {User: 8, Status: &refused, Ticket: "4K7M-2QXB", Sender: "s7.example.org", Recipient: "no@example.com"},
	}
	before := map[string]string{}
	for name, q := range queries {
		before[name] = ids(find(t, l, q))
	}
	whole := find(t, l, Query{ID: rec(507).ID})
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	l = openAt(t, dir, Options{})
	defer l.Close()
	sealedAll(t, l)
	if open, done := files(t, dir); open != 0 || done < 3 {
		t.Fatalf("%d segments are open, %d sealed; want none and some", open, done)
	}
	for _, merged := range []bool{false, true} {
		if merged {
			if _, err := l.mergeAll(time.Now().AddDate(0, 0, 2), nil); err != nil {
				t.Fatal(err)
			}
			if _, done := files(t, dir); done > 2 {
				t.Errorf("%d segments were not merged", done)
			}
		}
		for name, q := range queries {
			if got := ids(find(t, l, q)); got != before[name] {
				t.Errorf("%s: found %.200q, and %.200q before (merged: %v)", name, got, before[name], merged)
			}
		}
	}
	for _, name := range []string{"all", "ticket", "sessions", "network", "half of one", "target", "code and user", "anything"} {
		if before[name] == "" {
			t.Errorf("%s found nothing", name)
		}
	}
	if got := find(t, l, Query{ID: rec(507).ID}); len(got) != 1 || len(whole) != 1 || got[0].From != whole[0].From || len(got[0].Verdict.Hits) != 1 {
		t.Errorf("a record came back as %+v", got)
	}
}

// TestFinishedSegmentsAreSealed: this process's own as they are finished, by the keys in memory.
func TestFinishedSegmentsAreSealed(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	l := openAt(t, dir, Options{SegmentBytes: 50 << 10})
	defer l.Close()
	for i := range 400 {
		l.Put(rec(i))
		if i%10 == 9 {
			if err := l.Flush(); err != nil {
				t.Fatal(err)
			}
		}
	}
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(time.Millisecond) {
		if _, done := files(t, dir); done > 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("no segment is sealed")
		}
	}
	if got := find(t, l, Query{Limit: 1000}); len(got) != 400 {
		t.Errorf("%d records, want 400", len(got))
	}
	if got := ids(find(t, l, Query{Recipient: "rcpt3@example.net"})); got != rec(3).ID {
		t.Errorf("found %q", got)
	}
}

// TestSegmentsOfOthers: one that a living process writes to is left alone, one that a dead one left is sealed after a while.
func TestSegmentsOfOthers(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	writer := openAt(t, dir, Options{})
	defer writer.Close()
	writer.Put(rec(1))
	if err := writer.Flush(); err != nil {
		t.Fatal(err)
	}
	left := fill(t, t.TempDir(), 30)
	for _, suffix := range []string{logSuffix, idxSuffix} {
		if err := os.Rename(left+suffix, filepath.Join(dir, filepath.Base(left))+suffix); err != nil {
			t.Fatal(err)
		}
	}
	l := openAt(t, dir, Options{foreignAfter: time.Millisecond})
	defer l.Close()
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(time.Millisecond) {
		if _, err := os.Stat(filepath.Join(dir, filepath.Base(left)) + segSuffix); err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("what a dead process left is not sealed")
		}
	}
	if err := l.seal(finished{name: writer.seg.name}); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(writer.seg.name + logSuffix); err != nil {
		t.Errorf("the segment that is written to: %v", err)
	}
	writer.Put(rec(2))
	if got := find(t, writer, Query{Limit: 100}); len(got) != 32 {
		t.Errorf("%d records, want 32", len(got))
	}
}

// TestInterruptedSealing: at whatever step it is interrupted, each record is found once.
func TestInterruptedSealing(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	name := fill(t, dir, 50)
	log, err := os.ReadFile(name + logSuffix)
	if err != nil {
		t.Fatal(err)
	}
	l := openAt(t, dir, Options{})
	defer l.Close()
	if err := os.WriteFile(name+segSuffix+".tmp", []byte("half of it"), 0o600); err != nil {
		t.Fatal(err)
	}
	sealedAll(t, l)
	if err := os.WriteFile(name+logSuffix, log, 0o600); err != nil { // killed before it was removed
		t.Fatal(err)
	}
	if got := find(t, l, Query{Limit: 100}); len(got) != 50 {
		t.Errorf("%d records with both there, want 50", len(got))
	}
	sealedAll(t, l)
	if open, done := files(t, dir); open != 0 || done != 1 {
		t.Errorf("%d open, %d sealed", open, done)
	}
	if got := find(t, l, Query{Limit: 100}); len(got) != 50 {
		t.Errorf("%d records, want 50", len(got))
	}
	if _, err := os.Stat(name + segSuffix + ".tmp"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the half of a file: %v", err)
	}
}

// TestDamageIsNeverSealed: a segment with a damaged block stays, and is told of once.
func TestDamageIsNeverSealed(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	name := fill(t, dir, 50)
	data, err := os.ReadFile(name + logSuffix)
	if err != nil {
		t.Fatal(err)
	}
	data[len(data)/2] ^= 1
	if err := os.WriteFile(name+logSuffix, data, 0o600); err != nil {
		t.Fatal(err)
	}
	told := make(chan error, 10)
	l := openAt(t, dir, Options{foreignAfter: time.Millisecond, Failed: func(err error) { told <- err }})
	defer l.Close()
	select {
	case err := <-told:
		if !strings.Contains(err.Error(), "damaged") || !strings.Contains(err.Error(), name) {
			t.Errorf("told: %v", err)
		}
	case <-time.After(30 * time.Second):
		t.Fatal("nothing is told")
	}
	if got, err := l.Find(context.Background(), Query{Limit: 100}); len(got) != 40 || err == nil {
		t.Errorf("%d records, %v; want 40 and the damage", len(got), err)
	}
}

// TestDamagedSealedSegments: no byte of damage makes a search fail hard, or answer something else than before.
func TestDamagedSealedSegments(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	name := fill(t, dir, 200)
	l := openAt(t, dir, Options{})
	defer l.Close()
	sealedAll(t, l)
	good, err := os.ReadFile(name + segSuffix)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]bool{}
	for _, r := range find(t, l, Query{Limit: 1000}) {
		want[r.ID] = true
	}
	rnd := rand.New(rand.NewPCG(3, 4))
	silent := 0
	for range 120 {
		bad := bytes.Clone(good)
		if rnd.IntN(4) == 0 {
			bad = bad[:rnd.IntN(len(bad))]
		} else {
			bad[rnd.IntN(len(bad))] ^= 1 << rnd.IntN(8)
		}
		if err := os.WriteFile(name+segSuffix, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		for _, q := range []Query{{Limit: 1000}, {Recipient: "rcpt77@example.net"}, {User: 3, Limit: 1000}} {
			got, err := l.Find(context.Background(), q)
			for _, r := range got {
				if !want[r.ID] {
					t.Fatalf("found %s, which never was", r.ID)
				}
			}
			if q.User == 0 && q.Recipient == "" && err == nil && len(got) != len(want) {
				silent++
			}
		}
	}
	if silent > 0 {
		t.Errorf("%d times records were missing and nothing was said", silent)
	}
}

func TestPostings(t *testing.T) {
	t.Parallel()
	rnd := rand.New(rand.NewPCG(1, 9))
	var all rowKeys
	want := map[uint64][]uint32{}
	for row := range uint32(2000) {
		var keys []uint64
		for range rnd.IntN(6) {
			k := hashNumber(keyUser, uint64(rnd.IntN(300)))
			keys = append(keys, k)
			if rs := want[k]; len(rs) == 0 || rs[len(rs)-1] != row {
				want[k] = append(rs, row)
			}
		}
		all.add(keys, []uint32{uint32(len(keys))}, 0, 0)
	}
	const n = 37
	sorted, ends := buckets(&all, n)
	bucket := func(k uint64) []byte {
		b := bucketOf(k, n)
		from := uint32(0)
		if b > 0 {
			from = ends[b-1]
		}
		return appendBucket(nil, sorted[from:ends[b]])
	}
	for k, rows := range want {
		p, err := findIn(bucket(k), k)
		if err != nil || p.n != len(rows) || !slices.Equal(p.list(), rows) {
			t.Fatalf("key %x: %v, %v; want %v", k, p.list(), err, rows)
		}
	}
	for i := range uint64(1000) {
		k := hashNumber(keyStatus, i)
		if p, err := findIn(bucket(k), k); err != nil || p.n != 0 {
			t.Errorf("a key that no row has: %d rows, %v", p.n, err)
		}
	}
	if got := common([]postings{{3, []byte{1, 1, 1}}, {2, []byte{2, 1}}}); !slices.Equal(got, []uint32{2, 3}) {
		t.Errorf("in common: %v", got)
	}
	if got := intersect([]uint32{1, 5, 9, 12}, []uint32{5, 6, 12, 40}); !slices.Equal(got, []uint32{5, 12}) {
		t.Errorf("in both: %v", got)
	}
}

func FuzzFindIn(f *testing.F) {
	f.Add(appendBucket(nil, []posting{postingOf(1, 1), postingOf(1, 5), postingOf(2, 9)}), uint64(2))
	f.Fuzz(func(t *testing.T, b []byte, key uint64) {
		if p, err := findIn(b, key); err == nil && len(p.list()) > len(p.rows) {
			t.Errorf("%d rows in %d bytes", len(p.list()), len(p.rows))
		}
	})
}
