// Package identity finds the finer sender inside a user of whom a message is, and keeps account of those it has met.
package identity

import (
	"bytes"
	"context"
	"strings"
	"unicode"
	"unicode/utf8"

	"sluice/filter"
	"sluice/filter/message"
	"sluice/filter/policy"
)

// Longest is how much of an identity's name counts, in bytes.
const Longest = 120

// Other is the identity of those that came when a user had too many new ones.
const Other = "other"

// Found is what a message tells of its identity.
type Found struct {
	Name   string // "" where none is told; part of the message's data
	Header string // the field that told; "" for other methods
}

// Find reads the identity of m as id says. A header field is believed only where it occurs exactly once; a Received field
// where it is the topmost, and names one of the user's own hosts as its writer.
func Find(m *message.Message, id *policy.Identify) Found {
	if id == nil {
		return Found{}
	}
	switch id.Method {
	case policy.BySender:
		return Found{Name: strings.ToLower(clean(string(m.Envelope.From)))}
	case policy.ByLogin:
		return Found{Name: strings.ToLower(clean(m.Login))}
	case policy.ByHeader:
		return inHeader(m, id)
	}
	return Found{}
}

// seen is what the header holds of one rule's field.
type seen struct {
	n     int
	value []byte // of the first
}

func inHeader(m *message.Message, id *policy.Identify) Found {
	var all [policy.MaxIdentifyHeaders]seen
	rules := id.Headers[:min(len(id.Headers), len(all))]
	for name, value := range message.Header(m.Data) {
		for i := range rules {
			if len(rules[i].Name) == len(name) && strings.EqualFold(rules[i].Name, string(name)) {
				if all[i].n++; all[i].n == 1 {
					all[i].value = value
				}
			}
		}
	}
	for i := range rules {
		if name := read(&rules[i], &all[i], m, id); name != "" {
			return Found{name, rules[i].Name}
		}
	}
	return Found{}
}

func read(r *policy.HeaderRule, s *seen, m *message.Message, id *policy.Identify) string {
	trace := strings.EqualFold(r.Name, "Received")
	if s.n == 0 || s.n > 1 && !trace {
		return ""
	}
	v := unfold(s.value)
	who, by := "", ""
	if trace {
		if who, by = received(v); !ours(by, m.Helo, id.Hosts) {
			return ""
		}
	}
	switch {
	case r.Pattern != nil:
		if c := r.Pattern.FindStringSubmatch(v); c != nil {
			return clean(c[1])
		}
		return ""
	case trace:
		return clean(who)
	}
	if form := forms[strings.ToLower(r.Name)]; form != nil {
		return clean(form(v))
	}
	return clean(v)
}

// ours tells whether a host that signs a trace field is one of the user's own: of those he named, or else the one that
// speaks.
func ours(by, helo string, hosts []string) bool {
	by = strings.TrimSuffix(by, ".")
	if by == "" {
		return false
	}
	if len(hosts) == 0 {
		return strings.EqualFold(by, strings.TrimSuffix(helo, "."))
	}
	for _, h := range hosts {
		if strings.EqualFold(by, h) {
			return true
		}
	}
	return false
}

// unfold makes one line of a field (RFC 5322 2.2.3).
func unfold(v []byte) string {
	if bytes.IndexByte(v, '\r') < 0 && bytes.IndexByte(v, '\n') < 0 {
		return string(v)
	}
	return strings.NewReplacer("\r", "", "\n", "").Replace(string(v))
}

// clean makes a name that can stand in log, reply and command line: one line, bounded, UTF-8. What cannot is "".
func clean(v string) string {
	v = strings.Trim(strings.TrimSpace(v), "<>\"")
	if len(v) > Longest {
		cut := Longest
		for cut > 0 && !utf8.RuneStart(v[cut]) {
			cut--
		}
		v = v[:cut]
	}
	if !utf8.ValidString(v) || strings.ContainsFunc(v, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return ""
	}
	return v
}

// Phases are the phases at which Finder is asked: none, since it has no opinion. The pipeline asks it as an Identifier.
var Phases []filter.Phase

// Finder tells the pipeline of whom a message is, and the book how it ended.
type Finder struct {
	settings policy.Resolver
	book     *Book

	// Survey, where it is not nil, sees every message with its data; Alarm, where it is not nil, hears of what is odd.
	Survey *Survey
	Alarm  func(Alarm)
}

// NewFinder returns the finder by the settings of s that accounts in b.
func NewFinder(s policy.Resolver, b *Book) *Finder { return &Finder{settings: s, book: b} }

// Check implements filter.Check.
func (*Finder) Check(_ context.Context, _ filter.Phase, _ *message.Message, hits []filter.Hit) []filter.Hit {
	return hits
}

// Identify implements filter.Identifier: by sender or login from phase mail on, by header at phase data.
func (f *Finder) Identify(p filter.Phase, m *message.Message) (identity, told string) {
	id := f.settings.Settings(m.Flow.User.ID).Identify
	if p == filter.Data && f.Survey != nil {
		f.Survey.Look(m)
	}
	if id == nil || (p >= filter.Data) != (id.Method == policy.ByHeader) {
		return m.Identity, m.Told
	}
	found := Find(m, id)
	if found.Name == "" {
		return "", ""
	}
	if id.Remove && found.Header != "" && !strings.EqualFold(found.Header, "Received") && !signed(m.Data, found.Header) {
		told = found.Header
	}
	name, alarm := f.book.meet(m.Flow.User.ID, found.Name, m.Received)
	f.tell(alarm)
	return name, told
}

func (f *Finder) tell(a Alarm) {
	if a.N > 0 && f.Alarm != nil {
		f.Alarm(a)
	}
}

// signed tells whether a signature of the message covers a header field (RFC 6376 3.5, RFC 8617 4.1.2).
func signed(data []byte, field string) bool {
	for name, value := range message.Header(data) {
		if !bytes.EqualFold(name, []byte("DKIM-Signature")) && !bytes.EqualFold(name, []byte("ARC-Message-Signature")) {
			continue
		}
		for tag := range strings.SplitSeq(unfold(value), ";") {
			key, covered, _ := strings.Cut(tag, "=")
			if strings.TrimSpace(key) != "h" {
				continue
			}
			for f := range strings.SplitSeq(covered, ":") {
				if strings.EqualFold(strings.TrimSpace(f), field) {
					return true
				}
			}
		}
	}
	return false
}

// Settle implements filter.Settler.
func (f *Finder) Settle(m *message.Message, o filter.Outcome) {
	if m.Identity != "" {
		f.book.Count(m.Flow.User.ID, m.Identity, m.Received, o)
	}
	if id := f.settings.Settings(m.Flow.User.ID).Identify; id != nil && id.Method != policy.ByNothing && len(m.Data) > 0 {
		f.tell(f.book.toldOrNot(m.Flow.User.ID, m.Identity != "", m.Received))
	}
}
