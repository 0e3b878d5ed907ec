package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"sluice/cmd/internal/config"
	"sluice/filter/content"
	"sluice/filter/content/learn"
	"sluice/filter/content/school"
	"sluice/filter/content/shipped"
)

// schoolFile keeps what the content filter has learnt over a restart: the model with its lessons in a file of its own,
// since it is large and changes seldom; the account of what it is worth as counts are kept.
type schoolFile struct {
	keptFile
	*school.School
	path string
}

// lessonsEvery is how soon lessons are on disk; a killed process forgets so much.
const lessonsEvery = 5 * time.Second

// openSchool opens what was learnt here, or begins with the shipped model.
func openSchool(dir string, cfg *config.Content, log *slog.Logger) (*schoolFile, error) {
	m, err := shipped.Model()
	if err != nil {
		return nil, err
	}
	s := school.New(m, school.Options{Budget: cfg.Lessons})
	f := &schoolFile{keptFile{what: s}, s, filepath.Join(dir, "learned.model")}
	err = f.load()
	if errors.Is(err, learn.ErrOtherVersion) { // the weights mean nothing here, and mail has to flow
		aside := f.path + ".old"
		log.Warn("set aside what the content filter has learnt: another version of it did; it begins with the shipped model", "file", aside)
		err = os.Rename(f.path, aside)
	}
	if err != nil {
		return nil, err
	}
	return f, f.open(dir, "content")
}

// load takes over what an earlier process saved.
func (f *schoolFile) load() error {
	b, err := os.ReadFile(f.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		err = f.Load(bytes.NewReader(b))
	}
	if err != nil {
		return fmt.Errorf("could not read what the content filter has learnt, %s: %w", f.path, err)
	}
	return nil
}

// saveLessons writes model and lessons where they changed.
func (f *schoolFile) saveLessons() error {
	if !f.Unsaved() {
		return nil
	}
	var b bytes.Buffer
	err := f.Save(&b)
	if err == nil {
		err = writeDurably(f.path, b.Bytes())
	}
	if err != nil {
		f.Unwritten()
		return fmt.Errorf("could not save what the content filter has learnt: %w", err)
	}
	return nil
}

// keepLessons saves what was learnt until ctx ends. After a hand-over it is the new process's to save.
func (d *daemon) keepLessons(ctx context.Context) {
	t := time.NewTicker(lessonsEvery)
	defer t.Stop()
	for {
		select {
		case <-t.C:
			if err := d.school.saveLessons(); err != nil {
				d.log.Error("what was learnt last is lost at a kill", "err", err)
			}
		case <-d.handedOver:
			return
		case <-ctx.Done():
			return
		}
	}
}

// closeLessons saves for the last time.
func (f *schoolFile) closeLessons() error { return errors.Join(f.saveLessons(), f.close()) }

// classifier judges messages by what is learnt here, and has the campaigns see them.
func (d *daemon) classifier() *content.Classifier {
	return content.NewClassifier(d.school, d.policy, func() string { return d.cfg.Load().Content.Learned }).Watching(d.campaigns)
}
