package sender

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"testing"
	"time"

	"sluice/filter"
	"sluice/filter/message"
	"sluice/filter/policy"
)

var begin = time.Date(2027, 1, 4, 9, 0, 0, 0, time.UTC)

// office sends mail of one user, who may be the mailboxes that are listed and found.
type office struct {
	t   *testing.T
	now time.Time
	set *fixed
	r   *Rules
}

func newOffice(t *testing.T) *office {
	o := &office{t: t, now: begin, set: &fixed{policy.Default()}}
	o.r = NewRules(o.set, &fakeDNS{})
	o.r.Book = NewBook(func() time.Time { return o.now })
	return o
}

func (o *office) letter(envelope, from string) *message.Message {
	m := letter(envelope, "Subject: x\r\nFrom: "+from+"\r\n\r\nbody\r\n")
	m.Received = o.now
	return m
}

// sends tells the answer to a message, which is settled by it.
func (o *office) sends(envelope, from string) string {
	m := o.letter(envelope, from)
	v := filter.Judge(o.r.Check(o.t.Context(), filter.Data, m, nil))
	out := filter.Outcome{Verdict: &v, Accepted: 1}
	if v.Refused() {
		out.Accepted = 0
	}
	o.r.Settle(m, out)
	if v.Refused() {
		return v.Decisive().Code
	}
	return ""
}

func (o *office) settles(envelope, from string, out filter.Outcome) {
	o.r.Settle(o.letter(envelope, from), out)
}

// found are the mailboxes of the user that are found, in one string.
func (o *office) found() (all string) {
	for _, m := range o.r.Book.Of(7) {
		if m.Found {
			all += m.Name + " "
		}
	}
	return all
}

// TestSendersAreFound: in good mail of three days; not within a day, in bad, unsure or refused mail, or what others wrote.
func TestSendersAreFound(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	for range 500 { // within a day, over midnight
		o.sends("thief@bank.example", "thief@bank.example")
		o.now = o.now.Add(2 * time.Minute)
	}
	if got := o.found(); got != "" {
		t.Errorf("after a day: %s", got)
	}
	doubtful := filter.Verdict{Cause: -1, Hits: []filter.Hit{{Score: 0.99}}}
	spam := filter.Verdict{Class: filter.Spam, Cause: -1}
	held := filter.Verdict{Action: filter.HighRisk, Cause: -1}
	good := filter.Verdict{Cause: -1, Hits: []filter.Hit{{Score: 0.01}}}
	for range 5 {
		o.now = o.now.Add(21 * time.Hour)
		o.settles("Office+x@customer.example", "The \"office\", of ours <office@customer.example>, boss@customer.example", filter.Outcome{Verdict: &good, Accepted: 2})
		o.settles("web@customer.example", "=?utf-8?q?Shop?= <Shop@customer.example>", filter.Outcome{Verdict: &good, Accepted: 1})
		o.settles("unsure@customer.example", "unsure@customer.example", filter.Outcome{Verdict: &doubtful, Accepted: 1})
		o.settles("risky@customer.example", "risky@customer.example", filter.Outcome{Verdict: &held, Accepted: 1})
		o.settles("refused@customer.example", "refused@customer.example", filter.Outcome{Verdict: &good})
		o.settles("", "MAILER-DAEMON@customer.example", filter.Outcome{Verdict: &good, Accepted: 1})
		o.settles("SRS0=abc=de=bank.example=x@customer.example", "x@bank.example", filter.Outcome{Verdict: &good, Accepted: 1})
		o.settles("list@customer.example", "y@bank.example\r\nList-Id: <l.customer.example>", filter.Outcome{Verdict: &good, Accepted: 1})
		o.settles("mixed@customer.example", "mixed@customer.example", filter.Outcome{Verdict: &good, Accepted: 1})
		o.settles("mixed@customer.example", "mixed@customer.example", filter.Outcome{Verdict: &spam, Accepted: 1})
	}
	if got, want := o.found(), "boss@customer.example list@customer.example office@customer.example shop@customer.example web@customer.example "; got != want {
		t.Errorf("found are %s, want %s", got, want)
	}
	o.settles("web@customer.example", "web@customer.example", filter.Outcome{Verdict: &spam})
	if !o.r.Book.Found(7, []byte("web@customer.example"), o.now) || o.r.Book.Found(8, []byte("web@customer.example"), o.now) {
		t.Error("what was found is not the user's own any more, or another's, too")
	}
	o.now = o.now.Add(forget + time.Hour)
	if got := o.r.Book.Of(7); len(got) != 0 || o.r.Book.Found(7, []byte("web@customer.example"), o.now) {
		t.Errorf("unused for long, it is still known: %+v", got)
	}
}

