package proxy

import (
	"net"
	"strings"
	"testing"
	"time"

	"sluice/filter"
)

// patient is a rig whose answers do not wait.
func patient(t *testing.T, mx *remote, change ...func(*rig)) *rig {
	t.Helper()
	return newRig(t, mx.addr(), append(change, func(r *rig) { r.quick = true })...)
}

// TestTalkWithoutMailEnds: a hundred commands that bring no mail are answered, whatever they are, and then no more.
func TestTalkWithoutMailEnds(t *testing.T) {
	t.Parallel()
	for _, talk := range []string{"NOOP", "RSET", "EHLO again.example", "HELO again.example", "VRFY x", "EXPN x", "HELP", "MAIL FROM:<a@client.example>|RSET", "NOOP|RSET|VRFY x|EHLO again.example"} {
		t.Run(talk, func(t *testing.T) {
			t.Parallel()
			mx := newRemote(t)
			r := patient(t, mx)
			p := r.hello()
			cmds, n := strings.Split(talk, "|"), 0
			for i := 0; n < mostNoise; i++ {
				cmd := cmds[i%len(cmds)]
				p.cmd(cmd, "2")
				if !strings.HasPrefix(cmd, "MAIL") {
					n++
				}
			}
			if cmds[0][:4] == "MAIL" {
				p.cmd(cmds[0], "250")
			}
			p.cmd(cmds[len(cmds)-1], "421 4.7.0 gw.example: too many commands without mail")
			p.closed()
			if rec := r.log.wait(t, 1)[0]; cmds[0] == talk && !strings.Contains(rec.Note+rec.Reply, "too many commands without mail") {
				t.Errorf("record %+v", rec)
			}
			for _, c := range mx.commands() {
				if c != "1 EHLO out.gw.example" && c != "1 QUIT" {
					t.Errorf("the destination heard %q", c)
				}
			}
		})
	}
}

// TestMailForgivesTalk: whoever mails may say as much again.
func TestMailForgivesTalk(t *testing.T) {
	t.Parallel()
	r := patient(t, newRemote(t))
	p := r.hello()
	for range 3 {
		for range mostNoise - 1 {
			p.cmd("NOOP", "250")
		}
		p.envelope()
		p.send(goodMail, "250")
	}
	p.cmd("QUIT", "221")
}

// TestMistakesEnd: ten of them, of whatever kind, and within or without a transaction.
func TestMistakesEnd(t *testing.T) {
	t.Parallel()
	for _, wrong := range []string{
		"WHAT", "XCLIENT x", "ETRN x", "TURN", "DATA now", "RCPT TO:<a@b.example>", "DATA", "BDAT 0", "MAIL FROM:a b>", "EHLO a b c", "AUTH PLAIN", "STARTTLS", strings.Repeat("x", 600), "NOOP\x00",
	} {
		t.Run(wrong[:min(len(wrong), 12)], func(t *testing.T) {
			t.Parallel()
			r := patient(t, newRemote(t))
			p := r.hello()
			for range mostErrors {
				p.cmd(wrong, "50")
			}
			p.want("421 4.7.0 gw.example: too many errors")
			p.closed()
		})
	}
}

