package identity

import (
	"math"
	"math/bits"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"

	"sluice/filter/message"
	"sluice/filter/policy"
)

// candidates are the ways by which a rule may be suggested (ATT8): header fields in the order of trust among equals, then
// login and envelope sender.
var candidates = [...]string{"X-AuthUser", "X-Authenticated-User", "X-Authenticated-Sender", "X-Get-Message-Sender-Via", "X-PHP-Originating-Script", "X-PHP-Script", "X-Source-Dir", "Received", "login", "sender"}

const (
	byReceived = len(candidates) - 3 + iota
	byLogin
	bySender
)

const (
	// surveyFirst messages of a user are looked at, then about one in surveyEach: it costs each that is looked at some microseconds.
	surveyFirst = 128
	surveyEach  = 16
	// settledWords is room for a bit of each of 65,536 users; where there are more some share one, and new ones are looked at as
	// seldom as those.
	settledWords = 1 << 10
	// surveyMost is the number of messages at which all counts are halved, so that what a user sends now counts most.
	surveyMost = 2048
	// surveyMasks bounds the combinations of candidates that are told apart of one user.
	surveyMasks = 24
	// surveyUsers bounds the users in memory; one costs about 700 bytes.
	surveyUsers = 50_000
)

// Survey notes what the mail of users could tell about identities, whether a rule reads it or not. Safe for concurrent use.
type Survey struct {
	mu      sync.Mutex
	users   map[uint32]*surveyed
	settled [settledWords]atomic.Uint64 // users of whom enough was looked at; for most messages nothing else is touched
}

// surveyed is one user's mail.
type surveyed struct {
	looked   int    // at so many messages
	host     string // that signs his trace fields
	masks    []masked
	names    [len(candidates)]sketch
	examples [len(candidates)]string
}

// masked counts messages in which the same candidates tell somebody.
type masked struct {
	mask uint16
	n    int
}

// sketch tells about how many different names there were: a bit for each of 128 hashes.
type sketch [2]uint64

func (s *sketch) add(name string) {
	h := uint32(2166136261)
	for i := range len(name) {
		h = (h ^ uint32(name[i])) * 16777619
	}
	h ^= h >> 15
	h *= 0x9E3779B1
	s[h>>31] |= 1 << (h >> 25 & 63)
}

// estimate is right within a tenth or so up to 100; there may be more where it says 300.
func (s *sketch) estimate() int {
	zeros := 128 - bits.OnesCount64(s[0]) - bits.OnesCount64(s[1])
	if zeros == 0 {
		return 300
	}
	return min(300, int(math.Round(-128*math.Log(float64(zeros)/128))))
}

// Look notes a message, or lets it pass.
func (s *Survey) Look(m *message.Message) {
	user := m.Flow.User.ID
	settled, bit := s.bit(user)
	if settled.Load()&bit != 0 && rand.Uint32()%surveyEach != 0 {
		return
	}
	told, host := tell(m)
	s.mu.Lock()
	defer s.mu.Unlock()
	u := s.user(user)
	u.note(told, host)
	if u.looked++; u.looked >= surveyFirst && settled.Load()&bit == 0 {
		settled.Or(bit)
	}
}

// bit is where it stands that enough was looked at of a user.
func (s *Survey) bit(user uint32) (settled *atomic.Uint64, bit uint64) {
	return &s.settled[user/64%settledWords], 1 << (user % 64)
}

// user returns what is known of a user. Where there are too many, one met at random goes. s.mu is held.
func (s *Survey) user(id uint32) *surveyed {
	if s.users == nil {
		s.users = map[uint32]*surveyed{}
	}
	u, ok := s.users[id]
	if !ok {
		if len(s.users) >= surveyUsers {
			for other := range s.users {
				delete(s.users, other)
				settled, bit := s.bit(other)
				settled.And(^bit)
				break
			}
		}
		u = &surveyed{}
		s.users[id] = u
	}
	return u
}

// tell reads whom each candidate tells in a message, and which host signs its topmost trace field. A field that occurs twice
// tells nobody, but for Received.
func tell(m *message.Message) (told [len(candidates)]string, host string) {
	var n [len(candidates)]int
	for name, value := range message.Header(m.Data) {
		for i := range byReceived + 1 {
			if len(name) != len(candidates[i]) || !strings.EqualFold(string(name), candidates[i]) {
				continue
			}
			if n[i]++; n[i] > 1 {
				if i != byReceived {
					told[i] = ""
				}
				continue
			}
			v := unfold(value)
			switch form := forms[strings.ToLower(candidates[i])]; {
			case i == byReceived:
				var who string
				who, host = received(v)
				told[i] = clean(who)
			case form != nil:
				told[i] = clean(form(v))
			default:
				told[i] = clean(v)
			}
		}
	}
	told[byLogin] = strings.ToLower(clean(m.Login))
	told[bySender] = strings.ToLower(clean(string(m.Envelope.From)))
	return told, strings.ToLower(strings.TrimSuffix(host, "."))
}

