package delivery

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"
)

// crowd counts sessions of several servers that have a message under way at once.
type crowd struct {
	mu       sync.Mutex
	now, top int
	full     chan struct{} // closed when as many as wanted are there
	want     int
	gate     chan struct{} // closed: all may go on
}

func (c *crowd) reply(cmd string) string {
	switch {
	case strings.HasPrefix(cmd, "MAIL"):
		c.mu.Lock()
		c.now++
		if c.now > c.top && c.now == c.want {
			close(c.full)
		}
		c.top = max(c.top, c.now)
		gate := c.gate
		c.mu.Unlock()
		<-gate
	case cmd == ".":
		c.mu.Lock()
		c.now--
		c.mu.Unlock()
	}
	return ""
}

// TestSitesWithBoundsOfTheirOwn: destinations that the settings name share a bound, others are not touched by it, and other
// settings hold at once.
func TestSitesWithBoundsOfTheirOwn(t *testing.T) {
	t.Parallel()
	few := Settings{Bounds: Bounds{PerSite: 50}, Sites: []Site{
		{Name: "slow", Domains: []string{"one.example", ".below.example"}, Exchangers: []string{"mx1.two.example"}, Bounds: Bounds{PerSite: 2}},
	}}
	w := newWorld(t, func(o *Options) { o.Settings = few })
	slow := &crowd{want: 2, full: make(chan struct{}), gate: make(chan struct{})}
	for i, domain := range []string{"one.example", "two.example", "a.below.example"} {
		w.host(domain, fmt.Sprintf("127.0.0.%d", i+2))
		w.serve(fmt.Sprintf("127.0.0.%d", i+2), slow.reply)
		for k := range 6 {
			w.send(w.mail(fmt.Sprintf("u%d@%s", k, domain)), text)
		}
	}
	w.host("free.example", "127.0.0.9")
	w.serve("127.0.0.9", nil)
	w.send(w.mail("u@free.example"), text)
	if r := w.next(); r.Host != "mx1.free.example" || r.Rcpts[0].Fate != Delivered {
		t.Fatalf("the other destination: %+v", r)
	}
	<-slow.full
	lanes := map[string]string{}
	for _, l := range w.q.Lanes() {
		lanes[l.Domain] = l.Site
	}
	for _, domain := range []string{"one.example", "two.example", "a.below.example"} {
		if s := lanes[domain]; s != "slow (set)" && s != "" { // "": its first try waits behind the others
			t.Errorf("%s goes through %q", domain, s)
		}
	}
	close(slow.gate)
	for range 18 {
		if r := w.next(); r.Rcpts[0].Fate != Delivered {
			t.Fatalf("%+v", r)
		}
	}
	if slow.top > 2+3 { // the first try of each domain comes before it is known who takes its mail
		t.Errorf("%d at once, the bound is 2", slow.top)
	}
	few.Sites = nil
	slow.mu.Lock()
	slow.top, slow.want, slow.full, slow.gate = 0, 1, make(chan struct{}), make(chan struct{})
	slow.mu.Unlock()
	w.send(w.mail("v@one.example"), text)
	<-slow.full
	w.q.Configure(few)
	for _, l := range w.q.Lanes() {
		if l.Domain == "one.example" && l.Site != "mx1.one.example" {
			t.Errorf("with other settings it goes through %+v", l)
		}
	}
	close(slow.gate)
	if r := w.next(); r.Rcpts[0].Fate != Delivered {
		t.Errorf("%+v", r)
	}
}

// TestMessagesPerHourOfASite: what is above the bound waits for the hour to pass.
func TestMessagesPerHourOfASite(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(o *Options) {
		o.Sites = []Site{{Name: "two an hour", Domains: []string{"one.example"}, Bounds: Bounds{PerHour: 2, PerSite: 1}}}
	})
	w.host("one.example", "127.0.0.2")
	w.serve("127.0.0.2", nil)
	for k := range 3 {
		w.send(w.mail(fmt.Sprintf("u%d@one.example", k)), text)
	}
	for range 2 {
		if r := w.next(); r.Rcpts[0].Fate != Delivered {
			t.Fatalf("%+v", r)
		}
	}
	l := w.q.Lanes()
	if len(l) != 1 || l[0].Waiting != 1 || !l[0].Next.After(w.now().Add(59*time.Minute)) {
		t.Fatalf("behind two messages: %+v", l)
	}
	w.pass(61 * time.Minute)
	if r := w.next(); r.Rcpts[0].Fate != Delivered {
		t.Errorf("after an hour: %+v", r)
	}
}
