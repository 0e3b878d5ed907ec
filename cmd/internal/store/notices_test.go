package store

import (
	"errors"
	"path/filepath"
	"testing"
	"time"

	"sluice/filter/lock"
)

func TestNotices(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "sluice.db")
	s, err := Open(path, Options{})
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	for i, want := range []bool{true, false} {
		if first, err := s.NoteNotice("ABCD-EFGH", now); err != nil || first != want {
			t.Errorf("notice %d: %v %v", i, first, err)
		}
	}
	if _, err := s.NoteNotice("WXYZ-0123", now); err != nil {
		t.Fatal(err)
	}
	if err := s.NoticeTold("ABCD-EFGH"); err != nil {
		t.Fatal(err)
	}
	whom := lock.Scope{User: 7, Identity: "web1"}
	used := LinkUnlocks{N: 2, Last: now.UTC().Truncate(time.Microsecond), Withdrawn: "went on"}
	if err := s.SetLinkUnlocks(whom, used); err != nil {
		t.Fatal(err)
	}
	if err := s.AddCalls(Call{ID: "e1", Hook: "panel", Kind: "lock", Body: []byte("1"), Made: now, Next: now}, Call{ID: "e2", Hook: "panel", Body: []byte("2"), Made: now, Next: now.Add(time.Hour)}); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if s, err = Open(path, Options{}); err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if left, err := s.Untold(now.Add(-time.Minute)); err != nil || len(left) != 1 || left[0] != "WXYZ-0123" {
		t.Errorf("untold: %v %v", left, err)
	}
	if got, err := s.LinkUnlocksOf(whom); err != nil || got != used {
		t.Errorf("unlocks by link: %+v %v", got, err)
	}
	if err := s.ForgetLinkUnlocks(7); err != nil {
		t.Fatal(err)
	}
	if got, err := s.LinkUnlocksOf(whom); err != nil || got != (LinkUnlocks{}) {
		t.Errorf("unlocks by link that were forgotten: %+v %v", got, err)
	}
	due, err := s.DueCalls("panel", now, 10)
	if err != nil || len(due) != 1 || string(due[0].Body) != "1" {
		t.Fatalf("due: %+v %v", due, err)
	}
	due[0].Next, due[0].Tries = now.Add(2*time.Hour), 1
	if err := s.CallTried(due[0]); err != nil {
		t.Fatal(err)
	}
	if due, err = s.DueCalls("panel", now.Add(time.Hour), 10); err != nil || len(due) != 1 || due[0].ID != "e2" {
		t.Errorf("an hour later: %+v %v", due, err)
	}
	if err := s.DropCall("panel", "e2"); err != nil {
		t.Fatal(err)
	}
	if n, err := s.CountCalls(); err != nil || n["panel"] != 1 {
		t.Errorf("waiting: %v %v", n, err)
	}
}

func TestAppeals(t *testing.T) {
	t.Parallel()
	s, err := Open(filepath.Join(t.TempDir(), "sluice.db"), Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	add := func(id, message string) error {
		return s.AddAppeal(Appeal{ID: id, At: time.Now(), Message: message, User: 7, Text: "a letter", Evidence: []byte(`{"id":"x"}`), State: AppealOpen}, 2)
	}
	if err := errors.Join(add("a1", "m1"), add("a2", "m2")); err != nil {
		t.Fatal(err)
	}
	if err := add("a3", "m1"); !errors.Is(err, ErrAppealed) {
		t.Errorf("the same message: %v", err)
	}
	if err := add("a3", "m3"); !errors.Is(err, ErrMany) {
		t.Errorf("one too many: %v", err)
	}
	a, ok, err := s.AppealOf("m1")
	if err != nil || !ok || a.Text != "a letter" {
		t.Fatalf("%+v %v %v", a, ok, err)
	}
	a.State, a.By = AppealApproved, "eve"
	if err := s.DecideAppeal(a, Act{Who: "eve", What: "appeal approved", Subject: a.ID}); err != nil {
		t.Fatal(err)
	}
	if err := s.DecideAppeal(a, Act{}); !errors.Is(err, ErrNoAppeal) {
		t.Errorf("decided twice: %v", err)
	}
	if n, err := s.OpenAppeals(); err != nil || n != 1 {
		t.Errorf("open: %d %v", n, err)
	}
	if got, err := s.Appeals("", AppealApproved, 10); err != nil || len(got) != 1 || got[0].By != "eve" {
		t.Errorf("approved: %+v %v", got, err)
	}
	day := time.Date(2027, 1, 31, 12, 0, 0, 0, time.UTC)
	if err := errors.Join(s.CountVerdicts(day, 10, 0), s.CountVerdicts(day, 5, 1), s.CountVerdicts(day.AddDate(0, -2, 0), 100, 9)); err != nil {
		t.Fatal(err)
	}
	if stopped, wrong, err := s.Verdicts(day.AddDate(0, 0, -30)); err != nil || stopped != 15 || wrong != 1 {
		t.Errorf("verdicts: %d %d %v", stopped, wrong, err)
	}
}
