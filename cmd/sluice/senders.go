package main

import (
	"errors"
	"fmt"
	"net/url"

	"github.com/spf13/cobra"

	"sluice/cmd/internal/api"
)

func (p *program) sendersCommand() *cobra.Command {
	take, reason := false, ""
	cmd := &cobra.Command{
		Use: "senders USER [MAILBOX...]", Short: "the mailboxes that a user has as senders, found in his good mail, and take them into his list",
		Long: `senders shows the mailboxes that a user has as envelope sender and in From: those of his list (from_mailboxes), and those that
were met in mail which was judged good and delivered. One is found once it was used on three days, at least 20 hours apart; a day of mail,
by whoever stole an account, finds none. With require_from_mailbox=found he may send as those, with listed as those of the list alone.
What was not used for 90 days is forgotten, for 14 days what was not found yet.

--take puts all that were found into the list, or those that are named, found or not.`,
		Example: "  sluice users senders alice\n  sluice users senders alice --take --reason \"their own\"\n  sluice users senders alice office@customer.example --take",
		Args:    cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			var s api.SenderMailboxes
			if take {
				if err := p.client.Do(cmd.Context(), "POST", "/v1/senders", api.SendersRequest{User: args[0], Mailboxes: args[1:], Reason: reason}, &s); err != nil {
					return err
				}
				return p.screen.done(s, "%s of user %s taken into from_mailboxes", count(s.Taken, "mailbox", "mailboxes"), plain(s.User))
			}
			if len(args) > 1 || reason != "" {
				return errors.New("mailboxes and a reason are for --take: " + cmd.UseLine())
			}
			print, err := p.get(cmd.Context(), "/v1/senders?"+url.Values{"user": {args[0]}}.Encode(), &s)
			if err == nil && print {
				p.screen.senders(&s)
			}
			return err
		},
	}
	cmd.Flags().BoolVar(&take, "take", false, "put them into the user's list")
	cmd.Flags().StringVar(&reason, "reason", "", "why, for the audit log")
	return cmd
}

func (s *screen) senders(m *api.SenderMailboxes) {
	if len(m.Mailboxes) == 0 {
		s.say("no senders are listed for %s, and none were met in good mail", plain(m.User))
		return
	}
	rows, found := make([][]string, len(m.Mailboxes)), 0
	for i, b := range m.Mailboxes {
		state, last := "met", ""
		switch {
		case b.Listed:
			state = "listed"
		case b.Found:
			state = "found"
			found++
		}
		if b.Last != nil {
			last = s.at(*b.Last)
		}
		rows[i] = []string{b.Mailbox, state, fmt.Sprint(b.Days), fmt.Sprint(b.Messages), last}
	}
	s.table([]column{{head: "MAILBOX", cut: true}, {head: "STATE"}, {head: "DAYS", right: true}, {head: "MESSAGES", right: true}, {head: "LAST"}}, rows)
	rule := "require_from_mailbox=" + m.Rule
	if m.Rule == "found" && m.LearnUntil != "" {
		rule += ", every mailbox passes until the end of " + m.LearnUntil
	}
	s.say("%s", rule)
	if found > 0 {
		s.say("into the list: sluice users senders %s --take", plain(m.User))
	}
}
