package msglog

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"sluice/filter"
	"sluice/intercept/flow"
	"sluice/proxy"
)

var _ proxy.Log = (*Log)(nil)

// t0 is an hour ago: a query by time passes over segments that were begun long after it.
var t0 = time.Now().UTC().Add(-time.Hour).Truncate(time.Microsecond)

// rec returns a record that is like a real one; n makes it its own.
func rec(n int) *proxy.Record {
	return &proxy.Record{
		ID: flow.ID(n).String() + ".1",
		Flow: flow.Flow{
			ID: flow.ID(n), Client: netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, byte(n)}), 40000),
			Target: netip.MustParseAddrPort("198.51.100.25:25"), Start: t0,
			User: flow.User{ID: uint32(n%10 + 1), Name: fmt.Sprint("user", n%10+1), Prefix: netip.MustParsePrefix("192.0.2.0/24")},
		},
		Start: t0.Add(time.Duration(n) * time.Second), Duration: 42 * time.Millisecond, Helo: "mail.example.org",
		From: fmt.Sprintf("sender%d@s%d.example.org", n, n%100),
		To: []proxy.Recipient{
			{Address: fmt.Sprintf("rcpt%d@example.net", n), Code: 250, Reply: "2.1.5 ok"}, {Address: "no@example.com", Code: 550, Reply: "5.1.1 unknown"},
		},
		Size: 10240, Status: proxy.Delivered, Verdict: filter.Judge(nil), Reply: "250 2.0.0 queued as 12345", Remote: "250 2.0.0 queued as 12345",
		Waited: 1500 * time.Microsecond, Obstacle: proxy.AtCap,
		Source: netip.MustParseAddr("203.0.113.7"), Out: proxy.TLS{Version: "TLS1.3", Cipher: "TLS_AES_128_GCM_SHA256"},
	}
}

