package scanner

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"sluice/filter"
	"sluice/filter/message"
	"sluice/filter/policy"
	"sluice/intercept/flow"
)

const mail = "From: a@customer.example\r\nTo: b@remote.example\r\nSubject: hello\r\n\tand more\r\n\r\nA line.\r\n"

func letter() *message.Message {
	return &message.Message{
		ID: "f1.1", Flow: &flow.Flow{User: flow.User{ID: 7, Name: "alice"}, Client: netip.MustParseAddrPort("192.0.2.7:40000")}, Helo: "mail.customer.example",
		Envelope: message.Envelope{From: "a@customer.example", To: []message.Address{"b@remote.example", "c@remote.example"}}, Data: []byte(mail), DataSize: int64(len(mail)),
	}
}

type fixed struct{ s policy.Settings }

func (f *fixed) Settings(uint32) *policy.Settings { return &f.s }

func defaults() *fixed {
	s := policy.Default()
	return &fixed{s}
}

func options(kind Kind, addresses ...string) Options {
	return Options{Name: "it", Kind: kind, Addresses: addresses, Timeout: 20 * time.Second, Failure: policy.Later, MaxSize: 1 << 20, Oversize: Begin, AtOnce: 4, Class: filter.Spam}
}

// check asks one plug-in about a message.
func check(t *testing.T, m *message.Message, s *fixed, all ...Options) filter.Verdict {
	t.Helper()
	ps := New(s, func(Event) {})
	ps.Configure(all)
	p := filter.NewPipeline(filter.Step{Name: "plugins", Phases: Phases, Check: ps})
	return p.Ask(context.Background(), filter.Data, m)
}

func said(v filter.Verdict) string {
	h := v.Decisive()
	if h == nil {
		return "accept"
	}
	return fmt.Sprintf("%s %s %v %d %s", h.Code, h.Class, h.Action, h.SMTP, h.Enhanced)
}

// TestEveryMessageGetsAnAnswer: whatever a plug-in does, a message goes on, is put off with 451 4.3.0, or is refused by it.
func TestEveryMessageGetsAnAnswer(t *testing.T) {
	t.Parallel()
	refused := map[Kind]string{Clamd: "VIRUS virus reject 550 5.7.1", Rspamd: "RSPAMD spam reject 550 5.7.1", Spamd: "SPAMASSASSIN spam reject 550 5.7.1", Milter: "MILTER spam reject 550 5.7.1"}
	for kind, objection := range refused {
		for _, does := range []behaviour{clean, objects, dead, slow, garbled, endless, leaves} {
			for _, failure := range []policy.Failure{policy.Later, policy.GoOn} {
				t.Run(fmt.Sprintf("%s/%s/%s", kind, does, failure), func(t *testing.T) {
					t.Parallel()
					o := options(kind, peer{kind: kind, does: does}.serve(t))
					o.Failure = failure
					if does == slow || does == endless {
						o.Timeout = 300 * time.Millisecond
					}
					began := time.Now()
					v := check(t, letter(), defaults(), o)
					if spent := time.Since(began); spent > 25*time.Second {
						t.Errorf("it was waited for, %v", spent)
					}
					want := "accept"
					switch {
					case does == objects:
						want = objection
					case does != clean && failure == policy.Later:
						want = "UNCHECKED policy defer 451 4.3.0"
					}
					if got := said(v); got != want {
						t.Errorf("the verdict is %q, want %q: %+v", got, want, v.Hits)
					}
					failed := does != clean && does != objects
					if told := len(v.Hits) > 0 && v.Hits[0].Code == "UNCHECKED"; told != failed {
						t.Errorf("the log hears of a failure: %t: %+v", told, v.Hits)
					}
				})
			}
		}
	}
}

// TestAUsersOwnWord beats the plug-in's setting, in both directions.
func TestAUsersOwnWord(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		plugin, user policy.Failure
		want         filter.Action
	}{{policy.Later, policy.AsPlugin, filter.Defer}, {policy.Later, policy.GoOn, filter.None}, {policy.GoOn, policy.AsPlugin, filter.None}, {policy.GoOn, policy.Later, filter.Defer}} {
		o := options(Clamd, peer{kind: Clamd, does: dead}.serve(t))
		o.Failure = c.plugin
		s := defaults()
		s.s.Content.Failure = c.user
		if v := check(t, letter(), s, o); v.Action != c.want {
			t.Errorf("plug-in %s, user %s: %s, want %v", c.plugin, c.user, said(v), c.want)
		}
	}
}

