//go:build labtest

package lab

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
)

// limited drives one user's limits, which the operator's command sets.
type limited struct {
	t    *testing.T
	l    *Lab
	g    *Gateway
	host string
	n    int // mails
}

func (x *limited) set(settings ...string) {
	x.t.Helper()
	sluice(x.t, x.g, append([]string{"users", "set", x.host}, settings...)...)
}

// open begins a session to a peer.
func (x *limited) open(ctx context.Context, to string) *Client {
	x.t.Helper()
	c, err := x.l.Hello(ctx, x.host, "", to)
	if err != nil {
		x.t.Fatal(err)
	}
	x.t.Cleanup(func() { _ = c.Close() }) // it may be closed already
	return c
}

// left waits until none of a user's sessions are open: only then is booked what became of his last mail.
func left(ctx context.Context, t *testing.T, g *Gateway, user string) {
	t.Helper()
	var open []struct{ ID string }
	if !eventually(ctx, func() bool { return sluiceJSON(ctx, g, &open, "flows", "--user", user) == nil && len(open) == 0 }) {
		t.Errorf("%s has left, and his sessions are open: %+v", user, open)
	}
}

const (
	limitedSink = "198.51.100.20:25"
	limitedPeer = "198.51.100.101:25" // refuses what it has heard
)

// mail sends one to so many recipients, and gives the answer, or the last recipient's where one was refused.
func (x *limited) mail(ctx context.Context, to string, recipients ...string) string {
	x.t.Helper()
	c := x.open(ctx, to)
	x.n++
	rcpts, last, err := c.Send("a@"+x.host+".example", recipients, letter(x.host, fmt.Sprint(x.n)))
	if err != nil {
		x.t.Fatal(err)
	}
	for _, r := range rcpts {
		if r.Code/100 != 2 {
			last = r
		}
	}
	if err := c.Quit(); err != nil {
		x.t.Error(err)
	}
	return last.String()
}

func (x *limited) want(ctx context.Context, when, want string, recipients ...string) {
	x.t.Helper()
	if got := x.mail(ctx, limitedSink, recipients...); !strings.HasPrefix(got, want) {
		x.t.Errorf("%s: %s hears %q, want %q", when, x.host, got, want)
	}
}

// TestEachLimit: each limit of a user's holds what is one too many, says which it was, and lets the rest go.
func TestEachLimit(t *testing.T) {
	t.Parallel()
	ctx, l := testContext(t), ForTest(t, Options{})
	g := startGateway(t, l, "")
	for host, test := range map[string]func(*limited, context.Context){
		"alice": windowsOfTime, "bob": boundsOfAMessage, "mallory": recipientsWhoAreNobody, "dave": nothingSlipsPast,
	} {
		t.Run(host, func(t *testing.T) {
			t.Parallel()
			test(&limited{t: t, l: l, g: g, host: host}, ctx)
		})
	}
}

// windowsOfTime: in each window one message, or one recipient, goes and the next is put off; a lift holds for its time. What no
// limit holds is not counted, but for the hour, which has limits by default.
func windowsOfTime(x *limited, ctx context.Context) {
	t, sent := x.t, 0
	for _, what := range []struct{ count, code string }{{"messages", "RATE-MSG"}, {"recipients", "RATE-RCPT"}} {
		for _, window := range []string{"hour", "minute", "day", "week", "month"} {
			key, limit := what.count+"_per_"+window, 1
			if window == "hour" {
				limit = sent + 1
			}
			x.set(fmt.Sprintf("%s=%d", key, limit))
			x.want(ctx, key, "250 ", "u@sink.example")
			x.want(ctx, key, fmt.Sprintf("451 4.7.1 gw.example: [%s] this sender has reached its limit of %d %s per %s", what.code, limit, what.count, window), "u@sink.example")
			x.set(key + "=0")
			sent++
		}
	}
	x.set("messages_per_hour=1")
	x.want(ctx, "before the lift", "451 4.7.1 gw.example: [RATE-MSG]", "u@sink.example")
	x.set("messages_per_hour=1000", "--for", "1h", "--reason", "newsletter")
	x.want(ctx, "lifted", "250 ", "u@sink.example")
	x.set("messages_per_hour=1000", "--for", "2s", "--reason", "newsletter")
	over := ""
	eventually(ctx, func() bool {
		over = x.mail(ctx, limitedSink, "u@sink.example")
		return !strings.HasPrefix(over, "250 ")
	})
	if !strings.HasPrefix(over, "451 4.7.1 gw.example: [RATE-MSG]") {
		t.Errorf("behind the lift: %s", over)
	}
}

