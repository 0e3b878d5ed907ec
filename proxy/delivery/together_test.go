package delivery

import (
	"strings"
	"sync"
	"testing"
	"time"

	"sluice/proxy/smtp"
	"sluice/proxy/spool"
)

// TestOneNoticeForAllThatFailTogether: who sends to many of one domain hears once of those who are not there, a block for each.
func TestOneNoticeForAllThatFailTogether(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.host("one.example", "127.0.0.2")
	w.serve("127.0.0.2", func(cmd string) string {
		if strings.HasPrefix(cmd, "RCPT TO:<no") {
			return "550 5.1.1 no such user"
		}
		return ""
	})
	w.host("sender.example", "127.0.0.3")
	back := w.serve("127.0.0.3", nil)
	w.send(w.mail("no1@one.example", "yes@one.example", "no2@one.example", "no3@one.example"), text)
	if r := w.next(); r.Notice == 0 || len(r.Rcpts) != 4 {
		t.Fatalf("%+v", r)
	}
	w.next() // the notice
	w.empty()
	got := back.taken()
	if len(got) != 1 || strings.Count(got[0], "Action: failed\r\nStatus: 5.1.1\r\n") != 3 || strings.Contains(got[0], "yes@") {
		t.Errorf("%d notices: %q", len(got), got)
	}
}

// TestNobodysMessageIsNotSent: DATA goes with the recipients; to a server that wants the message although it has refused all of
// them nothing is sent.
func TestNobodysMessageIsNotSent(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.host("one.example", "127.0.0.2")
	said := make(chan string, 16)
	mx := w.serve("127.0.0.2", func(cmd string) string {
		said <- cmd
		if strings.HasPrefix(cmd, "RCPT") {
			return "550 5.1.1 no such user"
		}
		return ""
	})
	w.host("sender.example", "127.0.0.3")
	w.serve("127.0.0.3", nil)
	w.send(w.mail("no@one.example"), text)
	if r := w.next(); r.Rcpts[0].Fate != Failed || r.Rcpts[0].Reply.Enh != (smtp.Enhanced{5, 1, 1}) || r.Notice == 0 {
		t.Errorf("%+v", r)
	}
	w.next() // the notice
	w.empty()
	for _, want := range []string{"connect", "EHLO", "MAIL", "RCPT", "DATA"} {
		if got := <-said; !strings.HasPrefix(got, want) {
			t.Errorf("the server heard %q, want %s", got, want)
		}
	}
	if got := mx.taken(); len(got) != 0 {
		t.Errorf("it has %q", got)
	}
}

// several is a message to four domains: two refuse, one defers, one answers when it is let go.
func several(t *testing.T, w *world) (back *server, letGo func()) {
	t.Helper()
	said := func(text string) func(string) string {
		return func(cmd string) string {
			if strings.HasPrefix(cmd, "RCPT") {
				return text
			}
			return ""
		}
	}
	gate := make(chan struct{})
	w.host("no.example", "127.0.0.2")
	w.serve("127.0.0.2", said("550 5.1.1 no such user"))
	w.host("never.example", "127.0.0.5")
	w.serve("127.0.0.5", said("550 5.7.1 go away"))
	w.host("later.example", "127.0.0.6")
	w.serve("127.0.0.6", said("450 4.2.0 greylisted"))
	w.host("slow.example", "127.0.0.7")
	w.serve("127.0.0.7", func(cmd string) string {
		if strings.HasPrefix(cmd, "RCPT") {
			<-gate
		}
		return ""
	})
	w.host("sender.example", "127.0.0.3")
	letGo = sync.OnceFunc(func() { close(gate) })
	t.Cleanup(letGo)
	return w.serve("127.0.0.3", nil), letGo
}

// tried waits for n tries of messages and returns their fates by domain.
func (w *world) tried(n int) map[string]Fate {
	w.t.Helper()
	fates := map[string]Fate{}
	for range n {
		r := w.next()
		fates[spool.Domain(r.Rcpts[0].Rcpt.Address)] = r.Rcpts[0].Fate
	}
	return fates
}

