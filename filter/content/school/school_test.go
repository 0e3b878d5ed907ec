package school

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"sluice/filter/content"
	"sluice/filter/content/learn"
	"sluice/filter/content/shipped"
	"sluice/filter/message"
)

func open(t *testing.T, o Options) *School {
	t.Helper()
	m, err := shipped.Model()
	if err != nil {
		t.Fatal(err)
	}
	return New(m, o)
}

// TestFirstModelWhenAskedFor: a school that got none asks for its first model once, and not where one was taken over before.
func TestFirstModelWhenAskedFor(t *testing.T) {
	t.Parallel()
	asked := 0
	o := Options{Model: func() *learn.Model { asked++; return learn.NewModel("late") }}
	s := New(nil, o)
	if asked != 0 {
		t.Error("asked for before anybody wanted it")
	}
	for range 2 {
		if name := s.Judge().Model().Info().Name; name != "late" || asked != 1 {
			t.Errorf("model %q, asked for %d times", name, asked)
		}
	}
	var saved bytes.Buffer
	if _, err := open(t, Options{}).Save(&saved); err != nil {
		t.Fatal(err)
	}
	s = New(nil, o)
	if err := s.Load(&saved); err != nil || s.Judge().Model().Info().Name == "late" || asked != 1 {
		t.Errorf("%v, model %q, asked for %d times", err, s.Judge().Model().Info().Name, asked)
	}
}

func mail(n int) []byte {
	return fmt.Appendf(nil, "From: a@example.org\nSubject: turnips\n\nour turnips number %s are the best in the county, have a look at the stall of mister %s\n", strings.Repeat("x", n), strings.Repeat("y", n))
}

func probability(s *School, data []byte) float64 {
	return s.Judge().Judge(content.CRLF(data), content.DefaultThresholds, 2).Probability
}

func TestTrainAndUntrain(t *testing.T) {
	t.Parallel()
	s := open(t, Options{})
	before := probability(s, mail(1))
	l, err := s.Train(mail(1), true, "root", true)
	if err != nil || l.Steps <= 0 || !l.Bad {
		t.Fatalf("%+v, %v", l, err)
	}
	if p := probability(s, mail(1)); p <= before {
		t.Errorf("learnt as bad it is %.3f, before %.3f", p, before)
	}
	if _, err := s.Train(mail(1), true, "root", true); !errors.Is(err, ErrKnown) {
		t.Errorf("learnt twice: %v", err)
	}
	if l, err := s.Train(mail(1), false, "root", true); err != nil || l.Bad {
		t.Errorf("a change of mind: %+v, %v", l, err)
	}
	if _, err := s.Untrain(mail(1)); err != nil {
		t.Fatal(err)
	}
	if p := probability(s, mail(1)); p-before > 0.01 || before-p > 0.01 {
		t.Errorf("unlearnt it is %.3f, before %.3f", p, before)
	}
	if _, err := s.Untrain(mail(1)); !errors.Is(err, ErrUnknown) {
		t.Errorf("unlearnt twice: %v", err)
	}
}

func TestPoisonIsBounded(t *testing.T) {
	t.Parallel()
	now := time.Date(2027, 1, 31, 12, 0, 0, 0, time.UTC)
	s := open(t, Options{Budget: 3, Now: func() time.Time { return now }})
	spam := []byte("From: Canadian Pharmacy <x@medstore.example>\nSubject: Viagra 80% OFF\n\nBuy Viagra, Cialis and Levitra, no prescription needed. Lowest prices, worldwide delivery.\n" +
		"Click here: http://meds.example/ Free pills with every order, 100% money back guarantee! To be removed click here.\n")
	taught := 0
	for i := range 50 {
		_, err := s.Train(append(spam, strings.Repeat("z", i)...), false, "customer", false)
		switch {
		case err == nil:
			taught++
		case !errors.Is(err, ErrBudget):
			t.Fatal(err)
		}
	}
	if taught != 3 {
		t.Errorf("one source taught %d lessons a day, want 3", taught)
	}
	if _, err := s.Train(mail(2), true, "another", false); err != nil {
		t.Errorf("another source: %v", err)
	}
	now = now.Add(24 * time.Hour)
	if _, err := s.Train(mail(3), true, "customer", false); err != nil {
		t.Errorf("the next day: %v", err)
	}
}

func TestBackAndImport(t *testing.T) {
	t.Parallel()
	s := open(t, Options{})
	if _, err := s.Back(); !errors.Is(err, ErrNoPrevious) {
		t.Errorf("back from the first model: %v", err)
	}
	before := probability(s, mail(1))
	for i := range 5 {
		if _, err := s.Train(mail(i), true, "root", true); err != nil {
			t.Fatal(err)
		}
	}
	learnt := probability(s, mail(1))
	if _, err := s.Back(); err != nil {
		t.Fatal(err)
	}
	if p := probability(s, mail(1)); p != before || s.Report().Lessons != 0 {
		t.Errorf("back it is %.4f with %d lessons, before %.4f", p, s.Report().Lessons, before)
	}
	if _, err := s.Back(); err != nil || probability(s, mail(1)) != learnt || s.Report().Lessons != 5 {
		t.Errorf("twice back is not forth again: %v", err)
	}
	var b bytes.Buffer
	if err := s.Export(&b); err != nil {
		t.Fatal(err)
	}
	other := learn.NewModel("other")
	s.trust.Load().taken.Store(9999)
	s.Replace(other)
	if p := probability(s, mail(1)); p != 0.5 || s.Report().Model.Name != "other" || s.Report().Trust.Good != 0 {
		t.Errorf("the imported model says %.3f: %+v", p, s.Report())
	}
	m, err := learn.Load(&b)
	if err != nil {
		t.Fatal(err)
	}
	s.Replace(m)
	if probability(s, mail(1)) != learnt {
		t.Error("the exported model came back as another")
	}
}

