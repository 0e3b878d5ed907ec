package reputation

import (
	"context"
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"sync"
	"sync/atomic"

	"sluice/filter"
	"sluice/filter/content/view"
	"sluice/filter/message"
	"sluice/filter/policy"
)

// mostQuestions bounds the questions that are open at once, of all messages together.
const mostQuestions = 512

// Lists is the check that asks lists by DNS. Safe for concurrent use.
type Lists struct {
	settings  policy.Resolver
	dns       Resolver
	fresh     Resolver
	event     func(Event)
	lists     atomic.Pointer[[]*list] // nil: none are configured
	questions chan struct{}
	readers   sync.Pool
}

// New returns the check without lists. Tests of lists ask fresh, which remembers nothing. Event hears of lists that are taken
// out and put back, and must not block.
func New(settings policy.Resolver, dns, fresh Resolver, event func(Event)) *Lists {
	return &Lists{settings: settings, dns: dns, fresh: fresh, event: event, questions: make(chan struct{}, mostQuestions), readers: sync.Pool{New: func() any { return new(view.Reader) }}}
}

// Configure puts lists in force. Those that are the same as before keep what is known of them; new ones are asked once a test
// has gone well (Look).
func (ls *Lists) Configure(all []Options) {
	old := ls.lists.Load()
	if len(all) == 0 {
		ls.lists.Store(nil)
		return
	}
	now := make([]*list, 0, len(all))
	for _, o := range all {
		l := &list{o: o, dns: ls.dns, fresh: ls.fresh, event: ls.event}
		if old != nil {
			for _, had := range *old {
				if reflect.DeepEqual(had.o, o) {
					l = had
				}
			}
		}
		now = append(now, l)
	}
	ls.lists.Store(&now)
}

// Look tests the lists whose time it is; it returns when that is done.
func (ls *Lists) Look(ctx context.Context) {
	lists := ls.lists.Load()
	if lists == nil {
		return
	}
	var all sync.WaitGroup
	for _, l := range *lists {
		if l.due() {
			all.Go(func() { l.test(ctx) })
		}
	}
	all.Wait()
}

// Check implements filter.Check in phases mail, where questions are only begun, and data. What is refused as bad already no
// list is asked about.
func (ls *Lists) Check(ctx context.Context, p filter.Phase, m *message.Message, hits []filter.Hit) []filter.Hit {
	lists := ls.lists.Load()
	if lists == nil {
		return hits
	}
	if p == filter.Mail {
		ls.begin(*lists, m)
		return hits
	}
	s := ls.settings.Settings(m.Flow.User.ID)
	bad := slices.ContainsFunc(hits, func(h filter.Hit) bool { return h.Action == filter.Reject && h.Class.Bad() })
	if p != filter.Data || s == nil || bad {
		return hits
	}
	asked := make([][]filter.Hit, len(*lists))
	var all sync.WaitGroup
	entries := ls.entries(*lists, m)
	for i, l := range *lists {
		if len(entries[i]) > 0 {
			all.Go(func() { asked[i] = ls.opinion(ctx, l, entries[i], s) })
		}
	}
	all.Wait()
	for _, h := range asked {
		hits = append(hits, h...)
	}
	return hits
}

// begin asks about source and sender and waits for nothing: the resolver remembers what comes.
func (ls *Lists) begin(lists []*list, m *message.Message) {
	over, cancel := context.WithCancel(context.Background())
	cancel()
	for _, l := range lists {
		if l.o.Of == Link || l.usable() != nil {
			continue
		}
		for _, e := range l.simple(m) {
			_, _ = l.dns.LookupA(over, e+"."+l.o.Zone)
		}
	}
}

// simple are the entries that need no text of the message.
func (l *list) simple(m *message.Message) []string {
	if l.o.Of == Sender {
		return senders(m, l.o.ExemptDomains)
	}
	a := m.Flow.Client.Addr().Unmap()
	if !a.IsValid() || inside(a, internal) || inside(a, l.o.Exempt) {
		return nil
	}
	return []string{reversed(a)}
}

// entries are what each list is asked about.
func (ls *Lists) entries(lists []*list, m *message.Message) [][]string {
	all := make([][]string, len(lists))
	var r *view.Reader
	var v *view.View
	for i, l := range lists {
		switch {
		case l.o.Of != Link:
			all[i] = l.simple(m)
		case len(m.Data) > 0:
			if v == nil {
				r = ls.readers.Get().(*view.Reader)
				v = r.Read(m.Data)
			}
			all[i] = links(v, &l.o)
		}
	}
	if r != nil {
		ls.readers.Put(r)
	}
	return all
}

