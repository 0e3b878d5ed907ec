package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"sluice/cmd/internal/api"
	"sluice/cmd/internal/config"
)

func (p *program) campaignCommand() *cobra.Command {
	q := api.CampaignQuery{}
	cmd := &cobra.Command{
		Use: "campaign", Short: "see and stop bursts of copies of one message", Args: none,
		Long: `A campaign is a burst of near-duplicates, whoever sends them: messages that have most of their words, the places their links lead
to, or their files in common. Rules hold a campaign whose copies look bad ([campaign] in sluice.toml); a person decides for all its
copies at once. hold withholds further copies, refuse refuses them for good, release lets them pass whatever rules and the learned
filter say, watch undoes a decision. lock refuses, and locks every user who sent a copy.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return p.campaigns(cmd.Context(), api.CampaignQuery{Copies: 3, Limit: 100})
		},
	}
	list := &cobra.Command{
		Use: "list", Short: "list campaigns, those with the latest copies first", Args: none,
		Example: "  sluice campaign list --state held\n  sluice campaign list --copies 100",
		RunE: func(cmd *cobra.Command, _ []string) error {
			return p.campaigns(cmd.Context(), q)
		},
	}
	list.Flags().StringVar(&q.User, "user", "", "only those of which this outgoing `user` sent copies")
	list.Flags().StringVar(&q.State, "state", "", "only those that are watched, held, refused or released")
	list.Flags().IntVar(&q.Copies, "copies", 3, "only those with at least so many copies")
	list.Flags().IntVar(&q.Limit, "limit", 100, "how many")
	show := &cobra.Command{
		Use: "show ID", Short: "tell all about one campaign", Args: exactly("ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			var c api.Campaign
			print, err := p.get(cmd.Context(), "/v1/campaigns/"+url.PathEscape(args[0]), &c)
			if err == nil && print {
				p.screen.campaign(&c)
			}
			return err
		},
	}
	cmd.AddCommand(list, show, p.digestCommand())
	for _, do := range []struct{ name, short, done string }{
		{"hold", "withhold further copies until a person has looked", "further copies are withheld"},
		{"refuse", "refuse further copies for good", "further copies are refused"},
		{"release", "let further copies pass, whatever rules and the learned filter say", "further copies pass"},
		{"watch", "undo a decision: copies are counted, and rules may hold them", "further copies are only counted"},
		{"lock", "refuse further copies, and lock every user who sent one", "further copies are refused"},
	} {
		cmd.AddCommand(p.campaignDecision(do.name, do.short, do.done))
	}
	return cmd
}

func (p *program) campaigns(ctx context.Context, q api.CampaignQuery) error {
	return listed(ctx, p, "/v1/campaigns?"+q.Values().Encode(), "no campaign of so many copies, or of that kind, was seen", []column{{head: "ID"}, {head: "STATE"}, {head: "COPIES", right: true}, {head: "TO", right: true}, {head: "USERS", right: true}, {head: "GOOD/UNSURE/BAD", right: true},
		{head: "STOPPED", right: true}, {head: "FIRST"}, {head: "LAST"}, {head: "SUBJECT", cut: true}}, func(c *api.Campaign) []string {
		return []string{c.ID, c.State, strconv.Itoa(c.Copies), strconv.Itoa(c.Recipients), strconv.Itoa(len(c.Users)), fmt.Sprintf("%d/%d/%d", c.Good, c.Unsure, c.Bad),
			strconv.Itoa(c.Stopped), p.screen.at(c.First), p.screen.ago(c.Last), c.Subject}
	})
}

func (s *screen) campaign(c *api.Campaign) {
	decided := c.State
	if c.By != "" {
		decided += " by " + c.By
	} else if c.Rule != "" {
		decided += ", rule " + c.Rule
	}
	if c.Decided != nil {
		decided += " at " + s.at(*c.Decided)
	}
	sources := make([]string, len(c.Sources))
	for i, a := range c.Sources {
		sources[i] = a.String()
	}
	if c.MoreFrom > 0 {
		sources = append(sources, "and more")
	}
	s.pairs(
		[2]string{"campaign", c.ID}, [2]string{"state", decided}, [2]string{"why", plain(c.Why)}, [2]string{"subject", plain(c.Subject)},
		[2]string{"copies", fmt.Sprintf("%d to %d recipients; %d good, %d unsure, %d bad by content; %d stopped", c.Copies, c.Recipients, c.Good, c.Unsure, c.Bad, c.Stopped)},
		[2]string{"from", s.at(c.First)}, [2]string{"until", s.at(c.Last) + " (" + s.ago(c.Last) + " ago)"},
		[2]string{"links to", plain(strings.Join(c.Hosts, ", "))}, [2]string{"files", plain(strings.Join(c.Files, ", "))},
		[2]string{"sources", strings.Join(sources, ", ")}, [2]string{"samples", strings.Join(c.Samples, ", ")},
	)
	rows := make([][]string, len(c.Users))
	for i, u := range c.Users {
		rows[i] = []string{u.Name, strconv.Itoa(u.Copies), s.ago(u.Last), u.Ticket}
	}
	s.table([]column{{head: "USER"}, {head: "COPIES", right: true}, {head: "LAST"}, {head: "TICKET"}}, rows)
}

func (p *program) campaignDecision(do, short, done string) *cobra.Command {
	d := api.CampaignDecision{Do: do}
	text := "60m"
	cmd := &cobra.Command{
		Use: do + " ID --reason WHY", Short: short,
		RunE: func(cmd *cobra.Command, args []string) error {
			if do == "lock" {
				var time config.Duration
				if err := time.UnmarshalText([]byte(text)); err != nil {
					return usageError{fmt.Errorf("--for: %w", err)}
				}
				d.Seconds = int(time.D().Seconds())
			}
			var r api.CampaignDecided
			if err := p.client.Do(cmd.Context(), "POST", "/v1/campaigns/"+url.PathEscape(args[0]), d, &r); err != nil {
				return err
			}
			locked := ""
			if do == "lock" {
				locked = fmt.Sprintf("; %s locked", count(len(r.Locked), "user is", "users are"))
			}
			if r.Released > 0 {
				locked = fmt.Sprintf("; %s delivered", count(r.Released, "held copy is", "held copies are"))
			}
			for _, not := range r.Unlocked {
				locked += "\nnot locked: " + plain(not)
			}
			return p.screen.done(r, "campaign %s: %s%s", r.Campaign.ID, done, locked)
		},
	}
	cmd.Flags().StringVar(&d.Reason, "reason", "", "why: it stands in the audit log")
	if do == "lock" {
		cmd.Flags().StringVar(&text, "for", text, "how long, like `60m`, 2h or 3d, at most 7d; 0: until a person unlocks")
	}
	cmd.Args = func(cmd *cobra.Command, args []string) error {
		if d.Reason == "" {
			return fmt.Errorf("--reason is missing: %s", cmd.UseLine())
		}
		return exactly("ID")(cmd, args)
	}
	return cmd
}

func (p *program) digestCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "digest", Short: "list files and texts that are refused, by their SHA-256", Args: none,
		Long: `digest lists the SHA-256 of files and of texts of messages that are refused whoever sends them. add and remove change the list; of
prints those of a message: of its text as it is decoded, and of each attached file as far as the filter looks into it (512 KiB).`,
		RunE: func(cmd *cobra.Command, _ []string) error { return p.digests(cmd.Context()) },
	}
	n, days := api.NewDigest{}, 0
	add := &cobra.Command{
		Use: "add SHA256 --reason WHY", Short: "refuse messages with this text or file", Args: exactly("SHA256"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if n.Reason == "" {
				return usageError{errors.New("--reason is missing: say why, it stands in the audit log")}
			}
			n.Hash = args[0]
			if days > 0 {
				until := p.screen.now().Add(time.Duration(days) * 24 * time.Hour)
				n.Until = &until
			}
			var d api.Digest
			if err := p.client.Do(cmd.Context(), "POST", "/v1/digests", n, &d); err != nil {
				return err
			}
			return p.screen.done(d, "messages with %s are refused", d.Hash)
		},
	}
	add.Flags().StringVar(&n.Reason, "reason", "", "why")
	add.Flags().IntVar(&days, "days", 0, "for how many days; 0: until it is removed")
	reason := ""
	remove := &cobra.Command{
		Use: "remove SHA256", Short: "take one off the list", Args: exactly("SHA256"),
		RunE: func(cmd *cobra.Command, args []string) error {
			var d api.Digest
			if err := p.client.Do(cmd.Context(), "DELETE", "/v1/digests/"+url.PathEscape(args[0])+"?"+url.Values{"reason": {reason}}.Encode(), nil, &d); err != nil {
				return err
			}
			return p.screen.done(d, "messages with %s pass again", d.Hash)
		},
	}
	remove.Flags().StringVar(&reason, "reason", "", "why")
	cmd.AddCommand(add, remove, p.digestOf())
	return cmd
}

func (p *program) digests(ctx context.Context) error {
	return listed(ctx, p, "/v1/digests", "nothing is listed", []column{{head: "SHA-256"}, {head: "SINCE"}, {head: "UNTIL"}, {head: "BY"}, {head: "WHY", cut: true}}, func(d *api.Digest) []string {
		until := "removed"
		if d.Until != nil {
			until = p.screen.at(*d.Until)
		}
		return []string{d.Hash, p.screen.at(d.Since), until, d.By, d.Why}
	})
}