func TestWhatWasLearntOutlivesTheProcess(t *testing.T) {
	t.Parallel()
	s := open(t, Options{})
	if s.Unsaved() {
		t.Error("a fresh school wants to be saved")
	}
	if _, err := s.Train(mail(1), true, "root", true); err != nil {
		t.Fatal(err)
	}
	if !s.Unsaved() || s.Unsaved() {
		t.Error("a lesson is to be saved, once")
	}
	var b bytes.Buffer
	if _, err := s.Save(&b); err != nil {
		t.Fatal(err)
	}
	file := b.Bytes()
	n := open(t, Options{})
	if err := n.Load(bytes.NewReader(file)); err != nil {
		t.Fatal(err)
	}
	if probability(n, mail(1)) != probability(s, mail(1)) {
		t.Error("the model came back as another")
	}
	if l, err := n.Untrain(mail(1)); err != nil || l.Source != "root" {
		t.Errorf("a lesson of the earlier process: %+v, %v", l, err)
	}
	for name, bad := range map[string][]byte{"empty": nil, "cut": file[:len(file)/2], "other": []byte("sluice school 2\n[]\n"), "no end": append([]byte(fileMagic), 'x'), "lessons": bytes.Replace(file, []byte(`[{"digest`), []byte(`[["digest`), 1)} {
		if err := n.Load(bytes.NewReader(bad)); err == nil || !strings.Contains(err.Error(), "; ") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// opinion is one of probability p on a text of its own.
func opinion(p float64, group uint32) *content.Opinion {
	return &content.Opinion{Probability: p, Group: group}
}

func TestDayOne(t *testing.T) {
	t.Parallel()
	s := open(t, Options{})
	th := content.DefaultThresholds
	for range WantedGood - 1 {
		s.Seen(&message.Message{ID: "x"}, opinion(0.01, 0), th)
	}
	s.Confirm("none", true)
	if s.Acting() {
		t.Error("it acts before it knows the network")
	}
	for i := range uint32(3) {
		for range 10 { // copies are one doubt
			s.Seen(&message.Message{ID: fmt.Sprintf("d%d", i)}, opinion(0.99, i), th)
		}
	}
	s.Seen(&message.Message{ID: "unsure"}, opinion(0.9, 77), th)
	for range 101 {
		s.Seen(&message.Message{ID: "x"}, opinion(0.01, 0), th)
	}
	r := s.Report().Trust
	if s.Acting() || len(r.Doubts) != 3 || r.Doubts[0].Count != 10 || !strings.Contains(r.Missing, "3 kinds") {
		t.Fatalf("with three doubts: %+v", r)
	}
	if !s.Confirm("d0", true) || !s.Confirm("d1", true) || s.Confirm("d1", true) {
		t.Error("doubts are settled once")
	}
	if !s.Acting() {
		t.Fatalf("with one doubt among 5,100 it does not act: %+v", s.Report().Trust)
	}
	s.Seen(&message.Message{ID: "later"}, opinion(0.999, 9), th) // it refuses now: that is no doubt
	if !s.Acting() {
		t.Error("what it refuses takes its right away")
	}
	// Over a restart it is the same.
	n := open(t, Options{})
	if err := n.Restore(s.Append(nil)); err != nil || !n.Acting() || n.Report().Trust.Good != s.Report().Trust.Good {
		t.Errorf("after a restart: %+v, %v", n.Report().Trust, err)
	}
	if err := n.Restore([]byte("{")); err == nil {
		t.Error("a damaged account was taken")
	}
	// Two good messages that it took for spam are more than 0.02 %.
	s.trust.Load().good(100, 0.99)
	s.trust.Load().good(101, 0.999)
	if s.Acting() {
		t.Error("it acts although it was wrong twice in 5,100")
	}
}

func TestTrainingSettlesDoubts(t *testing.T) {
	t.Parallel()
	s := open(t, Options{})
	spam := []byte("From: x@example.org\r\nSubject: Viagra\r\n\r\nBuy Viagra and Cialis, no prescription, click here now, free pills, lowest prices guaranteed\r\n")
	o := s.Judge().Judge(spam, content.DefaultThresholds, 2)
	o.Probability = 0.99
	s.Seen(&message.Message{ID: "k1.1"}, &o, content.DefaultThresholds)
	if len(s.Report().Trust.Doubts) != 1 || !s.Changed() || s.Changed() {
		t.Fatal("no doubt was noted, or not said once")
	}
	if _, err := s.Train(spam, true, "root", true); err != nil {
		t.Fatal(err)
	}
	if d := s.Report().Trust.Doubts; len(d) != 0 {
		t.Errorf("doubts left: %+v", d)
	}
}
