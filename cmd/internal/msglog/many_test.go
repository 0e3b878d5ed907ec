package msglog

import (
	"context"
	"errors"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sluice/filter"
	"sluice/intercept/flow"
	"sluice/proxy"
)

// world makes records as a hosting network sends them, out of a seed: 100,000 users, few of whom send most.
type world struct {
	rnd   *rand.Rand
	start time.Time
	n     int // in all
}

var (
	manyReply  = "250 2.0.0 Ok: queued as 4XyZ1b2c3d"
	manyPolicy = filter.Judge([]filter.Hit{{Check: "rate", Code: "RATE-MSG", Class: filter.Policy, Action: filter.Defer, SMTP: 451, Enhanced: "4.7.1",
		Text: "this sender has reached its limit of 500 messages per hour; try again in 12 min", Evidence: "messages_per_hour 500 of the user"}})
	manySpam = filter.Judge([]filter.Hit{{Check: "content", Code: "SPAM", Class: filter.Spam, Action: filter.Reject, Points: 7.5, SMTP: 550, Enhanced: "5.7.1",
		Text: "the message is spam", Evidence: "probability 0.998"}})
	manyGood = filter.Judge(nil)
)

// record is the i-th of the world; two calls with one i agree.
func (w *world) record(i int) *proxy.Record {
	w.rnd = rand.New(rand.NewPCG(7, uint64(i)))
	user := int(float64(100_000) * w.rnd.Float64() * w.rnd.Float64() * w.rnd.Float64())
	at := w.start.Add(time.Duration(i) * (35 * 24 * time.Hour / time.Duration(w.n)))
	r := &proxy.Record{
		ID: flow.ID(i).String() + ".1",
		Flow: flow.Flow{
			ID: flow.ID(i), Client: netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 18 + byte(user>>16), byte(user >> 8), byte(user)}), uint16(1024+w.rnd.IntN(60000))),
			Target: netip.AddrPortFrom(netip.AddrFrom4([4]byte{203, 0, 113, byte(w.rnd.IntN(250))}), 25), Start: at.Add(-time.Second),
			User: flow.User{ID: uint32(user + 1), Name: "customer" + strconv.Itoa(user), Prefix: netip.PrefixFrom(netip.AddrFrom4([4]byte{198, 18 + byte(user>>16), byte(user >> 8), byte(user)}), 32)},
		},
		Start: at, Duration: time.Duration(40+w.rnd.IntN(900)) * time.Millisecond, Helo: "mail.customer" + strconv.Itoa(user) + ".example",
		From: "info" + strconv.Itoa(w.rnd.IntN(3)) + "@customer" + strconv.Itoa(user) + ".example",
		To:   []proxy.Recipient{{Address: "r" + strconv.Itoa(w.rnd.IntN(5_000_000)) + "@d" + strconv.Itoa(w.rnd.IntN(40_000)) + ".example", Code: 250, Reply: "2.1.5 Ok"}},
		Size: int64(2000 + w.rnd.IntN(90_000)), Status: proxy.Delivered, Verdict: manyGood, Reply: manyReply, Remote: manyReply,
		Source: netip.AddrFrom4([4]byte{192, 0, 2, byte(user % 16)}), Out: proxy.TLS{Version: "TLS1.3", Cipher: "TLS_AES_128_GCM_SHA256"},
	}
	switch w.rnd.IntN(50) {
	case 0:
		r.Status, r.Verdict, r.Reply, r.Remote = proxy.Deferred, manyPolicy, "451 4.7.1 gw.example: [RATE-MSG] this sender has reached its limit", ""
	case 1:
		r.Status, r.Verdict, r.Reply, r.Remote = proxy.Refused, manySpam, "550 5.7.1 gw.example: [SPAM] the message is spam", ""
	}
	return r
}

