package limit

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"sluice/filter"
	"sluice/filter/message"
	"sluice/filter/policy"
	"sluice/intercept/flow"
)

// fixed are the same settings for everybody.
type fixed struct{ s policy.Settings }

func (f *fixed) Settings(uint32) *policy.Settings { return &f.s }

// bound is one limit.
func bound(k policy.LimitKind, most int64) *policy.Limits {
	l := &policy.Limits{}
	l.Max[k] = most
	return l
}

// sender sends messages, each in a flow of its own.
type sender struct {
	r    *Rate
	next flow.ID
}

// send is one message to so many recipients; it returns what was refused first, at either phase.
func (s *sender) send(user uint32, identity string, size int64, final int, to ...string) *filter.Hit {
	s.next++
	m := mail(s.next, user)
	m.Identity = identity
	for _, a := range to {
		m.Rcpt = message.Address(a)
		v := filter.Judge(s.r.Check(context.Background(), filter.Rcpt, m, nil))
		if v.Refused() {
			s.r.Settle(m, filter.Outcome{})
			return v.Decisive()
		}
		m.Envelope.To = append(m.Envelope.To, m.Rcpt)
	}
	m.Rcpt, m.DataSize = "", size
	v := filter.Judge(s.r.Check(context.Background(), filter.Data, m, nil))
	if v.Refused() {
		s.r.Settle(m, filter.Outcome{})
		return v.Decisive()
	}
	out := filter.Outcome{Verdict: &v}
	if final == 250 {
		out.Accepted = len(to)
	}
	s.r.Settle(m, out)
	return nil
}

func TestEveryWindow(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		kind policy.LimitKind
		code string
		text string
	}{
		{policy.MessagesMinute, "RATE-MSG", "this sender has reached its limit of 6 messages per minute; try again in "},
		{policy.MessagesDay, "RATE-MSG", "this sender has reached its limit of 6 messages per day; try again in "},
		{policy.MessagesWeek, "RATE-MSG", "this sender has reached its limit of 6 messages per week; try again in "},
		{policy.MessagesMonth, "RATE-MSG", "this sender has reached its limit of 6 messages per month; try again in "},
		{policy.RecipientsMinute, "RATE-RCPT", "this sender has reached its limit of 6 recipients per minute; try again in "},
		{policy.RecipientsDay, "RATE-RCPT", "this sender has reached its limit of 6 recipients per day; try again in "},
	} {
		t.Run(c.kind.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				set := &fixed{policy.Settings{Limits: bound(c.kind, 6)}}
				s := &sender{r: NewRate(NewCounts(0), set, nil)}
				time.Sleep(time.Until(time.Now().Truncate(30 * 24 * time.Hour).Add(60 * 24 * time.Hour))) // a slot's start
				for i := range 6 {
					if h := s.send(1, "", 100, 250, "a@sink.example"); h != nil {
						t.Fatalf("message %d: %+v", i+1, h)
					}
				}
				h := s.send(1, "", 100, 250, "a@sink.example")
				if h == nil || h.Code != c.code || h.SMTP != 451 {
					t.Fatalf("message 7: %+v", h)
				}
				if !strings.HasPrefix(h.Text, c.text) {
					t.Errorf("text is %q, want %q and how long", h.Text, c.text)
				}
				if h := s.send(2, "", 100, 250, "a@sink.example"); h != nil {
					t.Errorf("another user: %+v", h)
				}
				time.Sleep(c.kind.Window() - time.Second)
				if s.send(1, "", 100, 250, "a@sink.example") == nil {
					t.Error("it passed before the window was over")
				}
				time.Sleep(c.kind.Window()/Slots + 3*time.Second)
				if h := s.send(1, "", 100, 250, "a@sink.example"); h != nil {
					t.Errorf("after the window: %+v", h)
				}
			})
		})
	}
}

