package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"sluice/cmd/internal/api"
)

func (p *program) rolloutCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "rollout", Short: "move users to enforcement, step by step", Args: none,
		Long: `rollout shows the stage of all sources, and of each prefix that has one of its own:

off, observe, shadow, canary 1%, canary 5%, canary 25%, enforce

One command goes a step forward and shows what stands before it, as "sluice gate" does; it refuses where that says stop. One
goes a step back and asks nothing. Each holds from the next connection on. In the canaries that share of the users is
intercepted, all addresses of a user together, and a larger share holds the users of a smaller one; the others are in shadow.

The first step to enforcement asks once what becomes of new connections while the proxy is dead.`,
		RunE: func(cmd *cobra.Command, _ []string) error { return p.showRollout(cmd) },
	}
	status := &cobra.Command{Use: "status", Short: "show where the roll-out stands", Args: none, RunE: cmd.RunE}
	var r api.RolloutRequest
	forward := &cobra.Command{
		Use: "forward TARGET", Short: "go one step forward: all, a prefix, or a user", Args: exactly("TARGET"),
		Example: "  sluice rollout forward all\n  sluice rollout forward 192.0.2.0/24 --fail closed\n  sluice rollout forward alice --force --reason \"the connector is told, ticket 4711\"",
		RunE: func(cmd *cobra.Command, args []string) error {
			if r.Force && r.Reason == "" {
				return usageError{errors.New("--force needs --reason: it stands in the audit log")}
			}
			r.Target = args[0]
			return p.roll(cmd, r)
		},
	}
	forward.Flags().BoolVar(&r.Force, "force", false, "although the gate says stop")
	forward.Flags().StringVar(&r.Fail, "fail", "", "`open` or closed: what becomes of new connections while the proxy is dead; asked once")
	back := &cobra.Command{
		Use: "back TARGET", Short: "go one step back: all, a prefix, or a user", Args: exactly("TARGET"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return p.roll(cmd, api.RolloutRequest{Target: args[0], Back: true, Reason: r.Reason})
		},
	}
	for _, c := range []*cobra.Command{forward, back} {
		c.Flags().StringVar(&r.Reason, "reason", "", "`why`, for the list and the audit log")
	}
	cmd.AddCommand(status, forward, back)
	return cmd
}

// roll makes one step. A gate that refuses is shown all the same.
func (p *program) roll(cmd *cobra.Command, r api.RolloutRequest) error {
	var step api.RolloutStep
	err := p.client.Do(cmd.Context(), "POST", "/v1/rollout", r, &step)
	var problem *api.Problem
	if errors.As(err, &problem) && problem.Code == "gate" && !p.screen.json {
		return errors.Join(p.showGate(cmd, r.Target), err)
	}
	if err != nil {
		return err
	}
	if step.Gate != nil && !p.screen.json {
		p.screen.gate(step.Gate)
		p.screen.say("")
	}
	text := fmt.Sprintf("%s: %s to %s, from the next connection on", plain(step.Target), step.From, step.Stage)
	if step.Inside > 0 {
		text += "; " + count(step.Inside, "longer prefix", "longer prefixes") + " inside keep modes of their own"
	}
	if step.Next != "" {
		text += fmt.Sprintf("\nnext: %s; back: sluice rollout back %s", step.Next, plain(r.Target))
	}
	return p.screen.done(step, "%s", text)
}

func (p *program) showGate(cmd *cobra.Command, target string) error {
	var q api.GateQuery
	if pre, err := api.ParsePrefix(target); err == nil {
		q.Prefix = pre
	} else if target != "all" {
		q.User = target
	}
	var g api.Gate
	if err := p.client.Do(cmd.Context(), "GET", "/v1/gate?"+q.Values().Encode(), nil, &g); err != nil {
		return err
	}
	p.screen.gate(&g)
	p.screen.say("")
	return nil
}

func (p *program) showRollout(cmd *cobra.Command) error {
	var ro api.Rollout
	print, err := p.get(cmd.Context(), "/v1/rollout", &ro)
	if err != nil || !print {
		return err
	}
	rows := make([][]string, len(ro.Targets))
	for i, t := range ro.Targets {
		if t.Inside > 0 {
			t.Target += fmt.Sprintf(" (but %d inside)", t.Inside)
		}
		rows[i] = []string{t.Target, t.Stage, t.Next, t.Back, t.Origin}
	}
	p.screen.table([]column{{head: "TARGET"}, {head: "STAGE"}, {head: "NEXT"}, {head: "BACK"}, {head: "FROM"}}, rows)
	fail := ro.Fail
	if !ro.Asked {
		fail += ", until the first step to enforcement asks"
	}
	p.screen.say("\nwhile the proxy is dead: %s", fail)
	return nil
}
