package model

import "net/netip"

// What becomes of a connection that the proxy should have.
type answer int

const (
	assign answer = iota // it is there, or was announced to come back
	wait                 // it is away for a moment: its listener keeps the connection
	retry                // the same without a listener: the client tries again
	away                 // the fail mode holds
)

// sign is the age of the proxy's last sign of life, and whether a restart was announced that is not over.
func (j *judgement) sign() (age uint64, restarting bool) {
	beat := j.Beat
	if beat == 0 || beat > j.now+beatMaxAge { // never, or a lie
		beat = j.Start
	}
	if beat < j.now {
		age = j.now - beat
	}
	return age, j.RestartUntil > j.now && j.RestartUntil <= beat+restartMax
}

// emptyFor is how long the listener's slot has been seen empty.
func (j *judgement) emptyFor() uint64 {
	switch {
	case j.Listener:
		j.EmptySince = 0
	case j.EmptySince == 0:
		j.EmptySince = j.now
	case j.now > j.EmptySince:
		return j.now - j.EmptySince
	}
	return 0
}

func (j *judgement) ask(closed bool) answer {
	age, restarting := j.sign()
	empty := j.emptyFor()
	alive := restarting || age <= beatMaxAge
	switch {
	case alive && j.Listener:
		return assign
	case restarting:
		return retry
	}
	// Whoever beats and has no listener is at fault, and that must not last.
	age = max(age, empty)
	switch {
	case age <= beatMaxAge:
		return retry
	case closed && age <= closedWait && j.Listener:
		return wait
	case closed && age <= closedWait:
		return retry
	}
	return away
}

// listener asks the proxy and gives it the connection; a lock's budget is spent on that.
func (j *judgement) listener(closed bool, l *Lock) answer {
	a := j.ask(closed)
	if a != assign && a != wait {
		return a
	}
	if l != nil {
		b, known := j.LockBudgets[l.User]
		if !known {
			b.Start = j.now
		}
		b, enough := b.spend(l.Budget, j.now)
		j.LockBudgets[l.User] = b
		if !enough {
			return away
		}
	}
	if j.CannotAssign {
		j.count("assign_failed")
		return retry
	}
	return a
}

// intercept gives a fresh connection to the proxy, or does what the fail mode says.
func (j *judgement) intercept(s Source) Verdict {
	if !j.spendSYN(s) {
		j.note("syn_limited", s, "syn_limited")
		return j.end(Shot)
	}
	switch j.listener(s.Closed, nil) {
	case assign:
		j.note("intercept", s, "intercepted")
		return j.deliver()
	case wait:
		j.note("wait", s, "intercepted")
		return j.deliver()
	case retry:
		j.note("wait_drop", s, "dropped")
		return j.end(Shot)
	}
	if s.Closed {
		j.note("fail_closed", s, "failed_closed")
		return j.reset()
	}
	if !j.spendOpen() {
		j.note("fail_open_cap", s, "dropped")
		return j.end(Shot)
	}
	j.note("fail_open", s, "failed_open")
	return j.forward()
}

// spendSYN: each SYN costs the time that fills the bucket again, and so much of it may be owed.
func (j *judgement) spendSYN(s Source) bool {
	if s.PerSecond == 0 {
		return true
	}
	who := Sender{User: s.User}
	if s.User == 0 {
		who.Host = j.host()
	}
	due := max(j.Buckets[who], j.now) + second/s.PerSecond
	if due-j.now > burst {
		return false
	}
	j.Buckets[who] = due
	return true
}

// host is the source; an IPv6 one is its /64.
func (j *judgement) host() netip.Prefix {
	if j.h.src.Is4() {
		return netip.PrefixFrom(j.h.src, 32)
	}
	return netip.PrefixFrom(j.h.src, 64).Masked()
}

func (j *judgement) spendOpen() bool {
	who := j.host()
	b, known := j.OpenBudgets[who]
	if !known {
		b.Start = j.now
	}
	b, enough := b.spend(openSYNs, j.now)
	j.OpenBudgets[who] = b
	return enough
}

