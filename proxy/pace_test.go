package proxy

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"sluice/filter"
	"sluice/filter/message"
)

func TestPaces(t *testing.T) {
	t.Parallel()
	var p paces
	a, b, c := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2"), netip.MustParseAddr("2001:db8::1")
	for _, step := range []struct {
		at   netip.Addr
		took time.Duration
		slow string
	}{{a, slowAnswer - 1, "false false false"}, {a, slowAnswer, "true false false"}, {c, time.Minute, "true false true"}, {a, 0, "false false true"}} {
		p.took(step.at, step.took)
		if got := fmt.Sprint(p.slow(a), p.slow(b), p.slow(c)); got != step.slow {
			t.Errorf("%v took %v: slow are %s, want %s", step.at, step.took, got, step.slow)
		}
	}
}

// TestSlowDestinationIsRemembered: a destination that takes its time is known for it, and what is moved into less memory for it
// arrives whole, and so does what comes next.
func TestSlowDestinationIsRemembered(t *testing.T) {
	t.Parallel()
	mx := newRemote(t)
	mx.before = func(verb string) {
		if verb == "BDAT" || verb == "DATA" {
			time.Sleep(slowAnswer) // that is what it is like
		}
	}
	r := newRig(t, mx.addr())
	p := r.hello()
	for i, lines := range []int{1, 160, 40, 300} {
		p.envelope()
		body := "Subject: x\r\n\r\n" + strings.Repeat(strings.Repeat("x", 62)+"\r\n", lines)
		p.send(body, "250")
		mx.mu.Lock()
		got := mx.mails[len(mx.mails)-1]
		mx.mu.Unlock()
		if !strings.Contains(got, body) {
			t.Errorf("message %d: %d bytes arrived, want %d among them", i, len(got), len(body))
		}
		if !r.srv.paces.slow(mx.addr().Addr()) {
			t.Errorf("message %d: the destination is not known as slow", i)
		}
	}
}

// ponder is a check that takes its time.
type ponder struct{}

func (ponder) Check(_ context.Context, _ filter.Phase, _ *message.Message, hits []filter.Hit) []filter.Hit {
	time.Sleep(slowAnswer) // that is what it is like
	return hits
}

// TestSlowChecksMakeNoSlowDestination: how long the checks took is not held against the destination.
func TestSlowChecksMakeNoSlowDestination(t *testing.T) {
	t.Parallel()
	mx := newRemote(t)
	r := newRig(t, mx.addr(), steps(filter.Step{Name: "ponder", Phases: []filter.Phase{filter.Data}, Check: ponder{}}))
	p := r.hello()
	for range 20 { // on a busy machine one or the other is slow
		p.envelope()
		p.send(goodMail, "250")
		if !r.srv.paces.slow(mx.addr().Addr()) {
			return
		}
	}
	t.Error("it is held for slow")
}
