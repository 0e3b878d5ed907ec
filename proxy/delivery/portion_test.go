package delivery

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"sluice/proxy/smtp"
)

// bounded is a server with room for few recipients in a message. It counts connections and keeps who was accepted, message by
// message.
type bounded struct {
	mu    sync.Mutex
	conns int
	mails [][]string
	most  [2]int                                    // recipients accepted, and asked for at most, in one transaction
	room  int                                       // recipients above it hear 452 4.5.3
	other func(cmd string, mails [][]string) string // another answer; "" for the usual one
}

// accepted compares the recipients of each transaction that were accepted.
func (b *bounded) accepted(t *testing.T, want string) {
	t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	if got := fmt.Sprint(b.mails); got != want {
		t.Errorf("accepted were %s, want %s", got, want)
	}
}

func (b *bounded) answer(cmd string) string {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.other != nil {
		if text := b.other(cmd, b.mails); text != "" {
			return text
		}
	}
	_, rcpt, _ := strings.Cut(strings.TrimSuffix(cmd, ">"), "RCPT TO:<")
	switch {
	case cmd == "connect":
		b.conns++
	case strings.HasPrefix(cmd, "MAIL"):
		b.mails, b.most[1] = append(b.mails, nil), 0
	case rcpt != "":
		last := &b.mails[len(b.mails)-1]
		b.most[1]++
		b.most[0] = max(b.most[0], b.most[1])
		if len(*last) >= b.room {
			return "452 4.5.3 too many recipients"
		}
		*last = append(*last, rcpt)
	}
	return ""
}

// TestRecipientsInPortions: who takes few recipients in a message, as it said or as it then shows, gets it several times in one
// try, each recipient once. What goes wrong on the way is put off for those it is about.
func TestRecipientsInPortions(t *testing.T) {
	t.Parallel()
	const limits = "250-mx\r\n250-PIPELINING\r\n250 LIMITS RCPTMAX=2"
	five := []string{"d0@one.example", "d1@one.example", "d2@one.example", "d3@one.example", "d4@one.example"}
	at := func(n int, verb, text string) func(string, [][]string) string { // an answer in the nth transaction
		return func(cmd string, mails [][]string) string {
			if len(mails) == n && strings.HasPrefix(cmd, verb) {
				return text
			}
			return ""
		}
	}
	for name, c := range map[string]struct {
		caps   string
		server *bounded
		to     []string
		first  string // fates of the first try
		tries  int
		conns  int
		mails  string // how many recipients were accepted in each transaction
	}{
		"as it says":       {limits, &bounded{room: 2}, five, "delivered delivered delivered delivered delivered", 1, 1, "[2 2 1]"},
		"two in a session": {limits + " MAILMAX=2", &bounded{room: 2}, five, "delivered delivered delivered delivered delivered", 1, 2, "[2 2 1]"},
		"as it shows":      {"", &bounded{room: 2}, five, "delivered delivered delivered delivered delivered", 1, 1, "[2 2 1]"},
		"no room at all":   {"", &bounded{room: 2, other: at(1, "RCPT", "452 4.5.3 not now")}, five, "deferred deferred deferred deferred deferred", 2, 2, "[0 2 2 1]"},
		"some unknown": {limits, &bounded{room: 2, other: func(cmd string, _ [][]string) string {
			if strings.HasPrefix(cmd, "RCPT TO:<no") {
				return "550 5.1.1 nobody"
			}
			return ""
		}}, []string{"no1@one.example", "no2@one.example", "d2@one.example", "no3@one.example", "d4@one.example"}, "failed failed delivered failed delivered", 1, 2, "[0 1 1]"},
		"refused in the midst":  {limits, &bounded{room: 2, other: at(2, ".", "554 5.7.1 no")}, five, "delivered delivered failed failed delivered", 1, 1, "[2 2 1]"},
		"deferred in the midst": {limits, &bounded{room: 2, other: at(2, ".", "451 4.3.0 later")}, five, "delivered delivered deferred deferred deferred", 2, 1, "[2 2 2 1]"},
		"leaves in the midst":   {limits, &bounded{room: 2, other: at(2, ".", "close")}, five, "delivered delivered deferred deferred deferred", 2, 2, "[2 2 2 1]"},
		"leaves between two":    {limits, &bounded{room: 2, other: at(1, "MAIL", "421 4.3.2 later")}, five, "delivered delivered deferred deferred deferred", 0, 0, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, nil)
			w.host("one.example", "127.0.0.2")
			w.host("sender.example", "127.0.0.3")
			w.serve("127.0.0.3", nil)
			s := w.serve("127.0.0.2", c.server.answer)
			if c.caps != "" {
				s.caps = c.caps
			}
			w.send(w.mail(c.to...), text)
			r := w.next()
			var fates []string
			for i, o := range r.Rcpts {
				fates = append(fates, o.Fate.String())
				if o.Rcpt.Address != c.to[i] || o.Reply.Code == 0 {
					t.Errorf("number %d is %+v", i, o)
				}
			}
			if got := strings.Join(fates, " "); got != c.first {
				t.Errorf("the first try: %s, want %s", got, c.first)
			}
			if c.tries == 0 {
				return
			}
			for range c.tries - 1 {
				w.pass(time.Hour)
				r = w.next()
			}
			if r.Notice != 0 {
				w.next()
			}
			w.empty()
			var got []int
			var all []string
			b := c.server
			b.mu.Lock()
			defer b.mu.Unlock()
			for _, m := range b.mails {
				got = append(got, len(m))
				all = append(all, m...)
			}
			if fmt.Sprint(got) != c.mails || b.conns != c.conns {
				t.Errorf("%v recipients in %d sessions, want %s in %d", got, b.conns, c.mails, c.conns)
			}
			if c.caps != "" && b.most[0] > 2 {
				t.Errorf("%d recipients in one transaction", b.most[0])
			}
			if slices.Sort(all); c.tries == 1 && len(slices.Compact(all)) != len(all) {
				t.Errorf("accepted were %q", all)
			}
		})
	}
}