func openAt(t testing.TB, dir string, o Options) *Log {
	t.Helper()
	if o.Failed == nil {
		o.Failed = func(err error) { t.Errorf("write: %v", err) }
	}
	l, err := Open(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func find(t *testing.T, l *Log, q Query) []*proxy.Record {
	t.Helper()
	all, err := l.Find(context.Background(), q)
	if err != nil {
		t.Errorf("Find(%+v): %v", q, err)
	}
	return all
}

func ids(all []*proxy.Record) string {
	var s []string
	for _, r := range all {
		s = append(s, r.ID)
	}
	return strings.Join(s, " ")
}

func TestRecordsComeBackWhole(t *testing.T) {
	t.Parallel()
	l := openAt(t, t.TempDir(), Options{})
	defer l.Close()
	odd := rec(7)
	odd.Shadow, odd.Would = true, "550 5.7.1 gw.example: [GTUBE] \"no\""
	odd.Status, odd.Ticket, odd.Note = proxy.Refused, "4K7M-2QXB", "quote \" backslash \\ tab \t nul \x00 del \x7f umlaut ü, line\r\nend </script>"
	odd.Source, odd.Out, odd.In, odd.Flow.User.Made = netip.Addr{}, proxy.TLS{}, proxy.TLS{Version: "TLS1.2", Cipher: "X"}, true
	odd.Flow.Client = netip.MustParseAddrPort("[2001:db8::1]:25")
	odd.Verdict = filter.Judge([]filter.Hit{
		{Check: "score", Code: "SCORE", Class: filter.Spam, Points: 0.125},
		{Check: "content", Code: "GTUBE", Class: filter.Spam, Action: filter.Reject, SMTP: 550, Enhanced: "5.7.1", Text: "spam", Evidence: "byte 7"},
	})
	session := &proxy.Record{ID: "zz", Flow: flow.Flow{ID: 35*36 + 35, Client: odd.Flow.Client}, Start: t0, Status: proxy.NoMessage, Verdict: filter.Judge(nil)}
	want := []*proxy.Record{session, odd, rec(1)}
	for i := range want {
		l.Put(want[len(want)-1-i])
	}
	got := find(t, l, Query{})
	if len(got) != len(want) {
		t.Fatalf("%d records came back, want %d", len(got), len(want))
	}
	for i := range want {
		if !reflect.DeepEqual(got[i], want[i]) {
			t.Errorf("record %d came back as\n%+v, want\n%+v", i, got[i], want[i])
		}
	}
	if st := l.Stats(); st.Records != 3 || st.Blocks == 0 || st.Bytes == 0 || st.Lost != 0 || st.Queued != 0 {
		t.Errorf("stats are %+v", st)
	}
}

func TestQueries(t *testing.T) {
	t.Parallel()
	l := openAt(t, t.TempDir(), Options{SegmentBytes: 200 << 10})
	defer l.Close()
	const n = 2000
	for i := range n {
		r := rec(i)
		if i == 1234 {
			r.Status, r.Ticket, r.Flow.Client = proxy.Deferred, "4K7M-2QXB", netip.MustParseAddrPort("[2001:db8::5]:1")
			r.To = append(r.To, proxy.Recipient{Address: "third@Third.example"})
		}
		l.Put(r)
		if i%97 == 0 {
			if err := l.Flush(); err != nil {
				t.Fatal(err)
			}
		}
	}
	deferred, refused := proxy.Deferred, proxy.Refused
	id := func(i int) string { return rec(i).ID }
	for name, c := range map[string]struct {
		q    Query
		want string
	}{
		"newest first":        {Query{Limit: 3}, id(1999) + " " + id(1998) + " " + id(1997)},
		"by message id":       {Query{ID: id(77)}, id(77)},
		"by flow id":          {Query{ID: strings.ToUpper(flow.ID(1500).String())}, id(1500)},
		"no such id":          {Query{ID: "zzzzzz.1"}, ""},
		"an id that is none":  {Query{ID: "!"}, ""},
		"by ticket":           {Query{Ticket: "4k7m-2qxb"}, id(1234)},
		"by status":           {Query{Status: &deferred}, id(1234)},
		"by another status":   {Query{Status: &refused}, ""},
		"by sender":           {Query{Sender: "SENDER42@S42.example.org"}, id(42)},
		"by sender domain":    {Query{Sender: "s42.example.org", Limit: 2}, id(1942) + " " + id(1842)},
		"by recipient":        {Query{Recipient: "rcpt43@example.net"}, id(43)},
		"by recipient domain": {Query{Recipient: "third.example"}, id(1234)},
		"by client":           {Query{Client: netip.MustParsePrefix("2001:db8::5/128")}, id(1234)},
		"by client prefix":    {Query{Client: netip.MustParsePrefix("2001:db8::/32")}, id(1234)},
		"by time":             {Query{From: rec(500).Start, Until: rec(502).Start}, id(501) + " " + id(500)},
		"by user and time":    {Query{User: 4, From: rec(500).Start, Until: rec(520).Start}, id(513) + " " + id(503)},
		"all at once":         {Query{User: 5, Status: &deferred, Ticket: "4K7M-2QXB", Sender: "s34.example.org", Recipient: "no@example.com"}, id(1234)},
		"nothing fits it all": {Query{User: 6, Ticket: "4K7M-2QXB"}, ""},
	} {
		if got := ids(find(t, l, c.q)); got != c.want {
			t.Errorf("%s: found %q, want %q", name, got, c.want)
		}
	}
	if got := find(t, l, Query{Limit: 1 << 30}); len(got) != n {
		t.Errorf("%d records in all, want %d", len(got), n)
	}
	if names, err := segments(l.dir); err != nil || len(names) < 3 {
		t.Errorf("%d segments, %v; want the log to have begun new ones", len(names), err)
	}
	ctx, cancel := context.WithCancelCause(context.Background())
	cancel(errors.New("enough"))
	if _, err := l.Find(ctx, Query{}); err == nil || err.Error() != "enough" {
		t.Errorf("Find after the end of its context: %v", err)
	}
}

// fill writes a segment of several blocks and returns its path.
func fill(t *testing.T, dir string, n int) string {
	t.Helper()
	l := openAt(t, dir, Options{})
	for i := range n {
		l.Put(rec(i))
		if i%10 == 9 {
			if err := l.Flush(); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	names, err := segments(dir)
	if err != nil || len(names) != 1 {
		t.Fatalf("segments: %v, %v", names, err)
	}
	return names[0]
}

func TestTornSegments(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	name := fill(t, dir, 50)
	data, err := os.ReadFile(name + logSuffix)
	if err != nil {
		t.Fatal(err)
	}
	idx, err := os.ReadFile(name + idxSuffix)
	if err != nil {
		t.Fatal(err)
	}
	write := func(d, i []byte) {
		t.Helper()
		if err := errors.Join(os.WriteFile(name+logSuffix, d, 0o600), os.WriteFile(name+idxSuffix, i, 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	l := openAt(t, dir, Options{})
	defer l.Close()
	rnd := rand.New(rand.NewPCG(1, 1))
	for range 60 {
		cut := rnd.IntN(len(data) + 1)
		whole := 0
		for at := int64(0); at < int64(cut); {
			h, ok := parseHeader(data[at:])
			if !ok {
				t.Fatal("no header in a whole segment")
			}
			if at += h.size(); at <= int64(cut) {
				whole++
			}
		}
		for _, i := range [][]byte{idx, nil, idx[:rnd.IntN(len(idx))]} {
			write(data[:cut], i)
			got, err := l.Find(context.Background(), Query{Limit: 1000})
			if err != nil || len(got) != whole*10 {
				t.Fatalf("cut at %d of %d with %d of %d bytes of index: %d records, %v; want %d", cut, len(data), len(i), len(idx), len(got), err, whole*10)
			}
		}
	}
	// A record after a torn end goes to a segment of its own.
	write(data[:len(data)-5], idx)
	l.Put(rec(99))
	if got := find(t, l, Query{Limit: 1000}); len(got) != 41 || got[0].ID != rec(99).ID {
		t.Errorf("after the torn end: %d records, the newest %s", len(got), got[0].ID)
	}
}

func TestDamagedBlockIsToldAndPassedOver(t *testing.T) {
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
	l := openAt(t, dir, Options{})
	defer l.Close()
	got, err := l.Find(context.Background(), Query{Limit: 1000})
	if err == nil || !strings.Contains(err.Error(), "damaged") || len(got) != 40 {
		t.Errorf("%d records, %v; want 40 and the damage named", len(got), err)
	}
}

func TestRecordsReachTheDiskByThemselves(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	writer := openAt(t, dir, Options{FlushEvery: time.Millisecond})
	defer writer.Close()
	reader := openAt(t, dir, Options{}) // as another process would
	defer reader.Close()
	for n := range 3 {
		writer.Put(rec(n))
		for deadline := time.Now().Add(20 * time.Second); len(find(t, reader, Query{})) != n+1; time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("record %d did not reach the disk", n)
			}
		}
	}
}

func TestFullDisk(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "log")
	failed := make(chan error, 100)
	l := openAt(t, dir, Options{FlushEvery: time.Millisecond, MaxQueued: 8 << 10, Failed: func(err error) {
		select {
		case failed <- err:
		default:
		}
	}})
	defer l.Close()
	if err := os.RemoveAll(dir); err != nil { // no segment can be begun now
		t.Fatal(err)
	}
	const n = 100
	for i := range n {
		l.Put(rec(i))
	}
	for patience, told := time.After(20*time.Second), false; !told; {
		select {
		case err := <-failed: // the folder cannot be listed either
			told = strings.Contains(err.Error(), "could not begin a segment")
		case <-patience:
			t.Fatal("the failure was not told")
		}
	}
	lost := l.Stats().Lost
	if lost == 0 || lost == n {
		t.Fatalf("%d of %d records were lost, want some", lost, n)
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(20 * time.Second); l.Stats().Queued > 0; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the log did not go on when the disk was back")
		}
	}
	got := find(t, l, Query{Limit: 1000})
	if len(got) != n-int(lost)+1 {
		t.Errorf("%d records on disk, want the %d that were kept and one that tells of the rest", len(got), n-int(lost))
	}
	if want := fmt.Sprintf("%d records were lost", lost); !strings.HasPrefix(got[0].Note, want) || !got[0].Start.Equal(rec(n-int(lost)).Start) {
		t.Errorf("the last record is %+v, want a note %q", got[0], want)
	}
}

func TestOldSegmentsGo(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	name := fill(t, dir, 5)
	old := time.Now().Add(-36 * 24 * time.Hour)
	if err := os.Chtimes(name+logSuffix, old, old); err != nil {
		t.Fatal(err)
	}
	l := openAt(t, dir, Options{})
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) { // the writer cleans when it starts
		if _, err := os.Stat(name + logSuffix); errors.Is(err, os.ErrNotExist) {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("an old segment is still there")
		}
	}
	if _, err := os.Stat(name + idxSuffix); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the index of an old segment is still there: %v", err)
	}
	if got := find(t, l, Query{}); len(got) != 0 {
		t.Errorf("%d old records are still found", len(got))
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	s := &segment{born: time.Date(2026, 3, 1, 23, 59, 0, 0, time.UTC), logSize: 10}
	if s.due(s.born.Add(30*time.Second), 11) || !s.due(s.born, 10) || !s.due(s.born.Add(time.Minute), 11) {
		t.Error("a segment ends by its size or with its day")
	}
}

func TestTail(t *testing.T) {
	t.Parallel()
	l := openAt(t, t.TempDir(), Options{})
	defer l.Close()
	ctx, cancel := context.WithCancelCause(context.Background())
	enough := errors.New("enough")
	var got []string
	done := make(chan error)
	go func() {
		done <- l.Tail(ctx, Query{User: 3}, func(r *proxy.Record) {
			if got = append(got, r.ID); len(got) == 3 {
				cancel(enough)
			}
		})
	}()
	for l.tails.n.Load() == 0 {
		time.Sleep(time.Millisecond)
	}
	for i := range 30 {
		l.Put(rec(i))
	}
	if err := <-done; !errors.Is(err, enough) {
		t.Errorf("Tail: %v", err)
	}
	if want := []string{rec(2).ID, rec(12).ID, rec(22).ID}; !slices.Equal(got, want) {
		t.Errorf("followed %v, want %v", got, want)
	}
	if l.tails.n.Load() != 0 {
		t.Error("a reader who left is still there")
	}
}

func TestSlowReaderIsTold(t *testing.T) {
	t.Parallel()
	l := openAt(t, t.TempDir(), Options{})
	defer l.Close()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	began, goOn := make(chan struct{}), make(chan struct{})
	var once sync.Once
	note := ""
	done := make(chan error)
	go func() {
		done <- l.Tail(ctx, Query{}, func(r *proxy.Record) {
			once.Do(func() { close(began); <-goOn })
			if r.Note != "" {
				note = r.Note
				cancel()
			}
		})
	}()
	for l.tails.n.Load() == 0 {
		time.Sleep(time.Millisecond)
	}
	l.Put(rec(0))
	<-began
	for i := range tailRoom + 5 {
		l.Put(rec(i))
	}
	close(goOn)
	<-done
	if note != "5 records are not shown: the reader is too slow" {
		t.Errorf("note is %q", note)
	}
}

func TestConcurrentPuts(t *testing.T) {
	t.Parallel()
	l := openAt(t, t.TempDir(), Options{FlushEvery: time.Millisecond})
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			for i := range 500 {
				l.Put(rec(w*500 + i))
			}
		})
	}
	wg.Wait()
	seen := map[string]bool{}
	for _, r := range find(t, l, Query{Limit: 1 << 30}) {
		seen[r.ID] = true
	}
	if len(seen) != 4000 {
		t.Errorf("%d different records, want 4000", len(seen))
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
}

