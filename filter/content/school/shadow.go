package school

import (
	"errors"
	"io"
	"sync/atomic"
	"time"

	"sluice/filter/content"
	"sluice/filter/content/learn"
	"sluice/filter/message"
)

// shadow is a model beside the one in use. It judges all mail and decides about none, and learns what the other learns, so
// that it can take the other's place with all that it has proved. Its zero pointer is none.
type shadow struct {
	judge *content.Judge
	trust *trust
	count agreement

	// These change with the school's lock held.
	since   time.Time
	lessons map[string]Lesson
	order   []string
	seq     int64 // number of the last lesson in it
	changed bool
}

// agreement counts what both models say of the same messages, at the threshold of spam.
type agreement struct{ judged, both, alone, missed atomic.Int64 }

// Comparison is what is known of a model in shadow, beside the one in use.
type Comparison struct {
	Model   learn.Info
	Since   time.Time
	Lessons int
	Judged  int64 // messages
	Both    int64 // of them, those that both take for spam
	Alone   int64 // those that it alone takes for spam
	Missed  int64 // those that the one in use alone takes for spam
	Trust   Trust // what it is worth here by itself
}

// Import puts a model in shadow: it judges beside the one in use until Use or Drop. One that was there goes.
func (s *School) Import(m *learn.Model) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.shadow.Store(&shadow{judge: content.NewJudge(m), trust: newTrust(), since: s.o.Now().UTC().Truncate(time.Second), lessons: map[string]Lesson{}, seq: s.seq, changed: true})
	s.changed = true
}

// ErrNoShadow says that no model is in shadow.
var ErrNoShadow = errors.New("there is no model in shadow; `sluice model import` takes one from a file")

// Use puts the model in shadow into use, with all that it has proved. Back undoes it.
func (s *School) Use() (learn.Info, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	sh := s.shadow.Load()
	if sh == nil {
		return learn.Info{}, ErrNoShadow
	}
	s.keep()
	sh.trust.weigh()
	s.use(&state{sh.judge.Model(), sh.lessons, sh.order}, sh.trust)
	s.shadow.Store(nil)
	return s.Judge().Model().Info(), nil
}

// Drop ends the shadow.
func (s *School) Drop() (learn.Info, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	sh := s.shadow.Load()
	if sh == nil {
		return learn.Info{}, ErrNoShadow
	}
	s.shadow.Store(nil)
	s.changed = true
	return sh.judge.Model().Info(), nil
}

// seen judges a message of which the model in use said o.
func (sh *shadow) seen(m *message.Message, o *content.Opinion, t content.Thresholds, now func() time.Time) {
	own := sh.judge.Judge(m.Data, t, 2)
	sh.count.judged.Add(1)
	switch a, b := own.Probability >= t.Spam, o.Probability >= t.Spam; {
	case a && b:
		sh.count.both.Add(1)
	case a:
		sh.count.alone.Add(1)
	case b:
		sh.count.missed.Add(1)
	}
	sh.trust.seen(m.ID, &own, t, now)
	sh.trust.dirty.Store(true)
}

// taught is what teaching a message did to a shadow.
type taught struct {
	steps   float64
	bad     bool
	opinion content.Opinion
	old     *Lesson // the other way, taken back first
}

// teach teaches a message to sh, where there is one. The school's lock is held, as in all that follow.
func (sh *shadow) teach(data []byte, digest string, bad bool) (t taught) {
	if sh == nil {
		return t
	}
	if old, ok := sh.lessons[digest]; ok {
		sh.judge.Unlearn(data, old.Steps, old.Bad)
		t.old = &old
	}
	t.bad, t.opinion = bad, sh.judge.Judge(data, content.DefaultThresholds, 2)
	t.steps, _ = sh.judge.Teach(data, bad)
	return t
}

// untaught takes back what teach did.
func (sh *shadow) untaught(data []byte, t taught) {
	if sh == nil {
		return
	}
	ids := sh.judge.Forget(data, t.steps, t.bad)
	if t.old != nil {
		_ = sh.judge.Repeat(ids, t.old.Steps, t.old.Bad, false) // they were just made
	}
}

