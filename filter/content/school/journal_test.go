package school

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"
)

// book is a journal in memory that may fail.
type book struct {
	bytes.Buffer
	fail error
}

func (b *book) Append(lines []byte) error {
	if b.fail == nil {
		b.Write(lines)
	}
	return b.fail
}

// TestKilledSchool: what was learnt, changed and taken back since the last save is there again after a kill, at whatever
// byte the journal ends, and is learnt once.
func TestKilledSchool(t *testing.T) {
	t.Parallel()
	j := &book{}
	now := time.Date(2027, 1, 31, 12, 0, 0, 0, time.UTC)
	o := Options{Journal: j, Budget: 3, Now: func() time.Time { return now }}
	s := open(t, o)
	teach := func(n int, bad bool, source string) {
		t.Helper()
		if _, err := s.Train(mail(n), bad, source, false); err != nil {
			t.Fatal(err)
		}
	}
	teach(1, true, "ann")
	var saved bytes.Buffer
	seq, err := s.Save(&saved)
	if err != nil || seq != 1 {
		t.Fatalf("lesson %d, %v", seq, err)
	}
	teach(2, true, "ann")
	teach(3, true, "bob")
	teach(2, false, "ann") // a change of mind
	if _, err := s.Untrain(mail(3)); err != nil {
		t.Fatal(err)
	}
	reopened := func(lines string) (*School, int, error) {
		t.Helper()
		n := open(t, Options{Journal: &book{}, Budget: 3, Now: o.Now})
		if err := n.Load(bytes.NewReader(saved.Bytes())); err != nil {
			t.Fatal(err)
		}
		count, err := n.Replay(strings.NewReader(lines))
		return n, count, err
	}
	n, count, err := reopened(j.String())
	if err != nil || count != 5 {
		t.Fatalf("%d lessons were repeated, %v", count, err)
	}
	for i := range 4 {
		if a, b := probability(s, mail(i)), probability(n, mail(i)); a-b > 1e-4 || b-a > 1e-4 {
			t.Errorf("message %d is judged %.5f, before the kill %.5f", i, b, a)
		}
	}
	if r := n.Report(); r.Lessons != 2 || r.Model.Good != s.Report().Model.Good || r.Model.Bad != s.Report().Model.Bad || !n.Unsaved() {
		t.Errorf("%+v, before the kill %+v", r, s.Report())
	}
	if _, err := n.Train(mail(9), true, "ann", false); !errors.Is(err, ErrBudget) {
		t.Errorf("the day's budget begins anew: %v", err)
	}
	if again, err := n.Replay(strings.NewReader(j.String())); again != 0 || err != nil {
		t.Errorf("%d lessons were repeated twice, %v", again, err)
	}
	whole := j.String()
	for cut := len(whole) - 1; cut > 0; cut -= 997 {
		if _, count, err := reopened(whole[:cut]); err != nil || count > 5 {
			t.Errorf("cut at %d: %d lessons, %v", cut, count, err)
		}
	}
	lines := strings.SplitAfter(whole, "\n")
	if _, count, err := reopened(lines[0] + lines[1] + "{\n" + lines[2]); err == nil || count != 1 || !strings.Contains(err.Error(), "damaged") {
		t.Errorf("a damaged line: %d lessons, %v", count, err)
	}
	if ok, err := s.Quiet(seq, func() error { t.Error("the journal was cleared with lessons in it"); return nil }); ok || err != nil {
		t.Errorf("quiet with an old number: %v", err)
	}
	if ok, err := s.Quiet(6, func() error { return errors.New("x") }); !ok || err == nil {
		t.Errorf("quiet with the last number: %v", err)
	}
}

// TestLessonThatCannotBeKept is none.
func TestLessonThatCannotBeKept(t *testing.T) {
	t.Parallel()
	j := &book{}
	s := open(t, Options{Journal: j})
	if _, err := s.Train(mail(1), true, "root", true); err != nil {
		t.Fatal(err)
	}
	before := probability(s, mail(1))
	j.fail = errors.New("no space left on device")
	if _, err := s.Train(mail(1), false, "root", true); err == nil || !strings.Contains(err.Error(), "nothing was changed") {
		t.Errorf("a change of mind: %v", err)
	}
	if _, err := s.Untrain(mail(1)); err == nil {
		t.Error("unlearnt")
	}
	if after := probability(s, mail(1)); after-before > 1e-4 || before-after > 1e-4 || s.Report().Lessons != 1 {
		t.Errorf("it is judged %.5f, before %.5f, with %d lessons", after, before, s.Report().Lessons)
	}
}

// TestBackOverARestart: the model to go back to is saved once it is another.
func TestBackOverARestart(t *testing.T) {
	t.Parallel()
	s := open(t, Options{})
	var b bytes.Buffer
	if fresh, err := s.SavePrevious(&b); fresh || err != nil {
		t.Errorf("there is something to go back to: %v", err)
	}
	if _, err := s.Train(mail(1), true, "root", true); err != nil {
		t.Fatal(err)
	}
	learnt := probability(s, mail(1))
	if fresh, err := s.SavePrevious(&b); !fresh || err != nil {
		t.Fatalf("nothing to go back to: %v", err)
	}
	if again, err := s.SavePrevious(&b); again || err != nil {
		t.Errorf("saved twice: %v", err)
	}
	n := open(t, Options{})
	if err := n.LoadPrevious(bytes.NewReader(b.Bytes())); err != nil {
		t.Fatal(err)
	}
	if _, err := n.Back(); err != nil {
		t.Fatal(err)
	}
	if probability(n, mail(1)) >= learnt {
		t.Error("back is not back")
	}
	if err := n.LoadPrevious(strings.NewReader("x")); err == nil {
		t.Error("nonsense was taken")
	}
}
