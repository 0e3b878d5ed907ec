//go:build labtest

package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"time"
)

// The bounds of idle talk: so many commands are answered, the first of them at once and the last after so long.
const (
	talkAnswered = 100
	talkAtOnce   = 20
	talkStep     = 50 * time.Millisecond
	talkLongest  = 3 * time.Second
)

// TestIdleTalkIsSentAway: a client that only talks is answered more and more slowly, and after a hundred commands hears 421,
// whatever it says, one by one or all at once, at a destination or at the smarthost. Who mails in between may say as much again.
func TestIdleTalkIsSentAway(t *testing.T) {
	t.Parallel()
	ctx, l := testContext(t), ForTest(t, Options{})
	g := startGatewayWith(t, l, smarthostConfig)
	var all sync.WaitGroup
	sessions := []struct {
		to, talk string
		at       bool // all at once
	}{
		{"198.51.100.20:25", "NOOP", false},
		{"[2001:db8:100::20]:25", "RSET", true},
		{"198.51.100.20:25", "EHLO mail.alice.example", false},
		{"[2001:db8:100::20]:25", "NOOP|RSET|VRFY u|HELP|EXPN u", true},
		{"203.0.113.1:587", "NOOP", false},
		{"198.51.100.20:25", "MAIL FROM:<a@alice.example>|RSET", false},
	}
	for _, c := range sessions {
		all.Go(func() {
			if err := talkUntilSentAway(ctx, l, c.to, strings.Split(c.talk, "|"), c.at); err != nil {
				t.Errorf("%s to %s: %v", c.talk, c.to, err)
			}
		})
	}
	all.Go(func() {
		if err := talkBetweenMail(ctx, l); err != nil {
			t.Error("mail in between: ", err)
		}
	})
	all.Wait()
	var lines []struct{ Note string }
	if err := sluiceJSON(ctx, g, &lines, "log", "--user", "alice", "--status", "no-message"); err != nil {
		t.Fatal(err)
	}
	told := 0
	for _, x := range lines {
		if strings.Contains(x.Note, "too many commands without mail") {
			told++
		}
	}
	if told != len(sessions)-1 { // of the one with senders each of them has a line
		t.Errorf("the log has %d sessions that were sent away: %+v", told, lines)
	}
}

// talkBetweenMail says NOOP before each of two mails, together more often than would be answered.
func talkBetweenMail(ctx context.Context, l *Lab) error {
	c, err := l.Hello(ctx, "alice", "", "198.51.100.20:25")
	if err != nil {
		return err
	}
	defer c.Close()
	for i := range 2 {
		for n := range 60 {
			if r, err := c.Cmd("NOOP"); err != nil || r.Code != 250 {
				return fmt.Errorf("NOOP %d before mail %d: %v, %w", n+1, i+1, r, err)
			}
		}
		if _, r, err := c.Send("a@alice.example", []string{fmt.Sprintf("between%d@sink.example", i)}, letter("alice", "between")); err != nil || r.Code != 250 {
			return fmt.Errorf("mail %d: %v, %w", i+1, r, err)
		}
	}
	return c.Quit()
}

// talkUntilSentAway says such commands, and wants each answered, later and later, until the one that is too many.
func talkUntilSentAway(ctx context.Context, l *Lab, to string, talk []string, atOnce bool) error {
	c, err := l.Hello(ctx, "alice", "", to)
	if err != nil {
		return err
	}
	defer c.Close()
	var all strings.Builder
	idle, n := 0, 0
	for ; idle <= talkAnswered; n++ {
		cmd := talk[n%len(talk)]
		all.WriteString(cmd + "\r\n")
		if !strings.HasPrefix(cmd, "MAIL") {
			idle++
		}
	}
	lines := strings.Split(strings.TrimSuffix(all.String(), "\r\n"), "\r\n")
	if atOnce {
		if _, err := io.WriteString(c, all.String()); err != nil {
			return err
		}
	}
	idle = 0
	for i, line := range lines {
		began := time.Now()
		if !atOnce {
			if _, err := io.WriteString(c, line+"\r\n"); err != nil {
				return err
			}
		}
		r, err := c.Reply()
		if err != nil {
			return fmt.Errorf("no reply to command %d of %d, %q: %w", i+1, n, line, err)
		}
		if i == n-1 {
			if !strings.HasPrefix(r.Raw, "421 4.7.0 gw.example: too many commands without mail") {
				return fmt.Errorf("command %d, %q, hears %s", i+1, line, r)
			}
			break
		}
		if r.Code/100 != 2 {
			return fmt.Errorf("command %d of %d, %q, hears %s", i+1, n, line, r)
		}
		if strings.HasPrefix(line, "MAIL") {
			continue
		}
		idle++
		if least := min(time.Duration(idle-talkAtOnce)*talkStep, talkLongest); !atOnce && time.Since(began) < least {
			return fmt.Errorf("answer %d came after %v, not %v", idle, time.Since(began), least)
		}
	}
	if r, err := c.Reply(); !errors.Is(err, io.EOF) {
		return fmt.Errorf("behind 421: %q, %v", r.Raw, err)
	}
	return nil
}
