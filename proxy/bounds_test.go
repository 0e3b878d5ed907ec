package proxy

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"sluice/filter"
	"sluice/filter/message"
	"sluice/intercept/flow"
)

func TestOneUserCannotHoldEverySession(t *testing.T) {
	t.Parallel()
	mx := newRemote(t)
	r := newRig(t, mx.addr(), func(r *rig) { r.cfg.Settings.UserSessions = 2 })
	first, second := r.dial(), r.dial()
	third := r.connect()
	third.want("421 4.7.0 gw.example: Too many concurrent SMTP connections of this sender")
	third.closed()
	first.cmd("QUIT", "221")
	first.closed()
	for deadline := time.Now().Add(wait); r.srv.Sessions() > 1; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the session that ended is still counted")
		}
	}
	r.dial().cmd("QUIT", "221")
	second.cmd("NOOP", "250")
}

// explosive is a check with a mistake in it.
type explosive struct{}

func (explosive) Check(_ context.Context, _ filter.Phase, m *message.Message, hits []filter.Hit) []filter.Hit {
	if strings.Contains(string(m.Data), "boom") {
		panic("a mistake of ours")
	}
	return hits
}

func TestAMistakeEndsItsOwnSessionOnly(t *testing.T) {
	t.Parallel()
	mx := newRemote(t)
	told := make(chan string, 1)
	r := newRig(t, mx.addr(), steps(filter.Step{Name: "explosive", Phases: []filter.Phase{filter.Data}, Check: explosive{}}), func(r *rig) {
		r.cfg.Panicked = func(f flow.Flow, cause any, stack []byte) {
			told <- fmt.Sprint(f.User.Name, " ", cause, " ", strings.Contains(string(stack), "explosive"))
		}
	})
	other := r.hello()
	p := r.hello()
	p.envelope()
	p.cmd("DATA", "354")
	p.write("Subject: boom\r\n\r\nboom\r\n.\r\n")
	p.closed() // without an answer: the client keeps the message
	select {
	case got := <-told:
		if got != "alice a mistake of ours true" {
			t.Errorf("told %q", got)
		}
	case <-time.After(wait):
		t.Fatal("nobody was told")
	}
	other.envelope()
	other.send(goodMail, "250")
	if got := len(mx.messages()); got != 1 {
		t.Errorf("%d messages arrived, want the good one only", got)
	}
	if n := r.log.wait(t, 2); n[0].Status != Lost || n[1].Status != Delivered {
		t.Errorf("logged %v and %v, want lost and delivered", n[0].Status, n[1].Status)
	}
}

func TestSizeLeavesRoomForTheTrace(t *testing.T) {
	t.Parallel()
	mx := newRemote(t) // SIZE 1000000
	r := newRig(t, mx.addr())
	if got := r.dial().cmd("EHLO client.example", "250"); !strings.Contains(got, "SIZE 999488") {
		t.Errorf("offered %q, want what is left of the destination's 1000000 beside our own header", got)
	}
}
