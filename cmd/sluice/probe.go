package main

import (
	"context"
	"fmt"
	"net/url"
	"time"

	"github.com/spf13/cobra"

	"sluice/cmd/internal/api"
	"sluice/proxy/probe"
)

func (p *program) probeCommand() *cobra.Command {
	here, look, file := false, "", ""
	g := gatewayProbe{}
	cmd := &cobra.Command{
		Use: "probe [USER|ADDRESS...]", Short: "prove that port 25 goes through the gateway, or say where it does not",
		Long: `probe, on the gateway, looks at the way of each user's addresses in both directions: that they are routed to a customer
interface where the program stands, that what comes from there would go out by a guarded uplink, that intercepted packets
are routed to this host, and that no answers came back for connections which went another way. It sends nothing.

With --from-here it runs on a customer's server, alone and without privilege: it connects to port 25 of a mail server, by
IPv4 and IPv6, and asks on the way whether a gateway answers. The argument is then a mail domain, a host or an address. A
gateway in mode intercept answers for itself; one in shadow or observe keeps silent, but its log has the probe's number:
look there with --look.

Exit codes: 0 all goes through the gateway, 1 something does not or could not be proven.`,
		Example: "  sluice probe alice\n  sluice probe --from-here gmail.com\n  sluice probe --look 4f0c62a9d1b3e87716aa20c5",
		RunE: func(cmd *cobra.Command, args []string) error {
			switch {
			case here && look != "":
				return usageError{fmt.Errorf("--from-here asks, --look looks up what was asked: give one of them")}
			case look != "":
				return p.probeLook(cmd.Context(), look)
			case here && len(args) > 1:
				return usageError{fmt.Errorf("--from-here asks one mail server: %s", cmd.UseLine())}
			case here:
				return p.probeFromHere(cmd.Context(), args)
			}
			g.file = file
			return p.probeGateway(cmd.Context(), g, args)
		},
	}
	cmd.Flags().BoolVar(&here, "from-here", false, "connect to a mail server from this host, a customer's")
	cmd.Flags().StringVar(&look, "look", "", "look a probe's `number` up in the gateway's log")
	cmd.Flags().StringVar(&file, "config", "", "configuration `file` (default: the one that sluiced has read)")
	cmd.Flags().StringSliceVar(&g.towards, "towards", []string{"9.9.9.9", "2620:fe::9"}, "`addresses` of the internet to whom routes are looked up")
	return cmd
}

// probeLook looks for the session of a probe in the log of the last day, and among the open ones.
func (p *program) probeLook(ctx context.Context, nonce string) error {
	name := probe.Name(nonce)
	var flows []api.Flow
	if err := p.client.Do(ctx, "GET", "/v1/flows", nil, &flows); err != nil {
		return err
	}
	for _, f := range flows {
		if f.Helo == name {
			return p.screen.done(f, "the probe is here now: flow %s of %s from %s to %s", f.ID, f.User, f.Client, f.Target)
		}
	}
	for _, status := range []string{"no-message", "observed"} {
		q := url.Values{"status": {status}, "since": {p.screen.now().Add(-24 * time.Hour).UTC().Format(time.RFC3339)}, "limit": {"100000"}}
		var ms []api.Message
		if err := p.client.Do(ctx, "GET", "/v1/log?"+q.Encode(), nil, &ms); err != nil {
			return err
		}
		for i := range ms {
			if m := &ms[i]; m.Helo == name {
				return p.screen.done(m, "the probe came through here at %s: flow %s of user %s, from %s to %s (%s)",
					p.screen.at(m.Time), m.ID, m.User, m.Client, m.Target, how(m))
			}
		}
	}
	if p.screen.json {
		return errFindings
	}
	p.screen.say("no session of the last day belongs to probe %s: it did not come through here, or its source is in mode pass, reject or drop", nonce)
	return errFindings
}

func how(m *api.Message) string {
	switch {
	case m.Status == "observed":
		return "observed"
	case m.Shadow:
		return "shadow"
	}
	return "intercepted"
}
