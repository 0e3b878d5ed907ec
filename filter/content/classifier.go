package content

import (
	"context"
	"fmt"
	"math"
	"time"

	"sluice/filter"
	"sluice/filter/content/view"
	"sluice/filter/message"
	"sluice/filter/policy"
)

// Learner is the model in use, with the account of what it is worth here.
type Learner interface {
	Judge() *Judge
	// Seen takes note of what was judged. It keeps nothing of m.
	Seen(m *message.Message, o *Opinion, t Thresholds)
	// Acting reports whether what was learnt may refuse.
	Acting() bool
}

// Watcher sees each message that is judged, with what its recipient would see of it.
type Watcher interface {
	// Watch may keep nothing of v, which is taken apart once for all who look at a message. It appends its hits.
	Watch(m *message.Message, v *view.View, o *Opinion, t Thresholds, hits []filter.Hit) ([]filter.Hit, Watched)
}

// Watched is what a watcher knows of a message.
type Watched struct {
	Group  uint64 // the same for all copies of a message; 0 where nothing is known
	Passes string // why nothing that was learnt may stop it; "" where it may
}

// Classifier is the check that judges messages by rules and by what was learnt. Safe for concurrent use.
type Classifier struct {
	learner  Learner
	settings policy.Resolver
	learned  func() string
	watchers []Watcher
	patience *Patience
	discards func() bool // may mail be discarded at all? nil: no
}

// The words of the setting content.learned.
const (
	LearnedAuto   = "auto"   // acts once the model has proved itself here
	LearnedNever  = "never"  // only says what it would do
	LearnedAlways = "always" // acts at once
	LearnedOff    = "off"    // judges nothing and costs nothing
)

// NewClassifier returns the check; learned says, at each message, what the learned part may do.
func NewClassifier(l Learner, settings policy.Resolver, learned func() string) *Classifier {
	return &Classifier{learner: l, settings: settings, learned: learned, patience: NewPatience(nil)}
}

// Watching has each message shown to all of these, each of whom sees what those before said.
func (c *Classifier) Watching(all ...Watcher) *Classifier {
	c.watchers = all
	return c
}

// Waiting has what was put off remembered by p, which others may keep over a restart.
func (c *Classifier) Waiting(p *Patience) *Classifier {
	c.patience = p
	return c
}

// Discarding lets mail be discarded where allowed says so; elsewhere it is refused.
func (c *Classifier) Discarding(allowed func() bool) *Classifier {
	c.discards = allowed
	return c
}

// leastLikely is how likely bad a message is at least that may have to wait for the sake of others of its sender.
const leastLikely = 0.1

// Check implements filter.Check in phase data. It leaves what the content says, and of which message it is a copy, with the
// message. In phase part it leaves nothing.
func (c *Classifier) Check(_ context.Context, p filter.Phase, m *message.Message, hits []filter.Hit) []filter.Hit {
	if p < filter.Data || len(m.Data) == 0 || c.learned() == LearnedOff { // of what was only observed there may be no text
		return hits
	}
	s := c.settings.Settings(m.Flow.User.ID)
	if s == nil {
		return hits
	}
	t := Thresholds{s.Content.Unsure, s.Content.Spam}
	j := c.learner.Judge()
	if p == filter.Part {
		return glance(j.Judge(m.Data, t, math.Inf(1)), t, hits)
	}
	o, hits, w := j.show(m, t, c.watchers, hits)
	m.Found = message.Found{Odds: o.Odds(), Phish: o.Phish, Group: w.Group, Passes: w.Passes}
	if o.Probability >= leastLikely && c.holdsBack(s, &w) == "" {
		m.Found.Likely = uint8(100 * o.Probability)
	}
	c.learner.Seen(m, &o, t)
	if o.Probability < t.Unsure {
		return o.unread(m, hits)
	}
	hits = append(hits, c.verdict(m, s, &o, t, &w))
	return o.Hits(j.Model().Info().Name, hits)
}

