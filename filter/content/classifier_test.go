package content

import (
	"context"
	"strings"
	"testing"

	"sluice/filter"
	"sluice/filter/message"
	"sluice/filter/policy"
	"sluice/intercept/flow"
)

// fakeLearner has a judge, and says whether it may act.
type fakeLearner struct {
	judge  *Judge
	acting bool
	seen   []string
}

func (l *fakeLearner) Judge() *Judge { return l.judge }
func (l *fakeLearner) Seen(m *message.Message, o *Opinion, t Thresholds) {
	l.seen = append(l.seen, m.ID+" "+o.Name(t))
}
func (l *fakeLearner) Acting() bool { return l.acting }

type fixed policy.Settings

func (f *fixed) Settings(uint32) *policy.Settings { return (*policy.Settings)(f) }

func TestClassifier(t *testing.T) {
	t.Parallel()
	l := &fakeLearner{judge: shippedJudge(t)}
	settings := fixed(policy.Default())
	learned := LearnedAuto
	c := NewClassifier(l, &settings, func() string { return learned })
	likely := uint8(0)
	ask := func(mail string) []filter.Hit {
		m := &message.Message{ID: "k1.1", Flow: &flow.Flow{}, Data: []byte(crlf(mail))}
		hits := c.Check(context.Background(), filter.Data, m, nil)
		likely = m.Found.Likely
		return hits
	}
	for _, x := range []struct {
		name, mail, learned string
		acting, block       bool
		code                string
		action              filter.Action
		class               filter.Class
		says                string
	}{
		{"good", minutes, LearnedAuto, true, true, "", filter.None, filter.Clean, ""},
		{"phish", suspended, LearnedAuto, true, true, "PHISH", filter.Reject, filter.Phish, "probability"},
		{"spam", pills, LearnedAuto, true, true, "SPAM", filter.Reject, filter.Spam, "probability"},
		{"on day one", pills, LearnedAuto, false, true, "SPAM", filter.None, filter.Spam, "not proved itself"},
		{"always", pills, LearnedAlways, false, true, "SPAM", filter.Reject, filter.Spam, "probability"},
		{"never", pills, LearnedNever, true, true, "SPAM", filter.None, filter.Spam, "content.learned is never"},
		{"switched off", pills, LearnedAlways, true, false, "SPAM", filter.None, filter.Spam, "block_spam is off"},
	} {
		l.acting, learned, settings.Content.BlockSpam = x.acting, x.learned, x.block
		hits := ask(x.mail)
		if (likely >= 50) != (x.action != filter.None) {
			t.Errorf("%s: likely bad, and that may stop it: %v", x.name, likely)
		}
		if x.code == "" {
			if len(hits) != 0 {
				t.Errorf("%s: %+v", x.name, hits)
			}
			continue
		}
		h := hits[0]
		if h.Code != x.code || h.Action != x.action || h.Class != x.class || !strings.Contains(h.Evidence, x.says) || h.Text == "" {
			t.Errorf("%s: %+v", x.name, h)
		}
		if (h.Score > 0) != (x.action != filter.None) {
			t.Errorf("%s: scored %g", x.name, h.Score)
		}
		if v := filter.Judge(hits); v.Refused() != (x.action == filter.Reject) || v.Class != x.class {
			t.Errorf("%s: verdict %+v", x.name, v)
		}
		if hits[len(hits)-1].Code != "LEARNED" {
			t.Errorf("%s: nothing says what was learnt: %+v", x.name, hits)
		}
	}
	judged := len(l.seen)
	part := &message.Message{Flow: &flow.Flow{}, Data: []byte(crlf(pills))}
	if hits := c.Check(context.Background(), filter.Part, part, nil); len(hits) != 1 || hits[0].Score == 0 || hits[0].Action != filter.None || part.Found != (message.Found{}) || len(l.seen) != judged {
		t.Errorf("of the beginning of spam: %+v, found %+v, %d judged", hits, part.Found, len(l.seen)-judged)
	}
	part.Data = []byte(crlf(minutes))
	if hits := c.Check(context.Background(), filter.Part, part, nil); len(hits) != 0 {
		t.Errorf("of the beginning of a good message: %+v", hits)
	}
	learned = LearnedOff
	if hits := ask(pills); len(hits) != 0 || len(l.seen) != judged {
		t.Errorf("off, it judged %d messages and said %+v", len(l.seen)-judged, hits)
	}
	learned = LearnedAuto
	settings.Content.Spam = 1
	if h := ask(pills); h[0].Code != "UNSURE" || h[0].Action != filter.None {
		t.Errorf("below the user's threshold: %+v", h[0])
	}
	if l.seen[0] != "k1.1 clean" || l.seen[1] != "k1.1 phish" {
		t.Errorf("seen: %q", l.seen)
	}
	for name, m := range map[string]*message.Message{
		"a long text":  {Flow: &flow.Flow{}, Data: []byte(minutes + strings.Repeat("We met on Tuesday and agreed. ", 10_000))},
		"a large mail": {Flow: &flow.Flow{}, Data: []byte(minutes), DataSize: 50_000_000},
	} {
		if hits := c.Check(context.Background(), filter.Data, m, nil); len(hits) != 1 || hits[0].Code != "OUT-CUT" || hits[0].Action != filter.None {
			t.Errorf("%s of which not all is read: %+v", name, hits)
		}
	}
	if hits := c.Check(context.Background(), filter.Rcpt, &message.Message{}, nil); hits != nil {
		t.Errorf("asked in phase rcpt it said %v", hits)
	}
}
