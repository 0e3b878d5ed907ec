package msglog

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"sluice/proxy"
)

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
