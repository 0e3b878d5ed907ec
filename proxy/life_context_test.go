package proxy

import (
	"context"
	"testing"
	"time"
)

// TestLifeIsAContext: it ends once, with all that was made of it and all who watch, and what has gone before hears nothing.
func TestLifeIsAContext(t *testing.T) {
	t.Parallel()
	l := new(life)
	called := make(chan string, 8)
	watch := func(name string) func() bool { return l.AfterFunc(func() { called <- name }) }
	first, middle, last := watch("first"), watch("middle"), watch("last")
	if !middle() || middle() || !first() || !last() || l.first != nil {
		t.Fatal("a watcher that goes is taken out once")
	}
	watch("a")
	gone := watch("gone")
	watch("b")
	child, cancel := context.WithTimeout(l, time.Hour)
	defer cancel()
	brief, over := l.brief()
	defer over()
	other, done := l.brief()
	done()
	if l.Err() != nil || child.Err() != nil || brief.Err() != nil || other.Err() == nil || !gone() {
		t.Fatalf("before the end: %v %v %v %v", l.Err(), child.Err(), brief.Err(), other.Err())
	}
	early := l.Done()
	l.end()
	l.end()
	for _, c := range []<-chan struct{}{early, l.Done(), child.Done(), brief.Done()} {
		select {
		case <-c:
		case <-time.After(wait):
			t.Fatal("something outlives the end")
		}
	}
	got := map[string]int{}
	for range 2 {
		select {
		case name := <-called:
			got[name]++
		case <-time.After(wait):
			t.Fatalf("called: %v", got)
		}
	}
	if got["a"] != 1 || got["b"] != 1 || l.Err() != context.Canceled || child.Err() != context.Canceled {
		t.Errorf("called %v; %v, %v", got, l.Err(), child.Err())
	}
	if stop := watch("late"); stop() || <-called != "late" {
		t.Error("who comes after the end is called at once")
	}
}

// TestBriefContextsLeaveNothing: a session that opened an onward one is no larger for it.
func TestBriefContextsLeaveNothing(t *testing.T) {
	t.Parallel()
	l := new(life)
	for range 3 {
		ctx, over := l.brief()
		c, cancel := context.WithTimeout(ctx, time.Hour)
		<-func() chan struct{} { ch := make(chan struct{}); go func() { _ = c.Done(); close(ch) }(); return ch }()
		cancel()
		over()
	}
	if l.first != nil || l.done != nil {
		t.Errorf("left: %+v, %v", l.first, l.done)
	}
}
