package main

import (
	"context"
	"net/url"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"sluice/cmd/internal/api"
	"sluice/cmd/internal/config"
)

func (p *program) tokenCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "token", Short: "say which programs may use the API, and for what", Args: none,
		Long: `token lists what programs show to use the API where they cannot open its socket (api.listen), or when they are to do less
than those who can. Only a hash of a token is kept. What is done with one stands in the audit log under its name.

Scopes: read (figures, users, settings, locks), log (the message log, held and queued messages), locks (lock and unlock),
users (users, their settings, accounts, logins and lists), mail (queue and quarantine), all.`,
		RunE: func(cmd *cobra.Command, _ []string) error { return p.listTokens(cmd.Context()) },
	}
	list := &cobra.Command{Use: "list", Short: "list the tokens", Args: none, RunE: cmd.RunE}
	var n api.NewToken
	var lasts string
	add := &cobra.Command{
		Use: "add NAME --scope SCOPE", Short: "make a token and print it this once", Args: exactly("NAME"),
		Example: "  sluice token add monitoring --scope read\n  sluice token add billing --scope users --scope read --for 90d",
		RunE: func(cmd *cobra.Command, args []string) error {
			n.Name = args[0]
			if lasts != "" {
				var d config.Duration
				if err := d.UnmarshalText([]byte(lasts)); err != nil {
					return usageError{err}
				}
				until := p.screen.now().Add(d.D()).Truncate(time.Second)
				n.Until = &until
			}
			var made api.MadeToken
			if err := p.client.Do(cmd.Context(), "POST", "/v1/tokens", n, &made); err != nil {
				return err
			}
			if p.screen.json {
				return p.screen.writeJSON(made)
			}
			p.screen.pairs([][2]string{{"token", made.Secret + "  (shown this once)"}, {"id", made.ID}, {"may", strings.Join(made.Scopes, ", ")}, {"until", p.ends(made.Until)}}...)
			return nil
		},
	}
	add.Flags().StringSliceVar(&n.Scopes, "scope", nil, "what it may do: "+strings.Join(api.Scopes, ", "))
	add.Flags().StringVar(&lasts, "for", "", "time `span` after which it ends, as 90d; without it, it holds until it is revoked")
	reason := ""
	revoke := &cobra.Command{
		Use: "revoke ID", Short: "end a token for good", Args: exactly("ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			var t api.Token
			if err := p.client.Do(cmd.Context(), "DELETE", "/v1/tokens/"+url.PathEscape(args[0])+"?"+url.Values{"reason": {reason}}.Encode(), nil, &t); err != nil {
				return err
			}
			return p.screen.done(t, "the token %s (%s) may do nothing any more", plain(t.Name), t.ID)
		},
	}
	revoke.Flags().StringVar(&reason, "reason", "", "why, for the audit log")
	cmd.AddCommand(list, add, revoke)
	return cmd
}

func (p *program) ends(at *time.Time) string {
	if at == nil {
		return "it is revoked"
	}
	return p.screen.at(*at)
}

func (p *program) listTokens(ctx context.Context) error {
	return listed(ctx, p, "/v1/tokens", "no tokens yet: `sluice token add NAME --scope read` makes one",
		[]column{{head: "ID"}, {head: "NAME", cut: true}, {head: "MAY"}, {head: "BY"}, {head: "USED"}, {head: "STATE"}}, func(t *api.Token) []string {
			used, state := "never", "until "+p.ends(t.Until)
			if t.Used != nil {
				used = p.screen.at(*t.Used)
			}
			switch {
			case t.Revoked != nil:
				state = "revoked " + p.screen.at(*t.Revoked)
			case t.Until != nil && !t.Until.After(p.screen.now()):
				state = "over since " + p.screen.at(*t.Until)
			}
			return []string{t.ID, t.Name, strings.Join(t.Scopes, " "), t.By, used, state}
		})
}
