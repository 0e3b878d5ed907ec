package content

import (
	"fmt"
	"math"
	"strings"
	"sync"

	"sluice/filter"
	"sluice/filter/content/learn"
	"sluice/filter/content/rules"
	"sluice/filter/content/view"
	"sluice/filter/message"
)

// Thresholds say from which probability on a message is unsure or spam (CON1).
type Thresholds struct {
	Unsure float64
	Spam   float64
}

// DefaultThresholds are the ones that a site begins with.
var DefaultThresholds = Thresholds{Unsure: 0.80, Spam: 0.98}

// Opinion is what the content of one message says about it.
type Opinion struct {
	Probability float64 // that it is bad
	Class       filter.Class
	Phish       bool // what speaks against it speaks of phishing
	Score       float64
	Group       uint32 // the same for copies of one text
	Findings    []rules.Finding
	Reasons     []learn.Reason // what the learned part rests on, where it was asked for
}

// Judge judges messages by rules and a model. Safe for concurrent use.
type Judge struct {
	model *learn.Model
	desks sync.Pool
}

// desk is what one judgement works with.
type desk struct {
	reader   view.Reader
	features *learn.Features
	findings []rules.Finding
}

// NewJudge returns a judge that goes by model.
func NewJudge(model *learn.Model) *Judge {
	return &Judge{model: model, desks: sync.Pool{New: func() any { return &desk{features: learn.NewFeatures()} }}}
}

// Model returns the model that the judge goes by.
func (j *Judge) Model() *learn.Model { return j.model }

// maxReasons is how many words an opinion names.
const maxReasons = 6

// Judge returns the opinion on a message. From probability explain on it has the reasons of the learned part, too.
func (j *Judge) Judge(data []byte, t Thresholds, explain float64) Opinion {
	d := j.desks.Get().(*desk)
	defer j.desks.Put(d)
	return j.judge(d, d.reader.Read(data), t, explain)
}

// show judges a message and shows it to all who watch.
func (j *Judge) show(m *message.Message, t Thresholds, all []Watcher, hits []filter.Hit) (Opinion, []filter.Hit, Watched) {
	d := j.desks.Get().(*desk)
	defer j.desks.Put(d)
	v := d.reader.Read(m.Data)
	o := j.judge(d, v, t, t.Unsure)
	var known Watched
	for _, w := range all {
		var k Watched
		if hits, k = w.Watch(m, v, &o, t, hits); k != (Watched{}) {
			known = k
		}
	}
	return o, hits, known
}

func (j *Judge) judge(d *desk, v *view.View, t Thresholds, explain float64) Opinion {
	prior, phish := d.rules(v)
	d.features.Extract(v)
	o := Opinion{Score: j.model.Score(d.features, prior)}
	o.Probability = j.model.Probability(o.Score)
	if len(d.findings) > 0 {
		o.Findings = append([]rules.Finding(nil), d.findings...)
	}
	o.Phish, o.Group = phish >= phishPoints, uint32(group(v))
	o.classify(t)
	if o.Probability >= explain {
		d.features.ExtractNamed(v)
		o.Reasons = j.model.Reasons(d.features, maxReasons)
	}
	return o
}

// classify says what a message of this probability is.
func (o *Opinion) classify(t Thresholds) {
	if o.Probability >= t.Spam {
		if o.Class = filter.Spam; o.Phish {
			o.Class = filter.Phish
		}
	}
}

// phishPoints is from how many points of phishing rules on what is bad is called phish.
const phishPoints = 1

// rules asks the rules: what they say together, as a logarithm of odds, and the share of those that speak of phishing.
func (d *desk) rules(v *view.View) (prior, phish float64) {
	d.findings = rules.Check(v, d.findings[:0])
	for i := range d.findings {
		f := &d.findings[i]
		prior += f.Points
		if f.Class == filter.Phish {
			phish += f.Points
		}
	}
	return prior, phish
}

// Example returns a message as an example to learn from.
func (j *Judge) Example(data []byte, bad bool, weight float64) learn.Example {
	d := j.desks.Get().(*desk)
	defer j.desks.Put(d)
	v := d.reader.Read(data)
	prior, _ := d.rules(v)
	d.features.Extract(v)
	e := d.features.Example(bad, prior, weight)
	e.Group = group(v)
	return e
}

