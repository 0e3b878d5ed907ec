package pool

import (
	"context"
	"testing"
	"time"
)

// TestDecideAgain: for a moment the same is not asked anew; anything that could change the answer is.
func TestDecideAgain(t *testing.T) {
	t.Parallel()
	at := time.Now()
	base := Question{Key: Key{7, "plain.example", "dest.example"}, To: mx, Auto: true, At: at}
	for name, c := range map[string]struct {
		change func(a *Authority, p **Pool, c *Choices, q *Question)
		anew   bool
	}{
		"the same":              {func(_ *Authority, _ **Pool, _ *Choices, q *Question) { q.At = at.Add(900 * time.Millisecond) }, false},
		"later":                 {func(_ *Authority, _ **Pool, _ *Choices, q *Question) { q.At = at.Add(time.Second) }, true},
		"a clock set back":      {func(_ *Authority, _ **Pool, _ *Choices, q *Question) { q.At = at.Add(-time.Minute) }, true},
		"another sender":        {func(_ *Authority, _ **Pool, _ *Choices, q *Question) { q.Sender = "other.example" }, true},
		"another recipient":     {func(_ *Authority, _ **Pool, _ *Choices, q *Question) { q.Recipient = "more.example" }, true},
		"another user":          {func(_ *Authority, _ **Pool, _ *Choices, q *Question) { q.User = 8 }, true},
		"known to be signed":    {func(_ *Authority, _ **Pool, _ *Choices, q *Question) { q.Signed = true }, true},
		"another pool":          {func(_ *Authority, p **Pool, _ *Choices, _ *Question) { *p = threeAddresses(t) }, true},
		"something was adopted": {func(_ *Authority, _ **Pool, c *Choices, _ *Question) { c.put(1, choice{outA, 9, at.Unix()}) }, true},
		"bounds":                {func(a *Authority, _ **Pool, _ *Choices, _ *Question) { a.Ledger.Configure(Terms{PerHour: 5}) }, true},
	} {
		a, p, choices, q := (&fakeDNS{}).authority(), threeAddresses(t), new(Choices), base
		var r Recent
		first := a.DecideAgain(context.Background(), p, choices, &q, &r)
		a.targets[mx].exchanger = time.Time{} // a decision notes it
		c.change(a, &p, choices, &q)
		again := a.DecideAgain(context.Background(), p, choices, &q, &r)
		if anew := !a.targets[mx].exchanger.IsZero(); anew != c.anew || first.Why != Exchanger || !c.anew && again != first {
			t.Errorf("%s: asked anew %t; %+v, then %+v", name, anew, first, again)
		}
		if n := a.Counts()[Exchanger.Name()]; n != 2 {
			t.Errorf("%s: %d decisions are counted, not 2", name, n)
		}
	}
}

// TestRelaysAreCountedEach: what is learnt of each mail is not left out.
func TestRelaysAreCountedEach(t *testing.T) {
	t.Parallel()
	a, p, at := (&fakeDNS{}).authority(), threeAddresses(t), time.Now()
	var r Recent
	for range 3 {
		a.DecideAgain(context.Background(), p, new(Choices), &Question{Key: Key{7, "plain.example", "dest.example"}, To: smart, Auto: true, At: at}, &r)
	}
	if all := a.Relays(at); len(all) != 1 || all[0].Mails != 3 {
		t.Errorf("%+v", all)
	}
}
