package delivery

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"sluice/proxy/spool"
)

// suspect commits a delivery as if the program had ended during its last try, which waits for put.
func (w *world) suspect(to string) spool.ID {
	w.t.Helper()
	d, err := w.s.Create()
	if err != nil {
		w.t.Fatal(err)
	}
	b := bodyOf(w.t, text)
	defer b.Release()
	ids, err := d.CommitHeld(w.mail(to), nil, b, "later")
	if err == nil {
		err = w.s.Release(ids[0])
	}
	if err != nil {
		w.t.Fatal(err)
	}
	w.q.suspect(ids[0])
	return ids[0]
}

// TestSuspectsAreTriedOneAtATime: of deliveries during which the program ended one is tried at a time, and neither the others
// nor what shares a lane with them waits for a destination that takes its time.
func TestSuspectsAreTriedOneAtATime(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.q.most = time.Hour
	go1, reached := make(chan struct{}), make(chan struct{})
	w.host("slow.example", "127.0.0.2")
	w.serve("127.0.0.2", func(cmd string) string {
		if strings.HasPrefix(cmd, "MAIL") {
			close(reached)
			<-go1
		}
		return ""
	})
	w.host("good.example", "127.0.0.3")
	w.serve("127.0.0.3", nil)
	first := w.suspect("a@slow.example")
	w.q.put("slow.example", first, w.now())
	<-reached
	second := w.suspect("b@good.example")
	w.q.put("good.example", second, w.now())
	for n := range 3 {
		w.send(w.mail(fmt.Sprintf("c%d@good.example", n)), text)
	}
	for range 3 { // they overtake the one that is to wait
		if r := w.next(); r.Delivery == second || r.Delivery == first || r.Rcpts[0].Fate != Delivered {
			t.Fatalf("%+v", r)
		}
	}
	close(go1)
	got := map[spool.ID]bool{w.next().Delivery: true, w.next().Delivery: true}
	if !got[first] || !got[second] {
		t.Errorf("tried were %v", got)
	}
	w.empty()
}

// TestASlowSuspectHoldsTheOthersUpForAMomentOnly: what crashes a program does it soon.
func TestASlowSuspectHoldsTheOthersUpForAMomentOnly(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.q.most = 10 * time.Millisecond
	stay := make(chan struct{})
	w.host("slow.example", "127.0.0.2")
	w.serve("127.0.0.2", func(cmd string) string {
		if strings.HasPrefix(cmd, "MAIL") {
			<-stay
		}
		return ""
	})
	w.host("good.example", "127.0.0.3")
	w.serve("127.0.0.3", nil)
	first, second := w.suspect("a@slow.example"), w.suspect("b@good.example")
	w.q.put("slow.example", first, w.now())
	w.q.put("good.example", second, w.now())
	if r := w.next(); r.Delivery != second {
		t.Errorf("%+v", r)
	}
	close(stay)
	if r := w.next(); r.Delivery != first {
		t.Errorf("%+v", r)
	}
}
