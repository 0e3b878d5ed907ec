package filter

import (
	"context"
	"slices"
	"testing"

	"sluice/filter/message"
)

func TestJudge(t *testing.T) {
	t.Parallel()
	opinion := Hit{Code: "OPINION", Class: Virus}
	limit := Hit{Code: "LIMIT", Class: Policy, Action: Defer}
	size := Hit{Code: "SIZE", Class: Policy, Action: Reject}
	spam := Hit{Code: "SPAM", Class: Spam, Action: Reject}
	grey := Hit{Code: "GREY", Class: Spam, Action: Defer}
	virus := Hit{Code: "VIRUS", Class: Virus, Action: Reject}
	for _, c := range []struct {
		name   string
		hits   []Hit
		action Action
		class  Class
		cause  string
	}{
		{"nothing", nil, None, Clean, ""},
		{"an opinion refuses nothing", []Hit{opinion}, None, Virus, ""},
		{"a limit", []Hit{limit}, Defer, Policy, "LIMIT"},
		{"the stronger action among equals", []Hit{limit, size}, Reject, Policy, "SIZE"},
		{"the worse class", []Hit{size, grey}, Defer, Spam, "GREY"},
		{"the first among equals", []Hit{spam, {Code: "SPAM2", Class: Spam, Action: Reject}}, Reject, Spam, "SPAM"},
		{"worst last", []Hit{limit, spam, virus}, Reject, Virus, "VIRUS"},
		{"held before put off", []Hit{grey, {Code: "HOLD", Class: Spam, Action: Hold}}, Hold, Spam, "HOLD"},
		{"refused before held", []Hit{{Code: "KEEP", Class: Spam, Action: Quarantine}, spam}, Reject, Spam, "SPAM"},
		{"put off before tried elsewhere", []Hit{{Code: "RISK", Class: Policy, Action: HighRisk}, limit}, Defer, Policy, "LIMIT"},
		{"unsure", []Hit{{Code: "UNSURE", Action: Delay}}, Delay, Clean, "UNSURE"},
		{"an opinion does not decide", []Hit{opinion, limit}, Defer, Virus, "LIMIT"},
	} {
		v := Judge(c.hits)
		cause := ""
		if d := v.Decisive(); d != nil {
			cause = d.Code
		}
		if v.Action != c.action || v.Class != c.class || cause != c.cause || v.Refused() != (c.action != None) {
			t.Errorf("%s: %v %v by %q, want %v %v by %q", c.name, v.Action, v.Class, cause, c.action, c.class, c.cause)
		}
	}
	if (&Verdict{Cause: 3}).Decisive() != nil {
		t.Error("a cause outside the hits named one")
	}
}

// say is a check that always answers the same, and notes that it was asked.
type say struct {
	hits  []Hit
	asked *[]string
	name  string
}

func (s say) Check(_ context.Context, p Phase, _ *message.Message, hits []Hit) []Hit {
	*s.asked = append(*s.asked, s.name+"@"+p.String())
	return append(hits, s.hits...)
}

type settler struct {
	say
	settled *int
}

func (s settler) Settle(_ *message.Message, o Outcome) { *s.settled += o.Accepted }

func TestPipelineAsksInOrder(t *testing.T) {
	t.Parallel()
	var asked []string
	settled := 0
	refuse := []Hit{{Code: "NO", Action: Reject, Check: "liar"}}
	p := NewPipeline(
		Step{"a", []Phase{Mail, Data}, say{nil, &asked, "a"}},
		Step{"b", []Phase{Mail, Data}, settler{say{refuse, &asked, "b"}, &settled}},
		Step{"c", []Phase{Rcpt, Mail, Data}, say{refuse, &asked, "c"}},
	)
	m := &message.Message{}
	for _, c := range []struct {
		phase Phase
		asked []string
		hits  int
	}{
		{Connect, nil, 0},
		{Mail, []string{"a@mail", "b@mail"}, 1}, // the first refusal decides
		{Rcpt, []string{"c@rcpt"}, 1},
		{Data, []string{"a@data", "b@data", "c@data"}, 2}, // every check is heard
	} {
		asked = nil
		v := p.Ask(context.Background(), c.phase, m)
		if !slices.Equal(asked, c.asked) || len(v.Hits) != c.hits {
			t.Errorf("phase %v asked %v and heard %d, want %v and %d", c.phase, asked, len(v.Hits), c.asked, c.hits)
		}
		if d := v.Decisive(); d != nil && d.Check != "b" && d.Check != "c" {
			t.Errorf("phase %v: the hit is said to be by %q", c.phase, d.Check)
		}
	}
	p.Settle(m, Outcome{Accepted: 3})
	if settled != 3 {
		t.Errorf("the settler heard of %d recipients, want 3", settled)
	}
}

