package distrust

import (
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"sluice/intercept/flow"
)

// Options make a Ledger.
type Options struct {
	Store     Store
	Published Published // may be nil: only a person grants
	// ByItself tells whether anything is granted that no person gave; nil: it is.
	ByItself func() bool
	// Standing tells whether a user may have a grant that no person gave; nil: everybody. It must not wait.
	Standing func(user uint32) bool
	Events   func(Event) // called in the way of mail, must not wait; may be nil
	Now      func() time.Time
}

// Ledger is what is learnt of clients that refuse the certificate. It is safe for concurrent use, and writes to its store
// only in Save, Allow and Forget.
type Ledger struct {
	o       Options
	any     atomic.Int64 // entries: most gateways have none
	mu      sync.Mutex   // guards all below
	entries map[Pair]*Entry
	sources map[netip.Prefix]int // entries
	grants  int
	budgets map[netip.Prefix]*budget
	dirty   map[Pair]bool
	saving  sync.Mutex // one write to the store at a time
}

// New returns a Ledger with what the store has.
func New(o Options) (*Ledger, error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	l := &Ledger{o: o, entries: map[Pair]*Entry{}, sources: map[netip.Prefix]int{}, budgets: map[netip.Prefix]*budget{}, dirty: map[Pair]bool{}}
	all, err := o.Store.Refusals()
	if err != nil {
		return nil, err
	}
	for i := range all {
		l.put(&all[i])
	}
	return l, nil
}

// put adds or replaces an entry; l.mu is held, or nobody else has l.
func (l *Ledger) put(e *Entry) {
	if old := l.entries[e.Pair]; old == nil {
		l.sources[e.Source]++
		l.any.Add(1)
	} else if old.Grant != (Grant{}) {
		l.grants--
	}
	if e.Grant != (Grant{}) {
		l.grants++
	}
	l.entries[e.Pair] = e
}

// drop forgets an entry; l.mu is held.
func (l *Ledger) drop(p Pair) {
	e := l.entries[p]
	if e == nil {
		return
	}
	if e.Grant != (Grant{}) {
		l.grants--
	}
	delete(l.entries, p)
	l.any.Add(-1)
	if l.sources[p.Source]--; l.sources[p.Source] == 0 {
		delete(l.sources, p.Source)
	}
	if !e.Learnt.IsZero() || e.Grant != (Grant{}) {
		l.dirty[p] = true
	}
}

func pairOf(f *flow.Flow) Pair { return Pair{SourceOf(f.Client.Addr()), f.Target} }

// Refused notes a sign that the gateway's certificate does not do for the flow.
func (l *Ledger) Refused(f *flow.Flow, how Way, text string) {
	now, p := l.o.Now(), pairOf(f)
	var told []Event
	l.mu.Lock()
	e := l.entries[p]
	if e != nil && e.Learnt.IsZero() && e.Grant == (Grant{}) && now.Sub(e.Last) > forgotten {
		l.drop(p)
		e = nil
	}
	if e == nil {
		if !l.room(p.Source) {
			l.mu.Unlock()
			return
		}
		e = &Entry{Pair: p, First: now}
		l.put(e)
	}
	e.note(how, text, f.User.Name, now)
	if e.Learnt.IsZero() && (e.Alerts+e.Wanted > 0 || e.Shakes+e.Lefts >= enough) {
		e.Learnt = now
		told = append(told, Event{Learnt, *e})
	}
	if !e.Learnt.IsZero() {
		l.dirty[p] = true
	}
	l.mu.Unlock()
	l.tell(told)
}

func (e *Entry) note(how Way, text, user string, now time.Time) {
	switch how {
	case Alert:
		e.Alerts++
	case Shake:
		e.Shakes++
	case Wanted:
		e.Wanted++
	default:
		e.Lefts++
	}
	e.Last, e.User, e.Text = now, strings.Clone(user), strings.Clone(text[:min(len(text), mostText)])
}

// room makes room for one more entry of a source, at the cost of one without a grant; false when there is none. l.mu is
// held.
func (l *Ledger) room(source netip.Prefix) bool {
	if l.sources[source] >= mostOfOne {
		return false // he does not push out others', nor what is known of him
	}
	if len(l.entries) < mostEntries {
		return true
	}
	for p, e := range l.entries { // map order is as good as random
		if e.Grant == (Grant{}) {
			l.drop(p)
			return true
		}
	}
	return false
}

// Trusted notes that the flow's client sends mail under the certificate: what looked like a refusal was none, and no
// grant of ours is needed. A person's stays, and what the destination wants is not the client's to say.
func (l *Ledger) Trusted(f *flow.Flow) {
	if l.any.Load() == 0 {
		return
	}
	p := pairOf(f)
	var told []Event
	l.mu.Lock()
	if e := l.entries[p]; e != nil && e.Grant.By == "" && e.Wanted == 0 {
		if e.Grant != (Grant{}) {
			told = append(told, Event{Ended, *e})
		}
		l.drop(p)
	}
	l.mu.Unlock()
	l.tell(told)
}

