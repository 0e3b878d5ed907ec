package sender

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"sluice/filter"
	"sluice/filter/message"
	"sluice/filter/policy"
)

// ListPhases are the phases at which Lists are asked.
var ListPhases = []filter.Phase{filter.Mail, filter.Rcpt}

// Entry is one entry of an allow or block list (FRM3).
type Entry struct {
	ID        int64
	Recipient bool   // of recipients; else of senders
	Block     bool   // refused; else Skips are not asked
	Pattern   string // "info@customer.example", "customer.example", ".customer.example" for all below it, or "/regular expression/"
	Scope     policy.Scope
	Of        uint32   // the user or account of the scope; 0 for the network
	Skips     []string // of an allowing entry: names of checks
	Reason    string
	By        string
	Since     time.Time
	Until     time.Time // zero: never ends
}

// Skippable are the checks that an entry may have skipped.
var Skippable = []string{"sender", "rules", "size", "recipients", "rate", "helo", "content", "learned", "lists", "plugins"}

const maxPattern = 300

// Validate reports what makes no sense of an entry.
func (e *Entry) Validate() error {
	for _, s := range e.Skips {
		if !slices.Contains(Skippable, s) {
			return fmt.Errorf("there is no check %q to be skipped; known are %s", s, strings.Join(Skippable, ", "))
		}
	}
	switch {
	case e.Block && len(e.Skips) > 0:
		return errors.New("an entry that blocks skips nothing; leave the checks out")
	case !e.Block && len(e.Skips) == 0:
		return errors.New("an entry that allows has to say which checks it skips; known are " + strings.Join(Skippable, ", "))
	case len(e.Pattern) > maxPattern:
		return fmt.Errorf("a pattern of more than %d bytes; shorten it", maxPattern)
	}
	_, _, err := e.compile()
	return err
}

// compile makes what an address is compared with: a key, or an expression.
func (e *Entry) compile() (key string, re *regexp.Regexp, err error) {
	p := strings.ToLower(e.Pattern)
	if len(p) > 1 && p[0] == '/' && p[len(p)-1] == '/' {
		re, err = regexp.Compile("(?i)" + e.Pattern[1:len(p)-1])
		if err != nil {
			err = fmt.Errorf("pattern %q: %w; correct the regular expression", e.Pattern, err)
		}
		return "", re, err
	}
	at := strings.LastIndexByte(p, '@')
	rest, below := strings.CutPrefix(p[at+1:], ".")
	a, err := policy.ALabel(rest)
	if err != nil || !strings.Contains(a, ".") || below && at >= 0 {
		return "", nil, fmt.Errorf("%q is not an address, a domain or an expression; write info@customer.example, customer.example, .customer.example or /^bounce-/", e.Pattern)
	}
	if below {
		a = "." + a
	}
	return p[:at+1] + a, nil, nil
}

// Lists refuse senders and recipients that are blocked, and excuse those that are allowed from checks. The narrowest entry
// counts: the user's before the account's before everybody's, an address before a domain before an expression.
type Lists struct {
	settings policy.Resolver
	now      atomic.Pointer[index]
}

// index is immutable once it is in force.
type index struct {
	owners           map[owner]*table
	allows, allowsTo bool // some entry allows a sender, a recipient
}

type owner struct {
	scope     policy.Scope
	of        uint32
	recipient bool
}

type table struct {
	keys  map[string]*Entry
	exprs []expr
}

type expr struct {
	re *regexp.Regexp
	e  *Entry
}

// NewLists returns lists without entries.
func NewLists(s policy.Resolver) *Lists {
	l := &Lists{settings: s}
	l.now.Store(&index{})
	return l
}