func TestOpenSaysWhatIsWrong(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(filepath.Join(file, "log"), Options{}); err == nil || !strings.Contains(err.Error(), file) {
		t.Errorf("Open below a file: %v", err)
	}
}

func TestFilterForgetsNothing(t *testing.T) {
	t.Parallel()
	var keys []uint64
	for i := range 1000 {
		keys = append(keys, hashNumber(keyUser, uint64(i)))
	}
	f := newFilter(keys)
	wrong := 0
	for i := range 10000 {
		has := mayHold(f, []uint64{hashNumber(keyUser, uint64(i))})
		if i < 1000 && !has {
			t.Fatalf("key %d was forgotten", i)
		}
		if i >= 1000 && has {
			wrong++
		}
	}
	if wrong > 9000/30 {
		t.Errorf("the filter is wrong for %d of 9000 keys", wrong)
	}
}

func FuzzLine(f *testing.F) {
	f.Add("a@example.org", "250 ok", "note \xff\x00\u2028", int64(5), uint64(7))
	f.Fuzz(func(t *testing.T, from, reply, note string, us int64, id uint64) {
		r := rec(1)
		r.Flow.ID, r.From, r.Reply, r.Note = flow.ID(id), from, reply, note
		r.To[0].Address, r.Helo, r.Ticket = note, reply, from
		r.Duration = time.Duration(us%(1<<40)) * time.Microsecond
		var e encoder
		e.encode(r)
		if n := strings.Count(string(e.line), "\n"); n != 1 {
			t.Fatalf("a record has %d line ends", n)
		}
		got, err := decode(e.line)
		if err != nil {
			t.Fatalf("%s: %v", e.line, err)
		}
		clean := func(s string) string { return string([]rune(s)) } // what is no UTF-8 becomes U+FFFD, byte by byte
		if got.From != clean(from) || got.Reply != clean(reply) || got.Note != clean(note) || got.Flow.ID != r.Flow.ID || got.Duration != r.Duration {
			t.Errorf("came back as %+v", got)
		}
	})
}