// TestOneNoticeForAllDomains: who sends to several domains hears once of all that refuse, when the last of them has been tried;
// what is put off meanwhile does not hold that up.
func TestOneNoticeForAllDomains(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	back, letGo := several(t, w)
	env := w.mail("a@no.example", "b@never.example", "c@later.example", "d@slow.example", "e@no.example")
	env.Rcpts[4].Notify = smtp.NotifyNever
	ids := w.send(env, text)
	fates := w.tried(3)
	if fates["no.example"] != Failed || fates["never.example"] != Failed || fates["later.example"] != Deferred || len(back.taken()) != 0 {
		t.Fatalf("%v, notices %q", fates, back.taken())
	}
	for i := range 2 {
		es, _, err := w.q.List(Filter{ID: ids[i]}, 0, 1)
		if err != nil || !es[0].Owed || es[0].Rcpts != 1 || !strings.Contains(es[0].State.Note, "other recipients") {
			t.Errorf("what waits for its notice is shown as %+v, %v", es, err)
		}
	}
	letGo()
	if fates := w.tried(2); fates["slow.example"] != Delivered || fates["sender.example"] != Delivered {
		t.Fatalf("%v", fates)
	}
	got := back.taken()
	if len(got) != 1 || strings.Count(got[0], "Action: failed\r\n") != 2 || !strings.Contains(got[0], "Final-Recipient: rfc822; a@no.example\r\nAction: failed\r\nStatus: 5.1.1\r\nRemote-MTA: dns; mx1.no.example\r\n") ||
		!strings.Contains(got[0], "Final-Recipient: rfc822; b@never.example\r\nAction: failed\r\nStatus: 5.7.1\r\n") || !strings.Contains(got[0], "mx1.never.example said: 550 go away") {
		t.Errorf("%d notices: %q", len(got), got)
	}
	if n := w.s.Figures().Deliveries; n != 1 {
		t.Errorf("%d deliveries are left, want the one that is put off", n)
	}
}

// TestANoticeWaitsForMinutesAtMost: what has failed is told after some minutes though something is being tried still.
func TestANoticeWaitsForMinutesAtMost(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	back, _ := several(t, w)
	w.send(w.mail("a@no.example", "b@never.example", "d@slow.example"), text)
	w.tried(2)
	w.pass(patience + time.Second)
	w.tried(1)
	if got := back.taken(); len(got) != 1 || strings.Count(got[0], "Action: failed\r\n") != 2 {
		t.Errorf("%d notices: %q", len(got), got)
	}
}

// TestAnOwedNoticeOutlivesTheProgram: what waits for its notice when the program ends is told by the next one, once.
func TestAnOwedNoticeOutlivesTheProgram(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	back, letGo := several(t, w)
	w.send(w.mail("a@no.example", "b@never.example", "d@slow.example"), text)
	w.tried(2)
	w.again()
	w.pass(patience + time.Second)
	letGo() // the old program's try ends and says so to a spool that is closed; the new one's delivers
	for notices := 0; notices < 1; {
		if r := w.next(); r.Envelope.From == "" {
			notices++
		}
	}
	w.empty()
	if got := back.taken(); len(got) != 1 || strings.Count(got[0], "Action: failed\r\n") != 2 {
		t.Errorf("%d notices: %q", len(got), got)
	}
}

// TestOneNoticeOfDelay: what waits for several domains is told in one notice, once.
func TestOneNoticeOfDelay(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	back, _ := several(t, w)
	w.host("busy.example", "127.0.0.8")
	w.serve("127.0.0.8", func(cmd string) string {
		if cmd == "connect" {
			return "421 4.3.2 busy"
		}
		return ""
	})
	ids := w.send(w.mail("a@later.example", "b@busy.example", "c@later.example"), text)
	w.tried(2)
	w.pass(4*time.Hour + time.Minute)
	for w.next().Envelope.From != "" { // one of them may be told of without another try
	}
	if got := back.taken(); len(got) != 1 || strings.Count(got[0], "Action: delayed\r\n") != 3 || !strings.Contains(got[0], "Final-Recipient: rfc822; b@busy.example\r\nAction: delayed\r\nStatus: 4.") {
		t.Errorf("%d notices: %q", len(got), got)
	}
	for _, id := range ids {
		if d, err := w.s.Get(id); err != nil || !d.Delayed || d.Held {
			t.Errorf("%v, %+v", err, d)
		}
	}
	if n := w.s.Figures().Deliveries; n != 2 {
		t.Errorf("%d deliveries, want those that wait", n)
	}
}
