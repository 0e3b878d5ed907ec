package school

import (
	"bytes"
	"errors"
	"io"
	"testing"

	"sluice/filter/content"
	"sluice/filter/content/learn"
	"sluice/filter/message"
)

const pillsMail = "From: x@example.org\r\nSubject: Viagra\r\n\r\nBuy Viagra and Cialis, no prescription, click here now, free pills, lowest prices guaranteed\r\n"

// see has both models judge a message, as mail does.
func see(s *School, id, text string) {
	m := &message.Message{ID: id, Data: []byte(text)}
	o := s.Judge().Judge(m.Data, content.DefaultThresholds, 2)
	s.Seen(m, &o, content.DefaultThresholds)
}

// sharp is a model that takes what it has not learnt as good for spam.
func sharp(t *testing.T) *learn.Model {
	t.Helper()
	m := learn.NewModel("sharp")
	m.Calibrate(learn.Calibration{A: 1, B: 6})
	return m
}

// TestShadow: an imported model judges beside the one in use, decides nothing, proves itself by its own account, learns what
// the other learns, and takes its place in one step; one step leads back.
func TestShadow(t *testing.T) {
	t.Parallel()
	s := open(t, Options{})
	if _, err := s.Use(); !errors.Is(err, ErrNoShadow) {
		t.Errorf("without a shadow: %v", err)
	}
	before := s.Report().Model.Name
	s.Import(learn.NewModel("blank"))
	for range WantedGood + 100 { // it knows nothing, so it takes everything for good
		see(s, "g", pillsMail)
	}
	r := s.Report()
	if s.Acting() || r.Model.Name != before || r.Shadow == nil || r.Shadow.Model.Name != "blank" {
		t.Fatalf("with a shadow: acting %v, %+v", s.Acting(), r)
	}
	if c := r.Shadow; c.Judged != WantedGood+100 || c.Both != 0 || c.Alone != 0 || c.Missed != c.Judged || !c.Trust.Acting || c.Trust.Missing != "" {
		t.Errorf("compared: %+v", c)
	}
	if _, err := s.Use(); err != nil || !s.Acting() || s.Report().Model.Name != "blank" || s.Report().Shadow != nil {
		t.Errorf("used: %v, %+v", err, s.Report())
	}
	if _, err := s.Back(); err != nil || s.Report().Model.Name != before || s.Acting() {
		t.Errorf("back: %v, %+v", err, s.Report())
	}

	s.Import(sharp(t))
	for range 3 {
		see(s, "d", mailText)
	}
	c := s.Report().Shadow
	if c.Alone != 3 || len(c.Trust.Doubts) != 1 || c.Trust.Doubts[0].Count != 3 || c.Trust.Acting {
		t.Errorf("one that is too sharp: %+v", c)
	}
	if _, err := s.Train([]byte(mailText), false, "root", true); err != nil {
		t.Fatal(err)
	}
	if c := s.Report().Shadow; c.Lessons != 1 || len(c.Trust.Doubts) != 0 || c.Trust.Wrong != 1 {
		t.Errorf("the lesson did not reach the shadow: %+v", c)
	}
	if _, err := s.Untrain([]byte(mailText)); err != nil || s.Report().Shadow.Lessons != 0 {
		t.Errorf("the shadow still has what was taken back: %v, %+v", err, s.Report().Shadow)
	}
	if i, err := s.Drop(); err != nil || i.Name != "sharp" || s.Report().Shadow != nil {
		t.Errorf("dropped: %+v, %v", i, err)
	}
}

const mailText = "From: ann@example.org\r\nSubject: minutes\r\n\r\nHello Tom, the minutes of the meeting are attached, please read them until Friday.\r\n"

// TestShadowOutlivesTheProcess: model, lessons and account of the shadow are the same after a restart, also after a kill that
// left lessons in the journal alone.
func TestShadowOutlivesTheProcess(t *testing.T) {
	t.Parallel()
	journal := &book{}
	s := open(t, Options{Journal: journal})
	s.Import(sharp(t))
	see(s, "d", mailText)
	var file, own bytes.Buffer
	if there, fresh, err := s.SaveShadow(&file); err != nil || !there || !fresh {
		t.Fatalf("saved: %v %v %v", there, fresh, err)
	}
	if _, err := s.Save(&own); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Train([]byte(mailText), false, "root", true); err != nil {
		t.Fatal(err)
	}
	n := open(t, Options{})
	if err := n.LoadShadow(bytes.NewReader(file.Bytes())); err != nil {
		t.Fatal(err)
	}
	if err := n.Load(bytes.NewReader(own.Bytes())); err != nil {
		t.Fatal(err)
	}
	if _, err := n.Replay(bytes.NewReader(journal.Bytes())); err != nil {
		t.Fatal(err)
	}
	if err := n.Restore(s.Append(nil)); err != nil {
		t.Fatal(err)
	}
	a, b := s.Report().Shadow, n.Report().Shadow
	if b == nil || b.Model.Name != "sharp" || b.Lessons != 1 || b.Judged != 1 || b.Alone != 1 || !b.Since.Equal(a.Since) || b.Trust.Wrong != a.Trust.Wrong {
		t.Fatalf("after a kill: %+v, before %+v", b, a)
	}
	ja, jb := s.shadow.Load().judge, n.shadow.Load().judge
	if pa, pb := ja.Judge([]byte(mailText), content.DefaultThresholds, 2).Probability, jb.Judge([]byte(mailText), content.DefaultThresholds, 2).Probability; pa != pb {
		t.Errorf("the shadow says %.6f after a kill, %.6f before", pb, pa)
	}
	if err := n.LoadShadow(bytes.NewReader(file.Bytes()[:file.Len()/2])); err == nil || n.Report().Shadow == nil {
		t.Errorf("half a file was taken: %v", err)
	}
}

// TestAFailedSaveIsMadeUpFor: of what a full disk did not take nothing is taken for saved, neither the model before nor that in shadow.
func TestAFailedSaveIsMadeUpFor(t *testing.T) {
	t.Parallel()
	s := open(t, Options{})
	if _, err := s.Train(mail(1), true, "root", true); err != nil {
		t.Fatal(err)
	}
	s.Import(sharp(t))
	for i, fresh := range []bool{true, false, true, false} {
		if i == 2 {
			s.Unwritten()
		}
		before, err := s.SavePrevious(io.Discard)
		_, shadow, serr := s.SaveShadow(io.Discard)
		if err != nil || serr != nil || before != fresh || shadow != fresh {
			t.Errorf("step %d: the model before is written: %t, that in shadow: %t, want %t; %v, %v", i, before, shadow, fresh, err, serr)
		}
	}
	if !s.Unsaved() {
		t.Error("there is nothing to save after a failure")
	}
}
