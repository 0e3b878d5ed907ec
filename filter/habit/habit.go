// Package habit remembers what each sender usually does, and says where a message is unlike that: many recipients whom he
// never wrote to, more of them in an hour than ever, another language (CON10).
package habit

import (
	"fmt"
	"hash/fnv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"sluice/filter"
	"sluice/filter/content"
	"sluice/filter/content/view"
	"sluice/filter/message"
)

// Bounds of what is remembered.
const (
	shards      = 16
	DefaultMost = 1 << 15 // senders; where there are more, of a few met at random the one that was silent longest goes
	mostKnown   = 256     // recipients of one sender, the latest: one takes 4 bytes, a sender without any about 150
	mostAsked   = 100     // recipients of one message that are looked at
)

// What is unlike a sender. A newsletter's readers are strangers, too, but it always writes to such.
const (
	leastDays    = 3    // days with mail before today that make a habit
	leastShown   = 0.05 // probability of bad content from which on it is worth to say so: below, it changes nothing
	fewStrangers = 20   // recipients in an hour that are not yet many
	mostly       = 0.8  // share of strangers that is most of them
	seldom       = 0.5  // usual share up to which that is news
	bulk         = 50   // strangers in an hour that may be a burst ...
	times        = 4    // ... where they are so many times as many as the most in an hour of usual days
	firstBulk    = 200  // of a sender without habits
	leastSaid    = 20   // messages whose language is known that make a habit
)

// The public codes of what is said.
const (
	CodeStrangers = content.CodeStrangers
	CodeBulk      = "BULK"
	CodeLanguage  = "LANGUAGE"
)

// who is one sender: a user, or an identity of his.
type who struct {
	user     uint32
	identity uint64 // a hash of its name; 0 for none
}

// amount is what went to how many in some time.
type amount struct{ Recipients, Strangers uint32 }

// sender is what is known of one.
type sender struct {
	habits
	known []uint32 // hashes of the latest recipients
}

// habits are the part of fixed size.
type habits struct {
	Last   int64     // unix seconds of his last message
	Next   uint16    // the place in known that is used next
	Days   uint16    // with mail, before today
	Day    int32     // today, in days since 1970
	Hour   int32     // this hour, in hours since 1970
	Hours  [2]amount // this and the one before
	Today  amount
	Most   uint32 // strangers in an hour of today
	Usual  [3]float32
	Spoken [languages]uint16
}

// What Usual has, as means over days with mail in which the latest count most.
const (
	recipients = iota
	strangers
	peak
)

// fade is how much of the means a day with mail leaves.
const fade = 0.8

// Habits are those of all senders. It watches what the content filter judges. Safe for concurrent use.
type Habits struct {
	now    func() time.Time
	most   int // per shard
	shards [shards]shelf
	// changed is set where it is not yet: all senders share it.
	changed atomic.Bool
}

type shelf struct {
	mu  sync.Mutex
	all map[who]*sender
}

// New returns one that knows nobody; most senders are remembered, 0 means DefaultMost, and now may be nil.
func New(most int, now func() time.Time) *Habits {
	if most <= 0 {
		most = DefaultMost
	}
	if now == nil {
		now = time.Now
	}
	h := &Habits{now: now, most: max(1, most/shards)}
	for i := range h.shards {
		h.shards[i].all = map[who]*sender{}
	}
	return h
}

// Watch implements content.Watcher. Bad mail teaches no habits.
func (h *Habits) Watch(m *message.Message, v *view.View, o *content.Opinion, _ content.Thresholds, hits []filter.Hit) ([]filter.Hit, content.Watched) {
	if m.Flow.User.ID == 0 || len(m.Envelope.To) == 0 {
		return hits, content.Watched{}
	}
	w := who{user: m.Flow.User.ID}
	if m.Identity != "" {
		w.identity = hash(m.Identity)
	}
	now := h.now()
	s := &h.shards[w.user%shards]
	s.mu.Lock()
	defer s.mu.Unlock()
	x := s.all[w]
	if x == nil {
		x = s.add(w, h.most)
	}
	x.pass(now)
	x.count(m.Envelope.To, o.Class == filter.Clean)
	spoken := unsaid
	if x.listens() || o.Probability >= leastShown {
		spoken = languageOf(v.Text)
	}
	if o.Probability >= leastShown {
		hits = x.unusual(now, spoken, hits)
	}
	if o.Class == filter.Clean {
		x.speaks(spoken)
	}
	if !h.changed.Load() {
		h.changed.Store(true)
	}
	return hits, content.Watched{}
}

// add remembers one more sender, if need be in the place of another. s.mu is held.
func (s *shelf) add(w who, most int) *sender {
	if len(s.all) >= most {
		var oldest who
		var last int64
		tries := 8
		for k, x := range s.all {
			if last == 0 || x.Last < last {
				oldest, last = k, x.Last
			}
			if tries--; tries == 0 {
				break
			}
		}
		delete(s.all, oldest)
	}
	x := new(sender)
	s.all[w] = x
	return x
}

