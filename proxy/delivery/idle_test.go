package delivery

import (
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"sluice/proxy/tlspolicy"
)

// counted serves a domain and counts the sessions.
func (w *world) counted(domain, addr string, reply func(string) string) *atomic.Int64 {
	w.host(domain, addr)
	n := new(atomic.Int64)
	w.serve(addr, func(cmd string) string {
		if cmd == "connect" {
			n.Add(1)
		}
		if reply != nil {
			return reply(cmd)
		}
		return ""
	})
	return n
}

// TestMessagesInARowShareASession: as many as the setting says, however much later than the one before each comes.
func TestMessagesInARowShareASession(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(o *Options) { o.PerWay = 110 })
	w.q.linger = time.Hour
	connects := w.counted("one.example", "127.0.0.2", nil)
	for i := range 112 {
		w.send(w.mail(fmt.Sprintf("u%d@one.example", i)), text)
		if r := w.next(); r.Rcpts[0].Fate != Delivered {
			t.Fatalf("%+v", r)
		}
		w.empty()
	}
	if n := connects.Load(); n != 2 {
		t.Errorf("%d sessions for 112 messages, 110 in each", n)
	}
}

// TestAWaitingWorkerMakesRoom: who waits for what may come gives his place to a lane of the same site that has something.
func TestAWaitingWorkerMakesRoom(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(o *Options) { o.PerSite = 1 })
	w.q.linger = time.Hour
	w.counted("one.example", "127.0.0.2", nil)
	w.mu.Lock()
	w.domains["two.example"] = &tlspolicy.Domain{Name: "two.example", Hosts: w.domains["one.example"].Hosts}
	w.mu.Unlock()
	for i := range 12 {
		w.send(w.mail(fmt.Sprintf("u%d@%s.example", i, []string{"one", "two"}[i/2%2])), text)
		if r := w.next(); r.Rcpts[0].Fate != Delivered {
			t.Fatalf("%+v", r)
		}
	}
	w.empty()
	for deadline := time.Now().Add(20 * time.Second); len(w.q.Lanes()) > 0; time.Sleep(time.Millisecond) { // who waits does not show
		if time.Now().After(deadline) {
			t.Fatalf("%+v have work", w.q.Lanes())
		}
	}
}

// TestASessionThatEndedMeanwhileIsReplaced: a server may end a session after each message without a word; the next one is
// not late for that.
func TestASessionThatEndedMeanwhileIsReplaced(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.q.linger = time.Hour
	mails := new(atomic.Int64)
	connects := w.counted("one.example", "127.0.0.2", func(cmd string) string {
		if len(cmd) > 4 && cmd[:4] == "MAIL" && mails.Add(1)%2 == 0 {
			return "close"
		}
		return ""
	})
	for i := range 6 {
		w.send(w.mail(fmt.Sprintf("u%d@one.example", i)), text)
		if r := w.next(); r.Rcpts[0].Fate != Delivered {
			t.Fatalf("message %d: %+v", i, r)
		}
		w.empty()
	}
	if n := connects.Load(); n < 3 {
		t.Errorf("%d sessions", n)
	}
}