// TestOwnMailboxesAlone: listed ones, with found also those, and everything within the learning time.
func TestOwnMailboxesAlone(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	set := &o.set.s.Sender
	const own, fresh, bank = "office@customer.example", "fresh@customer.example", "ceo@bank.example"
	for range 3 {
		if got := o.sends(own, own); got != "" {
			t.Fatalf("without a rule: %s", got)
		}
		o.now = o.now.Add(21 * time.Hour)
	}
	check := func(when string, want map[string]string) {
		t.Helper()
		for from, code := range want {
			if got := o.sends(from, from); got != code {
				t.Errorf("%s: %s hears %q, want %q", when, from, got, code)
			}
		}
	}
	set.Mailbox, set.Mailboxes = policy.ListedMailbox, &policy.Mailboxes{"listed@customer.example"}
	check("listed", map[string]string{"Listed+1@customer.example": "", own: "FROM-MAILBOX", bank: "FROM-MAILBOX", "": ""})
	set.Mailbox = policy.FoundMailbox
	check("found", map[string]string{"listed@customer.example": "", own: "", bank: "FROM-MAILBOX"})
	for _, from := range []string{bank, own + ", " + bank, own + "\r\nFrom: " + bank, "x@x " + own + " <" + bank, "nobody"} {
		if got := o.sends(own, from); got != "FROM-MAILBOX" {
			t.Errorf("From %q: %q", from, got)
		}
	}
	m := o.letter("desk@customer.example", "Desk@customer.example")
	if m.Login = "desk@customer.example"; at(o.r, filter.Data, m) != "" {
		t.Error("who logged in as a mailbox may not send as it")
	}
	_ = set.LearnUntil.UnmarshalText([]byte("2027-01-10"))
	o.now = time.Date(2027, 1, 8, 0, 0, 0, 0, time.UTC)
	for range 3 {
		check("learning", map[string]string{fresh: "", own: ""})
		o.now = o.now.Add(23 * time.Hour)
	}
	check("the last day", map[string]string{bank: ""})
	for range 5 {
		o.now = o.now.Add(24 * time.Hour)
		check("afterwards", map[string]string{fresh: "", own: "", bank: "FROM-MAILBOX"})
	}
}

func TestFoundSendersAreKept(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	for range 3 {
		o.sends("a@customer.example", "b@customer.example")
		o.now = o.now.Add(21 * time.Hour)
	}
	o.sends("once@customer.example", "once@customer.example")
	b := o.r.Book
	if !b.Changed() {
		t.Error("a change is not told")
	}
	saved := b.Append(nil)
	if b.Changed() {
		t.Error("what was written down is told as a change")
	}
	other := NewBook(b.now)
	if err := other.Restore(saved); err != nil || !reflect.DeepEqual(other.Of(7), b.Of(7)) || len(other.Of(7)) != 3 {
		t.Errorf("%+v, %v", other.Of(7), err)
	}
	o.now = o.now.Add(forgetEarly + time.Hour)
	if again := NewBook(b.now); again.Restore(b.Append(nil)) != nil || len(again.Of(7)) != 2 {
		t.Errorf("what was met once is kept: %+v", again.Of(7))
	}
	for n := range saved {
		_ = NewBook(b.now).Restore(saved[:n]) // cut anywhere
	}
	if other.Restore(nil) == nil || other.Restore([]byte{9}) == nil || other.Restore(saved[:len(saved)-1]) == nil {
		t.Error("what is no book is read")
	}
}

// TestManySendersAreBounded: names that somebody makes up find no room, and take none from those that are found.
func TestManySendersAreBounded(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	for range 3 {
		o.sends("a@customer.example", "a@customer.example")
		o.now = o.now.Add(21 * time.Hour)
	}
	for i := range 30 * 100 {
		a := fmt.Sprintf("made%d@customer.example", i)
		o.sends(a, a)
		o.now = o.now.Add(36 * time.Second)
	}
	if all := o.r.Book.Of(7); len(all) != mostOfUser || !o.r.Book.Found(7, []byte("a@customer.example"), o.now) {
		t.Errorf("%d are noted", len(all))
	}
	b := NewBook(nil)
	b.most = 40
	for user := range uint32(20) {
		for i := range 10 {
			b.note(shards*user, fmt.Appendf(nil, "x%d@customer.example", i), begin)
		}
	}
	if s := b.shelf(0); s.n != 40 {
		t.Errorf("%d of all users are noted, want 40", s.n)
	}
}

// TestLatestIsNoted: the mailbox that is found without a search is always one of those that are noted.
func TestLatestIsNoted(t *testing.T) {
	t.Parallel()
	rnd, now, b := rand.New(rand.NewPCG(1, 2)), begin, NewBook(nil)
	b.most = 20
	for i := range 20_000 {
		name := fmt.Appendf(nil, "x%d@customer.example", rnd.IntN(12))
		user := shards * rnd.Uint32N(3)
		b.settle(user, name, now, rnd.IntN(3) == 0)
		if rnd.IntN(100) == 0 {
			b.shelf(0).sweep(now)
		}
		n := 0
		for _, p := range b.shelf(0).all {
			n += len(p.boxes)
			if l := p.latest; l != nil && p.boxes[l.name] != l {
				t.Fatalf("step %d: %q is the latest, and not noted", i, l.name)
			}
		}
		if n != b.shelf(0).n {
			t.Fatalf("step %d: %d are noted, and %d counted", i, n, b.shelf(0).n)
		}
		now = now.Add(time.Duration(rnd.IntN(48)) * time.Hour)
	}
}

func BenchmarkNote(b *testing.B) {
	o := newOffice(&testing.T{})
	m := letter("a@x.example", "Received: from a by b; x\r\nSubject: hello\r\nTo: x@y.example\r\nFrom: A B <ab@x.example>\r\n\r\n")
	out := filter.Outcome{Verdict: &filter.Verdict{Cause: -1}, Accepted: 1}
	b.ReportAllocs()
	for b.Loop() {
		o.r.Settle(m, out)
	}
}
