package main

import (
	"net/netip"
	"strings"
	"time"

	"sluice/filter"
	"sluice/filter/policy"
	"sluice/intercept/flow"
	"sluice/proxy"
)

// mostRecords bounds what one report reads of the log, the newest first: a busy gateway's day has millions, which would
// tell no more.
const mostRecords = 200_000

// figures are gathered from the log, one record at a time.
type figures struct {
	settings policy.Resolver
	source   func(netip.Addr) netip.Addr // what counts as one source
	managed  []netip.Addr                // delivery addresses

	read  int
	first time.Time // start of the oldest record
	flows map[flow.ID]*flowSeen
	users map[uint32]*userSeen
	mails []mailSeen
}

// flowSeen is one connection.
type flowSeen struct {
	user           uint32
	source, target netip.Addr
	begin, end     time.Time // as far as its records tell
	shadow         bool
	observed       bool
	opaque         bool
	waited         bool
	obstacle       proxy.Obstacle
}

// userSeen is one user.
type userSeen struct {
	name     string
	settings *policy.Settings
	locked   bool          // he was, or would have been
	verdicts []verdictSeen // of what was not enforced, the newest first
}

type verdictSeen struct {
	at         time.Time
	bad, virus bool
}

// mailSeen is one message, with what the DNS is to be asked about it.
type mailSeen struct {
	user    uint32
	code    string // why it was or would be refused
	bad     bool   // it would be for what it is, not for a rule
	refused bool
	judged  bool
	sender  string // domain that SPF asks; "" where nothing depends on it
	client  netip.Addr
	target  netip.Addr
	domains []string // of recipients, each once
}

func newFigures(settings policy.Resolver, source func(netip.Addr) netip.Addr, managed []netip.Addr) *figures {
	return &figures{settings: settings, source: source, managed: managed, flows: map[flow.ID]*flowSeen{}, users: map[uint32]*userSeen{}}
}

// add takes one record, the newest first; false when that is enough.
func (f *figures) add(r *proxy.Record) bool {
	if r.Flow.ID == 0 || !r.Flow.Client.IsValid() {
		return true // what the log says of itself
	}
	f.read++
	f.first = r.Start
	u := f.user(&r.Flow.User)
	f.flow(r)
	if r.ID != r.Flow.ID.String() {
		f.mail(r, u)
	}
	return f.read < mostRecords
}

func (f *figures) user(of *flow.User) *userSeen {
	u, ok := f.users[of.ID]
	if !ok {
		u = &userSeen{name: of.Name, settings: f.settings.Settings(of.ID)}
		if u.settings == nil {
			u.settings = &policy.Settings{}
		}
		f.users[of.ID] = u
	}
	return u
}

func (f *figures) flow(r *proxy.Record) {
	s, ok := f.flows[r.Flow.ID]
	if !ok {
		s = &flowSeen{user: r.Flow.User.ID, source: f.source(r.Flow.Client.Addr()), target: r.Flow.Target.Addr(), begin: r.Start}
		f.flows[r.Flow.ID] = s
	}
	for _, begin := range []time.Time{r.Start, r.Flow.Start} {
		if !begin.IsZero() && begin.Before(s.begin) {
			s.begin = begin
		}
	}
	if end := r.Start.Add(r.Duration); end.After(s.end) {
		s.end = end
	}
	s.shadow = s.shadow || r.Shadow
	s.observed = s.observed || r.Status == proxy.Observed
	s.opaque = s.opaque || r.In.Version == proxy.Opaque
	s.waited = s.waited || r.Waited > 0
	if r.Obstacle != "" {
		s.obstacle = r.Obstacle
	}
}

func (f *figures) mail(r *proxy.Record, u *userSeen) {
	m := mailSeen{user: r.Flow.User.ID, judged: true, client: r.Flow.Client.Addr(), target: r.Flow.Target.Addr()}
	untouched := r.Shadow || r.Status == proxy.Observed
	h := r.Verdict.Decisive()
	switch {
	case untouched:
		m.refused = r.Would != ""
	default:
		m.refused = stopped(r) || r.Ticket != ""
	}
	if m.refused {
		m.code, m.bad = codeOf(r.Would, r.Reply), h != nil && h.Class.Bad() || r.Ticket != ""
	}
	if m.code == "OTHER" && h != nil {
		m.code = h.Code
	}
	if m.code == lockedCode { // what follows from a lock, not a reason of its own
		m.bad = true
		u.locked = true
	}
	if untouched && r.Status != proxy.NoMessage {
		u.verdicts = append(u.verdicts, verdictSeen{at: r.Start, bad: h != nil && h.Class.Bad(), virus: h != nil && h.Class == filter.Virus})
	}
	if u.settings.Delivery == policy.Managed {
		m.sender = senderDomain(r)
	}
	for i := range r.To {
		m.domains = appendOnce(m.domains, domainOf(r.To[i].Address))
	}
	f.mails = append(f.mails, m)
}

// stopped tells whether the filter kept a mail from its way. What is risky may go by another.
func stopped(r *proxy.Record) bool {
	return r.Verdict.Refused() && (r.Verdict.Action != filter.HighRisk || r.Status == proxy.Withheld)
}

// lockedCode is the public code of what a locked user's messages meet.
const lockedCode = "LOCKED"

// codeOf is the public code in the first reply that has one.
func codeOf(replies ...string) string {
	for _, r := range replies {
		if _, rest, ok := strings.Cut(r, ": ["); ok {
			if code, _, ok := strings.Cut(rest, "] "); ok {
				return code
			}
		}
	}
	return "OTHER"
}

// senderDomain is what SPF is asked about: the sender's domain, for a bounce the client's name (RFC 7208 2.4).
func senderDomain(r *proxy.Record) string {
	if d := domainOf(r.From); d != "" {
		return d
	}
	if strings.HasPrefix(r.Helo, "[") || !strings.Contains(r.Helo, ".") {
		return ""
	}
	return strings.ToLower(r.Helo)
}

// domainOf is the domain of an address, "" where it has none.
func domainOf(address string) string {
	i := strings.LastIndexByte(address, '@')
	if i < 0 {
		return ""
	}
	return strings.ToLower(strings.TrimSuffix(address[i+1:], "."))
}

func appendOnce(list []string, s string) []string {
	if s == "" {
		return list
	}
	for _, have := range list {
		if have == s {
			return list
		}
	}
	return append(list, s)
}
