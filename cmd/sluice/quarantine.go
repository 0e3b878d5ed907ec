package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"sluice/cmd/internal/api"
)

func (p *program) quarantineCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "quarantine", Short: "see, release and delete held messages", Args: none,
		Long: `The quarantine holds messages, encrypted, that content.on_spam, content.on_unsure or campaign.act want kept away from their
recipients. list shows who sent what to whom and why it is held; show also the beginning of a message, with addresses and figures
masked. release puts messages into the queue, with their own envelopes; delete drops them. With --train the content filter learns
from it. What is neither goes by itself after quarantine.retention.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return p.heldMail(cmd.Context(), api.HeldQuery{Limit: 100})
		},
	}
	q := api.HeldQuery{}
	list := &cobra.Command{
		Use: "list", Short: "list held messages, newest first", Args: none,
		Example: "  sluice quarantine list --user alice\n  sluice quarantine list --campaign C04K7QX0",
		RunE:    func(cmd *cobra.Command, _ []string) error { return p.heldMail(cmd.Context(), q) },
	}
	heldFlags(list, &q.HeldFilter)
	list.Flags().StringVar(&q.State, "state", "", "only those that are held, releasing or released; else all but released ones")
	list.Flags().IntVar(&q.Limit, "limit", 100, "how many")
	rotate := &cobra.Command{
		Use: "rotate", Short: "make a new key and seal all held messages under it", Args: none,
		Long: `rotate adds a new key to the key file and seals the keys of all held messages under it. The key before it stays in the file until
the next time; older ones go.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var r api.HeldRotation
			if err := p.client.Do(cmd.Context(), "POST", "/v1/quarantine/key", nil, &r); err != nil {
				return err
			}
			return p.screen.done(r, "a new key is in use, %s under it; keep a copy of the key file", count(r.Messages, "message is", "messages are"))
		},
	}
	cmd.AddCommand(list, p.heldShow(), p.heldChange("release", "put messages into the queue, with their own envelopes"), p.heldChange("delete", "drop messages"), rotate)
	return cmd
}

// heldFlags select held messages.
func heldFlags(cmd *cobra.Command, f *api.HeldFilter) {
	fl := cmd.Flags()
	fl.StringVar(&f.User, "user", "", "those of this outgoing `user`")
	fl.StringVar(&f.Sender, "sender", "", "those from this `address` or domain")
	fl.StringVar(&f.Recipient, "recipient", "", "those to this `address` or domain")
	fl.StringVar(&f.Code, "code", "", "those held for this `code`, such as SPAM")
	fl.StringVar(&f.Campaign, "campaign", "", "copies of this `campaign`")
}

func (p *program) heldMail(ctx context.Context, q api.HeldQuery) error {
	return listed(ctx, p, "/v1/quarantine?"+q.Values().Encode(), "nothing is held", []column{{head: "ID"}, {head: "TIME"}, {head: "USER"}, {head: "SENDER", cut: true}, {head: "TO", cut: true}, {head: "SIZE", right: true}, {head: "CODE"},
		{head: "CAMPAIGN"}, {head: "TRIES", right: true}, {head: "STATE"}}, func(m *api.HeldMail) []string {
		to := ""
		if len(m.Recipients) > 0 {
			to = m.Recipients[0]
		}
		if n := len(m.Recipients); n > 1 {
			to += fmt.Sprintf(" and %d more", n-1)
		}
		return []string{m.ID, p.screen.at(m.Time), m.User, sender(m.Sender), to, size(m.Size), m.Code, m.Campaign, strconv.Itoa(m.Tries), m.State}
	})
}

func (p *program) heldShow() *cobra.Command {
	whole := false
	cmd := &cobra.Command{
		Use: "show ID", Short: "tell all about one held message, masked", Args: exactly("ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			path := "/v1/quarantine/" + url.PathEscape(args[0])
			if whole {
				var b bytes.Buffer
				if err := p.client.Fetch(cmd.Context(), path+"/message", &b); err != nil {
					return err
				}
				_, err := cmd.OutOrStdout().Write(b.Bytes())
				return err
			}
			var m api.HeldDetail
			print, err := p.get(cmd.Context(), path, &m)
			if err == nil && print {
				p.screen.held(&m)
			}
			return err
		},
	}
	cmd.Flags().BoolVar(&whole, "message", false, "print the message as it is; the audit log notes who looked")
	return cmd
}

func (s *screen) held(m *api.HeldDetail) {
	client, done := "", ""
	if m.Client.IsValid() {
		client = m.Client.String()
	}
	if m.Done != nil {
		done = " by " + m.By + " at " + s.at(*m.Done)
	}
	s.pairs(
		[2]string{"held", m.ID}, [2]string{"state", m.State + done}, [2]string{"why", plain(m.Why)}, [2]string{"message", m.Message}, [2]string{"user", plain(m.User)}, [2]string{"login", plain(m.Login)},
		[2]string{"client", client}, [2]string{"time", s.at(m.Time) + " (" + s.ago(m.Time) + " ago)"}, [2]string{"until", s.at(m.Until)},
		[2]string{"tries", fmt.Sprintf("%d, the last %s ago", m.Tries, s.ago(m.Last))}, [2]string{"sender", plain(sender(m.Sender))}, [2]string{"to", plain(strings.Join(m.Recipients, ", "))},
		[2]string{"size", size(m.Size)}, [2]string{"because", plain(m.Code + " (" + m.Class + ", " + m.Check + "): " + m.Evidence)}, [2]string{"campaign", m.Campaign},
		[2]string{"from", plain(m.From)}, [2]string{"subject", plain(m.Subject)}, [2]string{"links to", plain(strings.Join(m.Hosts, ", "))}, [2]string{"files", plain(strings.Join(m.Files, ", "))},
		[2]string{"error", plain(m.Error)},
	)
	if m.Text != "" {
		s.say("\n%s", plain(strings.Join(strings.Fields(m.Text), " ")))
	}
}

func (p *program) heldChange(do, short string) *cobra.Command {
	c := api.HeldChange{Do: do}
	cmd := &cobra.Command{
		Use: do + " [ID] --reason WHY", Short: short,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 {
				c.Filter.ID = args[0]
			}
			if c.Filter.Empty() && !c.All {
				return usageError{errors.New("nothing says which messages are meant: give the ID of one, a flag that selects some, or --all")}
			}
			if c.Reason == "" {
				return usageError{errors.New("--reason is missing: say why, it stands in the audit log")}
			}
			var r api.HeldChanged
			if err := p.client.Do(cmd.Context(), "POST", "/v1/quarantine", c, &r); err != nil {
				return err
			}
			text := count(len(r.IDs), "message", "messages") + " " + do + "d"
			if c.Train {
				text += fmt.Sprintf(", %d learnt", r.Learnt)
			}
			for _, not := range r.Refused {
				text += "\nnothing done: " + plain(not)
			}
			return p.screen.done(r, "%s", text)
		},
		Args: cobra.MaximumNArgs(1),
	}
	heldFlags(cmd, &c.Filter)
	cmd.Flags().BoolVar(&c.All, "all", false, "everything that is held")
	cmd.Flags().StringVar(&c.Reason, "reason", "", "why: it stands in the audit log")
	if do == "release" {
		cmd.Flags().BoolVar(&c.Train, "train", false, "the content filter learns them as good")
		cmd.Flags().BoolVar(&c.Again, "again", false, "also what a crash may have released already")
	} else {
		cmd.Flags().BoolVar(&c.Train, "train", false, "the content filter learns them as spam")
	}
	return cmd
}
