package main

import (
	"context"
	"fmt"
	"net/url"
	"time"

	"github.com/spf13/cobra"

	"sluice/cmd/internal/api"
)

func (p *program) holderCommand() *cobra.Command {
	at := ""
	cmd := &cobra.Command{
		Use: "holder ADDRESS", Short: "tell who held an address, and when", Args: exactly("ADDRESS"),
		Long: `holder prints the history of an address: what users got and gave back, noted by itself, and what was told of the time
before. Lines of the message log and what is found out of a complaint name the holder of that moment.`,
		Example: "  sluice holder 192.0.2.7 --at 2027-01-31T12:00:00Z\n  sluice holder tell 192.0.2.0/29 alice --since 2026-05-01T00:00:00Z --until 2026-09-01T00:00:00Z",
		RunE:    func(cmd *cobra.Command, args []string) error { return p.showHolders(cmd.Context(), args[0], at) },
	}
	cmd.Flags().StringVar(&at, "at", "", "only who held it then: a time span before now like `2h`, or a time like 2027-01-31T12:00:00Z")
	var r api.HoldingRequest
	var since, until string
	tell := &cobra.Command{
		Use: "tell PREFIX HOLDER", Short: "tell who held a prefix; it comes before what was noted by itself", Args: exactly("PREFIX", "HOLDER"),
		RunE: func(cmd *cobra.Command, args []string) error {
			r.Prefix, r.Holder = args[0], args[1]
			for _, f := range []struct {
				flag, text string
				to         **time.Time
			}{{"--since", since, &r.Since}, {"--until", until, &r.Until}} {
				t, err := moment(f.flag, f.text, p.screen.now())
				if err != nil {
					return err
				}
				if !t.IsZero() {
					*f.to = &t
				}
			}
			var h api.Holding
			if err := p.client.Do(cmd.Context(), "POST", "/v1/holders", r, &h); err != nil {
				return err
			}
			return p.screen.done(h, "%s was held by %s, as line %d of its history", h.Prefix, plain(h.Holder), h.ID)
		},
	}
	tell.Flags().StringVar(&since, "since", "", "from when on, as --at; without it from the beginning")
	tell.Flags().StringVar(&until, "until", "", "until when, as --at; without it, it goes on")
	reason := ""
	forget := &cobra.Command{
		Use: "forget NUMBER", Short: "remove what was told", Args: exactly("NUMBER"),
		RunE: func(cmd *cobra.Command, args []string) error {
			var h api.Holding
			if err := p.client.Do(cmd.Context(), "DELETE", "/v1/holders/"+url.PathEscape(args[0])+"?"+url.Values{"reason": {reason}}.Encode(), nil, &h); err != nil {
				return err
			}
			return p.screen.done(h, "line %s of the history of %s is removed", args[0], h.Prefix)
		},
	}
	tell.Flags().StringVar(&r.Reason, "reason", "", "why, for the audit log")
	forget.Flags().StringVar(&reason, "reason", "", "why, for the audit log")
	cmd.AddCommand(tell, forget)
	return cmd
}

func (p *program) showHolders(ctx context.Context, address, at string) error {
	q := url.Values{"address": {address}}
	t, err := moment("--at", at, p.screen.now())
	if err != nil {
		return err
	}
	if !t.IsZero() {
		q.Set("at", t.Format(time.RFC3339))
	}
	return listed(ctx, p, "/v1/holders?"+q.Encode(), "nobody is known to have held "+address+" then",
		[]column{{head: "HOLDER", cut: true}, {head: "PREFIX"}, {head: "SINCE"}, {head: "UNTIL"}, {head: "NUMBER", right: true}, {head: "TOLD BY"}}, func(h *api.Holding) []string {
			since, until, number := "the beginning", "now", ""
			if h.Since != nil {
				since = p.screen.at(*h.Since)
			}
			if h.Until != nil {
				until = p.screen.at(*h.Until)
			}
			if h.ID != 0 {
				number = fmt.Sprint(h.ID)
			}
			return []string{h.Holder, h.Prefix, since, until, number, h.By}
		})
}
