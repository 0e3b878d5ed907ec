package campaign

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"sluice/filter"
	"sluice/filter/content"
	"sluice/filter/content/view"
	"sluice/filter/message"
)

// Settings say how long copies are looked for and what makes a rule hold a campaign.
type Settings struct {
	Window   time.Duration // for so long after its last copy a message is remembered
	Remember int           // kinds of messages that are remembered at most, each some 200 bytes
	Rules    bool          // a rule that is met holds the campaign; false: it only says so
	Copies   int           // different recipients of one burst from which on it may be held
	Share    float64       // and how much of it must look bad
	Users    int           // users who send the same from which on it may be held
	Among    float64       // and how much of that must look bad
	// Copies to strangers, not clearly good, of a sender who usually writes to people he knows, from which on a burst may be held
	// whatever its content; 0: never.
	Strangers int
	Action    filter.Action // what becomes of copies of a campaign that is held
}

// DefaultSettings are what a site begins with.
var DefaultSettings = Settings{Window: 6 * time.Hour, Remember: 1_000_000, Rules: true, Copies: 5, Share: 0.5, Users: 3, Among: 0.3, Strangers: 5, Action: filter.Hold}

// WithDefaults puts the defaults in the places of zero values.
func (s Settings) WithDefaults() Settings {
	d := DefaultSettings
	or(&s.Window, d.Window)
	or(&s.Remember, d.Remember)
	or(&s.Copies, d.Copies)
	or(&s.Share, d.Share)
	or(&s.Users, d.Users)
	or(&s.Among, d.Among)
	or(&s.Action, d.Action)
	return s
}

func or[T comparable](v *T, def T) {
	var zero T
	if *v == zero {
		*v = def
	}
}

// maxCampaigns bounds how many campaigns are told apart. Where there are more, those that nobody decided about and that
// were quiet for longest are forgotten.
const maxCampaigns = 10_000

// Event is a decision about a campaign that a rule made.
type Event struct {
	Campaign Campaign
	Shadow   bool // the rules hold nothing here: it is only said
}

// Options of a Tracker.
type Options struct {
	Settings func() Settings // asked for each copy; Remember counts at the start alone
	Events   func(Event)     // hears of rules that were met, in the way of mail: it must not block; may be nil
	Now      func() time.Time
}

// Tracker watches the messages of all users. Safe for concurrent use.
type Tracker struct {
	o     Options
	start time.Time
	lists lists

	mu     sync.Mutex // guards all below
	memory *memory
	bursts map[uint32]*burst
	dirty  bool
	tried  uint64 // messages looked at
	copies uint64 // of them, copies of others
}