// TestSearchesAmongMany: searches by user, sender, recipient, id, client and time find what is there, however many rows
// there are. SLUICE_LOG_ROWS asks for more, and then for figures: `make soak-log`. Each search is made twice: at first all that
// it reads comes from the disk. SLUICE_LOG_DIR keeps the rows there, for another time.
func TestSearchesAmongMany(t *testing.T) {
	t.Parallel()
	rows, each, dir := 8_000, 3, t.TempDir()
	segment := int64(1 << 20)
	asked := os.Getenv("SLUICE_LOG_ROWS")
	if asked != "" {
		var err error
		if rows, err = strconv.Atoi(asked); err != nil {
			t.Fatal(err)
		}
		each, segment = 100, 0
	}
	w := &world{start: time.Date(2026, 10, 1, 0, 0, 0, 0, time.UTC), n: rows}
	if kept := os.Getenv("SLUICE_LOG_DIR"); asked != "" && kept != "" {
		dir = kept
	}
	if names, err := segments(dir); err != nil || len(names) == 0 {
		build(t, w, dir, segment)
	}
	l := openAt(t, dir, Options{Keep: 400 * 24 * time.Hour})
	defer l.Close()
	sealedAll(t, l)
	begin := cpu(t)
	if _, err := l.mergeAll(time.Now(), nil); err != nil {
		t.Fatal(err)
	}
	_, done := files(t, dir)
	t.Logf("%d MB on disk, in %d segments; merged in %v of CPU", used(t, dir)>>20, done, (cpu(t) - begin).Round(time.Millisecond))
	rnd := rand.New(rand.NewPCG(5, 5))
	var r *proxy.Record
	for _, c := range []struct {
		name string
		q    func(r *proxy.Record) Query
	}{
		{"id", func(r *proxy.Record) Query { return Query{ID: r.ID} }},
		{"recipient", func(r *proxy.Record) Query { return Query{Recipient: r.To[0].Address} }},
		{"sender", func(r *proxy.Record) Query { return Query{Sender: r.From} }},
		{"sender's domain", func(r *proxy.Record) Query { return Query{Sender: domainOf(r.From)} }},
		{"user", func(r *proxy.Record) Query { return Query{User: r.Flow.User.ID} }},
		{"client", func(r *proxy.Record) Query {
			return Query{Client: netip.PrefixFrom(r.Flow.Client.Addr(), 32)}
		}},
		{"time", func(r *proxy.Record) Query { return Query{From: r.Start, Until: r.Start.Add(3 * time.Second)} }},
		{"user and time", func(r *proxy.Record) Query {
			return Query{User: r.Flow.User.ID, From: r.Start.Add(-time.Hour), Until: r.Start.Add(time.Microsecond)}
		}},
		{"user and code", func(r *proxy.Record) Query { return Query{User: r.Flow.User.ID, Code: "SPAM"} }},
		{"nobody", func(r *proxy.Record) Query { return Query{Recipient: "x" + r.To[0].Address} }},
	} {
		var first, again []time.Duration
		for i := range 2 * each {
			if i%2 == 0 {
				r = w.record(rnd.IntN(rows))
			}
			if i%2 == 0 && asked != "" {
				evict(t, dir)
			}
			begin := time.Now()
			got, err := l.Find(context.Background(), c.q(r))
			if err != nil {
				t.Fatal(err)
			}
			if i%2 == 0 {
				first = append(first, time.Since(begin))
			} else {
				again = append(again, time.Since(begin))
			}
			has := slices.ContainsFunc(got, func(o *proxy.Record) bool { return o.ID == r.ID })
			switch c.name {
			case "id", "recipient", "time", "user and time":
				if !has {
					t.Errorf("%s: %s is not among %d", c.name, r.ID, len(got))
				}
			case "nobody":
				if len(got) > 0 {
					t.Errorf("%s: found %s", c.name, ids(got))
				}
			}
		}
		a, b := quantiles(first), quantiles(again)
		t.Logf("by %-16s p50 %8v  p99 %8v  again p50 %8v  p99 %8v", c.name, a[0], a[1], b[0], b[1])
		if asked != "" && b[1] > 100*time.Millisecond {
			t.Errorf("by %s: p99 is %v, want at most 100 ms", c.name, b[1])
		}
	}
}

