package reputation

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"sluice/filter"
	"sluice/filter/message"
	"sluice/filter/policy"
	"sluice/intercept/flow"
)

// zones is a small DNS.
type zones struct {
	mu    sync.Mutex
	a     map[string]string // name, or "*.zone" for all of a zone, to address
	fails error
	hang  bool
	asked []string
}

func (z *zones) LookupA(ctx context.Context, name string) ([]netip.Addr, error) {
	z.mu.Lock()
	z.asked = append(z.asked, name)
	a, ok := z.a[name]
	if !ok {
		_, zone, _ := strings.Cut(name, ".")
		for ; !ok && zone != ""; _, zone, _ = strings.Cut(zone, ".") {
			a, ok = z.a["*."+zone]
		}
	}
	hang, fails := z.hang, z.fails
	z.mu.Unlock()
	if hang {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	switch {
	case fails != nil:
		return nil, fails
	case !ok:
		return nil, &net.DNSError{Err: "no such host", Name: name, IsNotFound: true}
	}
	return []netip.Addr{netip.MustParseAddr(a)}, nil
}

func (z *zones) set(f func()) {
	z.mu.Lock()
	defer z.mu.Unlock()
	f()
}

type fixed struct{ s policy.Settings }

func (f *fixed) Settings(uint32) *policy.Settings { return &f.s }

func answersOf(list string) (ps []netip.Prefix) {
	for _, s := range strings.Fields(list) {
		ps = append(ps, netip.MustParsePrefix(s))
	}
	return ps
}

var (
	sources = Options{Name: "hosts", Zone: "hosts.example", Of: Source, Refuse: answersOf("127.0.0.2/32"), Note: answersOf("127.0.0.8/29"), Class: filter.Policy,
		Failure: policy.GoOn, Timeout: 10 * time.Second, Exempt: answersOf("192.0.2.128/25"), Listed: "2.0.0.127", Unlisted: "1.0.0.127"}
	domains = Options{Name: "domains", Zone: "domains.example", Of: Link, Refuse: answersOf("127.0.1.0/24"), Class: filter.Spam, Failure: policy.GoOn, Timeout: 10 * time.Second,
		ExemptDomains: []string{"customer.example"}, Numeric: true, Listed: "test", Unlisted: "invalid"}
)

func good() *zones {
	return &zones{a: map[string]string{
		"2.0.0.127.hosts.example": "127.0.0.2", "7.2.0.192.hosts.example": "127.0.0.2", "8.2.0.192.hosts.example": "127.0.0.10", "9.2.0.192.hosts.example": "127.0.0.3",
		"200.2.0.192.hosts.example": "127.0.0.2", "1.0.0.10.hosts.example": "127.0.0.2", "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.hosts.example": "127.0.0.2",
		"test.domains.example": "127.0.1.2", "bad.test.domains.example": "127.0.1.2", "9.113.0.203.domains.example": "127.0.1.4", "evil.co.uk.domains.example": "127.0.1.2",
		"xn--bse-sna.example.domains.example": "127.0.1.2", "customer.example.domains.example": "127.0.1.2",
	}}
}

func from(client, body string) *message.Message {
	m := &message.Message{ID: "f.1", Flow: &flow.Flow{User: flow.User{ID: 7}, Client: netip.MustParseAddrPort(client)}, Envelope: message.Envelope{From: "a@envelope.test"}}
	m.Data = []byte("From: Alice <alice@header.test>\r\nSubject: x\r\n\r\n" + body + "\r\n")
	m.DataSize = int64(len(m.Data))
	return m
}

// world is lists that were tested.
func world(z *zones, s *fixed, all ...Options) *Lists {
	ls := New(s, z, z, func(Event) {})
	ls.Configure(all)
	ls.Look(context.Background())
	return ls
}

func ask(ls *Lists, m *message.Message) filter.Verdict {
	p := filter.NewPipeline(filter.Step{Name: "lists", Phases: Phases, Check: ls})
	p.Ask(context.Background(), filter.Mail, m)
	return p.Ask(context.Background(), filter.Data, m)
}

func said(v filter.Verdict) string {
	var all []string
	for _, h := range v.Hits {
		all = append(all, fmt.Sprintf("%s %s %s", h.Code, h.Class, h.Action))
	}
	return strings.Join(all, ", ")
}

// TestAnswersAreMapped: what is refused, said or passed over, by answer and by subject.
func TestAnswersAreMapped(t *testing.T) {
	t.Parallel()
	const refused, noted, bad = "LISTED policy reject", "LISTED clean accept", "LISTED spam reject"
	sender := domains
	sender.Of, sender.Class = Sender, filter.Policy
	for _, c := range []struct{ name, client, body, want string }{
		{"listed", "192.0.2.7:1", "", refused},
		{"noted", "192.0.2.8:1", "", noted},
		{"an answer without a meaning", "192.0.2.9:1", "", ""},
		{"not listed", "192.0.2.10:1", "", ""},
		{"exempt", "192.0.2.200:1", "", ""},
		{"not of the internet", "10.0.0.1:1", "", ""},
		{"IPv6", "[2001:db8::1]:1", "", refused},
		{"mapped", "[::ffff:192.0.2.7]:1", "", refused},
		{"a link", "192.0.2.10:1", "see http://www.bad.test/x?y and https://good.test/", bad},
		{"a registered part", "192.0.2.10:1", "see http://a.b.evil.co.uk/", bad},
		{"an international name", "192.0.2.10:1", "see http://böse.example/", bad},
		{"an address", "192.0.2.10:1", "see http://203.0.113.9/", bad},
		{"an exempt domain", "192.0.2.10:1", "see http://www.customer.example/", ""},
		{"both", "192.0.2.7:1", "http://bad.test/", refused + ", " + bad},
		{"no link", "192.0.2.10:1", "bad.test is a bad domain", ""},
	} {
		ls := world(good(), &fixed{policy.Default()}, sources, domains)
		v := ask(ls, from(c.client, c.body))
		if got := said(v); got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
		if h := v.Decisive(); h != nil && !h.AsSet {
			t.Errorf("%s: no setting says what becomes of it: %+v", c.name, h)
		}
	}
	for address, want := range map[message.Address]string{"x@mail.bad.test": refused, "x@good.test": "", "": "", "x@[192.0.2.1]": ""} {
		m := from("192.0.2.10:1", "")
		m.Envelope.From = address
		if got := said(ask(world(good(), &fixed{policy.Default()}, sender), m)); got != want {
			t.Errorf("sender %q: %q, want %q", address, got, want)
		}
	}
	m := from("192.0.2.10:1", "")
	m.Data = []byte("From: x@news.bad.test\r\n\r\n")
	if got := said(ask(world(good(), &fixed{policy.Default()}, sender), m)); got != refused {
		t.Errorf("author: %q", got)
	}
	off := &fixed{policy.Default()}
	off.s.Content.BlockSpam = false
	if v := ask(world(good(), off, domains), from("192.0.2.10:1", "http://bad.test/")); v.Refused() || len(v.Hits) != 1 || !strings.Contains(v.Hits[0].Evidence, "bad.test.domains.example is [127.0.1.2]; not refused") {
		t.Errorf("where spam is only told of: %+v", v)
	}
}

// TestSickListsAreTakenOut: dead, everything listed, sold, refusing to answer; and put back when well.
func TestSickListsAreTakenOut(t *testing.T) {
	t.Parallel()
	for name, sick := range map[string]func(z *zones){
		"dead":            func(z *zones) { delete(z.a, "2.0.0.127.hosts.example") },
		"lists all":       func(z *zones) { z.a["*.hosts.example"] = "127.0.0.2" },
		"sold":            func(z *zones) { z.a["*.hosts.example"] = "203.0.113.80" },
		"turned down":     func(z *zones) { z.a["2.0.0.127.hosts.example"] = "127.255.255.254" },
		"does not answer": func(z *zones) { z.fails = errors.New("server failure") },
	} {
		for failure, want := range map[policy.Failure]string{policy.GoOn: "UNCHECKED clean accept", policy.Later: "UNCHECKED policy defer"} {
			z := good()
			sick(z)
			var events []Event
			o := sources
			o.Failure = failure
			ls := New(&fixed{policy.Default()}, z, z, func(e Event) { events = append(events, e) })
			ls.Configure([]Options{o})
			ls.Look(context.Background())
			if got := said(ask(ls, from("192.0.2.7:1", ""))); got != want {
				t.Errorf("%s, %s: %q, want %q", name, failure, got, want)
			}
			f := ls.Figures()[0]
			if f.In || f.Err == nil || len(events) != 1 || !events[0].Out {
				t.Errorf("%s: %+v, events %+v", name, f, events)
			}
			z.set(func() { z.a, z.fails = good().a, nil })
			ls.Look(context.Background()) // too early
			if ls.Figures()[0].In {
				t.Errorf("%s: tested again at once", name)
			}
			l := (*ls.lists.Load())[0]
			l.tested = time.Time{}
			ls.Look(context.Background())
			if got := said(ask(ls, from("192.0.2.7:1", ""))); got != "LISTED policy reject" || len(events) != 2 || events[1].Out {
				t.Errorf("%s: well again: %q, events %+v", name, got, events)
			}
		}
	}
}

// TestUntestedListsRefuseNothing: until the first test nobody knows whether a list lists everything.
func TestUntestedListsRefuseNothing(t *testing.T) {
	t.Parallel()
	ls := New(&fixed{policy.Default()}, good(), good(), func(Event) {})
	ls.Configure([]Options{sources})
	if got := said(ask(ls, from("192.0.2.7:1", ""))); got != "UNCHECKED clean accept" {
		t.Errorf("%q", got)
	}
}

// TestListsDieBetweenTests: a list that stops answering is taken out after some questions, each within its time; what other
// lists refuse is refused all the same.
func TestListsDieBetweenTests(t *testing.T) {
	t.Parallel()
	synctest.Test(t, listsDie) // the list that is well has its time on any machine
}

func listsDie(t *testing.T) {
	z := good()
	slow, events := &zones{a: good().a}, make(chan Event, 10)
	ls := New(&fixed{policy.Default()}, slow, z, func(e Event) { events <- e })
	o := sources
	o.Timeout, o.Failure = 20*time.Millisecond, policy.Later
	ls.Configure([]Options{o})
	ls.Look(context.Background())
	slow.set(func() { slow.hang = true })
	for range outAfter {
		if got := said(ask(ls, from("192.0.2.7:1", ""))); got != "UNCHECKED policy defer" {
			t.Fatalf("%q", got)
		}
	}
	if e := <-events; !e.Out {
		t.Errorf("%+v", e)
	}
	n := len(slow.asked)
	if got := said(ask(ls, from("192.0.2.7:1", ""))); got != "UNCHECKED policy defer" || len(slow.asked) != n {
		t.Errorf("%q, and it was asked", got)
	}
}

// TestOneListIsDead and the other is not: whoever is listed there is refused, not put off.
func TestOneListIsDead(t *testing.T) {
	t.Parallel()
	z := good()
	delete(z.a, "2.0.0.127.hosts.example")
	v := ask(world(z, &fixed{policy.Default()}, sources, domains), from("192.0.2.7:1", "http://bad.test/"))
	if got := said(v); got != "UNCHECKED clean accept, LISTED spam reject" || !v.Refused() {
		t.Errorf("%q", got)
	}
}

// TestAskedInTime: source and sender are asked about at MAIL, so that the end of the message waits for nothing; what is
// refused already is not asked about.
func TestAskedInTime(t *testing.T) {
	t.Parallel()
	z := good()
	ls := world(z, &fixed{policy.Default()}, sources, domains)
	z.asked = nil
	m := from("192.0.2.7:1", "http://bad.test/")
	ls.Check(context.Background(), filter.Mail, m, nil)
	if !slices.Equal(z.asked, []string{"7.2.0.192.hosts.example"}) {
		t.Errorf("at MAIL %v was asked", z.asked)
	}
	z.asked = nil
	spam := []filter.Hit{{Code: "GTUBE", Class: filter.Spam, Action: filter.Reject}}
	if hits := ls.Check(context.Background(), filter.Data, m, spam); len(hits) != 1 || len(z.asked) != 0 {
		t.Errorf("spam was asked about: %v, %v", hits, z.asked)
	}
}

// TestManyLinks are bounded, and a bad one at either end is found.
func TestManyLinks(t *testing.T) {
	t.Parallel()
	var many strings.Builder
	for i := range 150 {
		fmt.Fprintf(&many, "http://site%d.test/ ", i)
	}
	for _, body := range []string{"http://bad.test/ " + many.String(), many.String() + "http://bad.test/"} {
		z := good()
		ls := world(z, &fixed{policy.Default()}, domains)
		z.asked = nil
		if v := ask(ls, from("192.0.2.10:1", body)); !v.Refused() {
			t.Error("a bad link among many passes")
		}
		if len(z.asked) > maxDomains {
			t.Errorf("%d domains were asked about", len(z.asked))
		}
	}
}

// TestNoListsCostNothing: neither hits nor allocations.
func TestNoListsCostNothing(t *testing.T) {
	ls := New(&fixed{policy.Default()}, good(), good(), func(Event) {})
	m, ctx := from("192.0.2.7:1", "http://bad.test/"), context.Background()
	if n := testing.AllocsPerRun(100, func() {
		if ls.Check(ctx, filter.Mail, m, nil) != nil || ls.Check(ctx, filter.Data, m, nil) != nil {
			t.Fatal("a hit without a list")
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
	ls.Look(ctx)
	if ls.Figures() != nil {
		t.Error("figures of nothing")
	}
}

func FuzzEntries(f *testing.F) {
	f.Add("www.bad.test")
	f.Add("a_b.example.")
	f.Add("xn--zz--.test")
	f.Add("1.2.3.4")
	f.Add("0.\x15")
	f.Fuzz(func(t *testing.T, host string) {
		e := domainEntry(host, nil)
		if e != "" && (len(e) > 253 || strings.Trim(e, "abcdefghijklmnopqrstuvwxyz0123456789-_.") != "" || strings.Contains(e, "..")) {
			t.Errorf("%q makes %q", host, e)
		}
	})
}