// New returns a tracker that knows of nothing yet.
func New(o Options) *Tracker {
	if o.Settings == nil {
		o.Settings = func() Settings { return DefaultSettings }
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	s := o.Settings()
	return &Tracker{o: o, start: o.Now(), memory: newMemory(max(chunk, s.Remember), int32(s.Window/time.Second)), bursts: map[uint32]*burst{}}
}

// Watch implements content.Watcher: it finds out of what campaign a message is a copy, counts it, and says what is to
// become of it.
func (t *Tracker) Watch(m *message.Message, v *view.View, o *content.Opinion, th content.Thresholds, hits []filter.Hit) ([]filter.Hit, content.Watched) {
	hits = t.lists.check(v, hits)
	var p Print
	if !Take(v, &p) {
		return hits, content.Watched{}
	}
	chance := content.Weighed(o, hits)
	c := letter{m: m, v: v, print: p, keys: p.keys(), look: lookOf(chance, th), chance: uint8(255 * chance), th: th, who: envelope(m), from: m.Flow.Client.Addr()}
	for i := range hits {
		if hits[i].Class.Bad() && hits[i].Action != filter.None {
			c.look, c.chance = bad, 255
		}
		c.unlike = c.unlike || hits[i].Code == content.CodeStrangers && o.Probability >= doubtful
	}
	s := t.o.Settings()
	w, told := t.count(&c, &s)
	if told != nil && t.o.Events != nil {
		t.o.Events(*told)
	}
	if w.hit.Code != "" {
		hits = append(hits, w.hit)
	}
	return hits, content.Watched{Group: uint64(w.group), Passes: w.passes}
}

// doubtful is the probability of bad content from which on a copy counts by it, and it counts that it goes to strangers.
// Lower, it stops more bad bursts and more first newsletters of good senders (docs/filter.md).
const doubtful = 0.5

// letter is one message on its way through the tracker.
type letter struct {
	m     *message.Message
	v     *view.View
	print Print
	keys  [parts]uint32
	look  look
	// How likely its content is bad, in 255ths.
	chance uint8
	th     content.Thresholds
	// It goes to people who are new to a sender of other habits.
	unlike bool
	who    uint32
	from   netip.Addr
}

// found is what is known of one message.
type found struct {
	group  uint32
	hit    filter.Hit // Code "" for none
	passes string     // why nothing stops it; "" where something may
}

// count counts one message.
func (t *Tracker) count(c *letter, s *Settings) (f found, told *Event) {
	now := t.o.Now()
	at := int32(now.Sub(t.start) / time.Second)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.tried++
	t.memory.keep = int32(s.Window / time.Second)
	user := c.m.Flow.User.ID
	k := t.memory.find(&c.print, &c.keys, at)
	if k == nil {
		t.memory.add(kind{print: c.print, first: at, last: at, user: user, who: c.who, from: short(c.from), look: c.look, chance: c.chance}, &c.keys, at)
		return found{group: groupOf(&c.print)}, nil
	}
	k.last = at
	t.copies++
	if k.group == 0 && k.user == user && k.who == c.who { // the same message, tried again
		return found{group: groupOf(&k.print)}, nil
	}
	b := t.burst(k, c)
	b.copy(c, now)
	t.dirty = true
	if b.State == Watched {
		told = t.rule(b, s, now)
	}
	return b.judge(s), told
}

// burst returns the campaign of a kind, and makes it with the second copy. t.mu is held.
func (t *Tracker) burst(k *kind, c *letter) *burst {
	if b := t.bursts[k.group]; b != nil {
		return b
	}
	t.room()
	if k.group == 0 {
		k.group = groupOf(&k.print)
	}
	first := t.start.Add(time.Duration(k.first) * time.Second).UTC()
	b := &burst{group: k.group, print: k.print, Campaign: Campaign{ID: idOf(k.group), First: first, Last: first, Copies: 1, Subject: clip(c.v.Subject)}}
	b.note(k.who)
	b.looked(k.look, k.chance, c.th)
	if k.user == c.m.Flow.User.ID {
		b.sender(k.user, c.m.Flow.User.Name, first)
	} else {
		b.sender(k.user, "", first)
	}
	for i := range c.v.Links {
		if h := c.v.Links[i].Host(); h != "" && len(b.Hosts) < maxHosts && !slices.Contains(b.Hosts, h) {
			b.Hosts = append(b.Hosts, clip([]byte(h)))
		}
	}
	for i := range c.v.Files {
		if len(b.Files) < maxHosts && c.v.Files[i].Name != "" {
			b.Files = append(b.Files, clip([]byte(c.v.Files[i].Name)))
		}
	}
	t.bursts[k.group] = b
	return b
}

// copy counts one copy.
func (b *burst) copy(c *letter, now time.Time) {
	b.Last = now.UTC().Round(0)
	b.Copies++
	b.note(c.who)
	b.looked(c.look, c.chance, c.th)
	if c.unlike {
		b.Unlike++
	}
	b.sender(c.m.Flow.User.ID, strings.Clone(c.m.Flow.User.Name), b.Last)
	b.source(c.from)
	b.sample(strings.Clone(c.m.ID))
}

// rule holds the campaign that meets one. t.mu is held.
func (t *Tracker) rule(b *burst, s *Settings, now time.Time) *Event {
	rule, why := b.meets(s)
	if rule == "" || !s.Rules && b.Rule == rule { // nothing, or said already
		return nil
	}
	b.Rule, b.Why = rule, why
	if s.Rules {
		b.State, b.Decided = Held, now.UTC().Round(0)
	}
	return &Event{Campaign: b.shown(), Shadow: !s.Rules}
}

// meets names the rule that a campaign meets, and why; "" for none.
func (b *burst) meets(s *Settings) (rule, why string) {
	users := len(b.Users)
	switch share := b.share(); {
	case b.Recipients >= s.Copies && max(share, b.likely()) >= s.Share:
		return "burst", fmt.Sprintf("%d copies to %d recipients, %.0f %% of them look bad", b.Copies, b.Recipients, 100*max(share, b.likely()))
	case users >= s.Users && share >= s.Among:
		return "users", fmt.Sprintf("%d users send the same, %.0f %% of %d copies look bad", users, 100*share, b.Copies)
	case s.Strangers > 0 && b.Unlike >= s.Strangers && b.Recipients >= 4*s.Strangers:
		return "strangers", fmt.Sprintf("%d copies to %d recipients, %d of them to people who are new to a sender of other habits", b.Copies, b.Recipients, b.Unlike)
	}
	return "", ""
}

// judge says what becomes of one copy. t.mu is held.
func (b *burst) judge(s *Settings) found {
	f := found{group: b.group}
	switch b.State {
	case Held:
		b.Stopped++
		f.hit = filter.Hit{Code: "CAMPAIGN", Class: filter.Policy, Action: s.Action, Text: "copies of this message are held until a person has looked at them"}
	case Refused:
		b.Stopped++
		f.hit = filter.Hit{Code: "CAMPAIGN", Class: filter.Spam, Action: filter.Reject, Points: 1, Outside: true, SMTP: 550, Enhanced: "5.7.1", Text: "copies of this message are refused"}
	case Released:
		f.passes = "copy of campaign " + b.ID + ", which was released by " + b.By
	}
	if f.hit.Code != "" {
		f.hit.Group = uint64(b.group)
		f.hit.Evidence = fmt.Sprintf("copy %d of campaign %s, %d users, %d of %d look bad; %s: %s", b.Copies, b.ID, len(b.Users), b.Bad, b.Copies, b.decider(), b.Why)
	}
	return f
}

func (b *burst) decider() string {
	if b.By != "" {
		return b.State.String() + " by " + b.By
	}
	return "held by rule " + b.Rule
}

// room makes room for one more campaign. t.mu is held.
func (t *Tracker) room() {
	if len(t.bursts) < maxCampaigns {
		return
	}
	cut := t.quietest(maxCampaigns / 10)
	for g, b := range t.bursts {
		if b.State == Watched && !b.Last.After(cut) || len(t.bursts) >= maxCampaigns+maxCampaigns/10 {
			delete(t.bursts, g)
		}
	}
}

// lookOf is an opinion as it is counted.
func lookOf(probability float64, t content.Thresholds) look {
	switch {
	case probability >= t.Spam:
		return bad
	case probability >= t.Unsure:
		return unsure
	}
	return good
}

// envelope hashes to whom a message goes.
func envelope(m *message.Message) uint32 {
	h := uint64(m.Flow.User.ID)
	for _, to := range m.Envelope.To {
		for i := range len(to) {
			h = (h ^ uint64(to[i])) * 0x100000001b3
		}
		h = mix(h)
	}
	return uint32(mix(h))
}

func short(a netip.Addr) uint32 {
	b := a.As16()
	return uint32(sum(b[:]))
}

func clip(b []byte) string { return strings.ToValidUTF8(string(b[:min(len(b), maxText)]), "") }
