package main

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"sluice/cmd/internal/api"
	"sluice/filter/policy"
	"sluice/filter/sender"
)

// sendersFile keeps over a restart which mailboxes users have as senders.
type sendersFile struct {
	keptFile
	*sender.Book
}

func openSenders(dir string) (*sendersFile, error) {
	b := sender.NewBook(nil)
	f := &sendersFile{keptFile{what: b, every: 5 * time.Minute}, b}
	return f, f.open(dir, "senders")
}

// senderRules are the rules about senders, with what was found in users' mail.
func (d *daemon) senderRules() *sender.Rules {
	r := sender.NewRules(d.policy, d.dns)
	r.Book, r.Signs = d.senders.Book, d.signsFor
	return r
}

// Senders tells which mailboxes a user has as senders.
func (b backend) Senders(_ context.Context, user string) (*api.SenderMailboxes, error) {
	m, err := b.find(user)
	if err != nil {
		return nil, err
	}
	return b.senderMailboxes(m), nil
}

func (b backend) senderMailboxes(m *member) *api.SenderMailboxes {
	set := &b.d.policy.Settings(m.ID).Sender
	s := &api.SenderMailboxes{User: m.Name, Rule: set.Mailbox.String(), LearnUntil: set.LearnUntil.String(), Mailboxes: []api.SenderMailbox{}}
	for _, x := range b.d.senders.Of(m.ID) {
		s.Mailboxes = append(s.Mailboxes, api.SenderMailbox{Mailbox: x.Name, Listed: set.Mailboxes.Has([]byte(x.Name)), Found: x.Found, Days: x.Days, Messages: x.Messages, First: &x.First, Last: &x.Last})
	}
	if set.Mailboxes == nil {
		return s
	}
	for _, name := range *set.Mailboxes {
		if !slices.ContainsFunc(s.Mailboxes, func(x api.SenderMailbox) bool { return x.Mailbox == name }) {
			s.Mailboxes = append(s.Mailboxes, api.SenderMailbox{Mailbox: name, Listed: true})
		}
	}
	slices.SortFunc(s.Mailboxes, func(x, y api.SenderMailbox) int { return strings.Compare(x.Mailbox, y.Mailbox) })
	return s
}

// TakeSenders puts mailboxes that were met into a user's list: those that are named, or all that were found.
func (b backend) TakeSenders(ctx context.Context, who string, r api.SendersRequest) (*api.SenderMailboxes, error) {
	m, err := b.find(r.User)
	if err != nil {
		return nil, err
	}
	named, err := policy.ParseMailboxes(strings.Join(r.Mailboxes, " "))
	if err != nil {
		return nil, badSetting(err)
	}
	var list []string
	now := b.senderMailboxes(m)
	taken := 0
	for _, x := range now.Mailboxes {
		chosen := x.Found
		if len(r.Mailboxes) > 0 {
			chosen = named.Has([]byte(x.Mailbox))
		}
		if x.Listed || chosen {
			list = append(list, x.Mailbox)
		}
		if chosen && !x.Listed {
			taken++
		}
	}
	for _, name := range named {
		if !slices.Contains(list, name) {
			return nil, &api.Problem{Status: http.StatusNotFound, Code: "no-such-mailbox", What: fmt.Sprintf("nothing was changed: %s was not met in good mail of %s", name, m.Name), Remedy: "`sluice users senders " + m.Name + "` shows what was; others are put into the list by `sluice users set " + m.Name + " from_mailboxes=…`"}
		}
	}
	if taken == 0 {
		return now, nil
	}
	if _, err := b.ChangeSettings(ctx, who, api.SettingsChange{User: m.Name, Set: map[string]string{"from_mailboxes": strings.Join(list, " ")}, Reason: r.Reason}); err != nil {
		return nil, err
	}
	now = b.senderMailboxes(m)
	now.Taken = taken
	return now, nil
}