// opinion is what one list says of a message. Of several entries the first that is refused decides.
func (ls *Lists) opinion(ctx context.Context, l *list, entries []string, s *policy.Settings) (hits []filter.Hit) {
	if err := l.usable(); err != nil {
		l.count.failed.Add(1)
		return []filter.Hit{l.failure(err, s)}
	}
	ctx, cancel := context.WithTimeout(ctx, l.o.Timeout)
	defer cancel()
	found, errs := make([][]netip.Addr, len(entries)), make([]error, len(entries))
	var all sync.WaitGroup
	for i, e := range entries {
		all.Go(func() {
			select {
			case ls.questions <- struct{}{}:
				defer func() { <-ls.questions }()
				found[i], errs[i] = l.ask(ctx, e)
			case <-ctx.Done():
				errs[i] = ctx.Err()
			}
		})
	}
	all.Wait()
	var failed error
	for i, e := range entries {
		if errs[i] != nil {
			failed = errs[i]
		}
		if h, ok := l.hit(e, found[i], s); ok {
			hits = append(hits, h)
		}
	}
	refused := slices.ContainsFunc(hits, func(h filter.Hit) bool { return h.Action != filter.None })
	if failed != nil && !refused {
		hits = append(hits, l.failure(failed, s))
	}
	return hits
}

// hit is what answers about an entry mean; false where nothing.
func (l *list) hit(entry string, as []netip.Addr, s *policy.Settings) (h filter.Hit, ok bool) {
	if len(as) == 0 {
		return h, false
	}
	l.count.listed.Add(1)
	var refuse, note bool
	for _, a := range as {
		refuse, note = refuse || inside(a, l.o.Refuse), note || inside(a, l.o.Note)
	}
	if !refuse && !note {
		l.count.unmapped.Add(1)
		return h, false
	}
	h = filter.Hit{Code: "LISTED", Outside: true, Text: l.says(entry), Evidence: fmt.Sprintf("%s: %s.%s is %v", l.o.Name, entry, l.o.Zone, as)}
	if !refuse {
		return h, true
	}
	h.Class, h.Points, h.AsSet = l.o.Class, 1, true
	if h.Class.Bad() && !s.Content.BlockSpam {
		h.Evidence += "; not refused: content.block_spam is off"
		return h, true
	}
	l.count.refused.Add(1)
	h.Action, h.SMTP, h.Enhanced = filter.Reject, 550, "5.7.1"
	return h, true
}

func (l *list) says(entry string) string {
	switch {
	case l.o.Says != "":
		return l.o.Says
	case l.o.Of == Source:
		return "your address is on the list " + l.o.Name
	case l.o.Of == Sender:
		return "sender domain " + entry + " is on the list " + l.o.Name
	}
	return "message links to " + entry + ", which is on the list " + l.o.Name
}

// failure is the hit that says that the list gave no opinion.
func (l *list) failure(err error, s *policy.Settings) filter.Hit {
	how := s.Content.Failure
	if how == policy.AsPlugin {
		how = l.o.Failure
	}
	h := filter.Hit{Code: "UNCHECKED", Text: "message cannot be checked now; please try again later", Evidence: fmt.Sprintf("%s: %.250s", l.o.Name, err)}
	if how == policy.GoOn {
		h.Evidence += "; gone on without it"
		return h
	}
	h.Class, h.Action, h.SMTP, h.Enhanced = filter.Policy, filter.Defer, 451, "4.3.0"
	return h
}

// Figures are one list's counts since start.
type Figures struct {
	Name, Zone string
	Of         Subject
	In         bool  // it is asked
	Err        error // why not; nil before its first test
	Asked      uint64
	Listed     uint64 // answers that something is listed
	Refused    uint64
	Failed     uint64 // questions without an answer, and messages while it was out
	Unmapped   uint64 // listed with an answer that means nothing here
}

// Figures returns those of all lists; none where none are configured.
func (ls *Lists) Figures() (all []Figures) {
	lists := ls.lists.Load()
	if lists == nil {
		return nil
	}
	for _, l := range *lists {
		c := &l.count
		l.mu.Lock()
		f := Figures{Name: l.o.Name, Zone: l.o.Zone, Of: l.o.Of, In: l.in, Err: l.err}
		l.mu.Unlock()
		f.Asked, f.Listed, f.Refused, f.Failed, f.Unmapped = c.asked.Load(), c.listed.Load(), c.refused.Load(), c.failed.Load(), c.unmapped.Load()
		all = append(all, f)
	}
	return all
}
