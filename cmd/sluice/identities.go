package main

import (
	"context"
	"fmt"
	"net/url"

	"github.com/spf13/cobra"

	"sluice/cmd/internal/api"
)

func (p *program) identitiesCommand() *cobra.Command {
	limit := 100
	list := func(ctx context.Context, args []string) error {
		q := url.Values{"limit": {fmt.Sprint(limit)}}
		if len(args) > 0 {
			q.Set("user", args[0])
		}
		return p.listIdentities(ctx, q)
	}
	cmd := &cobra.Command{
		Use: "identities [USER]", Short: "list, lock, unlock and reset the finer senders inside users: scripts, mailboxes, logins", Args: cobra.MaximumNArgs(1),
		Long: `identities lists the finer senders that were told apart inside a user, or inside all, the worst first. How they are
told stands in the configuration ([identity], or the user's own); without it a user is one sender.`,
		Example: "  sluice identities alice\n  sluice identities reset alice shop --reason \"script repaired\"",
		RunE:    func(cmd *cobra.Command, args []string) error { return list(cmd.Context(), args) },
	}
	show := &cobra.Command{
		Use: "list [USER]", Short: "list identities, the worst first", Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return list(cmd.Context(), args) },
	}
	for _, c := range []*cobra.Command{cmd, show} {
		c.Flags().IntVar(&limit, "limit", 100, "how many at most")
	}
	reason := ""
	reset := &cobra.Command{
		Use: "reset USER IDENTITY", Short: "let an identity begin anew", Args: exactly("USER", "IDENTITY"),
		RunE: func(cmd *cobra.Command, args []string) error {
			var i api.Identity
			if err := p.client.Do(cmd.Context(), "POST", "/v1/identities/reset", api.IdentityRequest{User: args[0], Identity: args[1], Reason: reason}, &i); err != nil {
				return err
			}
			return p.screen.done(i, "identity %s of user %s begins anew", plain(i.Identity), plain(i.User))
		},
	}
	reset.Flags().StringVar(&reason, "reason", "", "why, for the audit log")
	lock, unlock := p.lockCommand(), p.unlockCommand()
	for _, c := range []*cobra.Command{lock, unlock} {
		inner, name := c.RunE, c.Name()
		c.Use, c.Short, c.Long, c.Example = name+" USER IDENTITY --reason WHY", name+" one identity; the user's other mail goes on", "", ""
		c.Args = exactly("USER", "IDENTITY")
		c.RunE = func(cmd *cobra.Command, args []string) error {
			if err := cmd.Flags().Set("identity", args[1]); err != nil {
				return err
			}
			return inner(cmd, args[:1])
		}
		_ = c.Flags().MarkHidden("identity") // it has the flag
	}
	cmd.AddCommand(show, lock, unlock, reset)
	return cmd
}

func (p *program) listIdentities(ctx context.Context, q url.Values) error {
	return listed(ctx, p, "/v1/identities?"+q.Encode(), "no identities were met: [identity] in the configuration says how they are told", []column{{head: "USER", cut: true}, {head: "IDENTITY", cut: true}, {head: "MESSAGES", right: true}, {head: "RECIPIENTS", right: true},
		{head: "REFUSED", right: true}, {head: "BAD", right: true}, {head: "SCORE", right: true}, {head: "LOCK", style: func(string) string { return red }}, {head: "CODE"}, {head: "LAST"}}, func(e *api.Identity) []string {
		return []string{e.User, e.Identity, fmt.Sprint(e.Messages), fmt.Sprint(e.Recipients), fmt.Sprint(e.Refused), fmt.Sprint(e.Bad), fmt.Sprint(e.Score), e.Locked, e.Code, p.screen.at(e.Last)}
	})
}
