package content

import (
	"context"
	"math"
	"strings"
	"testing"

	"sluice/filter"
	"sluice/filter/message"
	"sluice/filter/policy"
	"sluice/intercept/flow"
)

// TestOpinionsAreWeighed: what content and programs say becomes one probability, whose thresholds are the user's; neither is
// enough for what both are, and what only notes counts for nothing.
func TestOpinionsAreWeighed(t *testing.T) {
	t.Parallel()
	l := &fakeLearner{judge: shippedJudge(t), acting: true}
	settings := fixed(policy.Default())
	settings.Content.OnUnsure = policy.TagMail
	c := NewClassifier(l, &settings, func() string { return LearnedAuto })
	odds := func(p float64) float64 { return math.Log(p / (1 - p)) }
	assassin := filter.Hit{Code: "SPAMASSASSIN", Weighs: true, Points: 4.5, Evidence: "spamd: score 4.5 of 5.0: RULES"}
	noted := assassin
	noted.Weighs = false
	for _, x := range []struct {
		name   string
		found  message.Found
		said   []filter.Hit
		acting bool
		code   string // of the last hit
		action filter.Action
		says   string
	}{
		{"nothing said", message.Found{Odds: odds(0.90)}, nil, true, "", filter.None, ""},
		{"good all the same", message.Found{Odds: odds(0.02)}, []filter.Hit{assassin}, true, "SPAMASSASSIN", filter.None, ""},
		{"unsure together", message.Found{Odds: odds(0.60)}, []filter.Hit{assassin}, true, "UNSURE", filter.None, "content alone 0.6000, SPAMASSASSIN +"},
		{"spam together", message.Found{Odds: odds(0.95)}, []filter.Hit{{Code: "UNSURE", Tag: "X", Action: filter.Delay}, assassin}, true, "SPAM", filter.Reject, "content alone 0.9500, SPAMASSASSIN +"},
		{"a careless name", message.Found{Odds: odds(0.978)}, []filter.Hit{{Code: "HELO", Weighs: true, Points: 0.5}}, true, "WEIGHED", filter.None, "probability 0.9791; content alone 0.9780, HELO +0.05"},
		{"a good message's", message.Found{Odds: odds(0.70)}, []filter.Hit{{Code: "HELO", Weighs: true, Points: 3}}, true, "HELO", filter.None, ""},
		{"another's name", message.Found{Odds: odds(0.975)}, []filter.Hit{{Code: "HELO", Weighs: true, Points: 3}}, true, "SPAM", filter.Reject, "HELO +0.30"},
		{"phish together", message.Found{Odds: odds(0.95), Phish: true}, []filter.Hit{assassin}, true, "PHISH", filter.Reject, "content alone 0.9500"},
		{"on day one", message.Found{Odds: odds(0.95)}, []filter.Hit{assassin}, false, "SPAM", filter.None, "not proved itself"},
		{"of a released campaign", message.Found{Odds: odds(0.95), Passes: "it was released"}, []filter.Hit{assassin}, true, "SPAM", filter.None, "it was released"},
		{"only noted", message.Found{Odds: odds(0.95)}, []filter.Hit{noted}, true, "SPAMASSASSIN", filter.None, ""},
		{"unsure alone", message.Found{Odds: odds(0.85)}, []filter.Hit{{Code: "UNSURE"}, {Code: "RSPAMD", Weighs: true, Points: 2}}, true, "WEIGHED", filter.None, "content alone 0.8500, RSPAMD +"},
		{"nobody looked", message.Found{}, []filter.Hit{assassin}, true, "SPAMASSASSIN", filter.None, ""},
	} {
		l.acting = x.acting
		m := &message.Message{Flow: &flow.Flow{}, Found: x.found}
		hits := c.Weigher().Check(context.Background(), filter.Data, m, append([]filter.Hit(nil), x.said...))
		if x.code == "" {
			if len(hits) != 0 {
				t.Errorf("%s: %+v", x.name, hits)
			}
			continue
		}
		last := hits[len(hits)-1]
		if last.Code != x.code || last.Action != x.action || !strings.Contains(last.Evidence, x.says) {
			t.Errorf("%s: %+v", x.name, last)
		}
		if first := hits[0]; x.code == "SPAM" && first.Code == "UNSURE" && (first.Action != filter.None || first.Tag != "") {
			t.Errorf("%s: what was unsure still asks for %v %q", x.name, first.Action, first.Tag)
		}
	}
}

// TestProgramsDoAsSet: what a program or a list calls spam or phishing is treated as the user's setting says; a virus, a rule of the site and
// what asks to be withheld anyway are left as they are.
func TestProgramsDoAsSet(t *testing.T) {
	t.Parallel()
	l := &fakeLearner{judge: shippedJudge(t)}
	settings := fixed(policy.Default())
	c := NewClassifier(l, &settings, func() string { return LearnedAuto }).Discarding(func() bool { return true })
	for set, want := range map[policy.ContentAction]filter.Action{
		policy.RefuseMail: filter.Reject, policy.DeliverMail: filter.None, policy.TagMail: filter.None, policy.DelayMail: filter.Delay, policy.RiskMail: filter.HighRisk,
		policy.QuarantineMail: filter.Quarantine, policy.DiscardMail: filter.Discard,
	} {
		settings.Content.OnSpam = set
		for _, said := range []filter.Hit{
			{Code: "RSPAMD", Class: filter.Spam, AsSet: true, Weighs: true, Points: 16, Action: filter.Reject, SMTP: 550, Enhanced: "5.7.1"},
			{Code: "MILTER", Class: filter.Phish, AsSet: true, Points: 1, Action: filter.Reject, SMTP: 554, Enhanced: "5.7.1"},
			{Code: "LISTED", Class: filter.Spam, AsSet: true, Points: 1, Action: filter.Reject, SMTP: 550, Enhanced: "5.7.1"},
		} {
			m := &message.Message{Flow: &flow.Flow{}, Data: []byte("Subject: x\r\n\r\n" + set.String() + said.Code), Found: message.Found{Odds: -4}}
			v := filter.Judge(c.Weigher().Check(context.Background(), filter.Data, m, []filter.Hit{said}))
			if v.Action != want || (v.Tag() != "") != (set == policy.TagMail) || strings.Contains(v.Tag(), "=16") || v.Tag() != "" && !strings.Contains(v.Tag(), said.Class.String()) {
				t.Errorf("%v, %s: %v, tag %q", set, said.Code, v.Action, v.Tag())
			}
		}
		for _, said := range []filter.Hit{
			{Code: "MILTER", Class: filter.Policy, AsSet: true, Action: filter.Reject}, {Code: "VIRUS", Class: filter.Virus, AsSet: true, Action: filter.Reject},
			{Code: "GTUBE", Class: filter.Spam, Action: filter.Reject}, {Code: "MILTER", Class: filter.Spam, AsSet: true, Action: filter.Quarantine},
		} {
			v := filter.Judge(c.Weigher().Check(context.Background(), filter.Data, &message.Message{Flow: &flow.Flow{}}, []filter.Hit{said}))
			if v.Action != said.Action {
				t.Errorf("%v, %s %v: %v", set, said.Code, said.Class, v.Action)
			}
		}
	}
}
