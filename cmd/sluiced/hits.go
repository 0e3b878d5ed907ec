package main

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"sluice/cmd/internal/api"
	"sluice/cmd/internal/store"
	"sluice/filter"
	"sluice/filter/content"
	"sluice/filter/sender"
	"sluice/proxy/quarantine"
)

// deed is one thing about which something is to be done: a sender, or a message.
type deed struct {
	name string // as it is told
	do   func() error
}

// errNothing says that there is nothing about which it could be done.
var errNothing = errors.New("nothing of it is kept")

// ActOnHits does something about everything that a search of the log finds, each user, sender or message once (LOG2).
func (b backend) ActOnHits(ctx context.Context, who string, q api.Query, a api.HitAction) (*api.HitsActed, error) {
	if b.d.retired() {
		return nil, errRetired
	}
	ms, err := logOf(b).Find(ctx, q)
	if err != nil {
		return nil, err
	}
	out := &api.HitsActed{Do: a.Do, Lines: len(ms), Done: []string{}}
	seen := map[string]bool{}
	for _, m := range ms {
		h := b.deed(ctx, who, m, &a)
		if h.name == "" || seen[h.name] {
			continue
		}
		seen[h.name] = true
		if !a.Plan {
			if err := h.do(); err != nil {
				out.Refused = append(out.Refused, h.name+": "+err.Error())
				continue
			}
		}
		out.Done = append(out.Done, h.name)
	}
	if a.Plan || len(out.Done) == 0 {
		return out, nil
	}
	return out, b.d.store.Audit(store.Act{Who: who, What: "log " + a.Do, Subject: a.Query, Detail: fmt.Sprintf("%d of %d lines; %s", len(out.Done), len(ms), a.Reason)})
}

// deed tells about what a line asks something to be done, and how; without a name about nothing.
func (b backend) deed(ctx context.Context, who string, m *api.Message, a *api.HitAction) deed {
	if m.User == "" {
		return deed{}
	}
	user := m.User
	if m.Identity != "" {
		user += ", identity " + m.Identity
	}
	switch a.Do {
	case "lock":
		return deed{user, func() error {
			_, err := b.Lock(ctx, who, api.LockRequest{User: m.User, Identity: m.Identity, Reason: a.Reason})
			return err
		}}
	case "unlock":
		return deed{user, func() error {
			_, err := b.Unlock(ctx, who, api.UnlockRequest{User: m.User, Identity: m.Identity, Reason: a.Reason})
			return err
		}}
	case "block", "allow":
		if m.From == "" {
			return deed{}
		}
		return deed{"<" + m.From + "> of " + m.User, func() error { return b.list(ctx, who, m, a) }}
	case "spam", "good":
		return deed{m.ID, func() error { return b.teach(ctx, who, m, a.Do == "spam") }}
	}
	return deed{m.ID, func() error { return b.settle(ctx, who, m, a) }}
}

// list allows or blocks the sender of a message, for mail of its user. Allowed, his mail goes without the check that stopped this one.
func (b backend) list(ctx context.Context, who string, m *api.Message, a *api.HitAction) error {
	one := api.ListedAddress{List: "sender", Action: a.Do, Pattern: m.From, User: m.User, Reason: a.Reason}
	if a.Do == "allow" {
		skip := skippable(m)
		if skip == "" {
			return errors.New("what decided about it is not skipped for anybody")
		}
		one.Skips = []string{skip}
	}
	_, err := b.PutAddress(ctx, who, one)
	return err
}

// skippable is the check that decided about a message, where one may be skipped for its sender; "" else.
func skippable(m *api.Message) (skip string) {
	for _, h := range m.Hits {
		if h.Code == m.Code && slices.Contains(sender.Skippable, h.Check) && h.Class != filter.Virus.String() {
			skip = h.Check
		}
	}
	return skip
}

// settle releases or deletes what of a message is in quarantine and in the queue.
func (b backend) settle(ctx context.Context, who string, m *api.Message, a *api.HitAction) error {
	held := b.d.copyHeld(m.User, m.ID)
	if held != "" {
		if _, err := b.ChangeHeld(ctx, who, api.HeldChange{Do: a.Do, Filter: api.HeldFilter{ID: held}, Reason: a.Reason}); err != nil {
			return err
		}
	}
	queued := api.QueueFilter{Message: m.ID}
	page, err := b.Queued(ctx, api.QueueQuery{QueueFilter: queued, Limit: 1})
	switch {
	case err != nil:
		return err
	case len(page.Deliveries) > 0:
		_, err = b.ChangeQueue(ctx, who, api.QueueChange{Do: a.Do, Filter: queued, Reason: a.Reason})
	case held == "":
		err = errNothing
	}
	return err
}

// teach has the content filter learn a message from its copy in quarantine, or from what is remembered of bad mail.
func (b backend) teach(ctx context.Context, who string, m *api.Message, bad bool) error {
	text, err := b.textOf(m)
	if err != nil {
		return err
	}
	_, err = b.Train(ctx, who, content.CRLF(text), bad, "")
	return err
}

// textOf is the whole text of a message, as far as there is a copy.
func (b backend) textOf(m *api.Message) ([]byte, error) {
	if held := b.d.copyHeld(m.User, m.ID); held != "" {
		c, err := b.d.held.Read(held)
		if err != nil {
			return nil, err
		}
		return c.Text, nil
	}
	if one := b.d.samples.of(m.ID); one != nil && !one.cut {
		return one.text, nil
	}
	kept, err := b.d.samples.box.List(quarantine.Query{User: m.User, Message: m.ID, Most: 1})
	if err != nil {
		return nil, err
	}
	if len(kept) == 0 || kept[0].Cut {
		return nil, errNothing
	}
	c, err := b.d.samples.box.Read(kept[0].ID)
	if err != nil {
		return nil, err
	}
	return c.Text, nil
}