// pass has hours and days go by.
func (x *sender) pass(now time.Time) {
	x.Last = now.Unix()
	hour, day := int32(now.Unix()/3600), int32(now.Unix()/86400)
	switch {
	case hour == x.Hour:
	case hour == x.Hour+1:
		x.Hours = [2]amount{{}, x.Hours[0]}
	default:
		x.Hours = [2]amount{}
	}
	if x.Hour = hour; day == x.Day {
		return
	}
	if x.Today.Recipients > 0 {
		of := [3]float32{float32(x.Today.Recipients), float32(x.Today.Strangers), float32(x.Most)}
		for i := range of {
			if x.Days > 0 {
				of[i] = fade*x.Usual[i] + (1-fade)*of[i]
			}
		}
		x.Usual, x.Days = of, min(x.Days+1, 1<<15)
	}
	x.Day, x.Today, x.Most = day, amount{}, 0
}

// count counts recipients, and remembers them with learn.
func (x *sender) count(to []message.Address, learn bool) {
	n := amount{Recipients: uint32(len(to))}
	for _, a := range to[:min(len(to), mostAsked)] {
		k := uint32(hash(strings.ToLower(string(a))))
		if x.knows(k) {
			continue
		}
		n.Strangers++
		if learn {
			x.meet(k)
		}
	}
	x.Hours[0].Recipients += n.Recipients
	x.Hours[0].Strangers += n.Strangers
	if learn {
		x.Today.Recipients += n.Recipients
		x.Today.Strangers += n.Strangers
		x.Most = max(x.Most, x.Hours[0].Strangers)
	}
}

func (x *sender) knows(k uint32) bool {
	for _, o := range x.known {
		if o == k {
			return true
		}
	}
	return false
}

func (x *sender) meet(k uint32) {
	if len(x.known) < mostKnown {
		x.known = append(x.known, k)
		return
	}
	x.known[x.Next%mostKnown] = k
	x.Next = (x.Next + 1) % mostKnown
}

// lately is what went out in the last hour, about.
func (x *sender) lately(now time.Time) (n amount) {
	left := 3600 - now.Unix()%3600 // of the hour before, as much as still counts
	n.Recipients = x.Hours[0].Recipients + uint32(int64(x.Hours[1].Recipients)*left/3600)
	n.Strangers = x.Hours[0].Strangers + uint32(int64(x.Hours[1].Strangers)*left/3600)
	return n
}

// unusual says what is unlike the sender.
func (x *sender) unusual(now time.Time, spoken language, hits []filter.Hit) []filter.Hit {
	n, settled := x.lately(now), x.Days >= leastDays
	usual := x.Usual[strangers] / max(1, x.Usual[recipients])
	if share := float32(n.Strangers) / float32(max(1, n.Recipients)); settled && n.Recipients >= fewStrangers && share >= mostly && usual <= seldom {
		hits = append(hits, said(CodeStrangers, "most recipients are new to this sender",
			fmt.Sprintf("%d of %d recipients in an hour are new to him, usually %.0f %%", n.Strangers, n.Recipients, 100*usual)))
	}
	if settled && n.Strangers >= bulk && float32(n.Strangers) >= times*x.Usual[peak] || !settled && n.Strangers >= firstBulk {
		hits = append(hits, said(CodeBulk, "more people who are new to this sender than ever before",
			fmt.Sprintf("%d new recipients in an hour, on usual days %.0f at most, %d days known", n.Strangers, x.Usual[peak], x.Days)))
	}
	if main, all := x.mother(); spoken != unsaid && all >= leastSaid && main != spoken && 50*int(x.Spoken[spoken]) <= all && 10*int(x.Spoken[main]) >= 9*all {
		hits = append(hits, said(CodeLanguage, "another language than this sender's",
			fmt.Sprintf("it is %s, and of %d messages of his %d were %s", spoken, all, x.Spoken[main], main)))
	}
	return hits
}

func said(code, text, evidence string) filter.Hit {
	return filter.Hit{Code: code, Weighs: true, Points: 1, Text: text, Evidence: evidence}
}

// mother is the language that a sender writes in mostly, and of how many messages that is known.
func (x *sender) mother() (main language, all int) {
	for l, n := range x.Spoken {
		if all += int(n); n > x.Spoken[main] {
			main = language(l)
		}
	}
	return main, all
}

// listens tells whether this message's language is to be learnt: of whom much is known some are enough.
func (x *sender) listens() bool {
	_, all := x.mother()
	return all < leastSaid || x.Today.Recipients%16 == 0
}

// speaks learns a message's language.
func (x *sender) speaks(l language) {
	if l == unsaid {
		return
	}
	if x.Spoken[l]++; x.Spoken[l] == 1<<15 {
		for i := range x.Spoken {
			x.Spoken[i] /= 2
		}
	}
}

func hash(s string) uint64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte(s))
	return h.Sum64()
}