// TestWhatIsShown is the message with its envelope, as it came.
func TestWhatIsShown(t *testing.T) {
	t.Parallel()
	for kind, want := range map[Kind]string{
		Clamd: mail, Spamd: mail, Rspamd: "From=a@customer.example Rcpt=b@remote.example,c@remote.example Ip=192.0.2.7 Helo=mail.customer.example\n" + mail,
		Milter: "C [192.0.2.7] 4\x9c@192.0.2.7 \nH mail.customer.example \nM <a@customer.example> \nR <b@remote.example> \nR <c@remote.example> \n" +
			"L From a@customer.example \nL To b@remote.example \nL Subject hello\n\tand more \nN \nB A line.\r\n\n",
	} {
		var got string
		v := check(t, letter(), defaults(), options(kind, peer{kind: kind, does: clean, got: func(s string) { got = s }}.serve(t)))
		if v.Refused() || got != want {
			t.Errorf("%s was shown %q, want %q (%s)", kind, got, want, said(v))
		}
	}
}

// TestNotConfiguredIsNotDead: without plug-ins there is no hit and no cost.
func TestNotConfiguredIsNotDead(t *testing.T) {
	ps := New(defaults(), func(Event) {})
	m, ctx := letter(), context.Background()
	if n := testing.AllocsPerRun(100, func() {
		if hits := ps.Check(ctx, filter.Data, m, nil); hits != nil {
			t.Fatal(hits)
		}
	}); n != 0 {
		t.Errorf("%v allocations without a plug-in", n)
	}
	if ps.Figures() != nil {
		t.Error("there are figures of nothing")
	}
	ps.Look(ctx)
}

// TestAnswers holds what each program may say against what becomes of it.
func TestAnswers(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		kind       Kind
		says, want string
		no         bool // it must not lock
	}{
		{Clamd, "stream: Heuristics.Encrypted.Zip FOUND", "VIRUS virus reject 550 5.7.1", true},
		{Clamd, "stream: Own.Thing.UNOFFICIAL FOUND", "VIRUS virus reject 550 5.7.1", true},
		{Clamd, "stream: Trusted.Thing.UNOFFICIAL FOUND", "VIRUS virus reject 550 5.7.1", false},
		{Clamd, "stream: PUA.Win.Tool FOUND", "VIRUS virus reject 550 5.7.1", true},
		{Clamd, "INSTREAM size limit exceeded. ERROR", "accept", false},
		{Clamd, "stream: Can't allocate memory ERROR", "UNCHECKED policy defer 451 4.3.0", false},
		{Rspamd, `{"score":17.5,"required_score":15,"action":"soft reject"}`, "RSPAMD policy defer 451 4.7.1", false},
		{Rspamd, `{"score":7.5,"required_score":15,"action":"add header","messages":{"x":{"y":1}}}`, "accept", false},
		{Rspamd, `{"score":7.5,"required_score":15,"action":"eat it"}`, "UNCHECKED policy defer 451 4.3.0", false},
		{Rspamd, `{"error":"no"}`, "UNCHECKED policy defer 451 4.3.0", false},
		{Spamd, "SPAMD/1.1 76 Bad header line: (EX_PROTOCOL)\r\n\r\n", "UNCHECKED policy defer 451 4.3.0", false},
		{Spamd, "SPAMD/1.1 0 EX_OK\r\nSpam: True\r\n\r\n", "UNCHECKED policy defer 451 4.3.0", false},
		{Milter, "r", "MILTER spam reject 550 5.7.1", false},
		{Milter, "d", "MILTER spam reject 550 5.7.1", false},
		{Milter, "t", "MILTER policy defer 451 4.7.1", false},
		{Milter, "a", "accept", false},
		{Milter, "y421 4.3.2 later\x00", "MILTER policy defer 451 4.3.2", false},
		{Milter, "y554 no thanks\x00", "MILTER spam reject 554 5.7.1", false},
		{Milter, "y250 fine\x00", "UNCHECKED policy defer 451 4.3.0", false},
		{Milter, "qlook at it\x00|c", "MILTER spam quarantine 0 ", false},
		{Milter, "hX-Spam-Flag\x00YES\x00|c", "MILTER spam reject 550 5.7.1", false},
		{Milter, "hX-Spam-Flag\x00no\x00|bnew body|c", "accept", false},
	} {
		o := options(c.kind, peer{kind: c.kind, does: objects, says: c.says}.serve(t))
		o.Trusted, o.Marks = []string{"Trusted.*"}, []string{"X-Spam-Flag: yes"}
		v := check(t, letter(), defaults(), o)
		if got := said(v); got != c.want {
			t.Errorf("%s says %q: %q, want %q: %+v", c.kind, c.says, got, c.want, v.Hits)
		}
		if h := v.Decisive(); h != nil && h.NoLock != c.no {
			t.Errorf("%s says %q: locks: %t", c.kind, c.says, !h.NoLock)
		}
	}
}

