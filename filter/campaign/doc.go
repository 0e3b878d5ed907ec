// Package campaign recognises copies of one message whoever sends them, and makes of each burst of them one thing that can
// be looked at, stopped and let go.
//
// Of each message a print is taken: 32 minima of hashes over its words in a row, the places that its links lead to, and its
// files. The latest prints are remembered, up to a bound, each for a window of time. A message whose print agrees with an
// earlier one in half of the minima is a copy of it, and from the second copy on there is a Campaign.
package campaign

import (
	"fmt"
	"math"
	"math/bits"
	"net/netip"
	"slices"
	"strings"
	"time"

	"sluice/filter/content"
)

// State is what is done with the copies of a campaign.
type State uint8

// The states.
const (
	Watched  State = iota // nothing: it is only counted
	Held                  // copies are withheld: by a rule, or by a person who has not made up his mind
	Refused               // a person calls it bad: copies are refused for good
	Released              // a person calls it good: neither a rule nor what was learnt stops a copy
)

// String returns the state as it stands in API and log.
func (s State) String() string {
	return [...]string{"watched", "held", "refused", "released", "?"}[min(s, Released+1)]
}

// MarshalText implements encoding.TextMarshaler.
func (s State) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler; a state that this version does not know is Watched.
func (s *State) UnmarshalText(b []byte) error {
	*s = Watched
	for k := Watched; k <= Released; k++ {
		if k.String() == string(b) {
			*s = k
		}
	}
	return nil
}

// look is what the content filter said of one copy.
type look uint8

const (
	good look = iota
	unsure
	bad
)

// Bounds of what is kept of one campaign.
const (
	maxUsers   = 500
	maxSources = 50
	maxSamples = 20
	maxHosts   = 10
	maxText    = 200
)

// Campaign is one burst of copies.
type Campaign struct {
	ID         string       `json:"id"`
	State      State        `json:"state"`
	Rule       string       `json:"rule,omitempty"` // that held it; "" where a person decided
	By         string       `json:"by,omitempty"`   // who decided last; "" for a rule
	Why        string       `json:"why,omitempty"`
	Decided    time.Time    `json:"decided,omitzero"`
	First      time.Time    `json:"first"`
	Last       time.Time    `json:"last"`
	Copies     int          `json:"copies"`     // tries to send one
	Recipients int          `json:"recipients"` // different envelopes, an estimate above a few hundred
	Good       int          `json:"good"`       // copies that the content filter takes for good
	Unsure     int          `json:"unsure"`
	Bad        int          `json:"bad"`
	Likely     float64      `json:"likely"`           // how many copies are bad, as far as their probabilities tell
	Unlike     int          `json:"unlike,omitempty"` // copies to people who are new to a sender of other habits
	Stopped    int          `json:"stopped"`          // copies withheld or refused because of the campaign
	Subject    string       `json:"subject"`          // of an early copy
	Hosts      []string     `json:"hosts"`            // that its links lead to
	Files      []string     `json:"files"`
	Users      []Sender     `json:"users"` // most copies first
	MoreUsers  int          `json:"more_users,omitempty"`
	Sources    []netip.Addr `json:"sources"`
	MoreFrom   int          `json:"more_sources,omitempty"`
	Samples    []string     `json:"samples"` // ids of the latest copies in the message log
}

// Sender is one user who sent copies.
type Sender struct {
	ID     uint32    `json:"id"`
	Name   string    `json:"name"`
	Copies int       `json:"copies"`
	Last   time.Time `json:"last"`
}

// burst is a campaign as it is counted.
type burst struct {
	Campaign
	group uint32
	print Print
	seen  [16]uint64 // which of 1,024 places the hashes of envelopes fell into
}

// idAlphabet is Crockford's base 32: no letter in it can be heard or read as another.
const idAlphabet = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"