// TestTheEndBetweenPortions: where the program ends between two transactions, it forgets nobody who has the message.
func TestTheEndBetweenPortions(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.host("one.example", "127.0.0.2")
	b := bounded{room: 2, other: func(cmd string, mails [][]string) string {
		if cmd == "." && len(mails) == 1 {
			w.stop()
		}
		return ""
	}}
	w.serve("127.0.0.2", b.answer).caps = "250-mx\r\n250 LIMITS RCPTMAX=2"
	w.send(w.mail("d0@one.example", "d1@one.example", "d2@one.example"), text)
	if r := w.next(); len(r.Rcpts) != 3 || r.Rcpts[1].Fate != Delivered || r.Rcpts[2].Fate != Deferred {
		t.Fatalf("%+v", r)
	}
	w.again()
	w.pass(time.Hour)
	w.next()
	w.empty()
	b.accepted(t, "[[d0@one.example d1@one.example] [d2@one.example]]")
}

// TestKillBetweenPortions: what stands on disk when the second transaction of a try begins is enough for the next process to ask
// only those who have nothing yet, and to tell of all of them in the end.
func TestKillBetweenPortions(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.host("one.example", "127.0.0.2")
	w.host("sender.example", "127.0.0.3")
	sender := w.serve("127.0.0.3", nil)
	killed, copied := t.TempDir(), false // the folder as a kill would leave it
	b := bounded{room: 2, other: func(cmd string, mails [][]string) string {
		switch {
		case strings.HasPrefix(cmd, "MAIL") && len(mails) == 1 && !copied:
			copied = true
			if err := os.CopyFS(killed, os.DirFS(w.dir)); err != nil {
				t.Error(err)
			}
			w.stop() // of the one that goes on nothing is looked at
			return "421 4.3.2 later"
		case strings.HasPrefix(cmd, "RCPT TO:<no"):
			return "550 5.1.1 nobody"
		}
		return ""
	}}
	w.serve("127.0.0.2", b.answer).caps = "250-mx\r\n250 LIMITS RCPTMAX=3"
	env := w.mail("d0@one.example", "no@one.example", "d1@one.example", "d2@one.example")
	env.Rcpts[2].Notify = smtp.NotifySuccess
	w.send(env, text)
	w.next()
	w.dir = killed
	w.again()
	r := w.next()
	var got []string
	for _, o := range r.Rcpts {
		got = append(got, fmt.Sprintf("%s %v %d %t", o.Rcpt.Address, o.Fate, o.Reply.Code, o.Behind))
	}
	if want := []string{"d0@one.example delivered 250 true", "no@one.example failed 550 false", "d1@one.example relayed 250 true", "d2@one.example delivered 250 true"}; !slices.Equal(got, want) {
		t.Errorf("after the kill: %q, want %q", got, want)
	}
	w.next()
	w.empty()
	b.accepted(t, "[[d0@one.example d1@one.example] [d2@one.example]]")
	n := sender.taken()
	if len(n) != 1 || strings.Count(n[0], "Action: relayed") != 1 || strings.Count(n[0], "Action: failed") != 1 {
		t.Errorf("the sender has %q", n)
	}
}