func TestCleanMailCostsNoAllocation(t *testing.T) {
	m := &message.Message{}
	p := NewPipeline(Step{"quiet", []Phase{Data}, quiet{}})
	ctx := context.Background()
	if n := testing.AllocsPerRun(100, func() { p.Ask(ctx, Data, m) }); n != 0 {
		t.Errorf("%v allocations for a clean mail", n)
	}
}

type quiet struct{}

func (quiet) Check(_ context.Context, _ Phase, _ *message.Message, hits []Hit) []Hit { return hits }

func TestNames(t *testing.T) {
	t.Parallel()
	var got []string
	for _, s := range []interface{ String() string }{
		Connect, Helo, Mail, Rcpt, Data, Part, Phase(9), None, Defer, Reject, HighRisk, Delay, Hold, Quarantine, Action(9), Clean, Policy, Spam, Phish, Virus, Class(9),
	} {
		got = append(got, s.String())
	}
	want := []string{"connect", "helo", "mail", "rcpt", "data", "part", "?", "accept", "defer", "reject", "high-risk", "delay", "hold", "quarantine", "?",
		"clean", "policy", "spam", "phish", "virus", "?"}
	if !slices.Equal(got, want) {
		t.Errorf("names are %q, want %q", got, want)
	}
	if Policy.Bad() || !Spam.Bad() || !Virus.Bad() {
		t.Error("Bad draws the line at the wrong class")
	}
}

// TestActionsHaveAnOrder: from what lets a mail go to what keeps it furthest from its recipient, whatever their numbers.
func TestActionsHaveAnOrder(t *testing.T) {
	t.Parallel()
	order := []Action{None, HighRisk, Delay, Defer, Hold, Quarantine, Reject}
	for i, a := range order {
		for j, b := range order {
			if a.Stronger(b) != (i > j) {
				t.Errorf("%v stronger than %v: %v", a, b, a.Stronger(b))
			}
		}
		if want := slices.Contains([]Action{HighRisk, Delay, Hold, Quarantine}, a); a.Withheld() != want {
			t.Errorf("%v withheld: %v", a, a.Withheld())
		}
	}
	if Action(9).Stronger(None) || None.Stronger(Action(9)) || Action(9).Withheld() {
		t.Error("an action that is none has a strength")
	}
}

// TestCopies: copies of one message count together, unless more than their words speaks against them.
func TestCopies(t *testing.T) {
	t.Parallel()
	words := Hit{Code: "SPAM", Class: Spam, Action: Reject, Group: 7}
	listed := Hit{Code: "HASH", Class: Spam, Action: Reject, Outside: true}
	opinion := Hit{Code: "LIST", Class: Clean, Outside: true}
	for _, c := range []struct {
		hits  []Hit
		group uint64
		each  bool
	}{{nil, 0, false}, {[]Hit{words}, 7, false}, {[]Hit{words, listed}, 7, true}, {[]Hit{listed}, 0, true}, {[]Hit{opinion, words}, 7, false}} {
		v := Judge(c.hits)
		if group, each := v.Copies(); group != c.group || each != c.each {
			t.Errorf("%+v: group %d, each %t", c.hits, group, each)
		}
	}
}

// TestCounting: what is not to lock counts for nothing, and hides nothing that does.
func TestCounting(t *testing.T) {
	t.Parallel()
	virus := Hit{Code: "VIRUS", Class: Virus, Action: Reject}
	guess := Hit{Code: "GUESS", Class: Virus, Action: Reject, NoLock: true}
	spam := Hit{Code: "SPAM", Class: Spam, Action: Reject}
	told := Hit{Code: "TOLD", Class: Spam}
	limit := Hit{Code: "LIMIT", Class: Policy, Action: Defer}
	for _, c := range []struct {
		hits []Hit
		want string
	}{{nil, ""}, {[]Hit{limit}, ""}, {[]Hit{spam}, "SPAM"}, {[]Hit{guess}, ""}, {[]Hit{guess, told}, ""}, {[]Hit{spam, guess}, "SPAM"}, {[]Hit{guess, spam, virus}, "VIRUS"}} {
		v := Judge(c.hits)
		got := ""
		if h := v.Counting(); h != nil {
			got = h.Code
		}
		if got != c.want {
			t.Errorf("%+v: %q counts, want %q", c.hits, got, c.want)
		}
	}
}
