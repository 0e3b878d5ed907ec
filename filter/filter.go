// Package filter asks every check about a mail at each phase of its dialogue and makes one explained verdict of the
// answers.
package filter

import (
	"context"

	"sluice/filter/message"
)

// Phase is the moment of the dialogue at which a check is asked.
type Phase uint8

// The phases in the order of the dialogue.
const (
	Connect Phase = iota
	Helo
	Mail
	Rcpt
	Data
	// Part is the beginning of a large message, of which the rest is still coming. Whoever is asked forgets it: the whole comes
	// in phase data. An objection stops nothing, but that it goes onward before it is whole.
	Part
	phases
)

// String returns the phase's name as it stands in logs.
func (p Phase) String() string {
	return [...]string{"connect", "helo", "mail", "rcpt", "data", "part", "?"}[min(p, phases)]
}

// Action is what a hit asks for. Its number stands in the log: new ones come last. Which is the stronger, Stronger tells.
type Action uint8

// The actions. Beside yes and no there is a third outcome: the mail is withheld, neither let go on its way nor refused for
// good. Whoever asks for it because it is not sure says so by the class, too: only what is certain counts towards a lock.
const (
	None       Action = iota // an opinion only: logged, never acted on
	Defer                    // temporary refusal, 4xx
	Reject                   // permanent refusal, 5xx
	HighRisk                 // leaves by other addresses than the user's good mail
	Delay                    // unsure: it is judged again when more is known
	Hold                     // a person decides
	Quarantine               // kept away from its recipients, where it can be looked at
	Discard                  // taken from its sender, and goes nowhere
)

// actions are the names in logs and the strengths.
var actions = [...]struct {
	name     string
	strength int
}{{"accept", 0}, {"defer", 3}, {"reject", 6}, {"high-risk", 1}, {"delay", 2}, {"hold", 4}, {"quarantine", 5}, {"discard", 5}}

// String returns the action's name as it stands in logs.
func (a Action) String() string {
	if int(a) >= len(actions) {
		return "?"
	}
	return actions[a].name
}

// Stronger tells whether a keeps a mail further from its recipient than b: of several hits the strongest becomes the
// verdict's.
func (a Action) Stronger(b Action) bool {
	return int(a) < len(actions) && int(b) < len(actions) && actions[a].strength > actions[b].strength
}

// Withheld tells whether a is the third outcome.
func (a Action) Withheld() bool { return HighRisk <= a && a <= Quarantine }

// Class says what a hit takes the mail for. Only Spam, Phish and Virus count towards a lock.
type Class uint8

// The classes, worst last.
const (
	Clean  Class = iota
	Policy       // refused by a rule (limit, size, syntax), not bad by itself
	Spam
	Phish
	Virus
)

// String returns the class's name as it stands in logs.
func (c Class) String() string {
	if c > Virus {
		return "?"
	}
	return [...]string{"clean", "policy", "spam", "phish", "virus"}[c]
}

// Bad reports whether a mail of this class is bad by itself, whoever sends it.
func (c Class) Bad() bool { return c >= Spam }

// Hit is one check's opinion, with what a person needs to understand it.
type Hit struct {
	Check    string // the check that speaks
	Code     string // public code, stable for ever: names the reply and its help page ("GTUBE", "RATE-MSG")
	Class    Class
	Action   Action
	Points   float64 // share in a score; 1 is a certainty by itself
	SMTP     int     // reply code asked for; 0 leaves it to the action (451 or 550)
	Enhanced string  // enhanced status code (RFC 3463); "" leaves it to the action (4.7.1 or 5.7.1)
	Text     string  // what the client reads: plain, one line, no secrets
	Evidence string  // what the log keeps: the bytes or figures the opinion rests on
	Group    uint64  // the same for copies of one message, whoever sends them; 0: nothing is known of copies
	Outside  bool    // rests on more than the words: on a list, or on where links lead; then every copy speaks for itself
	NoLock   bool    // counts towards no lock although it refuses: it may be wrong
	Weighs   bool    // its Points are one opinion among others, of which one probability is made
	AsSet    bool    // where it refuses spam or phishing, the user's setting for that says what becomes of the mail
	Score    float64 // probability that the content is bad, of an opinion that may act, whatever it does; 0: it says nothing
	Tag      string  // header fields that the mail is to carry if it goes on, each with its line end; "" for none
}

