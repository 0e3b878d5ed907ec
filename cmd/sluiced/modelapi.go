package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"sluice/cmd/internal/api"
	"sluice/cmd/internal/store"
	"sluice/filter/content/learn"
	"sluice/filter/content/school"
	"sluice/filter/content/shipped"
)

// Model tells what the content filter judges by.
func (b backend) Model(context.Context) (*api.Model, error) {
	r := b.d.school.Report()
	m := &api.Model{Name: r.Model.Name, Built: r.Model.Built, From: r.Model.From, Good: r.Model.Good, Bad: r.Model.Bad, Lessons: r.Lessons, Previous: r.Previous,
		Shadow: shownShadow(r.Shadow), Learned: b.d.cfg.Load().Content.Learned, Acting: r.Trust.Acting, Missing: r.Trust.Missing, Taken: r.Trust.Good, Wrong: r.Trust.Wrong, Doubts: []api.Doubt{}}
	for _, d := range r.Trust.Doubts {
		m.Doubts = append(m.Doubts, api.Doubt(d))
	}
	return m, nil
}

// ExportModel writes the model in use.
func (b backend) ExportModel(_ context.Context, w io.Writer) error { return b.d.school.Export(w) }

// shownShadow is a model in shadow as the API tells of it.
func shownShadow(c *school.Comparison) *api.ShadowModel {
	if c == nil {
		return nil
	}
	m := &api.ShadowModel{Name: c.Model.Name, Built: c.Model.Built, From: c.Model.From, Good: c.Model.Good, Bad: c.Model.Bad, Since: c.Since, Lessons: c.Lessons, Judged: c.Judged, Both: c.Both,
		Alone: c.Alone, MissedBy: c.Missed, Ready: c.Trust.Missing == "", Missing: c.Trust.Missing, Taken: c.Trust.Good, Wrong: c.Trust.Wrong, Doubts: []api.Doubt{}}
	for _, d := range c.Trust.Doubts {
		m.Doubts = append(m.Doubts, api.Doubt(d))
	}
	return m
}

// ImportModel puts another model in shadow, or now in the place of the one in use.
func (b backend) ImportModel(ctx context.Context, who string, r io.Reader, now bool) (*api.Model, error) {
	m, err := learn.Load(r)
	if err != nil {
		return nil, &api.Problem{Status: http.StatusBadRequest, Code: "bad-model", What: "the model was not taken: " + err.Error(), Remedy: "the one in use stays"}
	}
	detail := "in shadow"
	if now {
		detail = "in use at once"
		b.d.school.Replace(m)
	} else {
		b.d.school.Import(m)
	}
	if err := b.d.school.saveLessons(); err != nil {
		return nil, err
	}
	return b.changedModel(ctx, who, "model imported", m.Info().Name, detail)
}

// UseModel puts the model in shadow, or the shipped one, into use.
func (b backend) UseModel(ctx context.Context, who, which string) (*api.Model, error) {
	if which == "shipped" {
		m, err := shipped.Model()
		if err != nil {
			return nil, err
		}
		b.d.school.Replace(m)
	} else if _, err := b.d.school.Use(); err != nil {
		return nil, notTaught(err)
	}
	if err := b.d.school.saveLessons(); err != nil {
		return nil, err
	}
	return b.changedModel(ctx, who, "model put into use", b.d.school.Report().Model.Name, which)
}

// DropShadow ends the shadow.
func (b backend) DropShadow(ctx context.Context, who string) (*api.Model, error) {
	i, err := b.d.school.Drop()
	if err != nil {
		return nil, notTaught(err)
	}
	if err := b.d.school.saveLessons(); err != nil {
		return nil, err
	}
	return b.changedModel(ctx, who, "model in shadow dropped", i.Name, "")
}

// PreviousModel goes back to the model before.
func (b backend) PreviousModel(ctx context.Context, who string) (*api.Model, error) {
	i, err := b.d.school.Back()
	if err != nil {
		return nil, notTaught(err)
	}
	if err := b.d.school.saveLessons(); err != nil {
		return nil, err
	}
	return b.changedModel(ctx, who, "model put back", i.Name, fmt.Sprintf("%d good and %d bad learnt", i.Good, i.Bad))
}

// Train teaches a message.
func (b backend) Train(_ context.Context, who string, data []byte, bad bool, source string) (*api.Lesson, error) {
	operator := source == ""
	if operator {
		source = who
	}
	l, err := b.d.school.Train(data, bad, source, operator)
	if err != nil {
		return nil, notTaught(err)
	}
	return shownLesson(&l), b.auditModel(who, "message learnt", l.Digest, fmt.Sprintf("%s, said by %s", className(bad), source))
}

// Untrain takes back what was learnt of a message.
func (b backend) Untrain(_ context.Context, who string, data []byte) (*api.Lesson, error) {
	l, err := b.d.school.Untrain(data)
	if err != nil {
		return nil, notTaught(err)
	}
	return shownLesson(&l), b.auditModel(who, "message unlearnt", l.Digest, className(l.Bad))
}

// ConfirmDoubt says whether a kind of message was bad.
func (b backend) ConfirmDoubt(ctx context.Context, who string, v api.Verdict) (*api.Model, error) {
	if !b.d.school.Confirm(v.ID, v.Bad) {
		return nil, &api.Problem{Status: http.StatusNotFound, Code: "no-such-doubt", What: fmt.Sprintf("nobody waits for a word on %q", v.ID), Remedy: "`sluice model` lists what would have been refused"}
	}
	return b.changedModel(ctx, who, "doubt settled", v.ID, className(v.Bad))
}

func (b backend) changedModel(ctx context.Context, who, what, subject, detail string) (*api.Model, error) {
	if err := b.auditModel(who, what, subject, detail); err != nil {
		return nil, err
	}
	return b.Model(ctx)
}

func (b backend) auditModel(who, what, subject, detail string) error {
	b.d.log.Info(what, "subject", subject, "detail", detail, "by", who)
	return b.d.store.Audit(store.Act{At: time.Now(), Who: who, What: what, Subject: subject, Detail: detail})
}

func className(bad bool) string {
	if bad {
		return "spam"
	}
	return "ham"
}

func shownLesson(l *school.Lesson) *api.Lesson {
	return &api.Lesson{Digest: l.Digest, Bad: l.Bad, Source: l.Source, Steps: l.Steps}
}

// notTaught is an error of the school as the API tells it.
func notTaught(err error) error {
	what, remedy, _ := strings.Cut(err.Error(), "; ")
	p := &api.Problem{Status: http.StatusConflict, Code: "refused", What: what, Remedy: remedy}
	switch {
	case errors.Is(err, school.ErrBudget):
		p.Status, p.Code = http.StatusTooManyRequests, "budget"
	case errors.Is(err, school.ErrKnown):
		p.Code = "known"
	case errors.Is(err, school.ErrUnknown):
		p.Status, p.Code = http.StatusNotFound, "not-learnt"
	}
	return p
}
