package habit

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"sluice/filter"
	"sluice/filter/content"
	"sluice/filter/content/view"
	"sluice/filter/message"
	"sluice/intercept/flow"
)

// desk is a sender on a clock.
type desk struct {
	h    *Habits
	now  time.Time
	user uint32
	who  string
}

func newDesk(most int) *desk {
	d := &desk{now: time.Unix(1_800_000_000, 0).Truncate(24 * time.Hour).Add(9 * time.Hour), user: 7}
	d.h = New(most, func() time.Time { return d.now })
	return d
}

const (
	letterEN = "Dear colleague, this is the report that you have asked for; please send your comments to the desk with the number."
	letterDE = "Sehr geehrte Damen und Herren, wir haben die Rechnung nicht erhalten. Bitte senden Sie uns das für den Vertrag auf dem Postweg und nicht per Fax."
	letterRU = "Уважаемый клиент, ваш счёт был заблокирован, подтвердите данные сегодня."
)

// mail sends one message and returns the codes of what is unlike the sender.
func (d *desk) mail(text string, p float64, to ...string) string {
	m := &message.Message{Flow: &flow.Flow{User: flow.User{ID: d.user}}, Identity: d.who}
	for _, a := range to {
		m.Envelope.To = append(m.Envelope.To, message.Address(a))
	}
	o := &content.Opinion{Probability: p}
	if p >= 0.98 {
		o.Class = filter.Spam
	}
	hits, _ := d.h.Watch(m, &view.View{Text: []byte(text)}, o, content.DefaultThresholds, nil)
	var codes []string
	for _, h := range hits {
		if !h.Weighs || h.Action != filter.None || h.Evidence == "" || content.Weights[h.Code].Of(h.Points) <= 0 {
			return fmt.Sprintf("%+v", h)
		}
		codes = append(codes, h.Code)
	}
	return strings.Join(codes, " ")
}

// weeks has the desk write to the same people on so many days.
func (d *desk) weeks(days int) {
	for range days {
		for i := range 12 {
			d.mail(letterEN, 0.01, fmt.Sprintf("friend%d@x.example", i))
			d.now = d.now.Add(20 * time.Minute)
		}
		d.now = d.now.Truncate(24 * time.Hour).Add(33 * time.Hour)
	}
}

// TestStolenDesk: whoever writes to the same dozen people for a week, and then to hundreds that are new, is unlike himself in
// recipients, number and language; what looks good all the same nobody is told of.
func TestStolenDesk(t *testing.T) {
	t.Parallel()
	d := newDesk(0)
	d.weeks(7)
	for i := range 12 {
		if got := d.mail(letterEN, 0.3, fmt.Sprintf("FRIEND%d@x.example", i)); got != "" {
			t.Errorf("on a usual day: %s", got)
		}
	}
	if got := d.mail(letterDE, 0.3, "friend1@x.example"); got != CodeLanguage {
		t.Errorf("in German: %q", got)
	}
	if got := d.mail(letterRU, 0.3, "friend1@x.example"); got != CodeLanguage {
		t.Errorf("in Russian: %q", got)
	}
	d.now = d.now.Add(3 * time.Hour)
	seen := map[string]int{}
	for i := range 100 {
		if got := d.mail(letterEN, 0.99, fmt.Sprintf("stranger%d@y.example", i)); got != "" && seen[got] == 0 {
			seen[got] = i + 1
		}
	}
	if seen[CodeStrangers] != fewStrangers || seen[CodeStrangers+" "+CodeBulk] != bulk {
		t.Errorf("it shows at messages %v", seen)
	}
	if got := d.mail(letterDE, 0.01, "another@y.example"); got != "" {
		t.Errorf("of good mail it is said: %s", got)
	}
}

