// Package ladder judges a sender by what became of his mail: from free over watched, throttled and held to locked.
//
// It is pure: it has no clock, no disk and no kernel, and what it says depends on what it was told alone.
package ladder

import (
	"time"

	"sluice/filter/policy"
)

// Rung is how far a sender has come.
type Rung uint8

// The rungs. A lock itself, its end and its number of repetitions are the business of whoever keeps locks.
const (
	Free      Rung = iota
	Watched        // something speaks against him; his mail goes on as before
	Throttled      // he sends slowly: see policy.Lock.Throttled
	Held           // nothing of his goes on until less speaks against him
	Locked         // a rule is met
)

// String returns the rung's name as it stands in log and API.
func (r Rung) String() string {
	if r > Locked {
		return "?"
	}
	return [...]string{"free", "watched", "throttled", "held", "locked"}[r]
}

// Kind is what an event tells of a sender.
type Kind uint8

// The kinds. They stand in saved state: new ones come last.
const (
	Good      Kind = iota // a message against which nothing was found
	Spam                  // a message found to be spam
	Phish                 // or phishing
	Virus                 // or with a virus in it
	Trap                  // a message to an address that nobody has
	Complaint             // somebody who got one of his messages complained
	Remote                // a destination refused a message as spam
	Known                 // a recipient whom a destination took
	Unknown               // a recipient whom a destination does not know
	Guess                 // a login that a destination refused
	Passed                // a bad message that was only forwarded
	Doubtful              // a message that goes on although it looks bad: for shares a good one
	kinds
)

// Event is one thing that happened.
type Event struct {
	Kind   Kind
	Print  uint64 // of what was sent: copies of one text have prints that differ in few bits. 0: it is like nothing else
	Firm   bool   // a list, a link or a signature speaks against it: each message counts, and no share is asked for
	Origin uint32 // who sent it inside of a larger sender; 0: nobody known
	Score  uint8  // how likely a doubtful one is bad, in percent
	Likely uint8  // how likely a good or doubtful one is bad, in percent, where no setting lets it go; else 0
}

// Cause is a rule that was met.
type Cause struct {
	Rule  string // its name in settings and history
	Bad   int    // what counted against the sender
	All   int    // of how many, where the rule asks for a share
	Share bool
	Over  time.Duration // the rule's window
}

// Sender is what is known of one sender. Its zero value is one who has done nothing. Times are those of one clock that
// never goes back, and events are told in their order. Not safe for concurrent use.
type Sender struct {
	marks     []mark        // what speaks against him, latest last
	probation time.Duration // until then
	doubts    *doubts       // nil: nothing of his looked bad lately
	likely    *ring         // how likely bad those messages are that went on and are likelier bad than good; nil: none was
	short     ring          // messages against which nothing was found
	hour      ring
	day       ring
	known     ring // recipients
	unknown   ring
}

// mark is one thing that speaks against a sender.
type mark struct {
	at     time.Duration // when it was seen last
	print  uint64
	origin uint32
	kind   Kind
	firm   bool
}

// Keep bounds the marks of a sender. It is above every number that a rule may ask for.
const Keep = policy.MaxSpamCount + 24

const (
	hour = time.Hour
	day  = 24 * time.Hour
)

// Tell notes what happened at the time now.
func (s *Sender) Tell(now time.Duration, e Event, r *policy.Lock) {
	switch e.Kind {
	case Good, Doubtful:
		s.short.add(now, r.Window, 1)
		s.hour.add(now, hour, 1)
		s.day.add(now, day, 1)
		if e.Kind == Doubtful {
			s.doubt(now, e, r)
		}
		s.look(now, e, r)
	case Known:
		s.known.add(now, hour, 1)
	case Unknown:
		s.unknown.add(now, hour, 1)
	default:
		s.mark(now, e)
	}
}

// mark notes what speaks against a sender, once for all copies of one text unless something firm speaks against it.
func (s *Sender) mark(now time.Duration, e Event) {
	s.expire(now)
	m := mark{at: now, print: e.Print, origin: e.Origin, kind: e.Kind, firm: e.Firm}
	if e.Print != 0 {
		for i := range s.marks {
			if s.marks[i].same(&m) {
				s.marks = append(s.marks[:i], s.marks[i+1:]...)
				break
			}
		}
	}
	if len(s.marks) >= Keep {
		s.marks = append(s.marks[:0], s.marks[1:]...)
	}
	s.marks = append(s.marks, m)
}

// same tells whether two marks are of one text; of what is firm, of one message.
func (m *mark) same(o *mark) bool {
	switch {
	case m.kind != o.kind || m.firm != o.firm:
		return false
	case m.firm:
		return m.print == o.print
	}
	return Alike(m.print, o.print)
}

// expire drops the marks that no rule looks at any more.
func (s *Sender) expire(now time.Duration) {
	gone := 0
	for gone < len(s.marks) && s.marks[gone].at <= now-day {
		gone++
	}
	if gone > 0 {
		s.marks = s.marks[:copy(s.marks, s.marks[gone:])]
	}
}

// Release begins a sender's probation at the end of a lock (LCK8). What spoke against him is forgotten.
func (s *Sender) Release(now time.Duration, r *policy.Lock) {
	*s = Sender{probation: now + r.Probation}
}

// OnProbation tells whether a sender's lock ended lately: fewer marks lock him again, and he sends less.
func (s *Sender) OnProbation(now time.Duration) bool { return now < s.probation }

// Quiet tells whether nothing is known of a sender that could count for anything.
func (s *Sender) Quiet(now time.Duration, r *policy.Lock) bool {
	s.expire(now)
	return len(s.marks) == 0 && !s.OnProbation(now) && s.short.sum(now, r.Window) == 0 && s.day.sum(now, day) == 0 &&
		s.known.sum(now, hour) == 0 && s.unknown.sum(now, hour) == 0
}

// Marked tells whether something speaks against a sender, so that what is known of him must outlive a restart.
func (s *Sender) Marked(now time.Duration) bool {
	s.expire(now)
	return len(s.marks) > 0 || s.OnProbation(now) || s.doubts != nil && s.doubts.day.sum(now, day) >= doubtsTell
}
