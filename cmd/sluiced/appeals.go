package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"sluice/cmd/internal/api"
	"sluice/cmd/internal/notify"
	"sluice/cmd/internal/public"
	"sluice/cmd/internal/store"
	"sluice/filter"
	"sluice/filter/content"
	"sluice/filter/content/school"
	"sluice/proxy/quarantine"
)

// The bounds of appeals.
const (
	mostAppeals = 50                 // open ones of one user
	retryFor    = 3 * 24 * time.Hour // how long a sender whose appeal was approved may send again what was refused
	figureDays  = 30                 // of the rate of false positives
)

// Appeal implements public.Desk: somebody says that a message was no spam (CON11).
func (p desk) Appeal(ctx context.Context, in public.Appeal) error {
	d := p.d
	if d.retired() {
		return errRetired
	}
	r, err := d.refusedRecord(ctx, in.Message)
	if err != nil {
		return err
	}
	evidence, err := json.Marshal(message(r))
	if err != nil {
		return err
	}
	a := store.Appeal{ID: appealID(in.Message), At: time.Now().UTC(), Message: in.Message, User: r.Flow.User.ID, UserName: r.Flow.User.Name, Text: in.Text, From: in.From.String(),
		Code: r.Verdict.Decisive().Code, Evidence: evidence, State: store.AppealOpen, Held: d.copyHeld(r.Flow.User.Name, in.Message)}
	switch err := d.store.AddAppeal(a, mostAppeals); {
	case errors.Is(err, store.ErrAppealed): // by another tab
		return nil
	case errors.Is(err, store.ErrMany):
		return public.ErrMany
	case err != nil:
		return err
	}
	if one := d.samples.of(in.Message); one != nil && a.Held == "" {
		if err := d.samples.keep(one, a.ID); err != nil {
			d.log.Warn("an appeal has no sample of its message", "appeal", a.ID, "err", err)
		}
	}
	d.log.Info("somebody says that a message was no spam", "appeal", a.ID, "message", a.Message, "user", a.UserName, "from", a.From)
	d.audits.Go(func() {
		if err := d.notices.appealed(&a, r.Verdict.Decisive()); err != nil {
			d.log.Error("the desk was not told of an appeal; `sluice appeal list` shows it", "appeal", a.ID, "err", err)
		}
	})
	return nil
}

// appealID names the appeal of a message.
func appealID(message string) string { return "a" + strings.ReplaceAll(message, ".", "-") }

// copyHeld is the number of the held copy of a message, "" where there is none.
func (d *daemon) copyHeld(user, message string) string {
	all, err := d.held.List(quarantine.Query{User: user, Message: message})
	i := slices.IndexFunc(all, func(e quarantine.Entry) bool { return e.State != quarantine.Released })
	if err != nil || i < 0 {
		return ""
	}
	return all[i].ID
}

// appealed tells the desk.
func (n *notices) appealed(a *store.Appeal, h *filter.Hit) error {
	err := n.post(event{Type: "appeal", ID: "appeal_" + a.ID, Time: a.At, Appeal: shownAppeal(a)})
	cfg := n.d.cfg.Load()
	if cfg.Notice.Desk == "" {
		return err
	}
	v := &notify.Vars{User: a.UserName, Ticket: a.ID, Message: a.Message, Since: a.At, Code: a.Code, Reason: h.Text, Text: a.Text, Held: a.Held}
	return errors.Join(err, n.mail(notify.Appeal, cfg.Notice.Language, cfg.Notice.Desk, "appeal-"+a.ID, v))
}

func shownAppeal(a *store.Appeal) *api.Appeal {
	out := &api.Appeal{ID: a.ID, Time: a.At, Message: a.Message, User: a.UserName, Text: a.Text, From: a.From, Code: a.Code, Held: a.Held, State: a.State, By: a.By, Why: a.Why, Did: a.Did}
	out.Done = moment(a.Done)
	m := &api.Message{}
	if json.Unmarshal(a.Evidence, m) == nil {
		out.Evidence = m
	}
	return out
}

// Appeals lists appeals, without their evidence.
func (b backend) Appeals(_ context.Context, state string, limit int) ([]api.Appeal, error) {
	all, err := b.d.store.Appeals("", state, limit)
	out := make([]api.Appeal, len(all))
	for i := range all {
		out[i] = *shownAppeal(&all[i])
		out[i].Evidence = nil
	}
	return out, err
}

// Appeal shows one with its evidence.
func (b backend) Appeal(_ context.Context, id string) (*api.Appeal, error) {
	a, err := b.appeal(id)
	if err != nil {
		return nil, err
	}
	return shownAppeal(a), nil
}

