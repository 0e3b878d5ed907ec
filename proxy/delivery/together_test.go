package delivery

import (
	"strings"
	"testing"

	"sluice/proxy/smtp"
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