func TestEachStopsWhenItIsTold(t *testing.T) {
	t.Parallel()
	l := openAt(t, t.TempDir(), Options{})
	defer l.Close()
	for n := range 300 {
		l.Put(rec(n))
	}
	var got []flow.ID
	err := l.Each(context.Background(), Query{User: 3}, func(r *proxy.Record) bool {
		got = append(got, r.Flow.ID)
		return len(got) < 3
	})
	if err != nil || fmt.Sprint(got) != fmt.Sprint([]flow.ID{292, 282, 272}) {
		t.Errorf("%v, %v; want the newest three of the user", got, err)
	}
	all := 0
	if err := l.Each(context.Background(), Query{Limit: 1}, func(*proxy.Record) bool { all++; return true }); err != nil || all != 300 {
		t.Errorf("%d of 300 records, %v", all, err)
	}
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	if err := l.Each(ended, Query{}, func(*proxy.Record) bool { return true }); !errors.Is(err, context.Canceled) {
		t.Errorf("after its end: %v", err)
	}
}

func FuzzSegment(f *testing.F) {
	f.Add([]byte("LOG1"), []byte{})
	f.Fuzz(func(t *testing.T, data, idx []byte) {
		dir := t.TempDir()
		name := filepath.Join(dir, "20260301T120000.000000-1")
		if err := errors.Join(os.WriteFile(name+logSuffix, data, 0o600), os.WriteFile(name+idxSuffix, idx, 0o600)); err != nil {
			t.Fatal(err)
		}
		found := 0
		s := &search{q: &Query{}, take: func(*proxy.Record) bool { found++; return found < 10 }}
		_ = s.segment(context.Background(), name) // any bytes may be found on a disk; only a panic is wrong
		if found > 10 {
			t.Error("more than asked for")
		}
	})
}