func TestAGreylistedMessageCountsOnce(t *testing.T) {
	t.Parallel()
	s := &sender{r: NewRate(NewCounts(0), &fixed{policy.Settings{Limits: bound(policy.MessagesDay, 2)}}, nil)}
	for range 10 {
		if h := s.send(1, "", 100, 451, "a@sink.example"); h != nil {
			t.Fatalf("a retry is refused: %+v", h)
		}
	}
	for range 2 {
		if h := s.send(1, "", 100, 250, "a@sink.example"); h != nil {
			t.Fatal(h)
		}
	}
	if s.send(1, "", 100, 250, "a@sink.example") == nil {
		t.Error("the third passed")
	}
}

func TestBytes(t *testing.T) {
	t.Parallel()
	s := &sender{r: NewRate(NewCounts(0), &fixed{policy.Settings{Limits: bound(policy.BytesDay, 1000)}}, nil)}
	for _, c := range []struct {
		size int64
		code string
	}{{600, ""}, {401, "RATE-BYTES"}, {400, ""}, {1, "RATE-BYTES"}} {
		h := s.send(1, "", c.size, 250, "a@sink.example", "b@sink.example")
		if got := codeOf(h); got != c.code {
			t.Errorf("%d bytes: %q, want %q", c.size, got, c.code)
		}
	}
}

func codeOf(h *filter.Hit) string {
	if h == nil {
		return ""
	}
	return h.Code
}

func TestDistinctRecipients(t *testing.T) {
	t.Parallel()
	c := NewCounts(0)
	s := &sender{r: NewRate(c, &fixed{policy.Settings{Limits: bound(policy.DistinctDay, 3)}}, nil)}
	for i, step := range []struct {
		to    string
		final int
		code  string
	}{
		{"a@sink.example", 250, ""}, {"A@SINK.example", 250, ""}, {"b@sink.example", 451, ""}, {"b@sink.example", 250, ""}, {"c@sink.example", 250, ""},
		{"d@sink.example", 250, "RATE-DISTINCT"}, {"b@sink.example", 250, ""},
	} {
		if got := codeOf(s.send(1, "", 1, step.final, step.to)); got != step.code {
			t.Errorf("step %d, to %s: %q, want %q", i, step.to, got, step.code)
		}
	}
	k := Key{User: 1, What: Distinct, Window: 24 * time.Hour}
	if n, wrong := c.Different(k); n != 3 || wrong != 0 {
		t.Errorf("%d different recipients, wrong by %g", n, wrong)
	}
	if h := s.send(2, "", 1, 250, "a@x.example", "b@x.example", "c@x.example", "d@x.example"); codeOf(h) != "RATE-DISTINCT" {
		t.Errorf("four at once: %+v", h)
	}
}

// TestManyDistinctRecipients: exact up to its bound, then within three standard errors, over a restart, and old ones leave.
func TestManyDistinctRecipients(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		k := Key{User: 1, What: Distinct, Window: 24 * time.Hour}
		c, rnd := NewCounts(0), rand.New(rand.NewPCG(1, 2))
		n := 0
		add := func(more int) {
			var hs []uint64
			for range more {
				n++
				hs = append(hs, hashOf(fmt.Sprint(n, "@sink.example")))
			}
			for range more / 2 { // some of them twice
				hs = append(hs, hashOf(fmt.Sprint(rnd.IntN(n)+1, "@sink.example")))
			}
			c.SettleNew(k, 0, hs)
		}
		look := func(what string, want int) {
			t.Helper()
			got, wrong := c.Different(k)
			if diff := float64(got-want) / float64(max(want, 1)); diff > 3*wrong || diff < -3*wrong {
				t.Errorf("%s: %d different ones of %d, allowed is an error of %.1f %%", what, got, want, 300*wrong)
			}
			if exact := wrong == 0; exact != (want <= Exact) {
				t.Errorf("%s: the error is said to be %g", what, wrong)
			}
		}
		restart := func() {
			t.Helper()
			b := c.Append(nil)
			c = NewCounts(0)
			if err := c.Restore(b); err != nil {
				t.Fatal(err)
			}
		}
		add(Exact)
		look("as many as are exact", Exact)
		restart()
		look("after a restart", Exact)
		add(1)
		look("one more", Exact+1)
		add(40_000)
		look("fifty thousand", n)
		restart()
		look("after a restart", n)
		before := n
		time.Sleep(12 * time.Hour)
		add(20_000)
		look("twelve hours later", n)
		time.Sleep(12*time.Hour + 30*time.Minute)
		got, _ := c.Different(k)
		if got > (n-before)*105/100 || got < (n-before)/2 { // those met again count as well
			t.Logf("%d are left, %d came in the second half", got, n-before)
		}
		time.Sleep(13 * time.Hour)
		look("when all have left", 0)
	})
}

