package pool

import (
	"context"
	"fmt"
	"testing"
	"time"
)

func TestLookupsKeepNobodyWaiting(t *testing.T) {
	t.Parallel()
	hang, asked := make(chan struct{}), make(chan string, 100)
	l := NewLookups(func(_ context.Context, k string) (int, bool) {
		asked <- k
		switch k {
		case "slow":
			<-hang
		case "broken":
			panic("a record that nobody foresaw")
		}
		return len(k), k != "unknown"
	})
	if got := l.Answers(context.Background(), []string{"a", "unknown", "broken"}); fmt.Sprint(got) != "map[a:1]" {
		t.Errorf("%v", got)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if got := l.Answers(ctx, []string{"slow", "a"}); fmt.Sprint(got) != "map[a:1]" {
		t.Errorf("while one hangs: %v", got)
	}
	if v, known := l.Peek("slow", time.Now()); known {
		t.Errorf("known while it hangs: %v", v)
	}
	close(hang)
	if got := l.Answers(context.Background(), []string{"slow", "a"}); fmt.Sprint(got) != "map[a:1 slow:4]" {
		t.Errorf("later: %v", got)
	}
	if n := len(asked); n != 4 {
		t.Errorf("%d questions were asked, want each once", n)
	}
}

// TestOldAnswersHold while there is no newer one, for some hours.
func TestOldAnswersHold(t *testing.T) {
	t.Parallel()
	n, answers := 0, make(chan bool, 2)
	l := NewLookups(func(context.Context, string) (int, bool) { n++; return n, <-answers })
	answers <- true
	now := time.Now()
	if v, known := l.Get(context.Background(), "a", now); v != 1 || !known {
		t.Fatal(v, known)
	}
	later := now.Add(lookupKeep + time.Minute)
	if v, known := l.Peek("a", later); v != 1 || !known {
		t.Errorf("while it is asked again: %v %v", v, known)
	}
	answers <- false
	<-l.start("a", later).done
	if v, known := l.Peek("a", later); v != 1 || !known {
		t.Errorf("after there was no answer: %v %v", v, known)
	}
	if v, known := l.asked["a"].peek(later.Add(lookupStale)); known {
		t.Errorf("hours later it still holds: %v", v)
	}
}
