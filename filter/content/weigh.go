package content

import (
	"context"
	"fmt"
	"math"
	"strings"

	"sluice/filter"
	"sluice/filter/message"
	"sluice/filter/policy"
)

// Weight is what the points of an opinion add to the logarithm of the odds that a message is bad, beside what its content
// says by itself.
type Weight struct {
	PerPoint float64
	Most     float64 // however many points
}

// Weights are those of opinions by their public code. Those of programs are less than what fits the development corpus best with what
// the learned part and the rules say of the same messages held fixed: so little that no good message more is called spam (`make
// bench-weights`, docs/filter.md). Those of habits and of names in EHLO are set: no corpus has senders with a
// history. The latter are tiny, since good servers are often careless about theirs.
var Weights = map[string]Weight{
	"RSPAMD":       {0.1, 1},
	"SPAMASSASSIN": {0.3, 1},
	CodeStrangers:  {1, 1},
	"BULK":         {1, 1},
	"LANGUAGE":     {1, 0.7},
	"HELO":         {0.1, 0.3},
}

// CodeStrangers is the public code of what says that mail goes to people who are new to a sender of other habits.
const CodeStrangers = "STRANGERS"

// Of returns what so many points add.
func (w Weight) Of(points float64) float64 { return min(max(0, points*w.PerPoint), w.Most) }

// Weigher makes one probability of all opinions, behind those who give them: what the content says, what other programs say,
// and how the message fits its sender's habits. What becomes of a message by it is the classifier's to say.
type Weigher struct{ c *Classifier }

// Weigher returns the check that weighs what the checks before it say with what c found.
func (c *Classifier) Weigher() *Weigher { return &Weigher{c} }

// Check implements filter.Check in phase data.
func (w *Weigher) Check(_ context.Context, p filter.Phase, m *message.Message, hits []filter.Hit) []filter.Hit {
	if p != filter.Data {
		return hits
	}
	sum := 0.0
	for i := range hits {
		if hits[i].Weighs {
			sum += Weights[hits[i].Code].Of(hits[i].Points)
		}
	}
	s := w.c.settings.Settings(m.Flow.User.ID)
	if s == nil {
		return hits
	}
	w.asSet(m, s, sum, hits)
	if sum == 0 || m.Found.Odds == 0 { // nothing said, or nobody looked at the content
		return hits
	}
	return w.weigh(m, s, sum, hits)
}

// asSet has what a program or a list calls spam treated as the user's setting says.
func (w *Weigher) asSet(m *message.Message, s *policy.Settings, sum float64, hits []filter.Hit) {
	if a := s.Content.OnSpam; a == policy.UsualAction || a == policy.RefuseMail {
		return
	}
	for i := range hits {
		h := &hits[i]
		if !h.AsSet || h.Class != filter.Spam && h.Class != filter.Phish || h.Action != filter.Reject {
			continue
		}
		h.Action, h.SMTP, h.Enhanced = filter.None, 0, ""
		if w.c.act(s.Content.OnSpam, m, s, h); h.Tag != "" && h.Weighs { // its points are no probability
			h.Tag = tag(h.Class, probability(m.Found.Odds+sum))
		}
	}
}

// weigh says what all opinions together come to.
func (w *Weigher) weigh(m *message.Message, s *policy.Settings, sum float64, hits []filter.Hit) []filter.Hit {
	t := Thresholds{s.Content.Unsure, s.Content.Spam}
	alone := Opinion{Probability: probability(m.Found.Odds), Phish: m.Found.Phish}
	all := Opinion{Probability: probability(m.Found.Odds + sum), Phish: m.Found.Phish}
	alone.classify(t)
	all.classify(t)
	if all.Probability < t.Unsure {
		for i := range hits {
			hits[i].Score = 0
		}
		return hits
	}
	parts := fmt.Sprintf("; content alone %.4f%s", alone.Probability, shares(hits))
	if all.Name(t) == alone.Name(t) { // the classifier has spoken
		return append(hits, filter.Hit{Code: "WEIGHED", Points: all.Probability, Text: "all opinions together", Evidence: fmt.Sprintf("probability %.4f%s", all.Probability, parts)})
	}
	for i := range hits {
		if h := &hits[i]; h.Code == "UNSURE" { // it is surer now
			h.Action, h.Tag = filter.None, ""
		}
	}
	h := w.c.verdict(m, s, &all, t, &Watched{Group: m.Found.Group, Passes: m.Found.Passes})
	h.Evidence += parts
	return append(hits, h)
}

// Weighed is the probability that a message is bad by its content and all that was said of it so far.
func Weighed(o *Opinion, hits []filter.Hit) float64 {
	sum := 0.0
	for i := range hits {
		if hits[i].Weighs {
			sum += Weights[hits[i].Code].Of(hits[i].Points)
		}
	}
	if sum == 0 {
		return o.Probability
	}
	return probability(o.Odds() + sum)
}

// shares names who said how much.
func shares(hits []filter.Hit) string {
	var b strings.Builder
	for i := range hits {
		if h := &hits[i]; h.Weighs {
			fmt.Fprintf(&b, ", %s %+.2f", h.Code, Weights[h.Code].Of(h.Points))
		}
	}
	return b.String()
}

// probability is what the logarithm of odds stands for.
func probability(odds float64) float64 { return 1 / (1 + math.Exp(-odds)) }
