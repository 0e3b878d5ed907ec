package main

import (
	"context"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"

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
		c.Args = func(cmd *cobra.Command, args []string) error {
			if cmd.Flags().Changed("account") || cmd.Flags().Changed("plan-only") {
				return fmt.Errorf("--account and --plan-only are for `sluice %s`: %s", name, cmd.UseLine())
			}
			return exactly("USER", "IDENTITY")(cmd, args)
		}
		c.RemoveCommand(c.Commands()...)
		c.RunE = func(cmd *cobra.Command, args []string) error {
			if err := cmd.Flags().Set("identity", args[1]); err != nil {
				return err
			}
			return inner(cmd, args[:1])
		}
		for _, other := range []string{"identity", "account", "plan-only"} {
			_ = c.Flags().MarkHidden(other) // where it has the flag
		}
	}
	suggest := &cobra.Command{
		Use: "suggest USER", Short: "by what a user's own mail tells its senders apart, and how much of it", Args: exactly("USER"),
		Long: `suggest looks at what header fields, logins and senders of a user's mail tell, whether a rule reads them or not, and names
the rule that tells most, with its share of the messages. Only fields that the user's own servers write can be trusted.`,
		RunE: func(cmd *cobra.Command, args []string) error { return p.suggestIdentities(cmd.Context(), args[0]) },
	}
	cmd.AddCommand(show, lock, unlock, reset, suggest)
	return cmd
}

func (p *program) suggestIdentities(ctx context.Context, user string) error {
	var s api.IdentitySuggestion
	print, err := p.get(ctx, "/v1/identities/suggest?"+url.Values{"user": {user}}.Encode(), &s)
	if err != nil || !print {
		return err
	}
	if s.Messages == 0 {
		p.screen.say("no mail of %s was seen since sluiced started", plain(s.User))
		return nil
	}
	rows := make([][]string, len(s.Choices))
	for i, c := range s.Choices {
		rows[i] = []string{c.Name, fmt.Sprintf("%.1f %%", 100*c.Coverage), fmt.Sprint(c.Identities), c.Example}
	}
	p.screen.table([]column{{head: "TOLD BY"}, {head: "OF THE MAIL", right: true}, {head: "IDENTITIES", right: true}, {head: "EXAMPLE", cut: true}}, rows)
	if len(s.Settings) == 0 {
		p.screen.say("nothing tells the senders of this mail apart (%s looked at)", count(s.Messages, "message", "messages"))
		return nil
	}
	var set strings.Builder
	for _, k := range slices.Sorted(maps.Keys(s.Settings)) {
		fmt.Fprintf(&set, " '%s=%s'", k, strings.ReplaceAll(plain(s.Settings[k]), "'", ""))
	}
	p.screen.say("suggested, for %.1f %% of %s: sluice users set %s%s", 100*s.Coverage, count(s.Messages, "message", "messages"), plain(s.User), set.String())
	return nil
}

func (p *program) listIdentities(ctx context.Context, q url.Values) error {
	return listed(ctx, p, "/v1/identities?"+q.Encode(), "no identities were met: [identity] in the configuration says how they are told", []column{{head: "USER", cut: true}, {head: "IDENTITY", cut: true}, {head: "MESSAGES", right: true}, {head: "RECIPIENTS", right: true},
		{head: "REFUSED", right: true}, {head: "BAD", right: true}, {head: "SCORE", right: true}, {head: "LOCK", style: func(string) string { return red }}, {head: "CODE"}, {head: "LAST"}}, func(e *api.Identity) []string {
		return []string{e.User, e.Identity, fmt.Sprint(e.Messages), fmt.Sprint(e.Recipients), fmt.Sprint(e.Refused), fmt.Sprint(e.Bad), fmt.Sprint(e.Score), e.Locked, e.Code, p.screen.at(e.Last)}
	})
}
