package content

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"sluice/filter"
	"sluice/filter/content/view"
	"sluice/filter/message"
	"sluice/filter/policy"
	"sluice/intercept/flow"
)

func TestPatience(t *testing.T) {
	t.Parallel()
	now := time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC)
	p := NewPatience(func() time.Time { return now })
	mail := func(user uint32, to, head, body string) *message.Message {
		return &message.Message{Flow: &flow.Flow{User: flow.User{ID: user}}, Envelope: message.Envelope{From: "a@x.example", To: []message.Address{message.Address(to)}}, Data: []byte(head + "\r\n\r\n" + body)}
	}
	one := mail(1, "b@y.example", "Date: 1", "text")
	if left := p.Left(one, time.Minute); left != time.Minute {
		t.Errorf("the first try waits %v", left)
	}
	now = now.Add(40 * time.Second)
	if left := p.Left(mail(1, "b@y.example", "Date: 2", "text"), time.Minute); left != 20*time.Second {
		t.Errorf("a further try waits %v", left)
	}
	for i, other := range []*message.Message{mail(2, "b@y.example", "", "text"), mail(1, "c@y.example", "", "text"), mail(1, "b@y.example", "", "texts")} {
		if left := p.Left(other, time.Minute); left != time.Minute {
			t.Errorf("another message, %d, waits %v", i, left)
		}
	}
	now = now.Add(time.Hour)
	if left := p.Left(one, time.Minute); left > 0 {
		t.Errorf("after its wait it waits %v", left)
	}
	for i := range mostPatience + 10 {
		p.Left(mail(3, "d@y.example", "", fmt.Sprint(i)), time.Minute)
	}
	if len(p.seen) > mostPatience {
		t.Errorf("%d are remembered", len(p.seen))
	}
	now = now.Add(patienceAge)
	if left := p.Left(one, time.Minute); left != time.Minute {
		t.Errorf("after days it waits %v", left)
	}
}

// watcher knows the group of every message, and lets pass what it is told to.
type watcher struct{ passes string }

func (w *watcher) Watch(_ *message.Message, v *view.View, _ *Opinion, _ Thresholds, hits []filter.Hit) ([]filter.Hit, Watched) {
	return append(hits, filter.Hit{Code: "SEEN", Evidence: string(v.Subject)}), Watched{Group: 77, Passes: w.passes}
}

// TestActions: each class has the action that the setting says, and none where somebody released the campaign.
func TestActions(t *testing.T) {
	t.Parallel()
	l := &fakeLearner{judge: shippedJudge(t), acting: true}
	settings, w := fixed(policy.Default()), &watcher{}
	c := NewClassifier(l, &settings, func() string { return LearnedAuto }).Watching(w)
	ask := func(mail string) (filter.Hit, filter.Verdict) {
		m := &message.Message{ID: "k1.1", Flow: &flow.Flow{}, Data: []byte(crlf(mail))}
		v := filter.Judge(c.Check(context.Background(), filter.Data, m, nil))
		for _, h := range v.Hits {
			if h.Code == "SPAM" || h.Code == "UNSURE" || h.Code == "PHISH" {
				return h, v
			}
		}
		return filter.Hit{}, v
	}
	for _, x := range []struct {
		name             string
		spam             float64
		onSpam, onUnsure policy.ContentAction
		code             string
		action           filter.Action
	}{
		{"refused", 0.98, policy.RefuseMail, policy.DeliverMail, "SPAM", filter.Reject},
		{"held", 0.98, policy.QuarantineMail, policy.DeliverMail, "SPAM", filter.Quarantine},
		{"only said", 0.98, policy.DeliverMail, policy.RefuseMail, "SPAM", filter.None},
		{"unsure is delivered", 1, policy.RefuseMail, policy.DeliverMail, "UNSURE", filter.None},
		{"unsure is held", 1, policy.RefuseMail, policy.QuarantineMail, "UNSURE", filter.Quarantine},
		{"unsure is put off", 1, policy.RefuseMail, policy.DelayMail, "UNSURE", filter.Delay},
		{"and again", 1, policy.RefuseMail, policy.DelayMail, "UNSURE", filter.Delay},
	} {
		settings.Content.Spam, settings.Content.OnSpam, settings.Content.OnUnsure = x.spam, x.onSpam, x.onUnsure
		h, v := ask(pills)
		if h.Code != x.code || h.Action != x.action || h.Group != 77 || v.Hits[0].Code != "SEEN" || !strings.Contains(v.Hits[0].Evidence, "Viagra") {
			t.Errorf("%s: %+v", x.name, h)
		}
	}
	settings.Content.Wait = 0
	if h, _ := ask(pills); h.Action != filter.None || !strings.Contains(h.Evidence, "judged again") {
		t.Errorf("after its wait: %+v", h)
	}
	w.passes, settings.Content.Spam = "released by ann", 0.98
	settings.Content.OnSpam = policy.RefuseMail
	if h, v := ask(pills); h.Action != filter.None || !strings.Contains(h.Evidence, "released by ann") || v.Refused() {
		t.Errorf("a released campaign: %+v", h)
	}
}

// TestPatienceIsKept over a restart: what was put off waits no longer than before, a cut file is refused, and a clock that was
// set back makes nothing wait longer than its wait.
func TestPatienceIsKept(t *testing.T) {
	t.Parallel()
	now := time.Unix(1_800_000_000, 0)
	p := NewPatience(func() time.Time { return now })
	m := &message.Message{Flow: &flow.Flow{User: flow.User{ID: 7}}, Envelope: message.Envelope{From: "a@x.example", To: []message.Address{"b@y.example"}}, Data: []byte("Subject: x\r\n\r\ntext\r\n")}
	p.Left(m, time.Minute)
	if !p.Changed() || p.Changed() {
		t.Error("a change is not told once")
	}
	kept := p.Append(nil)
	now = now.Add(40 * time.Second)
	q := NewPatience(func() time.Time { return now })
	if err := q.Restore(kept); err != nil {
		t.Fatal(err)
	}
	if left := q.Left(m, time.Minute); left != 20*time.Second {
		t.Errorf("after a restart it waits %v more", left)
	}
	now = now.Add(-time.Hour)
	if q = NewPatience(func() time.Time { return now }); q.Restore(kept) != nil || q.Left(m, time.Minute) > time.Minute {
		t.Error("a clock that was set back makes it wait for longer")
	}
	if q.Restore(kept[:9]) == nil {
		t.Error("a cut file is taken")
	}
}