func (b backend) appeal(id string) (*store.Appeal, error) {
	all, err := b.d.store.Appeals(id, "", 1)
	if err == nil && len(all) == 0 {
		err = &api.Problem{Status: http.StatusNotFound, Code: "no-such-appeal", What: fmt.Sprintf("there is no appeal %q", id), Remedy: "`sluice appeal list` shows them"}
	}
	if err != nil {
		return nil, err
	}
	return &all[0], nil
}

// DecideAppeal approves or denies one. What was approved is released, or may be sent again, and teaches the filter.
func (b backend) DecideAppeal(ctx context.Context, who, id string, r api.AppealDecision) (*api.Appeal, error) {
	d := b.d
	d.deciding.Lock()
	defer d.deciding.Unlock()
	a, err := b.appeal(id)
	if err != nil {
		return nil, err
	}
	if a.State != store.AppealOpen {
		return nil, &api.Problem{Status: http.StatusConflict, Code: "refused", What: "appeal " + id + " was " + a.State + " before, by " + a.By}
	}
	a.State, a.By, a.Why, a.Done = store.AppealDenied, who, r.Reason, time.Now().UTC()
	if r.Approve {
		if a.Did, err = b.makeGood(ctx, who, a, r.Reason); err != nil {
			return nil, err
		}
		a.State = store.AppealApproved
	}
	if err := d.store.DecideAppeal(*a, store.Act{Who: who, What: "appeal " + a.State, Subject: a.Message, Detail: strings.TrimSuffix(a.Did+"; "+r.Reason, "; ")}); err != nil {
		return nil, err
	}
	d.log.Info("appeal "+a.State, "appeal", id, "user", a.UserName, "did", a.Did, "by", who)
	if r.Approve {
		err = d.store.CountVerdicts(time.Now(), 0, 1)
	}
	return shownAppeal(a), err
}

// makeGood lets a message go on that was refused by mistake: from its held copy, which teaches the filter, too; else its sender
// may send it again.
func (b backend) makeGood(ctx context.Context, who string, a *store.Appeal, reason string) (did string, err error) {
	if held := b.d.copyHeld(a.UserName, a.Message); held != "" {
		out, err := b.ChangeHeld(ctx, who, api.HeldChange{Filter: api.HeldFilter{ID: held}, Do: "release", Reason: "appeal " + a.ID + ": " + reason, Train: true})
		if err != nil {
			return "", err
		}
		return fmt.Sprintf("released %s, %d learnt", held, out.Learnt), nil
	}
	learnt := b.learnSample(who, a)
	var m api.Message
	if err := json.Unmarshal(a.Evidence, &m); err != nil {
		return "", err
	}
	skip := skippable(&m)
	if skip == "" || m.From == "" {
		return "nothing could be done for the message itself: it is held nowhere, and what refused it is not skipped" + learnt, nil
	}
	until := time.Now().Add(retryFor)
	if _, err := b.PutAddress(ctx, who, api.ListedAddress{List: "sender", Action: "allow", Pattern: m.From, User: a.UserName, Skips: []string{skip}, Reason: "appeal " + a.ID + ": " + reason, Until: &until}); err != nil {
		return "", err
	}
	return fmt.Sprintf("<%s> may send again without the check %s until %s", m.From, skip, until.UTC().Format(time.RFC3339)) + learnt, nil
}

// learnSample teaches the filter that a message was good of which a whole sample is kept.
func (b backend) learnSample(who string, a *store.Appeal) string {
	all, err := b.d.samples.kept(a.UserName, a.ID)
	if err != nil || len(all) == 0 || all[0].Cut {
		return ""
	}
	c, err := b.d.samples.box.Read(all[0].ID)
	if err == nil {
		_, err = b.d.school.Train(content.CRLF(c.Text), false, who, true)
	}
	switch {
	case errors.Is(err, school.ErrKnown):
		return ""
	case err != nil:
		return "; not learnt: " + err.Error()
	}
	return "; 1 learnt"
}

// falsePositives is how much of what was stopped was found to be good.
func (d *daemon) falsePositives() (api.FalsePositives, error) {
	f := api.FalsePositives{Days: figureDays}
	var err error
	if f.Stopped, f.Wrong, err = d.store.Verdicts(time.Now().AddDate(0, 0, -figureDays)); err != nil {
		return f, err
	}
	if f.Stopped += d.tally.stopped.Load(); f.Stopped > 0 {
		f.Rate = float64(f.Wrong) / float64(f.Stopped)
	}
	f.Open, err = d.store.OpenAppeals()
	return f, err
}