// TestSizes: of what is too large the beginning is shown, or nothing, or it is refused; what lies on disk is shown, too.
func TestSizes(t *testing.T) {
	t.Parallel()
	whole := mail + strings.Repeat("x", 200<<10)
	for _, c := range []struct {
		name  string
		most  int64
		how   Oversize
		whole bool // the rest can be read
		shown int
		want  string
	}{
		{"all of it", 1 << 20, Begin, true, len(whole), "accept"},
		{"its beginning", 100 << 10, Begin, true, 100 << 10, "accept UNSCANNED"},
		{"nothing", 100 << 10, Pass, true, 0, "accept UNSCANNED"},
		{"refused", 100 << 10, Refuse, true, 0, "UNSCANNED policy reject 552 5.3.4"},
		{"the rest is not there", 1 << 20, Begin, false, 64 << 10, "accept UNSCANNED"},
	} {
		m := letter()
		m.Data, m.DataSize = []byte(whole[:64<<10]), int64(len(whole))
		if c.whole {
			m.Whole = strings.NewReader(whole)
		}
		var got string
		o := options(Clamd, peer{kind: Clamd, does: clean, got: func(s string) { got = s }}.serve(t))
		o.MaxSize, o.Oversize = c.most, c.how
		v := check(t, m, defaults(), o)
		answer := said(v)
		if answer == "accept" && len(v.Hits) > 0 {
			answer += " " + v.Hits[0].Code
		}
		if answer != c.want || got != whole[:c.shown] {
			t.Errorf("%s: %q, %d bytes shown, want %q, %d", c.name, answer, len(got), c.want, c.shown)
		}
	}
}

// TestHeardOnly: by the plug-in's setting, or where the user's spam is only told of.
func TestHeardOnly(t *testing.T) {
	t.Parallel()
	at := peer{kind: Spamd, does: objects}.serve(t)
	o := options(Spamd, at)
	o.NoteOnly = true
	unblocked := defaults()
	unblocked.s.Content.BlockSpam = false
	for name, v := range map[string]filter.Verdict{"note": check(t, letter(), defaults(), o), "block_spam": check(t, letter(), unblocked, options(Spamd, at))} {
		if v.Refused() || v.Class != filter.Spam || len(v.Hits) != 1 || !strings.Contains(v.Hits[0].Evidence, "not refused: ") || !strings.Contains(v.Hits[0].Evidence, "URI_BAD") {
			t.Errorf("%s: %s %+v", name, said(v), v.Hits)
		}
	}
}

// TestFailOver: while one instance answers, nobody notices that another is dead or slow.
func TestFailOver(t *testing.T) {
	t.Parallel()
	for _, does := range []behaviour{dead, slow, garbled} {
		o := options(Clamd, peer{kind: Clamd, does: does}.serve(t), peer{kind: Clamd, does: objects}.serve(t))
		o.Timeout = 4 * time.Second
		if does != slow {
			o.Timeout = 30 * time.Second
		}
		for range 2 { // each of both is asked first once
			if v := check(t, letter(), defaults(), o); said(v) != "VIRUS virus reject 550 5.7.1" {
				t.Errorf("with one %s: %s %+v", does, said(v), v.Hits)
			}
		}
	}
}

// TestOrder: what is refused already is not asked about, but a virus is looked for in spam.
func TestOrder(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	asked := map[Kind]int{}
	var all []Options
	for _, kind := range []Kind{Clamd, Rspamd, Spamd, Milter} {
		o := options(kind, peer{kind: kind, does: clean, got: func(string) { mu.Lock(); asked[kind]++; mu.Unlock() }}.serve(t))
		all = append(all, o)
	}
	ps := New(defaults(), func(Event) {})
	ps.Configure(all)
	for _, c := range []struct {
		hit filter.Hit
		all int
	}{
		{filter.Hit{Class: filter.Virus, Action: filter.Reject}, 0}, {filter.Hit{Class: filter.Spam, Action: filter.Reject}, 1}, {filter.Hit{Class: filter.Spam}, 4},
		{filter.Hit{Class: filter.Policy, Action: filter.Defer}, 4},
	} {
		clear(asked)
		if hits := ps.Check(context.Background(), filter.Data, letter(), []filter.Hit{c.hit}); len(hits) != 1 {
			t.Errorf("%+v: %+v", c.hit, hits)
		}
		if len(asked) != c.all || c.all > 0 && asked[Clamd] != 1 {
			t.Errorf("%+v: asked %v, want %d", c.hit, asked, c.all)
		}
	}
}