// evict has the kernel forget what it holds of the log's files in memory.
func evict(t *testing.T, dir string) {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, "*"+segSuffix))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		f, err := os.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED), f.Close()); err != nil {
			t.Fatal(err)
		}
	}
}

// quantiles are p50 and p99.
func quantiles(all []time.Duration) [2]time.Duration {
	slices.Sort(all)
	return [2]time.Duration{all[len(all)/2].Round(10 * time.Microsecond), all[len(all)*99/100].Round(10 * time.Microsecond)}
}

// build writes the rows of a world to a log in dir.
func build(t *testing.T, w *world, dir string, segment int64) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o750); err != nil {
		t.Fatal(err)
	}
	room(t, dir, int64(w.n)*300)
	l := openAt(t, dir, Options{SegmentBytes: segment, Keep: 400 * 24 * time.Hour})
	begin := cpu(t)
	wall := time.Now()
	for i := range w.n {
		l.Put(w.record(i))
		if i%20_000 == 19_999 {
			if err := l.Flush(); err != nil {
				t.Fatal(err)
			}
			waitSealed(t, l)
		}
	}
	if err := l.Flush(); err != nil {
		t.Fatal(err)
	}
	if st := l.Stats(); st.Lost != 0 || st.Records != uint64(w.n) {
		t.Fatalf("the log has %+v", st)
	}
	t.Logf("%d rows in %v, %v of CPU with making them", w.n, time.Since(wall).Round(time.Second), (cpu(t) - begin).Round(time.Second))
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}

// waitSealed lets the sealer catch up, so that the disk never holds much that is not sealed.
func waitSealed(t *testing.T, l *Log) {
	t.Helper()
	for {
		if open, _ := files(t, l.dir); open < 6 {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// room skips nothing: a disk without room fails before it is filled.
func room(t *testing.T, dir string, need int64) {
	t.Helper()
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		t.Fatal(err)
	}
	if free := int64(st.Bavail) * int64(st.Bsize); free < need+(5<<30) {
		t.Fatalf("%s has %d GB free, want %d for the rows and 5 for everybody else; set TMPDIR to another disk", dir, free>>30, need>>30)
	}
}

func used(t *testing.T, dir string) (n int64) {
	t.Helper()
	all, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range all {
		if st, err := os.Stat(name); err == nil {
			n += st.Size()
		}
	}
	return n
}

// threadCPU is what this thread has used so far.
func threadCPU(t testing.TB) time.Duration {
	t.Helper()
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_THREAD, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// cpu is what the process has used so far.
func cpu(t testing.TB) time.Duration {
	t.Helper()
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkSeal seals a finished segment, per row, by the keys that were kept in memory.
func BenchmarkSeal(b *testing.B) {
	const rows = 20_000
	w := &world{start: time.Now().Add(-time.Hour), n: rows}
	dir := b.TempDir()
	l := openAt(b, dir, Options{})
	for i := range rows {
		l.Put(w.record(i))
	}
	if err := l.Flush(); err != nil {
		b.Fatal(err)
	}
	name, keys := l.seg.name, l.seg.keys
	log, err := os.Open(name + logSuffix)
	if err != nil {
		b.Fatal(err)
	}
	defer log.Close()
	defer l.Close()
	b.ReportAllocs()
	b.ResetTimer()
	for b.Loop() {
		if err := l.sealTo(name+".bench", log, &keys, time.Now()); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/rows, "ns/row")
	if st, err := os.Stat(name + ".bench"); err == nil {
		b.ReportMetric(float64(st.Size())/rows, "disk-B/row")
	}
}
