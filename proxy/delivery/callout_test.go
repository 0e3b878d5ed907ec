package delivery

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"sluice/proxy/smtp"
	"sluice/proxy/tlspolicy"
)

func asked(to ...string) (all []smtp.Rcpt) {
	for _, a := range to {
		all = append(all, smtp.Rcpt{Path: smtp.Path{Address: a, Domain: a[strings.LastIndexByte(a, '@')+1:]}})
	}
	return all
}

// TestCallouts: only a server's word about the recipient counts, and it is asked once.
func TestCallouts(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.host("one.example", "127.0.0.2")
	w.host("two.example", "127.0.0.3")
	w.host("dead.example", "127.0.0.9")
	w.mu.Lock()
	w.domains["null.example"] = &tlspolicy.Domain{Name: "null.example", Null: true}
	w.mu.Unlock()
	commands := make(chan string, 1000)
	answers := func(cmd string) string {
		commands <- cmd
		switch {
		case strings.HasPrefix(cmd, "RCPT TO:<gone@"):
			return "550 5.1.1 no such user here"
		case strings.HasPrefix(cmd, "RCPT TO:<old@"):
			return "550 User unknown"
		case strings.HasPrefix(cmd, "RCPT TO:<policy@"):
			return "550 5.7.1 not from you"
		case strings.HasPrefix(cmd, "RCPT TO:<grey@"):
			return "451 4.7.1 later"
		case strings.HasPrefix(cmd, "MAIL FROM:<bad@"):
			return "550 5.1.1 who are you"
		}
		return ""
	}
	w.serve("127.0.0.2", answers)
	w.serve("127.0.0.3", answers)
	c := NewCallouts(w.q)
	ask := func(from string, to ...string) (codes []int) {
		for _, r := range c.Ask(t.Context(), 7, from, asked(to...)) {
			codes = append(codes, r.Code)
		}
		return codes
	}
	equal := func(what string, got []int, want ...int) {
		t.Helper()
		for i := range want {
			if got[i] != want[i] {
				t.Errorf("%s: %v, want %v", what, got, want)
				return
			}
		}
	}
	all := []string{"a@one.example", "gone@one.example", "old@two.example", "policy@two.example", "grey@two.example", "x@dead.example", "x@null.example", "b@TWO.example"}
	equal("first", ask("s@sender.example", all...), 0, 550, 550, 0, 0, 0, 556, 0)
	said := len(commands)
	equal("again", ask("s@sender.example", all...), 0, 550, 550, 0, 0, 0, 556, 0)
	if len(commands) != said {
		t.Errorf("what is known was asked again: %d commands, then %d", said, len(commands))
	}
	w.pass(missingTime + time.Minute)
	equal("later", ask("s@sender.example", "gone@one.example", "a@one.example"), 550, 0)
	var rcpts int
	for len(commands) > 0 {
		if cmd := <-commands; strings.HasPrefix(cmd, "RCPT TO:<a@one") {
			rcpts++
		} else if cmd == "DATA" {
			t.Error("a callout said DATA")
		}
	}
	if rcpts != 1 {
		t.Errorf("somebody who was found was asked for %d times", rcpts)
	}
	equal("a sender whom nobody likes", ask("bad@sender.example", "c@one.example"), 0)
	ctx, stop := context.WithCancel(t.Context())
	stop()
	if r := c.Ask(ctx, 7, "s@sender.example", asked("new@one.example")); r[0].Code != 0 {
		t.Errorf("without time: %v", r)
	}
}

// TestCalloutsKeepToWhatAServerTakes: of more recipients than it takes in one message the first ones are asked for.
func TestCalloutsKeepToWhatAServerTakes(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.host("one.example", "127.0.0.2")
	b := bounded{room: 2, other: func(cmd string, _ [][]string) string {
		if cmd == "RCPT TO:<gone@one.example>" {
			return "550 5.1.1 no such user here"
		}
		return ""
	}}
	w.serve("127.0.0.2", b.answer).caps = "250-mx\r\n250 LIMITS RCPTMAX=2"
	c := NewCallouts(w.q)
	to := asked("a@one.example", "gone@one.example", "b@one.example", "gone@one.example")
	for n, want := range []string{"[0 550 0 0]", "[0 550 0 550]"} {
		var codes []int
		for _, r := range c.Ask(t.Context(), 7, "s@sender.example", to) {
			codes = append(codes, r.Code)
		}
		if got := fmt.Sprint(codes); got != want || b.most[0] > 2 {
			t.Errorf("message %d: %s, want %s; at most %d recipients were asked for at once", n+1, got, want, b.most[0])
		}
	}
}

// TestCalloutsOfOddDomains: small letters may take more room than capital ones.
func TestCalloutsOfOddDomains(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	rcpts := asked("a@ȺȾȺȾ", "b@ȺȾ.example")
	for i := range rcpts {
		rcpts[i].NonASCII = true
	}
	for _, n := range NewCallouts(w.q).Ask(t.Context(), 7, "a@sender.example", rcpts) {
		if n.Code != 0 {
			t.Errorf("%+v", n)
		}
	}
	if key, domain := keysOf(&rcpts[1]); key != "b@ⱥⱦ.example" || domain != "ⱥⱦ.example" {
		t.Errorf("%q, %q", key, domain)
	}
}