// boundsOfAMessage: how many recipients one has, and how large it is.
func boundsOfAMessage(x *limited, ctx context.Context) {
	t := x.t
	x.set("recipients_per_mail=2", "message_size=65536")
	x.want(ctx, "two recipients", "250 ", "u1@sink.example", "u2@sink.example")
	x.want(ctx, "three recipients", "250 ", "u1@sink.example", "u2@sink.example")
	c := x.open(ctx, limitedSink)
	for i, want := range []string{"250 ", "250 ", "452 4.5.3 "} {
		if i == 0 {
			if r, err := c.Cmd("MAIL FROM:<a@bob.example>"); err != nil || r.Code != 250 {
				t.Fatal(r, err)
			}
		}
		if r, err := c.Cmd(fmt.Sprintf("RCPT TO:<n%d@sink.example>", i)); err != nil || !strings.HasPrefix(r.Raw, want) {
			t.Errorf("recipient %d hears %s, %v, want %s", i+1, r, err, want)
		}
	}
	if r, err := c.Data(letter("bob", "to two")); err != nil || r.Code != 250 {
		t.Errorf("the message to the two: %v, %v", r, err)
	}
	if r, err := c.Cmd("EHLO mail.bob.example"); err != nil || !strings.Contains(r.String(), "SIZE 65536") {
		t.Errorf("EHLO: %s, %v", r, err)
	}
	if r, err := c.Cmd("MAIL FROM:<a@bob.example> SIZE=65537"); err != nil || !strings.HasPrefix(r.Raw, "552 5.3.4 ") {
		t.Errorf("announced as too large: %s, %v", r, err)
	}
	if _, r, err := c.Send("a@bob.example", []string{"u@sink.example"}, []byte("Subject: large\r\n\r\n"+strings.Repeat(strings.Repeat("x", 70)+"\r\n", 1000))); err != nil || !strings.HasPrefix(r.Raw, "552 5.3.4 ") {
		t.Errorf("too large unannounced: %s, %v", r, err)
	}
	if r := messageTo(ctx, t, x.l, "n0@sink.example").Recipients(); len(r) != 2 {
		t.Errorf("the message went to %v", r)
	}
}

// recipientsWhoAreNobody: who writes to addresses that do not exist, or whose mail is refused, waits; refusals for other
// reasons count for nothing.
func recipientsWhoAreNobody(x *limited, ctx context.Context) {
	t := x.t
	unknown := func(n int) {
		t.Helper()
		c := x.open(ctx, limitedSink)
		if r, err := c.Cmd("MAIL FROM:<a@mallory.example>"); err != nil || r.Code != 250 {
			t.Fatal(r, err)
		}
		for range n {
			if r, err := c.Cmd("RCPT TO:<reject@sink.example>"); err != nil || !strings.HasPrefix(r.Raw, "550 5.1.1 ") {
				t.Fatalf("an unknown recipient hears %s, %v", r, err)
			}
		}
		if err := c.Quit(); err != nil {
			t.Error(err)
		}
	}
	if err := x.l.Sink("peer01").Script("dot: reply 550 5.7.1 not this, says the peer"); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if got := x.mail(ctx, limitedPeer, "u@peer01.example"); !strings.HasPrefix(got, "550 5.7.1 not this") {
			t.Fatalf("the peer's refusal: %s", got)
		}
	}
	x.want(ctx, "refused for another reason", "250 ", "u@sink.example")
	x.set("failed_deliveries_per_hour=2")
	x.want(ctx, "refused twice", "451 4.7.1 gw.example: [RATE-FAILED]", "u@sink.example")
	x.set("failed_deliveries_per_hour=0", "invalid_recipients_per_hour=3")
	unknown(2)
	x.want(ctx, "two unknown", "250 ", "u@sink.example")
	unknown(1)
	x.want(ctx, "three unknown", "451 4.7.1 gw.example: [RATE-INVALID]", "u@sink.example")
	x.set("invalid_recipients_per_hour=0")
	x.want(ctx, "few of them", "250 ", "u@sink.example")
	unknown(16)
	x.want(ctx, "nineteen unknown", "250 ", "u@sink.example")
	unknown(1)
	x.want(ctx, "twenty, and more than a tenth", "451 4.7.1 gw.example: [RATE-INVALID]", "u@sink.example")
}

// nothingSlipsPast: of mails that come at once not one more than the limit goes, and what is not sent gives its place back.
func nothingSlipsPast(x *limited, ctx context.Context) {
	t := x.t
	x.set("messages_per_day=5")
	for i := range 9 {
		c := x.open(ctx, limitedSink)
		to := "u@sink.example"
		if i%3 == 0 {
			to = fmt.Sprintf("defer%d@sink.example", i)
		}
		r, err := c.Cmd("MAIL FROM:<a@dave.example>")
		if err == nil && r.Code == 250 {
			r, err = c.Cmd("RCPT TO:<" + to + ">")
		}
		switch {
		case err != nil || strings.Contains(r.Raw, "RATE-"):
			t.Fatalf("try %d: %v, %v", i, r, err)
		case i%3 == 1:
			r, err = c.Cmd("RSET")
		case i%3 == 2:
			if r, err = c.Cmd("DATA"); err == nil {
				_, err = c.Write([]byte("Subject: cut off\r\n"))
			}
			if err == nil {
				err = c.Reset()
			}
		}
		if err != nil {
			t.Fatal(err)
		}
		_ = c.Close() // one has gone by a reset
		left(ctx, t, x.g, x.host)
	}
	var all sync.WaitGroup
	begin, answers := make(chan struct{}), make(chan string, 15)
	for range cap(answers) {
		c := x.open(ctx, limitedSink)
		all.Go(func() {
			<-begin
			_, r, err := c.Send("a@dave.example", []string{"once@sink.example"}, letter("dave", "at once"))
			answers <- fmt.Sprint(r, err)
		})
	}
	close(begin)
	all.Wait()
	close(answers)
	sent, put := 0, 0
	for a := range answers {
		switch {
		case strings.HasPrefix(a, "250 "):
			sent++
		case strings.HasPrefix(a, "451 4.7.1 gw.example: [RATE-MSG]"):
			put++
		default:
			t.Errorf("heard %s", a)
		}
	}
	if sent != 5 || put != 10 {
		t.Errorf("of 15 at once %d went and %d were put off", sent, put)
	}
}
