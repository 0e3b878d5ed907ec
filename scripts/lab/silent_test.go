//go:build labtest

package lab

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestSilentDestinations: a destination that does not accept a connection, or answer, is given up after the time that is set, once. In
// the first case the client hears 421 4.4.1 and is let go, so that he tries his next exchanger; else he hears 451 4.4.2 and may go
// on. Nothing is delivered.
func TestSilentDestinations(t *testing.T) {
	t.Parallel()
	ctx, l := testContext(t), ForTest(t, Options{})
	startGatewayWith(t, l, strings.Replace(unjudged, "[delivery]", "[delivery]\nconnect_timeout = \"1s\"\ncommand_timeout = \"10s\"", 1))
	var wg sync.WaitGroup
	defer wg.Wait()
	for i, c := range []struct {
		to     string
		script string
		at     int // the command that is answered so
		want   string
		least  time.Duration
	}{
		{"198.51.100.42:25", "", 0, "421 4.4.1 gw.example: ", time.Second},
		{"[2001:db8:100::42]:25", "", 0, "421 4.4.1 gw.example: ", time.Second},
		{"198.51.100.101:25", "mail: stall", 2, "451 4.4.2 gw.example: ", 10 * time.Second},
		{"[2001:db8:100::102]:25", "rcpt: stall", 2, "451 4.4.2 gw.example: ", 10 * time.Second},
		{"198.51.100.103:25", "data: stall", 4, "451 4.4.2 gw.example: ", 10 * time.Second},
	} {
		if c.script != "" {
			if err := l.Sink(fmt.Sprintf("peer%02d", i-1)).Script(c.script); err != nil {
				t.Fatal(err)
			}
		}
		wg.Go(func() {
			if err := silence(ctx, l, c.to, c.at, c.want, c.least); err != nil {
				t.Errorf("%s, %q: %v", c.to, c.script, err)
			}
			if c.script == "" {
				return
			}
			if mx := l.Sink(fmt.Sprintf("peer%02d", i-1)); len(mx.Messages()) > 0 || len(mx.Sessions()) != 1 {
				t.Errorf("%s, %q: %d messages arrived in %d sessions, want none in one", c.to, c.script, len(mx.Messages()), len(mx.Sessions()))
			}
		})
	}
}

// silence leads a dialogue up to the command that the destination leaves unanswered.
func silence(ctx context.Context, l *Lab, to string, at int, want string, least time.Duration) error {
	x, err := l.SMTP(ctx, "mallory", "", to)
	if err != nil {
		return err
	}
	defer x.Close()
	x.Timeout(time.Minute)
	for i, cmd := range []string{"EHLO mallory.example", "MAIL FROM:<a@mallory.example>", "RCPT TO:<u@peer.example>", "DATA", "Subject: x\r\n\r\nx\r\n."} {
		began := time.Now()
		r, err := x.Cmd(cmd)
		switch {
		case err != nil:
			return err
		case i < at && r.Code >= 400:
			return fmt.Errorf("%q is answered %s", cmd, r)
		case i < at:
			continue
		case !strings.HasPrefix(r.Raw, want):
			return fmt.Errorf("%q is answered %s, not %s", cmd, r, want)
		}
		// A connection may be on its way since the greeting. Usual are 25 s and four minutes.
		if took := time.Since(began); took < least-time.Second || took > least+20*time.Second {
			return fmt.Errorf("the answer took %v, the time is %v", took, least)
		}
		break
	}
	if strings.HasPrefix(want, "421") {
		if r, err := x.Reply(); err == nil {
			return fmt.Errorf("behind 421 the client hears %s", r)
		}
		return nil
	}
	for _, cmd := range []string{"RSET", "NOOP"} {
		if r, err := x.Cmd(cmd); err != nil || r.Code != 250 {
			return errors.Join(err, fmt.Errorf("%s is answered %s", cmd, r))
		}
	}
	return x.Quit()
}