func TestIdentitiesHaveLimitsOfTheirOwn(t *testing.T) {
	t.Parallel()
	set := policy.Settings{Limits: bound(policy.MessagesDay, 5), PerIdentity: bound(policy.MessagesHour, 2)}
	set.PerIdentity.Max[policy.RecipientsHour] = 3
	s := &sender{r: NewRate(NewCounts(0), &fixed{set}, nil)}
	for i, step := range []struct{ identity, code string }{
		{"a", ""}, {"a", ""}, {"a", "RATE-MSG"}, {"b", ""}, {"", ""}, {"c", ""}, {"d", "RATE-MSG"}, // the user's own count in any case
	} {
		h := s.send(1, step.identity, 1, 250, "x@sink.example")
		if codeOf(h) != step.code {
			t.Errorf("step %d, %q: %+v, want %q", i, step.identity, h, step.code)
		}
	}
	// An identity that the header tells is known with the data only.
	late := mail(99, 2)
	late.Envelope.To = []message.Address{"1@x.example", "2@x.example", "3@x.example", "4@x.example"}
	late.Identity = "a"
	if v := filter.Judge(s.r.Check(context.Background(), filter.Data, late, nil)); !v.Refused() || v.Decisive().Code != "RATE-RCPT" {
		t.Errorf("at data: %+v", v)
	}
	s.r.Settle(late, filter.Outcome{})
}

func TestBudgetsAreShared(t *testing.T) {
	t.Parallel()
	house := &policy.Budget{Scope: policy.OfAccount, ID: 7, Name: "house", Limits: bound(policy.RecipientsHour, 3)}
	net := &policy.Budget{Scope: policy.OfNetwork, Limits: bound(policy.RecipientsHour, 5)}
	c := NewCounts(0)
	s := &sender{r: NewRate(c, &fixed{policy.Settings{Limits: policy.DefaultLimits(), Budgets: &policy.Budgets{house, net}}}, nil)}
	for user := range uint32(3) {
		if h := s.send(user+1, "", 1, 250, "x@sink.example"); h != nil {
			t.Fatal(h)
		}
	}
	h := s.send(4, "", 1, 250, "x@sink.example")
	if codeOf(h) != "RATE-RCPT" || h.Evidence != "recipients_per_hour 3 of the account house" {
		t.Errorf("the fourth of three: %+v", h)
	}
	if _, reserved := c.Count(Key{Scope: policy.OfNetwork, What: Recipients, Window: time.Hour}); reserved != 0 {
		t.Errorf("%d stay reserved in the network", reserved)
	}
	s.r.settings = &fixed{policy.Settings{Budgets: &policy.Budgets{net}}} // of another account
	for _, want := range []string{"", "", "RATE-RCPT"} {
		if h := s.send(9, "", 1, 250, "x@sink.example"); codeOf(h) != want {
			t.Errorf("in the network: %+v, want %q", h, want)
		}
	}
}

