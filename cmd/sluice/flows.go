package main

import (
	"context"
	"fmt"
	"net/url"
	"time"

	"github.com/spf13/cobra"

	"sluice/cmd/internal/api"
)

func (p *program) flowsCommand() *cobra.Command {
	watch, user := false, ""
	cmd := &cobra.Command{
		Use: "flows", Short: "show the connections that are open now", Args: none,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return p.shown(cmd.Context(), watch, func(ctx context.Context) error { return p.flows(ctx, user) })
		},
	}
	watchFlag(cmd, &watch)
	cmd.Flags().StringVar(&user, "user", "", "only those of this `USER`")
	return cmd
}

func watchFlag(cmd *cobra.Command, watch *bool) {
	cmd.Flags().BoolVarP(watch, "watch", "w", false, "show them anew every second until interrupted")
}

// shown shows something once, or again and again until ctx ends.
func (p *program) shown(ctx context.Context, watch bool, show func(context.Context) error) error {
	if !watch {
		return show(ctx)
	}
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		if p.screen.width > 0 && !p.screen.json {
			fmt.Fprint(p.screen.out, "\x1b[H\x1b[2J") // the top left corner of an empty screen
		}
		if err := show(ctx); err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

func (p *program) flows(ctx context.Context, user string) error {
	path := "/v1/flows"
	if user != "" {
		path += "?user=" + url.QueryEscape(user)
	}
	return listed(ctx, p, path, "no connection is open", []column{{head: "FLOW"}, {head: "USER", cut: true}, {head: "CLIENT"}, {head: "DESTINATION"}, {head: "STATE"},
		{head: "HELO", cut: true}, {head: "OPEN", right: true}, {head: "MSGS", right: true}, {head: "TLS"}}, func(f *api.Flow) []string {
		tls := ""
		if f.TLS {
			tls = "yes"
		}
		user := f.User
		if f.Ticket != "" {
			user += " (locked)"
		}
		return []string{f.ID, user, f.Client.String(), f.Target.String(), f.State, f.Helo, p.screen.ago(f.Since), fmt.Sprint(f.Messages), tls}
	})
}