func (u *surveyed) note(told [len(candidates)]string, host string) {
	if u.host == "" {
		u.host = strings.Clone(host)
	}
	if host != u.host { // another server's: a rule names its servers
		told[byReceived] = ""
	}
	mask := uint16(0)
	for i, name := range told {
		if name == "" {
			continue
		}
		mask |= 1 << i
		u.names[i].add(name)
		if u.examples[i] == "" {
			u.examples[i] = strings.Clone(name)
		}
	}
	u.count(mask)
}

func (u *surveyed) count(mask uint16) {
	total, least := 0, -1
	for i := range u.masks {
		m := &u.masks[i]
		total += m.n
		if m.mask == mask {
			m.n++
			mask, least = 0, -2
		} else if least > -2 && (least == -1 || m.n < u.masks[least].n) {
			least = i
		}
	}
	switch {
	case least == -2:
	case len(u.masks) < surveyMasks:
		u.masks = append(u.masks, masked{mask, 1})
	default:
		u.masks[least] = masked{mask, 1}
	}
	if total >= surveyMost {
		for i := range u.masks {
			u.masks[i].n /= 2
		}
	}
}

// Choice is one way to tell a user's identities.
type Choice struct {
	Name       string  // of the header field; "login" or "sender"
	Coverage   float64 // the share of messages in which it tells somebody
	Identities int     // about how many it tells apart, at most 300
	Example    string
}

// Suggestion is the rule that tells most about a user's mail.
type Suggestion struct {
	Messages int              // that were looked at, halved now and then
	Choices  []Choice         // what tells anybody at all
	Rule     *policy.Identify // nil: nothing tells the senders of this mail apart
	Coverage float64          // of the rule
}

// leastGain is the share of messages that one more header has to add to a rule.
const leastGain = 0.02

// Suggest returns what the mail of a user tells. A header is preferred to the login, and that to the envelope sender, which
// anybody can choose; it is suggested only if nothing else tells at least half of the mail.
func (s *Survey) Suggest(user uint32) Suggestion {
	s.mu.Lock()
	defer s.mu.Unlock()
	u, ok := s.users[user]
	if !ok {
		return Suggestion{}
	}
	g := Suggestion{}
	for _, m := range u.masks {
		g.Messages += m.n
	}
	for i, name := range candidates {
		if c := u.share(1<<i, g.Messages); c > 0 {
			g.Choices = append(g.Choices, Choice{name, c, u.names[i].estimate(), u.examples[i]})
		}
	}
	rule, mask := &policy.Identify{Method: policy.ByHeader}, uint16(0)
	for {
		best, gain := -1, leastGain
		for i := range byReceived + 1 {
			if more := u.share(mask|1<<i, g.Messages) - u.share(mask, g.Messages); more > gain+1e-9 {
				best, gain = i, more
			}
		}
		if best < 0 {
			break
		}
		mask |= 1 << best
		rule.Headers = append(rule.Headers, policy.HeaderRule{Name: candidates[best]})
		if best == byReceived {
			rule.Hosts = []string{u.host}
		}
	}
	if g.Coverage = u.share(mask, g.Messages); g.Coverage >= 0.5 {
		g.Rule = rule
		return g
	}
	for i, method := range map[int]policy.IdentifyBy{byLogin: policy.ByLogin, bySender: policy.BySender} {
		if c := u.share(1<<i, g.Messages); u.names[i].estimate() > 1 && c >= 0.5 && (g.Rule == nil || i == byLogin) {
			g.Rule, g.Coverage = &policy.Identify{Method: method}, c
		}
	}
	if g.Rule == nil {
		g.Coverage = 0
	}
	return g
}

// share is that of the messages in which any of some candidates tells somebody.
func (u *surveyed) share(mask uint16, all int) float64 {
	n := 0
	for _, m := range u.masks {
		if m.mask&mask != 0 {
			n += m.n
		}
	}
	return float64(n) / float64(max(1, all))
}