// Teach teaches the model one message on line. Unlearn takes back what it did, by the same message; Repeat does it again,
// by the message's features, which are returned in a form that has none of its words.
func (j *Judge) Teach(data []byte, bad bool) (steps float64, ids []byte) {
	d := j.desks.Get().(*desk)
	defer j.desks.Put(d)
	v := d.reader.Read(data)
	prior, _ := d.rules(v)
	d.features.Extract(v)
	return j.model.Learn(d.features, prior, bad), d.features.AppendIDs(nil)
}

// Forget takes back what Teach did with the same message, and returns its features.
func (j *Judge) Forget(data []byte, steps float64, bad bool) (ids []byte) {
	d := j.desks.Get().(*desk)
	defer j.desks.Put(d)
	d.features.Extract(d.reader.Read(data))
	j.model.Unlearn(d.features, steps, bad)
	return d.features.AppendIDs(nil)
}

// Unlearn is Forget where nothing needs to be repeated.
func (j *Judge) Unlearn(data []byte, steps float64, bad bool) { j.Forget(data, steps, bad) }

// Repeat does again what Teach did, or, with forget, what Forget did.
func (j *Judge) Repeat(ids []byte, steps float64, bad, forget bool) error {
	f, err := learn.ParseFeatures(ids)
	if err != nil {
		return err
	}
	if forget {
		j.model.Unlearn(f, steps, bad)
	} else {
		j.model.Relearn(f, steps, bad)
	}
	return nil
}

// Name is the opinion's class by its public name.
func (o *Opinion) Name(t Thresholds) string {
	switch {
	case o.Class != filter.Clean:
		return o.Class.String()
	case o.Probability >= t.Unsure:
		return "unsure"
	}
	return "clean"
}

// Odds is the probability as the logarithm of its odds, bounded where it is next to a certainty.
func (o *Opinion) Odds() float64 {
	const most = 1 - 1e-9
	p := min(max(o.Probability, 1-most), most)
	return math.Log(p / (1 - p))
}

// Hits returns the opinion as hits, none of which asks for anything: who judges says what is done.
func (o *Opinion) Hits(model string, hits []filter.Hit) []filter.Hit {
	for i := range o.Findings {
		hits = append(hits, hitOf(&o.Findings[i]))
	}
	if len(o.Reasons) > 0 {
		hits = append(hits, filter.Hit{Code: "LEARNED", Class: filter.Clean, Points: o.learned(), Text: "the words are those of mail that was found bad before",
			Evidence: fmt.Sprintf("probability %.4f by %s: %s", o.Probability, model, o.why())})
	}
	return hits
}

// unread appends what is said of a good message, too: that not all of it was read.
func (o *Opinion) unread(m *message.Message, hits []filter.Hit) []filter.Hit {
	for i := range o.Findings {
		if f := &o.Findings[i]; f.Code == rules.CodeCut {
			return append(hits, hitOf(f))
		}
	}
	if n := int64(len(m.Data)); n < m.DataSize {
		return append(hits, filter.Hit{Code: rules.CodeCut, Text: "the message is larger than what is read of it", Evidence: fmt.Sprintf("%d of %d bytes", n, m.DataSize)})
	}
	return hits
}

func hitOf(f *rules.Finding) filter.Hit {
	return filter.Hit{Code: f.Code, Class: filter.Clean, Points: f.Points, Text: f.Text, Evidence: f.Evidence}
}

// links tells whether where links lead speaks against the message by itself, beside its words.
func (o *Opinion) links() bool {
	points := 0.0
	for i := range o.Findings {
		if strings.HasPrefix(o.Findings[i].Code, "URL-") {
			points += o.Findings[i].Points
		}
	}
	return points >= linkPoints
}

// linkPoints is from how many points of rules about links on these speak by themselves: one link that pretends, and
// something beside it.
const linkPoints = 2

// learned is the share of the learned part in the score.
func (o *Opinion) learned() float64 {
	s := o.Score
	for i := range o.Findings {
		s -= o.Findings[i].Points
	}
	return math.Round(s*100) / 100
}

func (o *Opinion) why() string {
	var all []string
	for _, r := range o.Reasons {
		if r.Points > 0 {
			all = append(all, fmt.Sprintf("%s %+.2f", r.What, r.Points))
		}
	}
	return strings.Join(all, ", ")
}
