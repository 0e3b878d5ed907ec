// Package school lets a gateway's model learn from what people say of its mail, within bounds, and keeps account of
// whether what it learnt may act.
package school

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"sluice/filter/content"
	"sluice/filter/content/learn"
)

// Lesson is one message that the model learnt on line.
type Lesson struct {
	Digest string    `json:"digest"` // of the message, SHA-256
	Bad    bool      `json:"bad"`
	Source string    `json:"source"` // who said so: an operator, a report's sender, a trap
	At     time.Time `json:"at"`
	Steps  float64   `json:"steps"` // how far the model moved; 0 where it knew already
}

// Options are what a school goes by.
type Options struct {
	Budget  int     // lessons of one source a day; 0 is 50
	Journal Journal // may be nil: what is not saved is lost at a kill
	Now     func() time.Time
	// Model gives the model to begin with where New got none, once somebody asks for it: until then it takes no memory.
	Model func() *learn.Model
}

// maxLessons bounds how many lessons can be taken back one by one; of older ones only the effect stays.
const maxLessons = 20000

// School holds the model in use. Safe for concurrent use.
type School struct {
	o      Options
	first  sync.Once
	judge  atomic.Pointer[content.Judge] // nil: the first model has not been asked for
	trust  atomic.Pointer[trust]
	shadow atomic.Pointer[shadow] // nil: none

	mu       sync.Mutex // one change at a time
	lessons  map[string]Lesson
	order    []string       // digests, oldest first
	spent    map[string]int // lessons of each source on day
	day      int64
	seq      int64 // number of the last lesson
	previous *state
	kept     bool // previous is another since it was saved
	changed  bool
}

// state is a model with the lessons in it.
type state struct {
	model   *learn.Model
	lessons map[string]Lesson
	order   []string
}

