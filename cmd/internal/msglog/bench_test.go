package msglog

import (
	"context"
	"runtime"
	"testing"
)

// BenchmarkPut tells what a record costs the message path, by the clock of its thread, and what it costs in all: writing
// and sealing go on beside. The first is to be at most 3 µs.
func BenchmarkPut(b *testing.B) {
	l := openAt(b, b.TempDir(), Options{})
	r := rec(1)
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	b.ReportAllocs()
	all, path := cpu(b), threadCPU(b)
	b.ResetTimer()
	for range b.N {
		l.Put(r)
	}
	path = threadCPU(b) - path
	if err := l.Flush(); err != nil { // its cost belongs to the records
		b.Fatal(err)
	}
	b.StopTimer()
	perRecord := float64(path.Nanoseconds()) / float64(b.N)
	b.ReportMetric(perRecord, "path-cpu-ns/op")
	b.ReportMetric(float64((cpu(b)-all).Nanoseconds())/float64(b.N), "cpu-ns/op")
	if b.N > 10_000 && perRecord > 3000 {
		b.Errorf("a record costs the message path %.0f ns of CPU, want at most 3000", perRecord)
	}
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
