package main

import (
	"bytes"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"regexp"
	"strings"
	"testing"

	"sluice/cmd/internal/config"
	"sluice/filter/content"
	"sluice/filter/content/shipped"
)

// TestLearntByAnotherVersion: what another version of the filter learnt stops no start and is not lost; what is damaged stops it.
func TestLearntByAnotherVersion(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	var log bytes.Buffer
	open := func() (*schoolFile, error) {
		return openSchool(dir, &config.Content{Lessons: 10}, slog.New(slog.NewTextHandler(&log, nil)))
	}
	f, err := open()
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if _, err := f.Save(&b); err != nil {
		t.Fatal(err)
	}
	old := regexp.MustCompile(`"features":[0-9]+`).ReplaceAll(b.Bytes(), []byte(`"features":999`))
	if err := os.WriteFile(f.path, old, 0o600); err != nil {
		t.Fatal(err)
	}
	again, err := open()
	if err != nil || again.Judge().Model().Info().Name != f.Judge().Model().Info().Name {
		t.Fatalf("with another version's model: %v", err)
	}
	if kept, err := os.ReadFile(f.path + ".old"); err != nil || !bytes.Equal(kept, old) {
		t.Errorf("it was not set aside whole: %v", err)
	}
	if _, err := os.Stat(f.path); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(log.String(), "learned.model.old") {
		t.Errorf("stat %v, log %s", err, log.String())
	}
	if err := os.WriteFile(f.path, bytes.Replace(b.Bytes(), []byte("sluice"), []byte("slvice"), 1), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := open(); err == nil || !strings.Contains(err.Error(), "; ") {
		t.Errorf("with a damaged file: %v", err)
	}
}

// TestNoModelWhereItLooksAtNothing: with the learned part off the shipped model is read when somebody asks for it, and not before.
func TestNoModelWhereItLooksAtNothing(t *testing.T) {
	t.Parallel()
	want, err := shipped.Model()
	if err != nil {
		t.Fatal(err)
	}
	for _, learned := range []string{content.LearnedOff, content.LearnedAuto} {
		m, later, err := firstModel(&config.Content{Learned: learned}, slog.New(slog.DiscardHandler))
		if off := learned == content.LearnedOff; err != nil || (m == nil) != off || (later == nil) == off {
			t.Fatalf("%s: at once %t, later %t, %v", learned, m != nil, later != nil, err)
		}
		f, err := openSchool(t.TempDir(), &config.Content{Learned: learned, Lessons: 10}, slog.New(slog.DiscardHandler))
		if err != nil || f.Report().Model.Name != want.Info().Name {
			t.Errorf("%s: begins with %q, want %q, %v", learned, f.Report().Model.Name, want.Info().Name, err)
		}
	}
}

// TestAKilledProcessForgetsNoLesson: what was taught is there after a kill, though the model was not saved, and once it was
// saved the journal is empty; the model before can be put back after a restart.
func TestAKilledProcessForgetsNoLesson(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	log := slog.New(slog.DiscardHandler)
	open := func() *schoolFile {
		t.Helper()
		f, err := openSchool(dir, &config.Content{Lessons: 50}, log)
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	kill := func(f *schoolFile) { // the kernel closes what a killed process had open
		for _, k := range f.files {
			k.Close()
		}
	}
	f := open()
	if _, err := f.Train([]byte("Subject: turnips\r\n\r\nour turnips are the best in the county\r\n"), true, "root", true); err != nil {
		t.Fatal(err)
	}
	kill(f)
	f = open()
	if n := f.Report().Lessons; n != 1 {
		t.Fatalf("after a kill there are %d lessons", n)
	}
	if err := f.saveLessons(); err != nil {
		t.Fatal(err)
	}
	if st, err := os.Stat(string(f.journal)); err != nil || st.Size() != 0 {
		t.Errorf("the journal after a save: %v, %v", st, err)
	}
	kill(f)
	f = open()
	if r := f.Report(); r.Lessons != 1 || !strings.HasPrefix(r.Previous, "shipped") {
		t.Fatalf("after a restart: %+v", r)
	}
	if _, err := f.Back(); err != nil || f.Report().Lessons != 0 {
		t.Errorf("back after a restart: %v, %d lessons", err, f.Report().Lessons)
	}
	if err := f.closeLessons(); err != nil {
		t.Fatal(err)
	}
}
