package campaign

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// ErrUnknown says that there is no campaign of that id.
var ErrUnknown = errors.New("there is no such campaign, or it is forgotten")

// Query selects campaigns.
type Query struct {
	Least  int    // copies; 2 at least
	User   string // that sends copies
	State  *State
	Recent time.Duration // whose last copy is no older; 0: all
	Most   int           // how many; 0: all
}

// List returns campaigns, those with the latest copies first.
func (t *Tracker) List(q Query) []Campaign {
	now := t.o.Now()
	t.mu.Lock()
	defer t.mu.Unlock()
	var some []*burst
	for _, b := range t.bursts {
		if b.Copies >= q.Least && (q.State == nil || b.State == *q.State) && (q.Recent == 0 || now.Sub(b.Last) <= q.Recent) && (q.User == "" || b.sentBy(q.User)) {
			some = append(some, b)
		}
	}
	slices.SortFunc(some, func(a, b *burst) int { return cmp.Or(b.Last.Compare(a.Last), cmp.Compare(a.ID, b.ID)) })
	if q.Most > 0 {
		some = some[:min(len(some), q.Most)]
	}
	out := make([]Campaign, len(some))
	for i, b := range some {
		out[i] = b.shown()
	}
	return out
}

func (b *burst) sentBy(user string) bool {
	return slices.ContainsFunc(b.Users, func(s Sender) bool { return s.Name == user })
}

// Find returns one campaign.
func (t *Tracker) Find(id string) (Campaign, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	b, err := t.named(id)
	if err != nil {
		return Campaign{}, err
	}
	return b.shown(), nil
}

func (t *Tracker) named(id string) (*burst, error) {
	for _, b := range t.bursts {
		if strings.EqualFold(b.ID, id) {
			return b, nil
		}
	}
	return nil, ErrUnknown
}

// Decide says what is done with the copies of a campaign from now on.
func (t *Tracker) Decide(id string, s State, by, why string) (Campaign, error) {
	if by == "" || why == "" {
		return Campaign{}, fmt.Errorf("could not decide about campaign %s: who does it and why is missing", id)
	}
	now := t.o.Now().UTC().Round(0)
	t.mu.Lock()
	defer t.mu.Unlock()
	b, err := t.named(id)
	if err != nil {
		return Campaign{}, err
	}
	b.State, b.By, b.Why, b.Decided = s, by, why, now
	t.dirty = true
	return b.shown(), nil
}

// Figures tell how much is remembered.
type Figures struct {
	Seen      uint64 // messages looked at since the start
	Copies    uint64 // of them, copies of others
	Kinds     int    // remembered now
	Most      int
	Campaigns int
	Held      int
	Refused   int
}

// Figures returns how much is remembered.
func (t *Tracker) Figures() Figures {
	t.mu.Lock()
	defer t.mu.Unlock()
	f := Figures{Seen: t.tried, Copies: t.copies, Kinds: t.memory.used, Most: t.memory.most, Campaigns: len(t.bursts)}
	for _, b := range t.bursts {
		switch b.State {
		case Held:
			f.Held++
		case Refused:
			f.Refused++
		}
	}
	return f
}

// quietest returns a moment before which n campaigns that nobody decided about had their last copy. t.mu is held.
func (t *Tracker) quietest(n int) time.Time {
	var last []time.Time
	for _, b := range t.bursts {
		if b.State == Watched {
			last = append(last, b.Last)
		}
	}
	slices.SortFunc(last, time.Time.Compare)
	if len(last) == 0 {
		return time.Time{}
	}
	return last[min(n, len(last)-1)]
}

// mostKept is how many campaigns outlive a process: those that were decided about, then the largest.
const mostKept = 2000

// kept is a campaign as it outlives a process.
type kept struct {
	Campaign
	Group uint32     `json:"group"`
	Print Print      `json:"print"`
	Seen  [16]uint64 `json:"seen"`
}

// Changed reports, once, whether there is something new to keep.
func (t *Tracker) Changed() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	was := t.dirty
	t.dirty = false
	return was
}

// Append appends the campaigns in the form that Restore reads.
func (t *Tracker) Append(dst []byte) []byte {
	t.mu.Lock()
	all := make([]*burst, 0, len(t.bursts))
	for _, b := range t.bursts {
		all = append(all, b)
	}
	slices.SortFunc(all, func(a, b *burst) int {
		if (a.State == Watched) != (b.State == Watched) {
			return cmp.Compare(b.State, a.State)
		}
		return b.Copies - a.Copies
	})
	all = all[:min(len(all), mostKept)]
	out := make([]kept, len(all))
	for i, b := range all {
		out[i] = kept{b.shown(), b.group, b.print, b.seen}
	}
	t.mu.Unlock()
	text, err := json.Marshal(out)
	if err != nil {
		return dst // figures and texts always have a form
	}
	return append(dst, text...)
}

// Restore takes over what Append wrote, but for what is over. What both know, the one with the later decision or else the
// more copies tells.
func (t *Tracker) Restore(text []byte) error {
	var all []kept
	if err := json.Unmarshal(text, &all); err != nil {
		return fmt.Errorf("could not read the campaigns: %w; they begin anew", err)
	}
	now := t.o.Now()
	at := int32(now.Sub(t.start) / time.Second)
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, k := range all {
		ago := int32(now.Sub(k.Last) / time.Second)
		if ago > t.memory.keep || k.Group == 0 {
			continue
		}
		b := t.bursts[k.Group]
		if b == nil {
			keys := k.Print.keys()
			t.memory.add(kind{print: k.Print, first: at - ago, last: at - ago, group: k.Group}, &keys, at)
			t.bursts[k.Group] = &burst{Campaign: k.Campaign, group: k.Group, print: k.Print, seen: k.Seen}
			continue
		}
		if k.Decided.After(b.Decided) || k.Decided.Equal(b.Decided) && k.Copies > b.Copies {
			b.Campaign, b.seen = k.Campaign, k.Seen
		}
	}
	return nil
}