// New returns a school that begins with model, or, if that is nil, with that of the options.
func New(model *learn.Model, o Options) *School {
	if o.Budget == 0 {
		o.Budget = 50
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	s := &School{o: o, lessons: map[string]Lesson{}, spent: map[string]int{}}
	s.trust.Store(newTrust())
	if model != nil {
		s.judge.Store(content.NewJudge(model))
	}
	return s
}

// Judge returns the judge in use.
func (s *School) Judge() *content.Judge {
	if j := s.judge.Load(); j != nil {
		return j
	}
	s.first.Do(func() { s.judge.CompareAndSwap(nil, content.NewJudge(s.o.Model())) })
	return s.judge.Load()
}

// The ways in which a lesson is refused.
var (
	ErrBudget  = errors.New("this source has taught as much as one may in a day; try again tomorrow, or teach as an operator")
	ErrKnown   = errors.New("the message was learnt so already; nothing was changed")
	ErrUnknown = errors.New("this message was not learnt here, or too long ago; nothing was changed")
)

// operatorShare is how many times the budget of other sources an operator has.
const operatorShare = 100

// Train learns a message. Source says who calls it good or bad; each has a budget a day, so that nobody turns the model
// round alone. A message that was learnt the other way is unlearnt first.
func (s *School) Train(data []byte, bad bool, source string, operator bool) (Lesson, error) {
	data = content.CRLF(data)
	digest := digestOf(data)
	s.mu.Lock()
	defer s.mu.Unlock()
	old, known := s.lessons[digest]
	if known && old.Bad == bad {
		return old, ErrKnown
	}
	now := s.o.Now()
	if err := s.spend(source, operator, now); err != nil {
		return Lesson{}, err
	}
	j := s.Judge()
	var notes []note
	if known {
		notes = append(notes, note{Forget: true, Lesson: old, IDs: j.Forget(data, old.Steps, old.Bad)})
	}
	o := j.Judge(data, content.DefaultThresholds, 2)
	l := Lesson{Digest: digest, Bad: bad, Source: source, At: now.UTC().Truncate(time.Second)}
	var ids []byte
	l.Steps, ids = j.Teach(data, bad)
	sh := s.shadow.Load()
	taught := sh.teach(data, digest, bad)
	if err := s.record(append(notes, note{Lesson: l, IDs: ids, Shadow: taught.steps})...); err != nil {
		j.Unlearn(data, l.Steps, l.Bad)
		sh.untaught(data, taught)
		if known {
			_ = j.Repeat(notes[0].IDs, old.Steps, old.Bad, false) // they were just made
		}
		return Lesson{}, err
	}
	if known {
		s.strike(digest)
	}
	t := s.trust.Load()
	if bad {
		t.confirm(o.Group)
	} else {
		t.good(o.Group, o.Probability)
	}
	sh.enter(l, taught)
	s.enter(l)
	s.changed = true
	return l, nil
}

// spend takes one lesson from the source's budget. The first of a day keeps what the model was before it.
func (s *School) spend(source string, operator bool, now time.Time) error {
	day := now.Unix() / 86400
	if day != s.day {
		s.day, s.spent = day, map[string]int{}
	}
	most := s.o.Budget
	if operator {
		most *= operatorShare
	}
	if s.spent[source] >= most {
		return ErrBudget
	}
	if len(s.spent) == 0 {
		s.keep()
	}
	s.spent[source]++
	return nil
}

// keep remembers the model as it is, for Back.
func (s *School) keep() {
	s.previous = &state{s.Judge().Model().Clone(), maps.Clone(s.lessons), append([]string(nil), s.order...)}
	s.kept = true
}

// Untrain takes back what was learnt of a message.
func (s *School) Untrain(data []byte) (Lesson, error) {
	data = content.CRLF(data)
	s.mu.Lock()
	defer s.mu.Unlock()
	l, ok := s.lessons[digestOf(data)]
	if !ok {
		return l, ErrUnknown
	}
	j := s.Judge()
	ids := j.Forget(data, l.Steps, l.Bad)
	if err := s.record(note{Forget: true, Lesson: l, IDs: ids}); err != nil {
		_ = j.Repeat(ids, l.Steps, l.Bad, false) // they were just made
		return Lesson{}, err
	}
	s.strike(l.Digest)
	s.shadow.Load().untrain(data, l.Digest)
	s.changed = true
	return l, nil
}

func digestOf(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

// Replace puts another model in the place of the one in use at once. Its opinion decides nothing until it has proved itself
// here; Import has it do so beside the one in use.
func (s *School) Replace(m *learn.Model) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.keep()
	s.use(&state{model: m, lessons: map[string]Lesson{}}, newTrust())
}

// ErrNoPrevious says that there is no model to go back to.
var ErrNoPrevious = errors.New("there is no earlier model to go back to; `sluice model import` takes one from a file")

// Back puts the model that was in use before back: before the last import, or before the day's first lesson. Twice back
// is forth again.
func (s *School) Back() (learn.Info, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.previous
	if p == nil {
		return learn.Info{}, ErrNoPrevious
	}
	s.keep()
	t := newTrust()
	if p.model.Info().Name == s.Judge().Model().Info().Name {
		t = s.trust.Load()
	}
	s.use(p, t)
	return p.model.Info(), nil
}

// use puts a model into use, with the account of what it is worth. s.mu is held.
func (s *School) use(st *state, t *trust) {
	s.judge.Store(content.NewJudge(st.model))
	s.lessons, s.order, s.changed = st.lessons, st.order, true
	t.dirty.Store(true)
	s.trust.Store(t)
}

// Export writes the model in use.
func (s *School) Export(w io.Writer) error { return s.Judge().Model().Save(w) }

// Report tells what there is.
type Report struct {
	Model    learn.Info
	Lessons  int
	Previous string // name of the model that Back puts back, "" for none
	Trust    Trust
	Shadow   *Comparison // nil: there is no model in shadow
}

// Report returns what there is.
func (s *School) Report() Report {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := Report{Model: s.Judge().Model().Info(), Lessons: len(s.lessons), Trust: s.trust.Load().report(), Shadow: s.shadow.Load().report()}
	if s.previous != nil {
		i := s.previous.model.Info()
		r.Previous = fmt.Sprintf("%s (%d good and %d bad learnt)", i.Name, i.Good, i.Bad)
	}
	return r
}