// MayPass tells whether the flow's STARTTLS may pass unread now, and why; "" is no. A pair that was learnt is granted it here
// where its destination wants the client's certificate, or publishes what its client has to insist on, and its user is in
// good standing.
func (l *Ledger) MayPass(f *flow.Flow) (why string) {
	if l.any.Load() == 0 {
		return ""
	}
	now, p := l.o.Now(), pairOf(f)
	l.mu.Lock()
	e := l.entries[p]
	if e == nil {
		l.mu.Unlock()
		return ""
	}
	why = refuses
	if e.Wanted > 0 {
		why = wants
	}
	ask := !e.Grant.In(now) && !e.Learnt.IsZero() && l.grants < mostGrants && l.standing(f)
	l.mu.Unlock()
	if ask && (l.o.ByItself == nil || l.o.ByItself()) {
		switch {
		case why == wants:
			l.grant(p, Grant{Since: now, Until: now.Add(GrantTime), Why: wants})
		case l.o.Published != nil:
			if what := l.o.Published.Demands(f.Target); what != "" {
				l.grant(p, Grant{Since: now, Until: now.Add(GrantTime), Why: "the destination publishes " + what})
			}
		}
	}
	l.mu.Lock()
	if !l.granted(f, now) {
		l.mu.Unlock()
		return ""
	}
	b := l.budget(p.Source)
	left := b.left(now)
	told := b.spent(left, l.entries[p], now)
	l.mu.Unlock()
	l.tell(told)
	if !left {
		return ""
	}
	return why
}

// Why something passes.
const (
	refuses = "the client refuses the gateway's certificate"
	wants   = "the destination wants the client's certificate"
)

// granted tells whether a grant is in force for the flow; l.mu is held.
func (l *Ledger) granted(f *flow.Flow, now time.Time) bool {
	e := l.entries[pairOf(f)]
	return e != nil && e.Grant.In(now) && (e.Grant.By != "" || l.standing(f))
}

func (l *Ledger) standing(f *flow.Flow) bool { return l.o.Standing == nil || l.o.Standing(f.User.ID) }

// grant gives a learnt pair a grant, unless it has one or is forgotten by now.
func (l *Ledger) grant(p Pair, g Grant) {
	l.mu.Lock()
	e := l.entries[p]
	if e == nil || e.Grant.In(g.Since) {
		l.mu.Unlock()
		return
	}
	next := *e
	next.Grant = g
	l.put(&next)
	l.dirty[p] = true
	told := []Event{{Granted, next}} // a copy: next is the ledger's own from here on
	l.mu.Unlock()
	l.tell(told)
}

// Pass books a connection of the flow's source, and gives what books its bytes; false when nothing is left.
func (l *Ledger) Pass(f *flow.Flow) (spend func(n int) bool, ok bool) {
	p := pairOf(f)
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.o.Now()
	if !l.granted(f, now) || !l.budget(p.Source).connect(now) {
		return nil, false
	}
	return func(n int) bool { return l.spend(p, n) }, true
}

func (l *Ledger) spend(p Pair, n int) bool {
	l.mu.Lock()
	e, now := l.entries[p], l.o.Now()
	if e == nil || !e.Grant.In(now) { // ended or forgotten meanwhile: so is the connection
		l.mu.Unlock()
		return false
	}
	b := l.budget(p.Source)
	ok := b.spend(now, n)
	told := b.spent(ok, e, now)
	l.mu.Unlock()
	l.tell(told)
	return ok
}

// budget finds or makes the budget of a source; l.mu is held.
func (l *Ledger) budget(source netip.Prefix) *budget {
	b := l.budgets[source]
	if b == nil {
		b = &budget{}
		l.budgets[source] = b
	}
	return b
}

func (l *Ledger) tell(events []Event) {
	if l.o.Events == nil {
		return
	}
	for _, e := range events {
		l.o.Events(e)
	}
}

// List returns all pairs that were learnt or granted, by source and destination.
func (l *Ledger) List() []Entry {
	l.mu.Lock()
	defer l.mu.Unlock()
	list := []Entry{}
	for _, e := range l.entries {
		if e.kept() {
			list = append(list, *e)
		}
	}
	slices.SortFunc(list, func(a, b Entry) int { return a.Pair.compare(&b.Pair) })
	return list
}

func (p *Pair) compare(o *Pair) int {
	if c := p.Source.Addr().Compare(o.Source.Addr()); c != 0 {
		return c
	}
	return p.Target.Compare(o.Target)
}

// kept tells whether the entry is worth keeping over a restart.
func (e *Entry) kept() bool { return !e.Learnt.IsZero() || e.Grant != (Grant{}) }

// Left tells how many connections and bytes of a source may still pass unread in this hour.
func (l *Ledger) Left(source netip.Prefix) (connections, bytes int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	b := l.budgets[source]
	if b == nil {
		return Connections, Bytes
	}
	used := b.used(l.o.Now())
	return max(0, Connections-used.connections), max(0, Bytes-used.bytes)
}
