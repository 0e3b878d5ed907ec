package lock

import (
	"fmt"
	"hash/fnv"
	"strings"

	"sluice/filter"
	"sluice/filter/lock/ladder"
	"sluice/filter/message"
	"sluice/filter/policy"
	"sluice/filter/reputation/trap"
	"sluice/intercept/flow"
)

// CheckName is how hits of this package are named in verdicts.
const CheckName = "lock"

// The public codes of what a sender hears who is not locked as a whole.
const (
	CodeLocked = "LOCKED" // this identity is locked
	CodeHeld   = "HELD"   // too much of what he sent lately was bad, or some was and this looks bad
	CodeSlow   = "SLOW"   // he may send no more for now
)

// Judged counts the verdict of a whole message and locks its sender where that meets a rule (LCK1). It returns after the
// lock, also one that another session has just brought, is in force. Where the message is good and its sender is not to
// send now, the verdict has a hit more and is a refusal; of a locked user it is left as it is.
func (l *Locks) Judged(m *message.Message, v *filter.Verdict) {
	user := m.Flow.User
	if user.ID == 0 {
		return
	}
	if _, locked := l.Locked(user.ID); locked {
		l.await(Scope{User: user.ID}) // the lock may still be on its way to kernel and disk
		return
	}
	s := &l.d.Settings.Settings(user.ID).Lock
	whom := Scope{user.ID, m.Identity}
	if m.Identity != "" {
		if ticket, locked := l.within.get(whom); locked {
			l.await(whom)
			l.stop(v, CodeLocked, ticket, l.lockedText(whom, ticket))
			return
		}
	}
	e, ev, counts := eventOf(m, v)
	if !counts {
		return
	}
	st := l.tallies.tell(whom, e, ev, s)
	if st.finding != nil {
		l.found(user, st.finding, s)
		return
	}
	if (e.Kind == ladder.Good || e.Kind == ladder.Doubtful) && s.Automatic && !s.Never {
		l.slowed(v, st)
	}
}

// Stopped tells whether mail of m's sender is stopped by a lock, and by which.
func (l *Locks) Stopped(m *message.Message) (ticket string, stopped bool) {
	if ticket, stopped = l.Locked(m.Flow.User.ID); stopped || m.Identity == "" {
		return ticket, stopped
	}
	return l.within.get(Scope{m.Flow.User.ID, m.Identity})
}

// slowed refuses, for now, the good message of a sender who has come near a lock or whose lock ended lately.
func (l *Locks) slowed(v *filter.Verdict, st standing) {
	switch {
	case st.rung >= ladder.Held: // also who would be locked if the brake did not hold that up: nothing is lost by waiting
		l.stop(v, CodeHeld, "", "too much of what this sender sent lately was bad; what is good goes out in some minutes")
	case st.more:
		l.stop(v, CodeHeld, "", "mail of this sender was found bad lately, and this looks like more of it; it goes out in some minutes unless more is found")
	case st.slow:
		l.stop(v, CodeSlow, "", "this sender sends slowly for now, since some of his mail was bad lately; try again later")
	}
}

// stop makes a refusal of a verdict that was none.
func (l *Locks) stop(v *filter.Verdict, code, ticket, text string) {
	if v.Refused() {
		return
	}
	hits := append(v.Hits[:len(v.Hits):len(v.Hits)], filter.Hit{Check: CheckName, Code: code, Class: filter.Policy, Action: filter.Defer, SMTP: 451, Enhanced: "4.7.1", Text: text})
	*v = filter.Judge(hits)
	v.Ticket = ticket
}

func (l *Locks) lockedText(whom Scope, ticket string) string {
	lk, _ := l.FindIn(whom)
	return fmt.Sprintf("%s is locked, ticket %s; reason: %s", whom.Identity, ticket, lk.Reason)
}

// found locks whom a rule met, or alarms where nobody is to be locked.
func (l *Locks) found(u flow.User, f *finding, s *policy.Lock) {
	if s.Automatic && !s.Never && !f.only {
		holds, tell := l.brake.holds(l.tallies.now(), f.check, u.ID, int(l.tallies.n.Load()))
		if !holds {
			l.lockFor(u, f, s)
			return
		}
		if tell {
			l.tell(Event{Kind: Brake, Lock: f.lock(u)})
			return
		}
	}
	if f.alarm {
		l.tell(Event{Kind: Alarm, Lock: f.lock(u)})
	}
}

// eventOf tells what a verdict says about its sender; false where it is to say nothing.
func eventOf(m *message.Message, v *filter.Verdict) (e ladder.Event, ev Evidence, counts bool) {
	e, said, counts := EventOf(v, m.Forwarded, m.Found.Likely)
	if said == nil {
		return e, Evidence{}, counts
	}
	e.Print = printOf(m, v, e.Firm)
	return e, evidenceOf(m, said), true
}

