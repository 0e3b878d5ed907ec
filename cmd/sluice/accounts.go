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

func (p *program) accountsCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "accounts", Short: "list, make and change accounts, plans and the network's budget", Args: none,
		Long: `accounts lists what users inherit from and share: accounts, which may stand inside of each other, plans, and the network. A
setting of theirs holds for each user who has none of his own; a budget is a limit of what all of them send together.
"sluice users join USER ACCOUNT" makes a user a member.`,
		Example: "  sluice accounts set plan basic messages_per_day=500 budget.recipients_per_hour=20000\n  sluice accounts set account house --plan basic\n  sluice accounts set network budget.messages_per_minute=3000",
		RunE:    func(cmd *cobra.Command, _ []string) error { return p.listGroups(cmd.Context()) },
	}
	list := &cobra.Command{Use: "list", Short: "list accounts, plans and the network", Args: none,
		RunE: func(cmd *cobra.Command, _ []string) error { return p.listGroups(cmd.Context()) }}
	reason := ""
	remove := &cobra.Command{Use: "remove KIND NAME", Short: "remove an account or plan to which nobody belongs", Args: exactly("KIND", "NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			var g api.Group
			if err := p.client.Do(cmd.Context(), "DELETE", "/v1/groups?"+url.Values{"kind": {args[0]}, "name": {args[1]}, "reason": {reason}}.Encode(), nil, &g); err != nil {
				return err
			}
			return p.screen.done(g, "%s %s is removed", g.Kind, plain(g.Name))
		}}
	remove.Flags().StringVar(&reason, "reason", "", "why, for the audit log")
	cmd.AddCommand(list, p.setGroupCommand(), remove)
	return cmd
}

func (p *program) setGroupCommand() *cobra.Command {
	var r api.GroupRequest
	var parent, plan, contact string
	most := 0
	cmd := &cobra.Command{
		Use: "set KIND [NAME] [KEY=VALUE...]", Short: "make or change an account, a plan, or the network",
		Long: `set makes an account or plan, or changes the one of that name. KEY is a setting (see "sluice settings keys") that its users
inherit; budget.KEY a limit of what they send together. An empty value takes it back. With --plan-only nothing is changed: it is
said whom the change would hit.`,
		Args: atLeast(1, "KIND and, but for the network, NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			r.Kind = args[0]
			args = args[1:]
			if r.Kind != "network" {
				if len(args) == 0 || strings.Contains(args[0], "=") {
					return usageError{fmt.Errorf("the %s needs a name: %s", r.Kind, cmd.UseLine())}
				}
				r.Name, args = args[0], args[1:]
			}
			all, err := assignments(args)
			if err != nil {
				return err
			}
			r.Set, r.Budget = map[string]string{}, map[string]string{}
			for k, v := range all {
				if b, ok := strings.CutPrefix(k, "budget."); ok {
					r.Budget[b] = v
				} else {
					r.Set[k] = v
				}
			}
			if cmd.Flags().Changed("parent") {
				r.Parent = &parent
			}
			if cmd.Flags().Changed("plan") {
				r.Plan = &plan
			}
			if cmd.Flags().Changed("users") {
				r.Most = &most
			}
			if cmd.Flags().Changed("contact") {
				r.Contact = &contact
			}
			return p.putGroup(cmd.Context(), r)
		},
	}
	cmd.Flags().StringVar(&contact, "contact", "", "of an account: `mailbox` of who is told of its users' locks where they have no contact; empty for none")
	cmd.Flags().StringVar(&parent, "parent", "", "of an account: the `account` around it; empty for none")
	cmd.Flags().StringVar(&plan, "plan", "", "of an account: its `plan`; empty for none")
	cmd.Flags().IntVar(&most, "users", 0, "of a plan: how many users an account may have, those of accounts inside it counted; 0 for any number")
	cmd.Flags().StringVar(&r.Reason, "reason", "", "why, for the audit log")
	cmd.Flags().BoolVar(&r.Dry, "plan-only", false, "change nothing, say whom it would hit")
	return cmd
}

func (p *program) putGroup(ctx context.Context, r api.GroupRequest) error {
	var done api.GroupPlan
	if err := p.client.Do(ctx, "POST", "/v1/groups", r, &done); err != nil {
		return err
	}
	verb := "would change for"
	if done.Done {
		verb = "is in force; something changes for"
	}
	text := fmt.Sprintf("%s %s %s", strings.TrimSpace(r.Kind+" "+plain(r.Name)), verb, count(done.Hit, "user", "users"))
	if len(done.Users) > 0 {
		text += ": " + plain(strings.Join(done.Users, ", "))
	}
	return p.screen.done(done, "%s", text)
}

func (p *program) listGroups(ctx context.Context) error {
	return listed(ctx, p, "/v1/groups", "no accounts yet: `sluice accounts set account NAME`, then `sluice users join USER NAME`", []column{{head: "KIND"}, {head: "NAME", cut: true}, {head: "IN", cut: true}, {head: "USERS", right: true}, {head: "SETTINGS", cut: true}, {head: "BUDGET", cut: true}}, func(g *api.Group) []string {
		inside := g.Parent
		if g.Plan != "" {
			inside = strings.TrimSpace(inside + " plan " + g.Plan)
		}
		users := fmt.Sprint(g.Users)
		if g.Most > 0 {
			users += fmt.Sprintf(", at most %d an account", g.Most)
		}
		return []string{g.Kind, g.Name, inside, users, flat(g.Settings), flat(g.Budget)}
	})
}

func flat(m map[string]string) string {
	var parts []string
	for _, k := range slices.Sorted(maps.Keys(m)) {
		parts = append(parts, k+"="+m[k])
	}
	return strings.Join(parts, " ")
}

func (p *program) joinCommand() *cobra.Command {
	none, reason := false, ""
	cmd := &cobra.Command{
		Use: "join USER ACCOUNT", Short: "make a user a member of an account, or of none",
		RunE: func(cmd *cobra.Command, args []string) error {
			j := api.JoinRequest{User: args[0], Reason: reason}
			if !none {
				j.Account = args[1]
			}
			var x api.Explained
			if err := p.client.Do(cmd.Context(), "POST", "/v1/groups/join", j, &x); err != nil {
				return err
			}
			if none {
				return p.screen.done(x, "user %s belongs to no account", plain(x.User))
			}
			return p.screen.done(x, "user %s belongs to account %s", plain(x.User), plain(j.Account))
		},
	}
	cmd.Args = func(cmd *cobra.Command, args []string) error {
		if none {
			return exactly("USER")(cmd, args)
		}
		return exactly("USER", "ACCOUNT")(cmd, args)
	}
	cmd.Flags().BoolVar(&none, "none", false, "he belongs to no account any more")
	cmd.Flags().StringVar(&reason, "reason", "", "why, for the audit log")
	return cmd
}
