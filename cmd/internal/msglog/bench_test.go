package msglog

import (
	"context"
	"testing"
)

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
