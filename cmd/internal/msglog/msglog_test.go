package msglog

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"sluice/filter"
	"sluice/intercept/flow"
	"sluice/proxy"
	"sluice/proxy/tlspolicy"
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
		Waited: 1500 * time.Microsecond, Obstacle: proxy.AtCap, Unread: proxy.Unread{Out: 5000, In: 700},
		Source: netip.MustParseAddr("203.0.113.7"), Out: proxy.TLS{Version: "TLS1.3", Cipher: "TLS_AES_128_GCM_SHA256"},
		Terms: "required (setting)", Asks: tlspolicy.Report{Trust: "trusted for mx.example", Policy: "dane", Result: "no TLSA record matches the certificate"},
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

// kinds are an ordinary record, one with all that is rare, and that of a session without a message.
func kinds() []*proxy.Record {
	odd := rec(7)
	odd.Forwarded, odd.Likely, odd.Shadow, odd.Would = true, 57, true, "550 5.7.1 gw.example: [GTUBE] \"no\""
	odd.Status, odd.Ticket, odd.Note = proxy.Refused, "4K7M-2QXB", "quote \" backslash \\ tab \t nul \x00 del \x7f umlaut ü, line\r\nend </script>"
	odd.Source, odd.Out, odd.In, odd.Flow.User.Made = netip.Addr{}, proxy.TLS{}, proxy.TLS{Version: "TLS1.2", Cipher: "X"}, true
	odd.Flow.Client = netip.MustParseAddrPort("[2001:db8::1]:25")
	odd.Verdict = filter.Judge([]filter.Hit{
		{Check: "score", Code: "SCORE", Class: filter.Spam, Points: 0.125, Score: 0.97, Outside: true},
		{Check: "content", Code: "GTUBE", Class: filter.Spam, Action: filter.Reject, SMTP: 550, Enhanced: "5.7.1", Text: "spam", Evidence: "byte 7", NoLock: true},
	})
	session := &proxy.Record{ID: "zz", Flow: flow.Flow{ID: 35*36 + 35, Client: odd.Flow.Client}, Start: t0, Status: proxy.NoMessage, Verdict: filter.Judge(nil)}
	return []*proxy.Record{rec(1), odd, session}
}

// same compares records found, the newest first, with those that were put.
func same(t *testing.T, got, put []*proxy.Record) {
	t.Helper()
	if len(got) != len(put) {
		t.Fatalf("%d records came back, want %d", len(got), len(put))
	}
	for i, r := range put {
		if g := got[len(got)-1-i]; !reflect.DeepEqual(g, r) {
			t.Errorf("record %d came back as\n%+v, want\n%+v", i, g, r)
		}
	}
}

func TestRecordsComeBackWhole(t *testing.T) {
	t.Parallel()
	l := openAt(t, t.TempDir(), Options{})
	defer l.Close()
	put := kinds()
	for _, r := range put {
		l.Put(r)
	}
	same(t, find(t, l, Query{}), put)
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