// idOf writes a group as people name it.
func idOf(group uint32) string {
	b := []byte("C0000000")
	for i := 7; i > 0; i-- {
		b[i] = idAlphabet[group&31]
		group >>= 5
	}
	return string(b)
}

// groupOf is the same for all copies, since they have the first one's print.
func groupOf(p *Print) uint32 {
	h := uint64(0)
	for i := 0; i < lanes; i += 4 {
		h = mix(h ^ uint64(p[i]) ^ uint64(p[i+1])<<16 ^ uint64(p[i+2])<<32 ^ uint64(p[i+3])<<48)
	}
	return max(1, uint32(h))
}

// note counts an envelope.
func (b *burst) note(who uint32) {
	b.seen[who>>6&15] |= 1 << (who & 63)
	set := 0
	for _, w := range b.seen {
		set += bits.OnesCount64(w)
	}
	const all = 16 * 64
	b.Recipients = int(math.Round(all * math.Log(all/float64(max(1, all-set)))))
}

// sender counts a copy of a user's.
func (b *burst) sender(id uint32, name string, at time.Time) {
	for i := range b.Users {
		if u := &b.Users[i]; u.ID == id {
			u.Copies, u.Last, u.Name = u.Copies+1, at, name
			return
		}
	}
	if len(b.Users) == maxUsers {
		b.MoreUsers++ // copies of users that are not told apart any more
		return
	}
	b.Users = append(b.Users, Sender{ID: id, Name: name, Copies: 1, Last: at})
}

func (b *burst) source(a netip.Addr) {
	switch {
	case !a.IsValid() || slices.Contains(b.Sources, a):
	case len(b.Sources) == maxSources:
		b.MoreFrom++
	default:
		b.Sources = append(b.Sources, a)
	}
}

func (b *burst) sample(id string) {
	if len(b.Samples) == maxSamples {
		b.Samples = append(b.Samples[:0], b.Samples[1:]...)
	}
	b.Samples = append(b.Samples, id)
}

func (b *burst) looked(l look, chance uint8, t content.Thresholds) {
	switch p := float64(chance) / 255; {
	case l == bad:
		b.Likely++
	case p >= doubtful:
		b.Likely += min(1, p/(2*max(doubtful, t.Unsure)))
	}
	switch l {
	case bad:
		b.Bad++
	case unsure:
		b.Unsure++
	default:
		b.Good++
	}
}

// judged is how many copies were looked at.
func (b *burst) judged() float64 { return float64(max(1, b.Good+b.Unsure+b.Bad)) }

// share is how much of the burst looks bad; what is unsure counts half.
func (b *burst) share() float64 { return (float64(b.Bad) + float64(b.Unsure)/2) / b.judged() }

// likely is the same with what is doubtful counted by its probability, so that copies next to a threshold, some above and
// some below, come to the same.
func (b *burst) likely() float64 { return b.Likely / b.judged() }

// shown is the campaign as others may keep it.
func (b *burst) shown() Campaign {
	c := b.Campaign
	c.Hosts, c.Files, c.Sources, c.Samples = slices.Clone(c.Hosts), slices.Clone(c.Files), slices.Clone(c.Sources), slices.Clone(c.Samples)
	c.Users = slices.Clone(c.Users)
	slices.SortStableFunc(c.Users, func(x, y Sender) int { return y.Copies - x.Copies })
	return c
}

// ID writes the group of a message's copies as people name the campaign.
func ID(group uint64) string { return idOf(uint32(group)) }

// ParseID reads what ID wrote.
func ParseID(s string) (group uint64, err error) {
	s = strings.ToUpper(s)
	if len(s) != 8 || s[0] != 'C' {
		return 0, fmt.Errorf("%q is not the id of a campaign", s)
	}
	for _, c := range s[1:] {
		i := strings.IndexRune(idAlphabet, c)
		if i < 0 {
			return 0, fmt.Errorf("%q is not the id of a campaign", s)
		}
		group = group<<5 | uint64(i)
	}
	return group & math.MaxUint32, nil
}
