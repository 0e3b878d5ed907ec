//go:build labtest

package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// boundedPeer offers bounds of its own (RFC 9422).
const boundedPeer = "ehlo: reply 250-mx\\n250-PIPELINING\\n250-8BITMIME\\n250-ENHANCEDSTATUSCODES\\n250 LIMITS MAILMAX=2 RCPTMAX=3 RCPTDOMAINMAX=1"

// TestBoundsOfTheDestination: one that takes two messages in a session, three recipients in a message and one domain in a session
// has its bounds kept, whatever clients say, and gets all of their mail. Recipients beyond them hear 452 4.5.3, to come in
// another message; messages beyond them go by further sessions, of which the client sees nothing. What the smarthost took goes to
// all of its recipients at once.
func TestBoundsOfTheDestination(t *testing.T) {
	t.Parallel()
	ctx, l := testContext(t), ForTest(t, Options{})
	startGatewayWith(t, l, unjudged+strings.TrimPrefix(smarthostConfig, GatewayConfig))
	var wg sync.WaitGroup
	defer wg.Wait()
	for i, c := range []struct {
		to    string
		lines bool // one command after the other
	}{{"198.51.100.101:25", true}, {"[2001:db8:100::102]:25", true}, {"198.51.100.103:25", false}, {"[2001:db8:100::104]:25", false}} {
		mx := l.Sink(fmt.Sprintf("peer%02d", i+1))
		if err := mx.Script(boundedPeer); err != nil {
			t.Fatal(err)
		}
		wg.Go(func() {
			if err := boundedMail(ctx, l, c.to, c.lines, mx); err != nil {
				t.Errorf("%s, line by line %t: %v", c.to, c.lines, err)
			}
		})
	}
	wg.Go(func() {
		if err := boundedServer(ctx, l); err != nil {
			t.Errorf("a mail server: %v", err)
		}
	})
	wg.Go(func() {
		if err := boundedQueue(ctx, l); err != nil {
			t.Errorf("the smarthost: %v", err)
		}
	})
}

// boundedMail sends more than the destination takes at once: messages, recipients and domains.
func boundedMail(ctx context.Context, l *Lab, to string, lines bool, mx *Sink) error {
	x, err := l.SMTP(ctx, "mallory", "", to)
	if err != nil {
		return err
	}
	defer x.Close()
	if r, err := x.Cmd("EHLO mail.mallory.example"); err != nil || !strings.HasSuffix(r.String(), "/ LIMITS RCPTMAX=3 RCPTDOMAINMAX=1") {
		return fmt.Errorf("EHLO is answered %s, %v", r, err)
	}
	var want []string
	say := func(rcpts ...string) error { // "+" and "-" tell whether a recipient is taken
		for i := range rcpts {
			if rcpts[i][0] == '+' {
				want = append(want, rcpts[i][1:])
			}
		}
		if lines {
			return boundedLines(x, rcpts)
		}
		return boundedGroup(x, rcpts)
	}
	for i := range 5 {
		if err := say(fmt.Sprintf("+m%d@one.example", i)); err != nil {
			return err
		}
	}
	for _, rcpts := range [][]string{
		{"+r1@one.example", "+r2@One.example", "+r3@one.example", "-r4@one.example", "-r5@one.example"},
		{"+r4@one.example", "+r5@one.example"},
		{"+d1@one.example", "-d2@two.example", "+d3@one.example", "-d4@two.example"},
		{"+d2@two.example", "+d4@two.example"},
		{"+d5@one.example"},
	} {
		if err := say(rcpts...); err != nil {
			return err
		}
	}
	if err := x.Quit(); err != nil {
		return err
	}
	if lines {
		err = errors.Join(boundedNext(ctx, l, to, &want), boundedNext(ctx, l, to, &want))
	}
	return errors.Join(err, bounded(mx, want))
}