// locked explains as long as the budget lasts and the proxy can be asked; a lock never loosens what the mode says.
func (j *judgement) locked(s Source, l Lock) Verdict {
	if s.Mode == Drop {
		j.note("drop", s, "dropped")
		return j.end(Shot)
	}
	if s.Mode != Reject {
		if a := j.listener(true, &l); a == assign || a == wait {
			j.note("lock_explain", s, "explained")
			return j.deliver()
		}
	}
	j.note("lock_reset", s, "lock_reset")
	return j.reset()
}

// reply is TCP from a mail port: a source-preserving socket's, or somebody else's.
func (j *judgement) reply(named bool) Verdict {
	if !inside(j.Local, j.h.dst) && j.ownSocket() {
		j.count("reply")
		return j.deliver()
	}
	if j.foreignReply(named) {
		return j.end(Shot)
	}
	return j.end(Next)
}

// foreignReply tells whether a segment is the answer to a SYN that went round the proxy and must not be answered. With
// `named` only customers who stand in the table are meant.
func (j *judgement) foreignReply(named bool) bool {
	if j.h.flags&(flagSYN|flagACK|flagRST) != flagSYN|flagACK || inside(j.Local, j.h.dst) || j.h.sport != 25 {
		return false
	}
	s := j.source(j.h.dst)
	if named && s.length() == 0 {
		return false
	}
	l, locked := j.lock(j.h.dst, j.now)
	if locked && l.means(s) && !inside(j.LockExempt, j.h.src) {
		j.count("half_open")
		return true
	}
	switch mode := j.mode(s, j.h.src, j.h.sport, j.now); {
	case mode >= Reject:
		j.count("half_open")
		return true
	case mode != Intercept && mode != Shadow || j.bypassed(j.h.dst, j.now):
		return false
	case s.Closed:
		j.count("half_open")
		return true
	}
	if age, restarting := j.sign(); (restarting || age <= beatMaxAge) && !named {
		j.count("asymmetric")
	}
	return false
}

// Uplink is uplink_ingress: a packet from the world.
func (t *Tables) Uplink(s *State, p Packet, now uint64) Verdict {
	j := t.judge(s, p, now)
	if p.Tagged && p.VLAN != 0 {
		return j.end(Next)
	}
	if p.Others {
		return j.end(Next)
	}
	switch j.h.kind {
	case icmp:
		return j.icmp()
	case reply:
		return j.reply(false)
	case outbound: // mail for a customer, or an answer to his port 25
		if j.foreignReply(false) {
			return j.end(Shot)
		}
	}
	return j.end(Next)
}

// Guard is uplink_guard: a packet that is about to leave for the world.
func (t *Tables) Guard(s *State, p Packet, now uint64) Verdict {
	j := t.judge(s, p, now)
	if p.Ingress == 0 {
		return j.ownPacket()
	}
	if p.Mark&t.Judged != 0 {
		return j.end(Next)
	}
	reason := "guard_drop"
	switch j.h.kind {
	case outbound:
		rule, known := t.portMode(p.Ingress, j.h.dport)
		if !j.h.syn() || !known || rule == Pass { // goes on as it began; not opened there
			return j.end(Next)
		}
	case undecided:
		reason = "guard_unparsed"
	default:
		return j.end(Next)
	}
	src := t.source(j.h.src)
	mode := t.mode(src, j.h.dst, j.h.dport, now)
	filtered := mode >= Reject || mode != Pass && mode != Observe && !t.bypassed(j.h.src, now)
	if !src.Closed || !filtered {
		return j.end(Next)
	}
	j.count(reason)
	return j.end(Shot)
}

// ownPacket: a socket with the judged mark alone is source-preserving, and leads to where the helper connected it.
func (j *judgement) ownPacket() Verdict {
	if j.p.Mark&(j.Tables.Intercept|j.Judged) != j.Judged {
		return j.end(Next)
	}
	if j.h.kind == outbound {
		_, dst := j.ends()
		if !j.h.syn() || j.Preserved != nil && j.Preserved(j.p.Cookie, j.h.src, dst) {
			return j.end(Next)
		}
	}
	j.count("guard_socket")
	return j.end(Shot)
}