// TestUsualBulk: a newsletter goes to strangers each day, and nobody is surprised; a sender without habits who begins with
// hundreds is told of once these are many.
func TestUsualBulk(t *testing.T) {
	t.Parallel()
	d := newDesk(0)
	for day := range 5 {
		for i := range 300 {
			got := d.mail(letterEN, 0.3, fmt.Sprintf("reader%d-%d@z.example", day, i))
			if day == 0 && (got == CodeBulk) != (i+1 >= firstBulk) || day >= leastDays && got != "" {
				t.Fatalf("day %d, reader %d: %q", day, i, got)
			}
		}
		d.now = d.now.Add(24 * time.Hour)
	}
}

// TestIdentitiesHaveHabits of their own, and so has each user.
func TestIdentitiesHaveHabits(t *testing.T) {
	t.Parallel()
	d := newDesk(0)
	d.who = "boss"
	d.weeks(7)
	for _, who := range []string{"web", ""} {
		if d.who = who; d.mail(letterDE, 0.3, "friend1@x.example") != "" {
			t.Errorf("%q has the boss's habits", who)
		}
	}
	if d.who = "boss"; d.mail(letterDE, 0.3, "friend1@x.example") != CodeLanguage {
		t.Error("the boss has none")
	}
}

// TestHabitsAreKept over a restart, whole or not at all.
func TestHabitsAreKept(t *testing.T) {
	t.Parallel()
	d := newDesk(0)
	d.weeks(7)
	if !d.h.Changed() {
		t.Error("a change is not told")
	}
	kept := d.h.Append(nil)
	if d.h.Changed() {
		t.Error("what was written down is told as a change")
	}
	e := &desk{now: d.now, user: 7}
	e.h = New(0, func() time.Time { return e.now })
	if err := e.h.Restore(kept); err != nil {
		t.Fatal(err)
	}
	if got := e.mail(letterDE, 0.3, "friend1@x.example"); got != CodeLanguage {
		t.Errorf("after a restart: %q", got)
	}
	for n := range kept {
		if n > 1 && New(0, nil).Restore(kept[:n]) == nil {
			t.Fatalf("what is cut at byte %d is taken", n)
		}
	}
}

// TestManySenders are remembered up to a bound.
func TestManySenders(t *testing.T) {
	t.Parallel()
	d := newDesk(160)
	for i := range 5000 {
		d.user = uint32(i + 1)
		d.mail(letterEN, 0.3, "x@x.example")
	}
	n := 0
	for i := range d.h.shards {
		n += len(d.h.shards[i].all)
	}
	if n > 160 || n < 100 {
		t.Errorf("%d senders are remembered", n)
	}
}

func TestLanguages(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]language{
		letterEN: english, letterDE: german, letterRU: cyrillic, "": unsaid, "OK": unsaid, "12345 67890": unsaid,
		"Bonjour, vous trouverez dans cette lettre les prix pour votre commande, que nous avons envoyée avec les autres des clients.": french,
		"您好,您的订单已经发货,请注意查收。如有任何问题,请随时与我们联系。谢谢您的支持。":                                                                                   chinese,
		"こんにちは。ご注文ありがとうございます。商品は明日発送いたします。よろしくお願いいたします。":                                                                              japanese,
		strings.Repeat("\xff\xfe\x80", 500): unsaid,
		"a\xe4\xb8":                         unsaid,
	} {
		if got := languageOf([]byte(text)); got != want {
			t.Errorf("%.30q is %v, want %v", text, got, want)
		}
	}
}

// BenchmarkWatch is what habits cost a message that nobody finds suspicious.
func BenchmarkWatch(b *testing.B) {
	h := New(0, nil)
	m := &message.Message{Flow: &flow.Flow{User: flow.User{ID: 7}}, Envelope: message.Envelope{To: []message.Address{"friend@x.example"}}}
	v, o := &view.View{Text: []byte(strings.Repeat(letterEN+" ", 80))}, &content.Opinion{Probability: 0.01}
	b.ReportAllocs()
	for b.Loop() {
		h.Watch(m, v, o, content.DefaultThresholds, nil)
	}
}
