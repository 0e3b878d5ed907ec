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
	"strings"
	"sync"
	"time"

	"sluice/cmd/internal/config"
	"sluice/filter/content"
	"sluice/filter/content/learn"
	"sluice/filter/content/school"
	"sluice/filter/content/shipped"
	"sluice/filter/habit"
	"sluice/proxy/durable"
)

// schoolFile keeps what the content filter has learnt over a restart: the model with its lessons in a file of its own,
// since it is large and changes seldom; the account of what it is worth as counts are kept.
type schoolFile struct {
	keptFile
	*school.School
	path    string
	journal lessonJournal
	saving  sync.Mutex
}

// lessonsEvery is how soon the model is saved with what was learnt; until then the journal has it.
const lessonsEvery = 5 * time.Second

// lessonJournal is a file of lessons that are not in the saved model yet.
type lessonJournal string

// Append implements school.Journal.
func (j lessonJournal) Append(lines []byte) error {
	f, err := os.OpenFile(string(j), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	st, err := f.Stat()
	if err == nil {
		_, err = f.Write(lines)
	}
	if err = errors.Join(err, f.Sync()); err != nil && st != nil {
		err = errors.Join(err, f.Truncate(st.Size())) // half a line would hide the next ones
	}
	return errors.Join(err, f.Close())
}

// clear drops what the saved model has.
func (j lessonJournal) clear() error {
	if err := os.Truncate(string(j), 0); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// openSchool opens what was learnt here, or begins with the shipped model.
func openSchool(dir string, cfg *config.Content, log *slog.Logger) (*schoolFile, error) {
	m, later, err := firstModel(cfg, log)
	if err != nil {
		return nil, err
	}
	journal := lessonJournal(filepath.Join(dir, "lessons.journal"))
	s := school.New(m, school.Options{Budget: cfg.Lessons, Journal: journal, Model: later})
	f := &schoolFile{keptFile: keptFile{what: s}, School: s, path: filepath.Join(dir, "learned.model"), journal: journal}
	err = f.load()
	if errors.Is(err, learn.ErrOtherVersion) { // the weights mean nothing here, and mail has to flow
		aside := f.path + ".old"
		log.Warn("set aside what the content filter has learnt: another version of it did; it begins with the shipped model", "file", aside)
		err = os.Rename(f.path, aside)
		if jerr := os.Rename(string(journal), string(journal)+".old"); !errors.Is(jerr, fs.ErrNotExist) {
			err = errors.Join(err, jerr)
		}
	}
	if err != nil {
		return nil, err
	}
	f.loadRest(log)
	return f, f.open(dir, "content")
}

// firstModel gives the shipped model. Where the learned part looks at no message it is read once somebody asks for it all the
// same: it takes 12 MiB.
func firstModel(cfg *config.Content, log *slog.Logger) (*learn.Model, func() *learn.Model, error) {
	if cfg.Learned != content.LearnedOff {
		m, err := shipped.Model()
		return m, nil, err
	}
	return nil, func() *learn.Model {
		m, err := shipped.Model()
		if err != nil {
			log.Error("the content filter begins with a model that knows nothing", "err", err)
			return learn.NewModel("empty")
		}
		return m
	}, nil
}

// previous is the file of the model to go back to.
func (f *schoolFile) previous() string { return strings.TrimSuffix(f.path, ".model") + ".previous" }

// loadRest takes over the model to go back to, and lessons that a killed process has not saved. Without them mail flows.
func (f *schoolFile) loadRest(log *slog.Logger) {
	b, err := os.ReadFile(f.previous())
	if err == nil {
		err = f.LoadPrevious(bytes.NewReader(b))
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		log.Warn("there is no earlier model to go back to", "file", f.previous(), "err", err)
	}
	b, err = os.ReadFile(f.inShadow())
	if err == nil {
		err = f.LoadShadow(bytes.NewReader(b))
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		log.Warn("there is no model in shadow any more", "file", f.inShadow(), "err", err)
	}
	in, err := os.Open(string(f.journal))
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	n := 0
	if err == nil {
		n, err = f.Replay(in)
		err = errors.Join(err, in.Close())
	}
	if n > 0 {
		log.Info("lessons that a killed process had not saved were learnt again", "count", n)
	}
	if err != nil {
		log.Error("some lessons are lost", "file", string(f.journal), "err", err)
	}
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
	f.saving.Lock()
	defer f.saving.Unlock()
	if !f.Unsaved() {
		return nil
	}
	var b, before bytes.Buffer
	fresh, err := f.SavePrevious(&before)
	if err == nil && fresh {
		err = durable.WriteFile(f.previous(), before.Bytes(), 0o600)
	}
	if err == nil {
		err = f.saveShadow()
	}
	seq := int64(0)
	if err == nil {
		if seq, err = f.Save(&b); err == nil {
			err = durable.WriteFile(f.path, b.Bytes(), 0o600)
		}
	}
	if err == nil {
		_, err = f.Quiet(seq, f.journal.clear) // else the next save does it
	}
	if err != nil {
		f.Unwritten()
		return fmt.Errorf("could not save what the content filter has learnt: %w", err)
	}
	return nil
}

// inShadow is the file of the model in shadow.
func (f *schoolFile) inShadow() string { return strings.TrimSuffix(f.path, ".model") + ".shadow" }

// saveShadow writes the model in shadow where it changed, and removes its file where there is none any more.
func (f *schoolFile) saveShadow() error {
	var b bytes.Buffer
	there, fresh, err := f.SaveShadow(&b)
	switch {
	case err != nil:
		return err
	case fresh:
		return durable.WriteFile(f.inShadow(), b.Bytes(), 0o600)
	case there:
		return nil
	}
	if err := os.Remove(f.inShadow()); !errors.Is(err, fs.ErrNotExist) {
		return err
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
				d.log.Error("the model is not on disk; the journal has the lessons", "err", err)
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
	c := content.NewClassifier(d.school, d.policy, func() string { return d.cfg.Load().Content.Learned }).Watching(d.habits, d.campaigns)
	return c.Waiting(d.patience.Patience).Discarding(func() bool { return d.cfg.Load().Content.Discard })
}

// habitsFile keeps over a restart what each sender usually does.
type habitsFile struct {
	keptFile
	*habit.Habits
}

func openHabits(dir string) (*habitsFile, error) {
	h := habit.New(0, nil)
	f := &habitsFile{keptFile{what: h, every: time.Minute}, h}
	return f, f.open(dir, "habits")
}

// patienceFile keeps over a restart which messages were put off to be judged again.
type patienceFile struct {
	keptFile
	*content.Patience
}

func openPatience(dir string) (*patienceFile, error) {
	p := content.NewPatience(nil)
	f := &patienceFile{keptFile{what: p}, p}
	return f, f.open(dir, "patience")
}