func TestActionsTextsAndShadow(t *testing.T) {
	t.Parallel()
	l := bound(policy.MessagesDay, 1)
	l.Action[policy.MessagesDay], l.Text[policy.MessagesDay] = policy.RejectOver, "your plan allows one message a day"
	var told []Over
	set := &fixed{policy.Settings{Limits: l}}
	s := &sender{r: NewRate(NewCounts(0), set, func(o Over) { told = append(told, o) })}
	s.send(1, "", 1, 250, "x@sink.example")
	if h := s.send(1, "", 1, 250, "x@sink.example"); h == nil || h.SMTP != 550 || h.Enhanced != "5.7.1" || h.Action != filter.Reject || h.Text != l.Text[policy.MessagesDay] {
		t.Errorf("over the limit: %+v", h)
	}
	if len(told) != 1 || told[0].Kind != policy.MessagesDay || told[0].Action != policy.RejectOver || told[0].Shadow || told[0].Code != "RATE-MSG" {
		t.Errorf("told: %+v", told)
	}
	shadow := *l
	shadow.Shadow[policy.MessagesDay] = true
	set.s.Limits, told = &shadow, nil
	m := mail(1000, 1)
	if refused(s.r, m, "x@sink.example") {
		t.Fatal("a limit that is only reported refuses")
	}
	hits := s.r.Check(context.Background(), filter.Data, m, nil)
	if v := filter.Judge(hits); len(hits) != 1 || v.Refused() || v.Class != filter.Clean || hits[0].Evidence != "only reported: messages_per_day 1 of the user" {
		t.Errorf("at data: %+v", hits)
	}
	if len(told) != 1 || !told[0].Shadow {
		t.Errorf("told: %+v", told)
	}
	s.r.Settle(m, filter.Outcome{Accepted: 1})
	if b, r := s.r.counter.Count(Key{User: 1, What: Messages, Window: 24 * time.Hour}); b != 2 || r != 0 {
		t.Errorf("booked %d, reserved %d", b, r)
	}
}

func TestInvalidRecipientsAndFailures(t *testing.T) {
	t.Parallel()
	l := policy.DefaultLimits()
	s := &sender{r: NewRate(NewCounts(0), &fixed{policy.Settings{Limits: l}}, nil)}
	for range 5 {
		s.send(1, "", 1, 250, "x@sink.example")
	}
	s.r.Settle(mail(1, 1), filter.Outcome{Invalid: policy.LeastInvalid - 1})
	if h := s.send(1, "", 1, 250, "x@sink.example"); h != nil {
		t.Fatalf("below the least number: %+v", h)
	}
	Undelivered(s.r.counter, 1, 0, 1) // what a notice told later
	if h := s.send(1, "", 1, 250, "x@sink.example"); codeOf(h) != "RATE-INVALID" || h.SMTP != 451 {
		t.Errorf("20 of 26: %+v", h)
	}
	for range 200 {
		s.r.Settle(mail(2, 1), filter.Outcome{Accepted: 1})
	}
	if h := s.send(1, "", 1, 250, "x@sink.example"); h != nil {
		t.Errorf("20 of 226 are below ten in a hundred: %+v", h)
	}
	l.Max[policy.InvalidHour] = 20
	if h := s.send(1, "", 1, 250, "x@sink.example"); codeOf(h) != "RATE-INVALID" {
		t.Errorf("20 of 20: %+v", h)
	}
	l.Max[policy.InvalidHour], l.Max[policy.FailedHour] = 0, 2
	for _, want := range []string{"", "", "RATE-FAILED"} {
		if h := s.send(1, "", 1, 250, "x@sink.example"); codeOf(h) != want {
			t.Errorf("%+v, want %q", h, want)
		}
		s.r.Settle(mail(3, 1), filter.Outcome{Failed: 1})
	}
}

func TestOldFormIsRead(t *testing.T) {
	t.Parallel()
	c := NewCounts(0)
	k := hourly(7, Messages)
	at := uint64(slotOf(c.now(), k.Window))
	b := []byte{0x31, 0x4d, 0x49, 0x4c}
	for _, v := range []uint64{7, 0, uint64(time.Hour), 1, at, 12} {
		b = appendUvarint(b, v)
	}
	if err := c.Restore(b); err != nil {
		t.Fatal(err)
	}
	if n, _ := c.Count(k); n != 12 {
		t.Errorf("%d are booked, want 12", n)
	}
}

func appendUvarint(b []byte, v uint64) []byte {
	for v >= 0x80 {
		b = append(b, byte(v)|0x80)
		v >>= 7
	}
	return append(b, byte(v))
}