// glance is what the beginning of a message says about it. Nobody learns from that, or counts it.
func glance(o Opinion, t Thresholds, hits []filter.Hit) []filter.Hit {
	if o.Probability < t.Unsure {
		return hits
	}
	return append(hits, filter.Hit{Code: "UNSURE", Text: "the beginning of the message has much of spam", Points: o.Probability, Score: o.Probability})
}

// verdict is the one hit that stands for the whole opinion.
func (c *Classifier) verdict(m *message.Message, s *policy.Settings, o *Opinion, t Thresholds, w *Watched) filter.Hit {
	h := filter.Hit{Points: o.Probability, Group: w.Group, Outside: o.links(), Evidence: fmt.Sprintf("probability %.4f, unsure from %.2f, spam from %.2f", o.Probability, t.Unsure, t.Spam)}
	action := s.Content.OnSpam
	switch o.Class {
	case filter.Phish:
		h.Code, h.Class, h.Text = "PHISH", filter.Phish, "message looks like phishing"
	case filter.Spam:
		h.Code, h.Class, h.Text = "SPAM", filter.Spam, "message looks like spam"
	default:
		h.Code, h.Text = "UNSURE", "message has much of spam, and not enough to be called so"
		action = s.Content.OnUnsure
	}
	why := c.holdsBack(s, w)
	if why == "" {
		h.Score = o.Probability
	}
	if h.Class == filter.Clean && (action == policy.DeliverMail || action == policy.UsualAction) {
		return h
	}
	if why != "" {
		h.Evidence += "; not stopped: " + why
		return h
	}
	c.act(action, m, s, &h)
	return h
}

// act has the hit ask for what the setting says.
func (c *Classifier) act(a policy.ContentAction, m *message.Message, s *policy.Settings, h *filter.Hit) {
	switch a {
	case policy.DeliverMail:
		h.Evidence += "; not stopped: the setting says deliver"
	case policy.TagMail:
		h.Tag = tag(h.Class, h.Points)
		h.Evidence += "; tagged"
	case policy.RiskMail:
		h.Action = filter.HighRisk
		h.Text += "; try it again later"
	case policy.QuarantineMail:
		h.Action = filter.Quarantine
	case policy.DelayMail:
		left := c.patience.Left(m, s.Content.Wait)
		if left <= 0 {
			h.Evidence += fmt.Sprintf("; judged again after %v, and delivered", s.Content.Wait)
			return
		}
		h.Action = filter.Delay
		h.Text += "; it is judged again, try it in some minutes"
		h.Evidence += fmt.Sprintf("; judged again in %v", left.Round(time.Second))
	case policy.DiscardMail:
		if c.discards != nil && c.discards() {
			h.Action = filter.Discard
			return
		}
		h.Evidence += "; refused: content.discard does not allow to discard it"
		fallthrough
	default:
		h.Action, h.SMTP, h.Enhanced = filter.Reject, 550, "5.7.1"
	}
}

// tag is the fields by which mail programs and filters further on learn what was found. Those are the names that they know.
func tag(c filter.Class, probability float64) string {
	if c == filter.Clean {
		return fmt.Sprintf("X-Spam-Status: Unsure, probability=%.4f\r\n", probability)
	}
	return fmt.Sprintf("X-Spam-Flag: YES\r\nX-Spam-Status: Yes, probability=%.4f class=%s\r\n", probability, c)
}

// holdsBack says why nothing is done about a message, "" where it is.
func (c *Classifier) holdsBack(s *policy.Settings, w *Watched) string {
	learned := c.learned()
	switch {
	case w.Passes != "":
		return w.Passes
	case !s.Content.BlockSpam:
		return "content.block_spam is off"
	case learned == LearnedNever:
		return "content.learned is never"
	case learned != LearnedAlways && !c.learner.Acting():
		return "the model has not proved itself here yet"
	}
	return ""
}
