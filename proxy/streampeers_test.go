package proxy

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"sluice/proxy/relay"
	"sluice/proxy/smtp"
)

// TestLockInTheMidst: no more of the message goes onward, and the client hears of the lock behind its dot.
func TestLockInTheMidst(t *testing.T) {
	t.Parallel()
	mx := newRemote(t)
	r := newRig(t, mx.addr(), streams)
	p := r.hello()
	p.begin()
	mx.has(t, 60_000)
	r.locks.lock("T-9")
	p.write(stuffed(secondHalf))
	mx.await(t, hungUp) // before the dot
	p.cmd(".", "451 4.7.1 gw.example: [LOCKED]")
	if n := len(mx.messages()); n != 0 {
		t.Errorf("%d messages arrived", n)
	}
}

// TestSlowClientAhead: what it sends goes on as it comes; when it sends nothing the destination is not kept waiting, and hears
// of the message again once that is here.
func TestSlowClientAhead(t *testing.T) {
	t.Parallel()
	mx := newRemote(t)
	r := newRig(t, mx.addr(), streams)
	r.srv.mostWait = 500 * time.Millisecond // the first half comes in less
	p := r.hello()
	p.begin()
	mx.has(t, 60_000)
	mx.await(t, hungUp)
	p.write(stuffed(secondHalf))
	p.cmd(".", "250 2.0.0 queued")
	if got := mx.sessions(); len(got) != 2 || len(mx.messages()) != 1 || text(t, mx.messages()[0]) != stuffed(firstHalf+secondHalf) {
		t.Errorf("%d messages in %q", len(mx.messages()), got)
	}
}

// TestSlowDestinationAhead: one that takes nothing is given up, and the client, who waited for it, is not.
func TestSlowDestinationAhead(t *testing.T) {
	t.Parallel()
	mx := newRemote(t, func(r *remote) { r.hold = make(chan struct{}) })
	r := newRig(t, mx.addr(), streams)
	r.srv.stalled = 100 * time.Millisecond
	p := r.hello()
	p.begin()
	for more := strings.Repeat(secondHalf, 10); !r.srv.doubts.about(7, time.Now()); {
		p.write(more) // until all buffers on the way are full
	}
	close(mx.hold)
	p.cmd(".", "250 2.0.0 queued")
	if got := mx.sessions(); len(got) != 2 || len(mx.messages()) != 1 {
		t.Errorf("%d messages in %q", len(mx.messages()), got)
	}
}

// TestBinaryMessageAhead goes in chunks, of which the last waits for the verdict. A chunk that is refused is the answer.
func TestBinaryMessageAhead(t *testing.T) {
	t.Parallel()
	binary := func(r *remote) { r.ehlo = append(r.ehlo, "BINARYMIME") }
	for name, c := range map[string]struct {
		remote func(*remote)
		word   string
		want   string
	}{
		"good":                    {remote: binary, want: "250 2.0.0 ok BDAT"},
		"bad":                     {remote: binary, word: "SPAMWORD", want: "550 5.7.1 gw.example: [WORD]"},
		"a chunk is refused":      {remote: func(r *remote) { binary(r); r.on["BDAT"] = []string{"250 ok", "452 4.3.1 no room"} }, want: "452 4.3.1 no room"},
		"the last one is refused": {remote: func(r *remote) { binary(r); r.on["BDAT"] = []string{"250 1", "250 2", "554 5.6.0 no"} }, want: "554 5.6.0 no"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			mx := newRemote(t, c.remote)
			r := newRig(t, mx.addr(), steps(spamStep()), streams)
			p := r.hello()
			p.cmd("MAIL FROM:<a@client.example> BODY=BINARYMIME", "250")
			p.cmd("RCPT TO:<b@sink.example>", "250")
			first := firstHalf + "\n\x00\r"
			p.write(bdat(first, false))
			p.want("250")
			mx.has(t, 60_000)
			second := secondHalf + c.word
			p.write(bdat(second, true))
			p.want(c.want)
			said, all := mx.commands(), strings.Join(mx.messages(), "")
			last := slices.ContainsFunc(said, func(s string) bool { return strings.HasSuffix(s, " LAST") })
			switch name {
			case "good":
				if !last || text(t, all) != first+second {
					t.Errorf("%d bytes arrived in %q", len(all), said)
				}
			case "bad":
				mx.await(t, hungUp)
				if last {
					t.Errorf("the destination heard %q", said)
				}
			}
			if rec := r.log.wait(t, 1)[0]; (rec.Status == Delivered) != (name == "good") {
				t.Errorf("it is %v", rec.Status)
			}
		})
	}
}

// TestPushTellsWhetherAnythingCame, and sends what was gathered.
func TestPushTellsWhetherAnythingCame(t *testing.T) {
	t.Parallel()
	mx := newRemote(t)
	d := relay.NewDialer(relay.Options{})
	s, err := d.Open(context.Background(), relay.Route{Target: mx.addr(), Helo: "gw.example"})
	must(t, err)
	defer s.Close()
	mail, err := smtp.ParseMail("FROM:<a@client.example>")
	must(t, err)
	rcpt, err := smtp.ParseRcpt("TO:<b@sink.example>")
	must(t, err)
	var heard agreement
	must(t, s.Recipients(&mail, []smtp.Rcpt{rcpt}, &heard))
	until := time.Now().Add(wait)
	if r, err := s.Stream(nil, until); r != nil || err != nil || !s.Streams() || !s.Waits() {
		t.Fatalf("%v, %v", r, err)
	}
	b := smtp.NewBody(nil)
	defer b.Release()
	for i, want := range []bool{true, false, true, false} {
		if want {
			must(t, b.Append([]byte("Subject: x\r\n")))
			_, err := s.Pass(b, until)
			must(t, err)
		}
		moved, err := s.Push(until)
		if moved != want || err != nil {
			t.Errorf("%d: moved %t, %v", i, moved, err)
		}
		mx.has(t, 12*(i/2+1))
	}
}