// BenchmarkAllLimits is a message against every kind of limit, of identity, user, account, plan and network.
func BenchmarkAllLimits(b *testing.B) {
	all := &policy.Limits{}
	for k := range policy.LimitKinds {
		all.Max[k] = 1 << 40
	}
	var bs policy.Budgets
	for s := policy.OfAccount; s < policy.Scopes; s++ {
		bs = append(bs, &policy.Budget{Scope: s, ID: 1, Limits: all})
	}
	r := NewRate(NewCounts(0), &fixed{policy.Settings{Limits: all, PerIdentity: all, Budgets: &bs}}, nil)
	ctx := context.Background()
	var rcpts [1024]message.Address
	for i := range rcpts {
		rcpts[i] = message.Address(fmt.Sprint(i, "@sink.example"))
	}
	b.ReportAllocs()
	for i := range b.N {
		m := mail(flow.ID(i), uint32(i&1023))
		m.Identity, m.Rcpt = "shop", rcpts[i&1023]
		r.Check(ctx, filter.Rcpt, m, nil)
		m.Envelope.To = append(m.Envelope.To, m.Rcpt)
		m.DataSize = 10_000
		if hits := r.Check(ctx, filter.Data, m, nil); len(hits) != 0 {
			b.Fatal(hits)
		}
		r.Settle(m, filter.Outcome{Accepted: 1})
	}
}

// TestHourAtOnce: the limits of an hour that are asked at once decide, and count, as each of them by itself.
func TestHourAtOnce(t *testing.T) {
	t.Parallel()
	for seed := range uint64(200) {
		synctest.Test(t, func(t *testing.T) {
			rnd := rand.New(rand.NewPCG(seed, 1))
			l := &policy.Limits{}
			for k, most := range [policy.LimitKinds]int{policy.MessagesHour: 12, policy.RecipientsHour: 30, policy.InvalidHour: 8, policy.InvalidShare: 60, policy.FailedHour: 4, policy.NullHour: 2} {
				if most > 0 && rnd.IntN(2) == 0 {
					l.Max[k], l.Shadow[k] = int64(1+rnd.IntN(most)), rnd.IntN(8) == 0
				}
			}
			counts := [2]*Counts{NewCounts(0), NewCounts(0)}
			rates := [2]*Rate{ // who shares budgets, if only none, is asked limit by limit
				NewRate(counts[0], &fixed{policy.Settings{Limits: l}}, nil),
				NewRate(counts[1], &fixed{policy.Settings{Limits: l, Budgets: &policy.Budgets{}}}, nil),
			}
			for i := range 60 {
				rcpts, out := 1+rnd.IntN(4), filter.Outcome{Invalid: rnd.IntN(4), Failed: rnd.IntN(8) / 7}
				from, lost, sent := message.Address("a@b.example"), rnd.IntN(5) == 0, rnd.IntN(5) > 0
				if rnd.IntN(6) == 0 {
					from = ""
				}
				var said [2]string
				for j, r := range rates {
					m, o := mail(flow.ID(i), 7), out
					m.Envelope.From = from
					for n := range rcpts {
						was := len(m.Envelope.To)
						if refused(r, m, message.Address(fmt.Sprint(n, "@sink.example"))) {
							said[j] += fmt.Sprint(" ", n, " refused")
						}
						if lost && len(m.Envelope.To) > was && n == 0 {
							m.Envelope.To = m.Envelope.To[:was] // the destination does not take him
						}
					}
					if sent {
						o.Accepted = len(m.Envelope.To)
					}
					r.Settle(m, o)
					for q := Messages; q <= Failed; q++ {
						booked, reserved := counts[j].Count(hourly(7, q))
						said[j] += fmt.Sprint(" ", booked, "+", reserved)
					}
				}
				if said[0] != said[1] {
					t.Fatalf("seed %d, message %d, limits %v: at once%s, each%s", seed, i, l.Max, said[0], said[1])
				}
				time.Sleep(time.Duration(rnd.IntN(4)) * time.Minute)
			}
		})
	}
}