// boundedNext is another client of the same user, who may get what is left of a session.
func boundedNext(ctx context.Context, l *Lab, to string, want *[]string) error {
	x, err := l.Hello(ctx, "mallory", "", to)
	if err != nil {
		return err
	}
	defer x.Close()
	for _, name := range []string{"n1@one.example", "n2@one.example", "n3@two.example"} {
		if err := boundedLines(x, []string{"+" + name}); err != nil {
			return err
		}
		*want = append(*want, name)
	}
	return x.Quit()
}

func boundedLines(x *Client, rcpts []string) error {
	if r, err := x.Cmd("MAIL FROM:<a@mallory.example>"); err != nil || r.Code != 250 {
		return fmt.Errorf("MAIL: %s, %v", r, err)
	}
	for _, rcpt := range rcpts {
		r, err := x.Cmd("RCPT TO:<" + rcpt[1:] + ">")
		if err := errors.Join(err, boundedReply(r, rcpt)); err != nil {
			return err
		}
	}
	if r, err := x.Data([]byte("Subject: bounds\r\n\r\nx\r\n")); err != nil || r.Code != 250 {
		return fmt.Errorf("the message: %s, %v", r, err)
	}
	return nil
}

// boundedGroup says all of a message at once.
func boundedGroup(x *Client, rcpts []string) error {
	text := "MAIL FROM:<a@mallory.example>\r\n"
	for _, rcpt := range rcpts {
		text += "RCPT TO:<" + rcpt[1:] + ">\r\n"
	}
	if _, err := io.WriteString(x, text+"BDAT 22 LAST\r\nSubject: bounds\r\n\r\nx\r\n"); err != nil {
		return err
	}
	if r, err := x.Reply(); err != nil || r.Code != 250 {
		return fmt.Errorf("MAIL: %s, %v", r, err)
	}
	for _, rcpt := range rcpts {
		r, err := x.Reply()
		if err := errors.Join(err, boundedReply(r, rcpt)); err != nil {
			return err
		}
	}
	if r, err := x.Reply(); err != nil || r.Code != 250 {
		return fmt.Errorf("the message: %s, %v", r, err)
	}
	return nil
}

func boundedReply(r Reply, rcpt string) error {
	if rcpt[0] == '+' && r.Code != 250 || rcpt[0] == '-' && !strings.HasPrefix(r.Raw, "452 4.5.3 gw.example: ") {
		return fmt.Errorf("%s is answered %s", rcpt, r)
	}
	return nil
}

// bounded holds what came to a destination to its bounds, and to these recipients, each once.
func bounded(mx *Sink, want []string) error {
	var errs []error
	var got []string
	for _, m := range mx.Messages() {
		got = append(got, m.Recipients()...)
	}
	slices.Sort(got)
	if slices.Sort(want); !slices.Equal(got, want) {
		errs = append(errs, fmt.Errorf("%v have mail, want %v", got, want))
	}
	for i, s := range mx.Sessions() {
		mails, rcpts, domains := 0, 0, map[string]bool{}
		for _, line := range s.Lines {
			switch {
			case strings.HasPrefix(line, "C: MAIL "):
				mails, rcpts = mails+1, 0
			case strings.HasPrefix(line, "C: RCPT "):
				_, domain, _ := strings.Cut(pathOf(line), "@")
				rcpts, domains[strings.ToLower(domain)] = rcpts+1, true
			}
			if mails > 2 || rcpts > 3 || len(domains) > 1 {
				errs = append(errs, fmt.Errorf("session %d is beyond the bounds: %q", i+1, s.Lines))
				break
			}
		}
	}
	return errors.Join(errs...)
}

