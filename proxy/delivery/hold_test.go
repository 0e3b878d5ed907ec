package delivery

import (
	"fmt"
	"sync/atomic"
	"testing"
)

// TestAWorkerKeepsItsSession: the mail of a lane goes in as few sessions as messages_per_session allows.
func TestAWorkerKeepsItsSession(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ perWay, want int }{{100, 1}, {10, 3}} {
		var connects atomic.Int64
		w := newWorld(t, func(o *Options) { o.PerSite, o.PerWay = 1, c.perWay })
		w.host("one.example", "127.0.0.2")
		mx := w.serve("127.0.0.2", func(cmd string) string {
			if cmd == "connect" {
				connects.Add(1)
			}
			return ""
		})
		for i := range 30 {
			w.send(w.mail(fmt.Sprintf("u%d@one.example", i)), text)
		}
		for range 30 {
			if r := w.next(); r.Rcpts[0].Fate != Delivered {
				t.Fatalf("%+v", r)
			}
		}
		// A worker may have ended while the queue was still being filled.
		if n := int(connects.Load()); n < c.want || n > c.want+2 || len(mx.taken()) != 30 {
			t.Errorf("%d messages a session: %d sessions for 30 messages, want %d", c.perWay, n, c.want)
		}
	}
}

// TestSessionsAreNobodyElses: a worker's session does not serve another user's message.
func TestSessionsAreNobodyElses(t *testing.T) {
	t.Parallel()
	var connects atomic.Int64
	w := newWorld(t, func(o *Options) { o.PerSite = 1 })
	w.host("one.example", "127.0.0.2")
	w.serve("127.0.0.2", func(cmd string) string {
		if cmd == "connect" {
			connects.Add(1)
		}
		return ""
	})
	for i := range 4 {
		env := w.mail("x@one.example")
		env.User = uint32(100 + i)
		w.send(env, text)
	}
	for range 4 {
		if r := w.next(); r.Rcpts[0].Fate != Delivered {
			t.Fatalf("%+v", r)
		}
	}
	if n := connects.Load(); n != 4 {
		t.Errorf("%d sessions for four users", n)
	}
}