// TestRefusalsNeverCount: neither the destination's, whatever their code, nor those of policy end a session.
func TestRefusalsNeverCount(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		remote func(*remote)
		hit    filter.Hit
		want   string
	}{
		"the destination's":          {reply("RCPT", "550 5.1.1 nobody"), filter.Hit{}, "550 5.1.1 nobody"},
		"the destination's with 501": {reply("RCPT", "501 5.1.3 bad address"), filter.Hit{}, "501 5.1.3 bad address"},
		"the destination's with 500": {reply("MAIL", "500 5.5.1 what"), filter.Hit{}, "500 5.5.1 what"},
		"by policy":                  {func(*remote) {}, filter.Hit{Code: "NO", Class: filter.Policy, Action: filter.Reject, Text: "no"}, "550 5.7.1 gw.example: [NO] no"},
		"by policy with 503":         {func(*remote) {}, filter.Hit{Code: "NO", Class: filter.Policy, Action: filter.Reject, SMTP: 503, Text: "no"}, "550 5.7.1 gw.example: [NO] no"},
		"for now":                    {func(*remote) {}, filter.Hit{Code: "NO", Class: filter.Policy, Action: filter.Defer, Text: "no"}, "451 4.7.1 gw.example: [NO] no"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := patient(t, newRemote(t, c.remote), func(r *rig) {
				if c.hit.Code != "" {
					r.cfg.Settings.Pipeline = filter.NewPipeline(at(filter.Rcpt, c.hit))
				}
			})
			p := r.hello()
			for range 5 * mostErrors {
				p.cmd("MAIL FROM:<a@client.example>", "250")
				p.cmd("RCPT TO:<b@sink.example>", c.want)
				p.cmd("RCPT TO:<c@sink.example>", c.want)
				p.cmd("DATA", "554")
				p.cmd("RSET", "250")
			}
			p.cmd("QUIT", "221")
		})
	}
}

// TestAnswersWaitLongerAndLonger, those to mistakes and those to idle talk.
func TestAnswersWaitLongerAndLonger(t *testing.T) {
	t.Parallel()
	m, before := manner{step: noiseStep}, time.Duration(0)
	for i := range mostNoise {
		wait, over := m.noise()
		if over || i < freeNoise && wait != 0 || i >= freeNoise && (wait <= before && before < mostDelay || wait > mostDelay) {
			t.Fatalf("answer %d waits %v after %v, over %v", i+1, wait, before, over)
		}
		before = wait
	}
	before = 0
	for i := range mostErrors {
		wait := m.replied(502)
		if i < freeErrors && wait != 0 || i >= freeErrors && wait <= before {
			t.Fatalf("mistake %d waits %v after %v", i+1, wait, before)
		}
		before = wait
		if m.worn() != (i == mostErrors-1) {
			t.Fatalf("worn after %d mistakes: %v", i+1, m.worn())
		}
	}
	for _, code := range []int{250, 354, 421, 451, 452, 505, 550, 552, 553, 554, 555} {
		if m.replied(code) != 0 || m.errors != mostErrors {
			t.Errorf("%d counts as a mistake", code)
		}
	}
}

// TestWhoLeavesDoesNotWait: the waits that a client has earned by idle talk end with it, whether it ends its side or all,
// so that its session does not outlive it.
func TestWhoLeavesDoesNotWait(t *testing.T) {
	t.Parallel()
	for name, leave := range map[string]func(*net.TCPConn) error{"half": (*net.TCPConn).CloseWrite, "whole": (*net.TCPConn).Close} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, newRemote(t).addr())
			p := r.hello()
			p.write(strings.Repeat("NOOP\r\n", 80)) // 90 s of waits
			must(t, leave(p.nc.(*net.TCPConn)))
			if rec := r.log.wait(t, 1)[0]; rec.Status != NoMessage {
				t.Errorf("record %+v", rec)
			}
		})
	}
}

// TestManyRefusedRecipientsAreCounted: the log has the first of them, and the number of the others.
func TestManyRefusedRecipientsAreCounted(t *testing.T) {
	t.Parallel()
	r := patient(t, newRemote(t, reply("RCPT", "550 5.1.1 nobody")))
	p := r.hello()
	p.cmd("MAIL FROM:<a@client.example>", "250")
	p.write(strings.Repeat("RCPT TO:<b@sink.example>\r\n", 1000))
	for range 1000 {
		p.want("550 5.1.1 nobody")
	}
	p.cmd("QUIT", "221")
	if rec := r.log.wait(t, 1)[0]; len(rec.To) != mostRefused || rec.Note != "client quit; 900 more recipients were refused" {
		t.Errorf("%d recipients, note %q", len(rec.To), rec.Note)
	}
}