// enter notes what teach did.
func (sh *shadow) enter(l Lesson, t taught) {
	if sh == nil {
		return
	}
	l.Steps = t.steps
	if t.bad {
		sh.trust.confirm(t.opinion.Group)
	} else {
		sh.trust.good(t.opinion.Group, t.opinion.Probability)
	}
	sh.put(l)
}

// put keeps a lesson so that it can be taken back.
func (sh *shadow) put(l Lesson) {
	if _, known := sh.lessons[l.Digest]; !known {
		sh.order = append(sh.order, l.Digest)
	}
	sh.lessons[l.Digest] = l
	if len(sh.order) > maxLessons {
		delete(sh.lessons, sh.order[0])
		sh.order = sh.order[1:]
	}
	sh.seq, sh.changed = sh.seq+1, true
}

// untrain takes back what sh has learnt of a message.
func (sh *shadow) untrain(data []byte, digest string) {
	if sh == nil {
		return
	}
	if l, ok := sh.lessons[digest]; ok {
		sh.judge.Unlearn(data, l.Steps, l.Bad)
		sh.strike(digest)
	}
	sh.changed = true
}

func (sh *shadow) strike(digest string) {
	delete(sh.lessons, digest)
	for i, d := range sh.order {
		if d == digest {
			sh.order = append(sh.order[:i], sh.order[i+1:]...)
			return
		}
	}
}

// repeat does what a note of the journal tells, where sh has not learnt it yet.
func (sh *shadow) repeat(x *note) {
	if sh == nil || x.Seq <= sh.seq {
		return
	}
	l := x.Lesson
	if l.Steps = x.Shadow; x.Forget {
		l.Steps = sh.lessons[l.Digest].Steps
	}
	if sh.judge.Repeat(x.IDs, l.Steps, l.Bad, x.Forget) != nil {
		return // the school has found the same
	}
	if x.Forget {
		sh.strike(l.Digest)
	} else {
		sh.put(l)
	}
	sh.seq, sh.changed = x.Seq, true
}

func (sh *shadow) report() *Comparison {
	if sh == nil {
		return nil
	}
	c := &sh.count
	return &Comparison{Model: sh.judge.Model().Info(), Since: sh.since, Lessons: len(sh.lessons), Judged: c.judged.Load(), Both: c.both.Load(), Alone: c.alone.Load(), Missed: c.missed.Load(), Trust: sh.trust.report()}
}

// keptShadow is the account of a shadow as it outlives a process.
type keptShadow struct {
	Name                        string
	Since                       time.Time
	Judged, Both, Alone, Missed int64
	Trust                       kept
}

func (sh *shadow) kept() *keptShadow {
	r := sh.report()
	return &keptShadow{Name: r.Model.Name, Since: r.Since, Judged: r.Judged, Both: r.Both, Alone: r.Alone, Missed: r.Missed, Trust: sh.trust.kept()}
}

func (sh *shadow) restore(k *keptShadow) {
	sh.since = k.Since
	sh.count.judged.Add(k.Judged)
	sh.count.both.Add(k.Both)
	sh.count.alone.Add(k.Alone)
	sh.count.missed.Add(k.Missed)
	sh.trust.restore(&k.Trust)
}

// SaveShadow writes the model in shadow; there is false where there is none, fresh where it has changed since the last time.
func (s *School) SaveShadow(w io.Writer) (there, fresh bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	sh := s.shadow.Load()
	if sh == nil || !sh.changed {
		return sh != nil, false, nil
	}
	sh.changed, sh.seq = false, s.seq
	return true, true, write(w, fileLine{Seq: s.seq}, &state{sh.judge.Model(), sh.lessons, sh.order})
}

// LoadShadow takes over what SaveShadow wrote. After an error nothing has changed.
func (s *School) LoadShadow(r io.Reader) error {
	line, st, err := read(r)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.shadow.Store(&shadow{judge: content.NewJudge(st.model), trust: newTrust(), since: s.o.Now().UTC().Truncate(time.Second), lessons: st.lessons, order: st.order, seq: line.Seq})
	return nil
}