func BenchmarkPut(b *testing.B) {
	l := openAt(b, b.TempDir(), Options{})
	r := rec(1)
	b.ReportAllocs()
	b.ResetTimer()
	for range b.N {
		l.Put(r)
	}
	if err := l.Flush(); err != nil { // its cost belongs to the records
		b.Fatal(err)
	}
	b.StopTimer()
	if st := l.Stats(); st.Lost > 0 || st.Records != uint64(b.N) {
		b.Errorf("stats are %+v", st)
	}
	b.ReportMetric(float64(l.Stats().Bytes)/float64(b.N), "disk-B/op")
	if err := l.Close(); err != nil {
		b.Fatal(err)
	}
}

func BenchmarkFindByTicket(b *testing.B) {
	l := openAt(b, b.TempDir(), Options{})
	defer l.Close()
	for i := range 100000 {
		r := rec(i)
		if i == 500 {
			r.Ticket = "4K7M-2QXB"
		}
		l.Put(r)
	}
	if err := l.Flush(); err != nil {
		b.Fatal(err)
	}
	b.ResetTimer()
	for range b.N {
		got, err := l.Find(context.Background(), Query{Ticket: "4K7M-2QXB"})
		if err != nil || len(got) != 1 {
			b.Fatal(len(got), err)
		}
	}
}
