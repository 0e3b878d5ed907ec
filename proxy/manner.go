package proxy

import (
	"time"

	"sluice/proxy/probe"
	"sluice/proxy/smtp"
)

// Bounds of LIM5. A client that mails does not come near: what it says between messages is forgotten with each message.
const (
	freeErrors = 3                     // replies 500–504 of ours in a session that are given at once
	mostErrors = 10                    // and after which it ends
	freeNoise  = 20                    // commands without mail that are answered at once
	mostNoise  = 100                   // commands without mail after which the session ends
	noiseStep  = 50 * time.Millisecond // by which each answer waits longer than the one before
	mostDelay  = 3 * time.Second
)

// manner counts a client's mistakes and idle talk.
type manner struct {
	errors int
	idle   int
	step   time.Duration
}

// replied counts a reply of ours and gives how long it is to wait. Refusals by the destination are not ours, and those by
// policy are never 500–504 (see refusal).
func (m *manner) replied(code int) (wait time.Duration) {
	if code < 500 || code > 504 {
		return 0
	}
	m.errors++
	return max(0, time.Duration(m.errors-freeErrors)*m.step)
}

// worn tells whether the client has made too many mistakes.
func (m *manner) worn() bool { return m.errors >= mostErrors }

// noise counts a command without mail and gives how long its answer is to wait, or that it is one too many.
func (m *manner) noise() (wait time.Duration, over bool) {
	m.idle++
	if m.idle > mostNoise {
		return 0, true
	}
	return min(max(0, time.Duration(m.idle-freeNoise)*m.step), mostDelay), false
}

// mailed forgets the idle talk before a message.
func (m *manner) mailed() { m.idle = 0 }

// noopCommand tells a probe of the path that it came through here.
func (s *session) noopCommand(cmd *smtp.Command) {
	echo, probed := probe.Echo(cmd.Arg)
	if !probed {
		s.noisy(s.set.fixed.noop)
		return
	}
	if s.noise(); !s.bye {
		s.say(answer{250, smtp.Enhanced{2, 0, 0}, echo})
	}
}

// noisy answers a command that brings no mail.
func (s *session) noisy(reply []byte) {
	if s.noise(); !s.bye {
		s.conn.WriteRaw(reply)
	}
}

// noise counts a command that brings no mail, and slows down whoever sends many.
func (s *session) noise() {
	wait, over := s.manner.noise()
	since := time.Unix(0, s.stageAt.Load()) // the last MAIL, or the connection
	if over || time.Since(since) > s.set.Timeouts.Fruitless {
		s.leave(tooMuchNoise)
		return
	}
	s.pause(wait)
}

// look is how often it is looked, while a client waits for an answer, whether it has left.
const look = 500 * time.Millisecond

// pause lets a client wait for the answer to come. Who has ended his side is not made to wait: what he sent before is
// done with quickly, and the session does not outlive him by all the waits he has earned.
func (s *session) pause(wait time.Duration) {
	if wait > 0 {
		s.rest()
		_ = s.conn.Flush() // what was answered before is not to wait, too; an error comes again with the answer
	}
	for wait > 0 && !s.conn.HungUp() {
		t := time.NewTimer(min(wait, look))
		wait -= look
		select {
		case <-t.C:
		case <-s.srv.drain.Done():
			wait = 0
		case <-s.ctx.Done(): // cut
			wait = 0
		}
		t.Stop()
	}
}
