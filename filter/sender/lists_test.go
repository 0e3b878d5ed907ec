package sender

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"sluice/filter"
	"sluice/filter/message"
	"sluice/filter/policy"
)

func TestListsBlock(t *testing.T) {
	t.Parallel()
	set := &fixed{policy.Settings{Accounts: &policy.Accounts{20, 10}}}
	l := NewLists(set)
	m := letter("a@x.example", "")
	ask := func(p filter.Phase, a string) string {
		m.Envelope.From, m.Rcpt = message.Address(a), message.Address(a)
		return at(l, p, m)
	}
	if got := ask(filter.Mail, "a@bad.example"); got != "" {
		t.Errorf("without entries: %q", got)
	}
	block := func(pattern string, scope policy.Scope, of uint32, recipient bool) Entry {
		return Entry{Block: true, Pattern: pattern, Scope: scope, Of: of, Recipient: recipient, Reason: "because"}
	}
	allow := func(pattern string, scope policy.Scope, of uint32) Entry {
		return Entry{Pattern: pattern, Scope: scope, Of: of, Skips: []string{"content"}}
	}
	over := block("over.example", policy.OfNetwork, 0, false)
	over.Until = m.Received.Add(-time.Second)
	l.Set([]Entry{
		block("bad.example", policy.OfNetwork, 0, false), block("spam@half.example", policy.OfNetwork, 0, false), block(".deep.example", policy.OfNetwork, 0, false),
		block("/^bounce-[0-9]+@/", policy.OfNetwork, 0, false), block("mine.example", policy.OfUser, 7, false), block("other.example", policy.OfUser, 8, false),
		block("outer.example", policy.OfAccount, 10, false), allow("outer.example", policy.OfAccount, 20), allow("good@bad.example", policy.OfNetwork, 0),
		allow("ok.deep.example", policy.OfUser, 7), block("bücher.example", policy.OfNetwork, 0, false), over,
		block("rcpt.example", policy.OfNetwork, 0, true),
	})
	const listed = "LISTED 5.7.1"
	for a, want := range map[string]string{
		"a@bad.example": listed, "A@BAD.example": listed, "good@bad.example": "", "spam@half.example": listed, "ham@half.example": "",
		"a@deep.example": "", "a@x.deep.example": listed, "a@y.x.deep.example": listed, "a@ok.deep.example": "",
		"bounce-123@any.example": listed, "bounce-@any.example": "", "a@mine.example": listed, "a@other.example": "", "a@outer.example": "",
		"a@xn--bcher-kva.example": listed, "a@BÜCHER.example": listed, "a@over.example": "", "a@rcpt.example": "", "": "",
	} {
		if got := ask(filter.Mail, a); got != want {
			t.Errorf("sender %s: %q, want %q", a, got, want)
		}
	}
	if got := ask(filter.Rcpt, "a@rcpt.example"); got != listed {
		t.Errorf("recipient: %q", got)
	}
	if got := ask(filter.Rcpt, "a@bad.example"); got != "" {
		t.Errorf("a recipient by a list of senders: %q", got)
	}
}

func TestListsExcuse(t *testing.T) {
	t.Parallel()
	set := &fixed{}
	l := NewLists(set)
	asked := map[string]int{}
	count := func(name string) filter.Step {
		return filter.Step{Name: name, Phases: []filter.Phase{filter.Mail, filter.Rcpt, filter.Data}, Check: counted{asked, name}}
	}
	p := filter.NewPipeline(filter.Step{Name: "addresses", Phases: ListPhases, Check: l}, count("rules"), count("content"), count("rate"))
	run := func(from string, to ...string) string {
		clear(asked)
		m := letter(from, "")
		p.Ask(context.Background(), filter.Mail, m)
		for _, a := range to {
			m.Rcpt = message.Address(a)
			p.Ask(context.Background(), filter.Rcpt, m)
			m.Envelope.To = append(m.Envelope.To, m.Rcpt)
		}
		m.Rcpt = ""
		p.Ask(context.Background(), filter.Data, m)
		return fmt.Sprint(asked["rules"], asked["content"], asked["rate"])
	}
	if got := run("a@x.example", "b@y.example"); got != "3 3 3" {
		t.Errorf("without entries: %s", got)
	}
	l.Set([]Entry{
		{Pattern: "a@x.example", Scope: policy.OfNetwork, Skips: []string{"rules"}},
		{Pattern: "abuse@y.example", Scope: policy.OfNetwork, Recipient: true, Skips: []string{"content", "rate"}},
		{Pattern: "post@y.example", Scope: policy.OfNetwork, Recipient: true, Skips: []string{"content"}},
	})
	for _, c := range []struct {
		from string
		to   []string
		want string
	}{
		{"b@x.example", []string{"b@y.example"}, "3 3 3"},
		{"a@x.example", []string{"b@y.example"}, "0 3 3"},
		{"b@x.example", []string{"abuse@y.example"}, "3 1 1"},                   // at mail he is not known yet
		{"b@x.example", []string{"abuse@y.example", "post@y.example"}, "4 1 3"}, // at the end what both are excused from
		{"b@x.example", []string{"abuse@y.example", "b@y.example"}, "4 3 3"},    // one is excused from nothing
		{"a@x.example", []string{"abuse@y.example"}, "0 1 1"},
	} {
		if got := run(c.from, c.to...); got != c.want {
			t.Errorf("%s to %v: %s, want %s", c.from, c.to, got, c.want)
		}
	}
}

type counted struct {
	asked map[string]int
	name  string
}

func (c counted) Check(_ context.Context, _ filter.Phase, _ *message.Message, hits []filter.Hit) []filter.Hit {
	c.asked[c.name]++
	return hits
}

func TestEntriesThatMakeNoSense(t *testing.T) {
	t.Parallel()
	for want, e := range map[string]Entry{
		"not an address":      {Block: true, Pattern: "nonsense"},
		"regular expression":  {Block: true, Pattern: "/(/"},
		"skips nothing":       {Block: true, Pattern: "x.example", Skips: []string{"content"}},
		"which checks":        {Pattern: "x.example"},
		"no check":            {Pattern: "x.example", Skips: []string{"virus"}},
		"not an address, a d": {Block: true, Pattern: "a@.x.example"},
		"shorten":             {Block: true, Pattern: strings.Repeat("x", 400) + ".example"},
	} {
		if err := e.Validate(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, want …%s…", e, err, want)
		}
	}
	if good := (Entry{Pattern: "/^a+@/", Skips: slices.Clone(Skippable)}); good.Validate() != nil {
		t.Error(good.Validate())
	}
}

// BenchmarkLists is a message against 100,000 blocked domains and ten expressions.
func BenchmarkLists(b *testing.B) {
	var all []Entry
	for i := range 100_000 {
		all = append(all, Entry{Block: true, Pattern: fmt.Sprintf("d%d.example", i), Scope: policy.OfNetwork})
	}
	for i := range 10 {
		all = append(all, Entry{Block: true, Pattern: fmt.Sprintf("/^bounce-%d[0-9]*@/", i), Scope: policy.OfNetwork})
	}
	l, m, ctx := NewLists(&fixed{}), letter("info@customer.example", ""), context.Background()
	l.Set(all)
	b.ReportAllocs()
	b.ResetTimer()
	for range b.N {
		if hits := l.Check(ctx, filter.Mail, m, nil); len(hits) > 0 {
			b.Fatal(hits)
		}
	}
}
