package limit

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"

	"sluice/filter"
	"sluice/filter/message"
	"sluice/filter/policy"
	"sluice/intercept/flow"
)

// changing are settings that another reload changes with every question.
type changing struct {
	all []*policy.Settings
	n   atomic.Uint64
}

func (c *changing) Settings(uint32) *policy.Settings { return c.all[c.n.Add(1)*7/5%uint64(len(c.all))] }

// TestWhatIsReservedIsGivenBack: whatever becomes of messages, and of limits while they come, nothing stays reserved, and all that was
// sent is booked; what is saved meanwhile is read again.
func TestWhatIsReservedIsGivenBack(t *testing.T) {
	t.Parallel()
	most := func(n int64, kinds ...policy.LimitKind) *policy.Limits {
		l := &policy.Limits{}
		for _, k := range kinds {
			l.Max[k] = n
		}
		return l
	}
	hour := []policy.LimitKind{policy.MessagesHour, policy.RecipientsHour, policy.InvalidShare, policy.FailedHour, policy.NullHour}
	usual, tight, day := most(100_000, hour...), most(20, hour...), most(100_000, policy.MessagesDay, policy.RecipientsMinute, policy.BytesDay, policy.DistinctDay)
	shadow := most(3, append(hour, policy.DistinctDay)...)
	for _, k := range hour {
		shadow.Shadow[k] = true
	}
	budgets := &policy.Budgets{{Scope: policy.OfAccount, ID: 3, Limits: day}, {Scope: policy.OfNetwork, Limits: most(50_000, hour...)}}
	set := &changing{all: []*policy.Settings{
		{Limits: usual}, {Limits: usual}, {Limits: tight}, {}, {Limits: day}, {Limits: usual}, {Limits: shadow}, {Limits: usual, Budgets: budgets}, {PerIdentity: day}, {PerIdentity: tight, Limits: usual},
	}}
	c := NewCounts(0)
	r := NewRate(c, set, nil)
	r.Waiting = NewWaiting(func(uint32) int { return 0 })
	const users, sessions = 5, 16
	var sent [users + 1]atomic.Int64
	var all sync.WaitGroup
	stop := make(chan struct{})
	var saves sync.WaitGroup
	saves.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			if err := NewCounts(0).Restore(c.Append(nil)); err != nil {
				t.Error(err)
			}
			c.Len()
		}
	})
	for s := range sessions {
		all.Go(func() {
			rnd := rand.New(rand.NewPCG(uint64(s), 9))
			for range 400 {
				m := mail(flow.ID(s), 1+rnd.Uint32N(users))
				if m.HandedIn = rnd.IntN(4) == 0; rnd.IntN(8) > 0 {
					m.Envelope.From = "a@b.example"
				}
				for i := range rnd.IntN(4) {
					refused(r, m, message.Address(fmt.Sprint(i, "@sink.example")))
				}
				if rnd.IntN(3) == 0 {
					m.DataSize = 1000
					r.Check(t.Context(), filter.Part, m, nil)
				}
				if rnd.IntN(4) > 0 {
					m.Identity, m.DataSize = []string{"", "shop"}[rnd.IntN(2)], 5000
					r.Check(t.Context(), filter.Data, m, nil)
				}
				out := filter.Outcome{Invalid: rnd.IntN(2), Failed: rnd.IntN(9) / 8}
				if rnd.IntN(3) > 0 {
					out.Accepted = len(m.Envelope.To)
				}
				r.Settle(m, out)
				sent[m.Flow.User.ID].Add(int64(out.Accepted))
				r.Settle(m, filter.Outcome{}) // it is settled
			}
		})
	}
	all.Wait()
	close(stop)
	saves.Wait()
	for user := range uint32(users) + 1 {
		if n, _ := c.Count(hourly(user, Recipients)); int64(n) != sent[user].Load() {
			t.Errorf("user %d: %d recipients are booked, want %d", user, n, sent[user].Load())
		}
	}
	for i := range c.shards {
		for w, a := range c.shards[i].accounts {
			for k, e := range a.all(w) {
				if e.reserved != 0 {
					t.Errorf("%d of %+v stay reserved", e.reserved, k)
				}
			}
		}
	}
	for i := range c.distinct.shards {
		for k, e := range c.distinct.shards[i].keys {
			if e.reserved != 0 {
				t.Errorf("%d of %+v stay reserved", e.reserved, k)
			}
		}
	}
	if n := len(r.Waiting.coming); n != 0 {
		t.Errorf("%d users have places in the queue", n)
	}
}

// TestWhatIsUnderWayCounts: messages and recipients that nobody has taken yet have their places, and give them back where they
// are not taken, whether the limits of an hour are asked at once or, as for the null sender, by themselves.
func TestWhatIsUnderWayCounts(t *testing.T) {
	t.Parallel()
	for _, from := range []message.Address{"a@b.example", ""} {
		for kind, code := range map[policy.LimitKind]string{policy.MessagesHour: "RATE-MSG", policy.RecipientsHour: "RATE-RCPT"} {
			l := &policy.Limits{}
			l.Max[kind] = 3
			r := NewRate(NewCounts(0), &fixed{policy.Settings{Limits: l}}, nil)
			begin := func(id flow.ID) (m *message.Message, code string) {
				m = mail(id, 1)
				m.Envelope.From, m.Rcpt = from, "x@sink.example"
				v := filter.Judge(r.Check(t.Context(), filter.Rcpt, m, nil))
				code = codeOf(v.Decisive())
				m.Envelope.To = append(m.Envelope.To, m.Rcpt)
				return m, code
			}
			var open []*message.Message
			for i := range flow.ID(3) {
				m, code := begin(i)
				if open = append(open, m); code != "" {
					t.Errorf("from %q, %s: message %d of 3: %s", from, kind, i+1, code)
				}
			}
			over, got := begin(3)
			if got != code {
				t.Errorf("from %q, %s: a fourth beside three: %q, want %s", from, kind, got, code)
			}
			r.Settle(over, filter.Outcome{})
			r.Settle(open[0], filter.Outcome{})
			r.Settle(open[1], filter.Outcome{Accepted: 1})
			if _, got := begin(4); got != "" {
				t.Errorf("from %q, %s: in the place of one that failed: %s", from, kind, got)
			}
			if _, got := begin(5); got != code {
				t.Errorf("from %q, %s: in the place of one that was sent: %q, want %s", from, kind, got, code)
			}
		}
	}
}