// Verdict is the one answer made of all hits.
type Verdict struct {
	Action Action
	Class  Class
	Hits   []Hit
	Cause  int    // index in Hits of the hit that decided; -1 when nothing was refused
	Ticket string // of the lock that decided, "" where none did
}

// Refused reports whether the mail, or the step, is not to go on.
func (v *Verdict) Refused() bool { return v.Action != None }

// Decisive returns the hit that decided, or nil.
func (v *Verdict) Decisive() *Hit {
	if v.Cause < 0 || v.Cause >= len(v.Hits) {
		return nil
	}
	return &v.Hits[v.Cause]
}

// Tag is the header fields that a mail which goes on is to carry: those that the worst of its hits asks for.
func (v *Verdict) Tag() (fields string) {
	worst := Clean
	for i := range v.Hits {
		if h := &v.Hits[i]; h.Tag != "" && (fields == "" || h.Class > worst) {
			fields, worst = h.Tag, h.Class
		}
	}
	return fields
}

// Copies tells which bad messages count once together (LCK1): those of one group, 0 where none is known. Where lists or
// links speak against them, too, each copy counts.
func (v *Verdict) Copies() (group uint64, each bool) {
	for i := range v.Hits {
		h := &v.Hits[i]
		each = each || h.Outside && h.Class.Bad()
		if h.Group != 0 {
			group = h.Group
		}
	}
	return group, each
}

// Counting returns the hit that counts towards a lock, or nil: the one that decided, unless it is not to lock; then the worst
// of those beside it that would have refused, too.
func (v *Verdict) Counting() *Hit {
	d := v.Decisive()
	if d == nil || !d.Class.Bad() {
		return nil
	}
	if !d.NoLock {
		return d
	}
	d = nil
	for i := range v.Hits {
		if h := &v.Hits[i]; h.Class.Bad() && h.Action == Reject && !h.NoLock && (d == nil || h.Class > d.Class) {
			d = h
		}
	}
	return d
}

// Doubt returns the last opinion about the content, which rests on all that was said before it, or nil.
func (v *Verdict) Doubt() *Hit {
	for i := len(v.Hits) - 1; i >= 0; i-- {
		if v.Hits[i].Score > 0 {
			return &v.Hits[i]
		}
	}
	return nil
}

// Check is one opinion. It appends its hits to hits and returns the result, so that a clean mail costs no allocation.
// It must return soon after ctx ends, and must not panic whatever the message holds.
type Check interface {
	Check(ctx context.Context, p Phase, m *message.Message, hits []Hit) []Hit
}

// Step names a check and the phases at which it is asked.
type Step struct {
	Name   string
	Phases []Phase
	Check  Check
}

// Outcome is how a transaction ended, for checks that reserve and book (LIM6).
type Outcome struct {
	Accepted int // recipients the client was told 250 for at the end of data; 0 for anything else
	Verdict  *Verdict
	Lost     bool // the session was lost before an answer
	Invalid  int  // recipients that the destination refused as unknown (LIM3)
	Failed   int  // 1 where the destination refused the message for good
}

// Settler is a check that reserved something at rcpt and must be told how the transaction ended. Settle is called
// exactly once for each message that passed phase mail.
type Settler interface {
	Settle(m *message.Message, o Outcome)
}

// Identifier tells which sender inside its user a message is of. The pipeline asks it at phases mail, data and part, before the
// checks of the phase. What it answers becomes the message's Identity and Told, and must not be part of its data.
type Identifier interface {
	Identify(p Phase, m *message.Message) (identity, told string)
}

// Excuser names checks that are not asked about a message, or a recipient, at a phase. What it returns must not be changed.
type Excuser interface {
	Excuses(p Phase, m *message.Message) []string
}