// EventOf tells what a verdict without this package's own hits says about the message's sender, but for the print of the text, and which
// hit says it; nil of a good one. Likely is message.Found's. Counts is false where it is to say nothing.
// Bad mail that was only forwarded has a rule of its own.
func EventOf(v *filter.Verdict, forwarded bool, likely uint8) (e ladder.Event, said *filter.Hit, counts bool) {
	d := v.Decisive()
	if d == nil || !d.Class.Bad() {
		if forwarded {
			likely = 0
		}
		doubt := v.Doubt()
		if doubt == nil || d != nil && d != doubt || forwarded { // or something else keeps it back
			return ladder.Event{Kind: ladder.Good, Likely: likely}, nil, true
		}
		e = ladder.Event{Kind: ladder.Doubtful, Score: uint8(100*doubt.Score + 1e-9)}
		if !doubt.Class.Bad() { // else a setting lets it go
			e.Likely = e.Score
		}
		return e, doubt, true
	}
	if d = v.Counting(); d == nil {
		return ladder.Event{}, nil, false
	}
	for i := range v.Hits {
		if h := &v.Hits[i]; h.Code == trap.Code && d.Class != filter.Virus { // whatever else is found in it
			d = h
		}
	}
	e = ladder.Event{Kind: kindOf(d.Class)}
	_, e.Firm = v.Copies()
	if d.Code == trap.Code {
		e.Kind = ladder.Trap
	}
	if forwarded {
		if d.Class == filter.Virus { // it is refused, and that is all: who forwards has not sent it
			return ladder.Event{}, nil, false
		}
		e.Kind = ladder.Passed
	}
	return e, d, true
}

func evidenceOf(m *message.Message, d *filter.Hit) Evidence {
	return Evidence{
		Message: strings.Clone(m.ID), At: wall(), From: strings.Clone(string(m.Envelope.From)), Identity: strings.Clone(m.Identity),
		Check: d.Check, Code: d.Code, Class: d.Class.String(), Detail: short(d.Evidence),
	}
}

// kindOf is what a message of a bad class counts as.
func kindOf(c filter.Class) ladder.Kind {
	switch c {
	case filter.Virus:
		return ladder.Virus
	case filter.Phish:
		return ladder.Phish
	}
	return ladder.Spam
}

// printOf tells messages apart. Copies of one message are the same, unless more than their words speaks against them (firm):
// then only two tries to send one to the same recipients are.
func printOf(m *message.Message, v *filter.Verdict, firm bool) (print uint64) {
	group, _ := v.Copies()
	if group != 0 && !firm {
		return ladder.Spread(group)
	}
	body := message.Body(m.Data)
	if body == nil {
		body = m.Data
	}
	if !firm {
		return ladder.Print(body)
	}
	h := fnv.New64a()
	_, _ = h.Write(body)
	for _, to := range m.Envelope.To {
		_, _ = h.Write([]byte(to))
		_, _ = h.Write([]byte{0})
	}
	return max(1, h.Sum64())
}

// Tell counts what became known of a sender otherwise than by a verdict: a complaint, a destination's answer, a login that
// was refused. Code and reason of a lock that follows are those of ev.
func (l *Locks) Tell(u flow.User, identity string, e ladder.Event, ev Evidence) {
	if u.ID == 0 {
		return
	}
	whom := Scope{u.ID, identity}
	if l.stopped(whom) {
		return
	}
	s := &l.d.Settings.Settings(u.ID).Lock
	if ev.At.IsZero() && e.Kind != ladder.Known { // which is no evidence
		ev.At = wall()
	}
	ev.Identity = identity
	if st := l.tallies.tell(whom, e, ev, s); st.finding != nil {
		l.found(u, st.finding, s)
	}
}

func (l *Locks) stopped(whom Scope) bool {
	if _, locked := l.Locked(whom.User); locked {
		return true
	}
	_, locked := l.within.get(whom)
	return locked
}

// Demand locks for another part's rule: a limit that is marked so (LIM4), a campaign.
func (l *Locks) Demand(u flow.User, identity string, ev Evidence, reason string) {
	whom := Scope{u.ID, identity}
	if u.ID == 0 || l.stopped(whom) {
		return
	}
	s := &l.d.Settings.Settings(u.ID).Lock
	if ev.At.IsZero() {
		ev.At = wall()
	}
	l.found(u, &finding{whom: whom, check: ev.Check, code: ev.Code, cause: ladder.Cause{Rule: ev.Check}, reason: reason, evidence: []Evidence{ev}, alarm: l.tallies.mayAlarm(whom, s)}, s)
}

// mayAlarm tells, once a window, that nobody was alarmed about a sender.
func (t *tallies) mayAlarm(whom Scope, s *policy.Lock) bool {
	sh, now := t.shard(whom.User), t.now()
	sh.mu.Lock()
	defer sh.mu.Unlock()
	u := t.sender(sh, whom, now, s)
	if now < u.quiet {
		return false
	}
	u.quiet = now + s.Window
	return true
}

// Forget lets a sender begin anew: what spoke against him before counts no more. A lock of his stands.
func (l *Locks) Forget(whom Scope) { l.tallies.forget(whom) }

// Standing is how far a user or an identity has come.
type Standing struct {
	Rung      ladder.Rung
	Cause     string // what speaks most against him, "" where nothing does
	Probation bool   // his lock ended lately
	Score     int    // reputation, 0 to 100; 100 is worst (REP2)
	Factors   []ladder.Factor
}

// Standing returns where a user or an identity stands.
func (l *Locks) Standing(whom Scope) Standing {
	if _, locked := l.FindIn(whom); locked {
		return Standing{Rung: ladder.Locked, Cause: l.reasonOf(whom)}
	}
	return l.tallies.of(whom, &l.d.Settings.Settings(whom.User).Lock)
}

// Clear tells whether nothing speaks against a user: neither a lock nor probation nor anything found in his mail lately.
func (l *Locks) Clear(user uint32) bool {
	_, locked := l.Locked(user)
	return !locked && !l.tallies.marked(user)
}

func (l *Locks) reasonOf(whom Scope) string {
	k, _ := l.FindIn(whom)
	return k.Reason
}

// Meets reports whether so many bad messages among all of one window lock a user. A virus locks by itself.
func Meets(bad, all int, s *policy.Lock) bool {
	return bad >= s.SpamCount && ladder.Enough(bad, all, s.SpamShare)
}
