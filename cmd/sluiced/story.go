package main

import (
	"context"
	"fmt"
	"io/fs"
	"maps"
	"net/http"
	"slices"
	"strings"

	"sluice/cmd/internal/api"
	"sluice/cmd/internal/store"
	"sluice/docs/codes"
	"sluice/proxy/quarantine"
)

// The bounds of a story.
const (
	mostLines    = 100 // of the log, of a flow or a ticket
	mostOldLocks = 100 // of a user that are looked through for a message
	mostMail     = 10  // messages that are looked for in quarantine and queue, which is a walk through them
	mostActs     = 200
)

// Why tells everything that is known of a message, a flow or a lock; of a message also by the id in its trace field (ATT9).
func (b backend) Why(ctx context.Context, id string) (*api.Story, error) {
	if f, n, ok := b.d.trace.Origin(id); ok {
		id = fmt.Sprintf("%s.%d", f, n)
	}
	t := &api.Story{Messages: []*api.Message{}, Locks: []api.Lock{}}
	for _, q := range []api.Query{{ID: id, Limit: mostLines}, {Ticket: id, Limit: mostLines}} {
		ms, err := logOf(b).Find(ctx, q)
		if err != nil {
			return nil, err
		}
		t.Messages = append(t.Messages, ms...)
	}
	subjects := []string{id}
	for _, step := range []func(*api.Story, string, *[]string) error{b.tellLocks, b.tellMail, b.tellActs} {
		if err := step(t, id, &subjects); err != nil {
			return nil, err
		}
	}
	if len(t.Messages)+len(t.Locks)+len(t.Held)+len(t.Queued) == 0 {
		return nil, &api.Problem{Status: http.StatusNotFound, Code: "unknown", What: fmt.Sprintf("nothing is known of %q", id),
			Remedy: "give the id of a message (like k3f9a2.1) or flow, or a lock's ticket; the log may have forgotten it (log.retention)"}
	}
	b.tellCodes(t)
	return t, nil
}

// tellLocks adds the locks that answered the messages, and those that they led to.
func (b backend) tellLocks(t *api.Story, id string, subjects *[]string) error {
	tickets, ids, users := []string{strings.ToUpper(id)}, map[string]bool{}, map[string]bool{}
	for _, m := range t.Messages {
		ids[m.ID], users[m.User] = true, true
		if m.Ticket != "" && !slices.Contains(tickets, m.Ticket) {
			tickets = append(tickets, m.Ticket)
		}
	}
	for user := range users {
		m, err := b.find(user)
		if err != nil {
			continue // he is gone, his locks with him
		}
		all, err := b.d.store.LockHistory(m.ID, mostOldLocks)
		if err != nil {
			return err
		}
		for i := range all {
			for _, e := range all[i].Evidence {
				if ids[e.Message] && !slices.Contains(tickets, all[i].Ticket) {
					tickets = append(tickets, all[i].Ticket)
				}
			}
		}
	}
	for _, ticket := range tickets {
		l, ok, err := b.d.store.LockOf(ticket)
		if err != nil {
			return err
		}
		if ok {
			t.Locks, *subjects = append(t.Locks, *shownLock(&l)), append(*subjects, l.Ticket, l.Name())
		}
	}
	return nil
}

// tellMail adds what of the messages is in quarantine or in the queue, and the appeals.
func (b backend) tellMail(t *api.Story, id string, subjects *[]string) error {
	user := map[string]string{id: ""} // of each message
	for _, m := range t.Messages {
		if m.Status != "no-message" && len(user) < mostMail {
			user[m.ID] = m.User
		}
	}
	for _, one := range slices.Sorted(maps.Keys(user)) {
		held, err := b.d.held.List(quarantine.Query{User: user[one], Message: one})
		if err != nil {
			return err
		}
		for i := range held {
			t.Held, *subjects = append(t.Held, b.held(&held[i])), append(*subjects, held[i].ID)
		}
		page, err := b.Queued(context.Background(), api.QueueQuery{QueueFilter: api.QueueFilter{Message: one}, Limit: mostLines})
		if err != nil {
			return err
		}
		t.Queued = append(t.Queued, page.Deliveries...)
		a, ok, err := b.d.store.AppealOf(one)
		if err != nil {
			return err
		}
		if ok {
			shown := shownAppeal(&a)
			shown.Evidence = nil // the message itself stands beside
			t.Appeals = append(t.Appeals, *shown)
		}
		*subjects = append(*subjects, one)
	}
	return nil
}

// tellActs adds what the audit log has. Lines about a sender are told as far as they are about one of the locks.
func (b backend) tellActs(t *api.Story, _ string, subjects *[]string) error {
	acts, err := b.d.store.ActsOn(mostActs, slices.Compact(slices.Sorted(slices.Values(*subjects)))...)
	if err != nil {
		return err
	}
	about := func(a *store.Act) bool {
		named := func(l api.Lock) bool { return strings.HasPrefix(a.Detail, l.Ticket) }
		return !strings.HasPrefix(a.What, "lock ") || slices.ContainsFunc(t.Locks, named)
	}
	for i := range acts {
		if about(&acts[i]) {
			t.Acts = append(t.Acts, api.Act(acts[i]))
		}
	}
	return nil
}

// tellCodes adds the pages of the codes that occur.
func (b backend) tellCodes(t *api.Story) {
	var all []string
	for _, m := range t.Messages {
		for _, h := range m.Hits {
			all = append(all, h.Code)
		}
		all = append(all, m.Code)
	}
	for _, l := range t.Locks {
		all = append(all, pageOf(l.Code))
	}
	cfg := b.d.cfg.Load()
	for _, code := range slices.Compact(slices.Sorted(slices.Values(all))) {
		text, err := fs.ReadFile(codes.Pages, code+".md")
		if err != nil {
			continue // never told to a client
		}
		head, _, _ := strings.Cut(string(text), "\n")
		_, title, _ := strings.Cut(head, ": ")
		p := api.CodePage{Code: code, Title: title}
		if p.URL = b.d.notices.page(code, ""); p.URL == "" && cfg.Gateway.HelpURL != "" {
			p.URL = cfg.Gateway.HelpURL + code
		}
		t.Codes = append(t.Codes, p)
	}
}
