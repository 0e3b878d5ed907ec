//go:build linux

package proxy

import (
	"context"
	"runtime"
	"strings"
	"testing"
	"time"
)

// eventually waits for something that no event tells.
func eventually(t testing.TB, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(wait); !is(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within %v: %s", wait, what)
		}
	}
}

func (r *rig) parked(n int) {
	r.t.Helper()
	eventually(r.t, "all sessions are parked", func() bool { return r.srv.lot.Parked() == n })
}

// TestIdleSessionsHaveNoGoroutine: hundreds of sessions, with an onward one each, in a transaction or not, cost none.
func TestIdleSessionsHaveNoGoroutine(t *testing.T) { // not parallel: goroutines are counted
	mx := newRemote(t)
	r := newRig(t, mx.addr())
	const many = 200
	all := make([]*peer, many)
	for i := range all {
		all[i] = r.hello()
		if i%2 == 0 {
			all[i].envelope()
		}
	}
	r.parked(many)
	buf := make([]byte, 1<<20)
	eventually(t, "no session has a goroutine", func() bool {
		return !strings.Contains(string(buf[:runtime.Stack(buf, true)]), "(*session).")
	})
	for i, p := range all {
		if i%2 != 0 {
			p.envelope()
		}
		p.send(goodMail, "250")
		p.cmd("QUIT", "221")
	}
	eventually(t, "all sessions have ended", func() bool { return r.srv.Sessions() == 0 })
	if n := len(mx.messages()); n != many {
		t.Errorf("%d messages arrived, want %d", n, many)
	}
}

func TestParkedSessionTimesOut(t *testing.T) {
	t.Parallel()
	r := newRig(t, newRemote(t).addr(), func(r *rig) { r.cfg.Settings.Timeouts.Command = 2 * time.Second })
	p := r.hello()
	p.want("421 4.4.2 gw.example: ")
	p.closed()
}

// TestHalfACommandIsWaitedFor: what is buffered is not lost by waiting, nor does it prolong the wait.
func TestHalfACommandIsWaitedFor(t *testing.T) {
	t.Parallel()
	p := newRig(t, newRemote(t).addr()).hello()
	p.write("NO")
	time.Sleep(20 * time.Millisecond) // several times what parks a session: the subject of the test
	p.cmd("OP", "250")
	p.write("MAIL FROM:<a@client.example>\r\nRC")
	p.want("250")
	time.Sleep(20 * time.Millisecond)
	p.cmd("PT TO:<b@sink.example>", "250")
	p.send(goodMail, "250")
}

func TestParkedUnderTLS(t *testing.T) {
	t.Parallel()
	mx := newRemote(t, remoteTLS(t))
	r := newRig(t, mx.addr(), withTLS)
	p := r.hello()
	p.startTLS()
	p.cmd("EHLO client.example", "250")
	for range 3 {
		r.parked(1)
		p.envelope()
		r.parked(1)
		p.send(goodMail, "250")
	}
	p.cmd("QUIT", "221")
}

func TestWhatEndsAParkedSession(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		end  func(r *rig, p *peer)
		want string // "" is the end without a word
	}{
		"the client leaves": {func(_ *rig, p *peer) { p.nc.Close() }, ""},
		"a lock":            {func(r *rig, _ *peer) { r.locks.lock("T9"); r.srv.Locked(7) }, "421 4.7.1 gw.example: [LOCKED]"},
		"a planned restart": {func(r *rig, _ *peer) { go func() { _ = r.srv.Shutdown(context.Background()) }() }, "421 4.3.2 gw.example: "},
		"a cut":             {func(r *rig, _ *peer) { r.srv.list()[0].kill() }, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, newRemote(t).addr())
			p := r.hello()
			r.parked(1)
			c.end(r, p)
			if c.want != "" {
				p.want(c.want)
			}
			if name != "the client leaves" {
				p.closed()
			}
			if rec := r.log.wait(t, 1)[0]; rec.Status != NoMessage {
				t.Errorf("logged %v", rec.Status)
			}
			eventually(t, "the session has ended", func() bool { return r.srv.Sessions() == 0 && r.srv.lot.Parked() == 0 })
		})
	}
}