// boundedServer has a mail server, which knows nothing of such bounds, send one message to recipients of two domains.
func boundedServer(ctx context.Context, l *Lab) error {
	mx := l.Sink("peer05")
	if err := mx.Script(boundedPeer); err != nil {
		return err
	}
	m, err := l.Postfix(ctx, "alice", "relayhost = [198.51.100.105]")
	if err != nil {
		return err
	}
	to := []string{"a@one.example", "b@two.example", "c@one.example", "d@two.example", "e@one.example", "f@one.example", "g@two.example"}
	if err := m.Send(ctx, Mail{From: "a@alice.example", To: to, Data: letter("alice", "bounds")}); err != nil {
		return err
	}
	for _, rcpt := range to {
		if err := flushUntilSent(ctx, m, rcpt); err != nil {
			return err
		}
	}
	return errors.Join(m.WaitEmpty(ctx), bounded(mx, to))
}

// boundedQueue has the smarthost take messages for more recipients than the destination does.
func boundedQueue(ctx context.Context, l *Lab) error {
	mx := l.Sink("peer06")
	if err := mx.Script(boundedPeer); err != nil {
		return err
	}
	var want []string
	for i := range 2 {
		x, err := l.Hello(ctx, "bob", "", "203.0.113.1:587")
		if err != nil {
			return err
		}
		defer x.Close()
		to := numbered(5+i, fmt.Sprintf("q%d-", i), "peer06.example")
		if _, last, err := x.Send("a@bob.example", to, letter("bob", "bounds")); err != nil || last.Code != 250 {
			return fmt.Errorf("it hears %s, %v", last, err)
		}
		want = append(want, to...)
		if err := x.Quit(); err != nil {
			return err
		}
	}
	soon, cancel := context.WithTimeout(ctx, time.Minute) // the next try would be in a quarter of an hour
	defer cancel()
	_, err := mx.WaitMatch(soon, func(all []*Message) bool {
		n := 0
		for _, m := range all {
			n += len(m.Recipients())
		}
		return n >= len(want)
	})
	return errors.Join(err, bounded(mx, want))
}

// TestKillBetweenTransactions: a destination takes three recipients in a message, and sluiced is killed when it has had two of three
// transactions of one: after the start the third goes out, and nobody has the message twice.
func TestKillBetweenTransactions(t *testing.T) {
	t.Parallel()
	ctx, l := testContext(t), ForTest(t, Options{})
	g := startGatewayWith(t, l, queueLoadConfig)
	mx := l.Sink("peer07")
	if err := mx.Script("ehlo: reply 250-mx\\n250 LIMITS RCPTMAX=3", "mail#3: stall"); err != nil {
		t.Fatal(err)
	}
	x, err := l.Hello(ctx, "bob", "", "203.0.113.1:25")
	if err != nil {
		t.Fatal(err)
	}
	defer x.Close()
	to := numbered(8, "k", "peer07.example")
	if _, last, err := x.Send("a@bob.example", to, letter("bob", "portions")); err != nil || last.Code != 250 {
		t.Fatalf("it hears %s, %v", last, err)
	}
	mails := func() (n int) {
		for _, s := range mx.Sessions() {
			for _, line := range s.Lines {
				if strings.HasPrefix(line, "C: MAIL ") {
					n++
				}
			}
		}
		return n
	}
	if !eventually(ctx, func() bool { return mails() == 3 }) {
		t.Fatalf("%d transactions began", mails())
	}
	if err := g.Sluiced.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := mx.Script("ehlo: reply 250-mx\\n250 LIMITS RCPTMAX=3"); err != nil {
		t.Fatal(err)
	}
	if err := g.StartSluiced(ctx); err != nil {
		t.Fatal(err)
	}
	untilQueue(ctx, t, g, "the queue is empty", func(q map[string]queued) bool { return len(q) == 0 })
	var got []string
	for _, m := range mx.Messages() {
		got = append(got, m.Recipients()...)
	}
	if slices.Sort(got); !slices.Equal(got, to) {
		t.Errorf("%v have mail, want %v", got, to)
	}
	if r := interrupted(t, g); len(r) != 1 || r[0] != to[6] { // the first that is named
		t.Errorf("interrupted is the mail to %v", r)
	}
}
