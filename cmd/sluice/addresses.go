package main

import (
	"context"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"sluice/cmd/internal/api"
	"sluice/cmd/internal/config"
)

func (p *program) addressesCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "addresses", Short: "allow and block senders and recipients", Args: none,
		Long: `addresses lists which senders and recipients are blocked, or excused from some checks. PATTERN is an address, a domain,
.customer.example for all domains below it, or an expression between slashes. The narrowest entry counts: that of the user
before that of his account before that of everybody, an address before a domain before an expression.`,
		Example: "  sluice addresses block sender spammer.example --reason \"sells lists\"\n  sluice addresses allow sender news@customer.example --skip content,learned --user alice --reason \"own newsletter\" --for 30d",
		RunE:    func(cmd *cobra.Command, _ []string) error { return p.listAddresses(cmd.Context()) },
	}
	list := &cobra.Command{Use: "list", Short: "list entries", Args: none,
		RunE: func(cmd *cobra.Command, _ []string) error { return p.listAddresses(cmd.Context()) }}
	reason := ""
	remove := &cobra.Command{Use: "remove ID", Short: "remove an entry", Args: exactly("ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			var a api.ListedAddress
			if err := p.client.Do(cmd.Context(), "DELETE", "/v1/addresses/"+url.PathEscape(args[0])+"?"+url.Values{"reason": {reason}}.Encode(), nil, &a); err != nil {
				return err
			}
			return p.screen.done(a, "%s %s is on no list any more", a.List, plain(a.Pattern))
		}}
	remove.Flags().StringVar(&reason, "reason", "", "why, for the audit log")
	cmd.AddCommand(list, p.putAddress("allow"), p.putAddress("block"), remove)
	return cmd
}

func (p *program) putAddress(action string) *cobra.Command {
	a := api.ListedAddress{Action: action}
	span, short := "", "refuse mail from a sender or to a recipient"
	cmd := &cobra.Command{
		Use: action + " sender|recipient PATTERN --reason WHY", Args: exactly("sender or recipient", "PATTERN"),
		RunE: func(cmd *cobra.Command, args []string) error {
			a.List, a.Pattern = args[0], args[1]
			if span != "" {
				var d config.Duration
				if err := d.UnmarshalText([]byte(span)); err != nil || d == 0 {
					return usageError{fmt.Errorf("--for %q is not a time span; write it like 6h or 30d", span)}
				}
				until := p.screen.now().Add(d.D()).UTC().Truncate(time.Second)
				a.Until = &until
			}
			var done api.ListedAddress
			if err := p.client.Do(cmd.Context(), "POST", "/v1/addresses", a, &done); err != nil {
				return err
			}
			return p.screen.done(done, "%s %s is %sed from now on (entry %d)", done.List, plain(done.Pattern), done.Action, done.ID)
		},
	}
	if action == "allow" {
		short = "excuse mail from a sender or to a recipient from checks"
		cmd.Flags().StringSliceVar(&a.Skips, "skip", nil, "`checks` that are not asked: sender, rules, size, recipients, rate, helo, content, learned, lists, plugins")
	}
	cmd.Short = short
	cmd.Flags().StringVar(&a.User, "user", "", "only for mail of this `USER`")
	cmd.Flags().StringVar(&a.Account, "account", "", "only for mail of users of this `ACCOUNT`")
	cmd.Flags().StringVar(&a.Reason, "reason", "", "why: a client that is blocked reads it")
	cmd.Flags().StringVar(&span, "for", "", "how long, like `30d`; left out: until it is removed")
	return cmd
}

func (p *program) listAddresses(ctx context.Context) error {
	return listed(ctx, p, "/v1/addresses", "nobody is allowed or blocked by name", []column{{head: "ID", right: true}, {head: "ACTION"}, {head: "LIST"}, {head: "PATTERN", cut: true}, {head: "OF", cut: true}, {head: "SKIPS", cut: true},
		{head: "UNTIL"}, {head: "BY"}, {head: "REASON", cut: true}}, func(a *api.ListedAddress) []string {
		of, until := "all", ""
		switch {
		case a.User != "":
			of = "user " + a.User
		case a.Account != "":
			of = "account " + a.Account
		}
		if a.Until != nil {
			until = p.screen.at(*a.Until)
		}
		return []string{fmt.Sprint(a.ID), a.Action, a.List, a.Pattern, of, strings.Join(a.Skips, " "), until, a.By, a.Reason}
	})
}