// Set replaces all entries; those that are not valid are passed over.
func (l *Lists) Set(all []Entry) {
	x := &index{owners: map[owner]*table{}}
	for i := range all {
		e := &all[i]
		key, re, err := e.compile()
		if err != nil {
			continue
		}
		o := owner{e.Scope, e.Of, e.Recipient}
		t := x.owners[o]
		if t == nil {
			t = &table{keys: map[string]*Entry{}}
			x.owners[o] = t
		}
		if re != nil {
			t.exprs = append(t.exprs, expr{re, e})
		} else {
			t.keys[key] = e
		}
		x.allows = x.allows || !e.Block && !e.Recipient
		x.allowsTo = x.allowsTo || !e.Block && e.Recipient
	}
	l.now.Store(x)
}

// Check implements filter.Check in phases mail and rcpt.
func (l *Lists) Check(_ context.Context, p filter.Phase, m *message.Message, hits []filter.Hit) []filter.Hit {
	x := l.now.Load()
	if len(x.owners) == 0 {
		return hits
	}
	a, what := m.Envelope.From, "sender"
	if p == filter.Rcpt {
		a, what = m.Rcpt, "recipient"
	}
	e := l.find(x, m, a, p == filter.Rcpt)
	if e == nil || !e.Block {
		return hits
	}
	return append(hits, reject("LISTED", "5.7.1", "this "+what+" is blocked: "+e.Reason, fmt.Sprintf("%s list of the %s, entry %d %s", what, e.Scope, e.ID, e.Pattern)))
}

// Excuses implements filter.Excuser.
func (l *Lists) Excuses(p filter.Phase, m *message.Message) []string {
	x := l.now.Load()
	if !x.allows && !x.allowsTo {
		return nil
	}
	var from []string
	if e := l.find(x, m, m.Envelope.From, false); e != nil && !e.Block {
		from = e.Skips
	}
	if !x.allowsTo {
		return from
	}
	switch p {
	case filter.Rcpt:
		if e := l.find(x, m, m.Rcpt, true); e != nil && !e.Block {
			return append(slices.Clone(from), e.Skips...)
		}
	case filter.Data, filter.Part: // what every recipient is excused from
		var all []string
		for i, to := range m.Envelope.To {
			e := l.find(x, m, to, true)
			switch {
			case e == nil || e.Block:
				return from
			case i == 0:
				all = slices.Clone(e.Skips)
			default:
				all = slices.DeleteFunc(all, func(s string) bool { return !slices.Contains(e.Skips, s) })
			}
		}
		return append(all, from...)
	}
	return from
}

// find returns the entry that counts for an address, or nil.
func (l *Lists) find(x *index, m *message.Message, a message.Address, recipient bool) *Entry {
	if a == "" {
		return nil
	}
	address := strings.ToLower(string(a))
	at := strings.LastIndexByte(address, '@')
	domain, err := policy.ALabel(address[at+1:])
	if err != nil {
		domain = address[at+1:]
	}
	now := m.Received
	look := func(scope policy.Scope, of uint32) *Entry {
		if t := x.owners[owner{scope, of, recipient}]; t != nil {
			return t.find(address[:at+1]+domain, domain, now)
		}
		return nil
	}
	if e := look(policy.OfUser, m.Flow.User.ID); e != nil {
		return e
	}
	if accounts := l.settings.Settings(m.Flow.User.ID).Accounts; accounts != nil {
		for _, id := range *accounts {
			if e := look(policy.OfAccount, id); e != nil {
				return e
			}
		}
	}
	return look(policy.OfNetwork, 0)
}

func (t *table) find(address, domain string, now time.Time) *Entry {
	for _, key := range [...]string{address, domain} {
		if e := t.keys[key]; e.holds(now) {
			return e
		}
	}
	for above := domain; ; {
		_, rest, ok := strings.Cut(above, ".")
		if !ok {
			break
		}
		if e := t.keys["."+rest]; e.holds(now) {
			return e
		}
		above = rest
	}
	for i := range t.exprs {
		if t.exprs[i].e.holds(now) && t.exprs[i].re.MatchString(address) {
			return t.exprs[i].e
		}
	}
	return nil
}

func (e *Entry) holds(now time.Time) bool {
	return e != nil && (e.Until.IsZero() || e.Until.After(now))
}
