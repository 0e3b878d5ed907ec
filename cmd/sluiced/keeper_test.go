package main

import (
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-smtp"

	"sluice/cmd/internal/api"
	"sluice/intercept/control"
	mail "sluice/proxy/smtp"
	"sluice/proxy/spool"
)

// TestMessagesComeInWhileTheQueueIsHandedOver: what is between DATA and its final dot then is kept all the same, in the spool that
// the process has afterwards, also where its end stands in a file already.
func TestMessagesComeInWhileTheQueueIsHandedOver(t *testing.T) {
	t.Parallel()
	config, at, files := opened(t, "trusted = [\"127.0.0.0/8\"]")
	g := newGateway(t, config)
	g.start()
	defer g.end()
	if err := g.daemon.takeHouse(control.HouseName(at[0]), files[0]); err != nil {
		t.Fatal(err)
	}
	line := strings.Repeat("x", 70) + "\r\n"
	const before, after = 20_000, 30_000 // lines; 1.4 and 2.2 MB
	var open []io.WriteCloser
	var want []string
	for _, lines := range []int{1, before} {
		c, err := smtp.Dial(at[0].String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if err := c.Mail("a@anywhere.example", nil); err != nil {
			t.Fatal(err)
		}
		if err := c.Rcpt(fmt.Sprintf("b%d@sink.example", lines), nil); err != nil {
			t.Fatal(err)
		}
		w, err := c.Data()
		if err != nil {
			t.Fatal(err)
		}
		text := "Subject: a\r\n\r\n" + strings.Repeat(line, lines)
		if _, err := io.WriteString(w, text); err != nil {
			t.Fatal(err)
		}
		open, want = append(open, w), append(want, text)
	}
	g.daemon.mail.yield(t.Context())
	for i, w := range open {
		if i > 0 {
			want[i] += strings.Repeat(line, after-before)
			if _, err := io.WriteString(w, strings.Repeat(line, after-before)); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.Close(); err != nil {
			t.Errorf("message %d: %v", i, err)
		}
	}
	all := g.kept()
	if len(all) != len(want) {
		t.Fatalf("%d deliveries are kept, want %d", len(all), len(want))
	}
	for i, l := range all {
		b, err := l.Body()
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(b.NewReader())
		if !strings.HasSuffix(string(text), "\r\n"+want[i]) || err != nil || b.Spilled() != (i > 0) {
			t.Errorf("message %d is kept with %d bytes, %v, want %d and a trace field", i, len(text), err, len(want[i]))
		}
		b.Release()
	}
}

// TestTheQueueIsOnItsWay: who asks a process that takes over for the queue waits until the older one has given it, or hears that
// it is coming; he is never shown an empty one.
func TestTheQueueIsOnItsWay(t *testing.T) {
	t.Parallel()
	g := newGateway(t, "")
	var older *spool.Spool
	g.before = func(d *daemon) {
		d.second.Store(true)
		d.o.undelivered = false
		var err error
		if older, err = spool.Open(d.mail.dir, spool.Options{Keep: true}); err != nil {
			t.Fatal(err)
		}
	}
	g.start()
	defer g.end()
	d, err := older.Create()
	if err != nil {
		t.Fatal(err)
	}
	body, err := mail.BodyFromBytes([]byte("Subject: a\r\n\r\nb\r\n"))
	if err != nil {
		t.Fatal(err)
	}
	defer body.Release()
	if _, err := d.CommitHeld(&spool.Envelope{Message: "m1", From: "a@customer.example", Received: time.Now(), Rcpts: []spool.Rcpt{{Address: "b@sink.example"}}}, nil, body, "test"); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"/v1/queue?limit=10", "/v1/queue/lanes"} {
		if err := g.api.Do(t.Context(), "GET", path, nil, nil); err == nil || !strings.Contains(err.Error(), "before it hands the queue over; ask again in a moment") {
			t.Errorf("%s while the queue is on its way: %v", path, err)
		}
	}
	page := make(chan error, 1)
	var q api.QueuePage
	go func() { page <- g.api.Do(t.Context(), "GET", "/v1/queue?limit=10", nil, &q) }()
	if err := older.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-page; err != nil || len(q.Deliveries) != 1 || q.Deliveries[0].Message != "m1" {
		t.Errorf("%v, %+v", err, q)
	}
	var changed api.QueueChanged
	if err := g.api.Do(t.Context(), "POST", "/v1/queue", api.QueueChange{Do: "delete", Filter: api.QueueFilter{Message: "m1"}, Reason: "test"}, &changed); err != nil || changed.Count != 1 {
		t.Errorf("%v, %+v", err, changed)
	}
}
