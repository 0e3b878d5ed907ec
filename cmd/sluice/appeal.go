package main

import (
	"context"
	"fmt"
	"net/url"
	"strconv"

	"github.com/spf13/cobra"

	"sluice/cmd/internal/api"
)

func (p *program) appealCommand() *cobra.Command {
	state, limit := "open", 100
	cmd := &cobra.Command{
		Use: "appeal", Short: "see and decide what people say was no spam", Args: none,
		Long: `An appeal comes from the page to which a refusal links ([public] in sluice.toml): whoever got the refusal says that the message was
no spam. approve releases the held copy of it and teaches the filter; where none is held, its sender may send again for three days
without the check that refused it, be it not for a virus. deny leaves everything as it is. Both need a reason; the sender sees on
the page what was decided. Approved appeals are the false positives that "sluice status" shows.`,
		RunE: func(cmd *cobra.Command, _ []string) error { return p.appeals(cmd.Context(), "open", 100) },
	}
	list := &cobra.Command{
		Use: "list", Short: "list appeals, newest first", Args: none,
		RunE: func(cmd *cobra.Command, _ []string) error { return p.appeals(cmd.Context(), state, limit) },
	}
	list.Flags().StringVar(&state, "state", state, "only those that are open, approved or denied; empty: all")
	list.Flags().IntVar(&limit, "limit", limit, "how many")
	show := &cobra.Command{
		Use: "show ID", Short: "tell all about one appeal, with its evidence", Args: exactly("ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			var a api.Appeal
			print, err := p.get(cmd.Context(), "/v1/appeals/"+url.PathEscape(args[0]), &a)
			if err == nil && print {
				p.screen.appeal(&a)
			}
			return err
		},
	}
	cmd.AddCommand(list, show, p.decideAppeal("approve", "the message was good: release it, or let it be sent again, and learn from it", true),
		p.decideAppeal("deny", "the message was refused rightly", false))
	return cmd
}

func (p *program) appeals(ctx context.Context, state string, limit int) error {
	none := "no appeal was made"
	if state != "" {
		none = "no appeal is " + state
	}
	return listed(ctx, p, "/v1/appeals?"+url.Values{"state": {state}, "limit": {strconv.Itoa(limit)}}.Encode(), none,
		[]column{{head: "ID"}, {head: "STATE"}, {head: "TIME"}, {head: "USER"}, {head: "CODE"}, {head: "HELD"}, {head: "TEXT", cut: true}},
		func(a *api.Appeal) []string {
			return []string{a.ID, a.State, p.screen.at(a.Time), a.User, a.Code, a.Held, a.Text}
		})
}

func (s *screen) appeal(a *api.Appeal) {
	state := a.State
	if a.By != "" {
		state += " by " + a.By + " at " + s.at(*a.Done) + ": " + plain(a.Why)
	}
	s.pairs(
		[2]string{"appeal", a.ID}, [2]string{"state", state}, [2]string{"what followed", plain(a.Did)}, [2]string{"came", s.at(a.Time) + " from " + a.From},
		[2]string{"user", a.User}, [2]string{"message", a.Message}, [2]string{"refused with", a.Code}, [2]string{"held as", a.Held}, [2]string{"he says", plain(a.Text)},
	)
	if m := a.Evidence; m != nil {
		rows := make([][]string, len(m.Hits))
		for i, h := range m.Hits {
			rows[i] = []string{h.Check, h.Code, h.Class, h.Action, fmt.Sprintf("%.2f", h.Points), h.Evidence}
		}
		s.say("from <%s> at %s, %s", plain(m.From), s.at(m.Time), count(len(m.To), "recipient", "recipients"))
		s.table([]column{{head: "CHECK"}, {head: "CODE"}, {head: "CLASS"}, {head: "ACTION"}, {head: "POINTS", right: true}, {head: "EVIDENCE", cut: true}}, rows)
	}
}

func (p *program) decideAppeal(name, short string, approve bool) *cobra.Command {
	reason := ""
	cmd := &cobra.Command{
		Use: name + " ID --reason WHY", Short: short, Args: exactly("ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if reason == "" {
				return usageError{fmt.Errorf("--reason is missing: %s", cmd.UseLine())}
			}
			var a api.Appeal
			if err := p.client.Do(cmd.Context(), "POST", "/v1/appeals/"+url.PathEscape(args[0]), api.AppealDecision{Approve: approve, Reason: reason}, &a); err != nil {
				return err
			}
			did := ""
			if a.Did != "" {
				did = "; " + plain(a.Did)
			}
			return p.screen.done(a, "appeal %s is %s%s", a.ID, a.State, did)
		},
	}
	cmd.Flags().StringVar(&reason, "reason", "", "why: it stands in the audit log")
	return cmd
}
