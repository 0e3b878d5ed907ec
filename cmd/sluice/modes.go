package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"sluice/cmd/internal/api"
	"sluice/cmd/internal/config"
)

// ruleFlags are what the command line says about a rule.
type ruleFlags struct {
	reason, span, until string
	percent             int
	port                uint16
}

func (f *ruleFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.reason, "reason", "", "`why`, for the list and the audit log")
	cmd.Flags().StringVar(&f.span, "for", "", "how `long`, like 30m, 2h or 7d; for good unless told")
	cmd.Flags().StringVar(&f.until, "until", "", "until this `time`, like 2027-01-31T18:00:00Z")
	cmd.MarkFlagsMutuallyExclusive("for", "until")
}

// end is when the rule shall end, nil for never.
func (f *ruleFlags) end(now time.Time) (*time.Time, error) {
	switch {
	case f.span != "":
		var d config.Duration
		if err := d.UnmarshalText([]byte(f.span)); err != nil {
			return nil, usageError{fmt.Errorf("--for: %w", err)}
		}
		if d == 0 {
			return nil, usageError{errors.New("--for 0: leave it out for a rule without end")}
		}
		t := now.Add(d.D())
		return &t, nil
	case f.until != "":
		t, err := time.Parse(time.RFC3339, f.until)
		if err != nil {
			return nil, usageError{fmt.Errorf("--until: %q is not a time; write it like 2027-01-31T18:00:00Z", f.until)}
		}
		return &t, nil
	}
	return nil, nil
}

// withReason demands a reason beside the arguments.
func (f *ruleFlags) withReason(args cobra.PositionalArgs) cobra.PositionalArgs {
	return func(cmd *cobra.Command, given []string) error {
		if f.reason == "" {
			return fmt.Errorf("--reason is missing: %s", cmd.UseLine())
		}
		return args(cmd, given)
	}
}

func (p *program) modeCommand() *cobra.Command {
	var f ruleFlags
	cmd := &cobra.Command{
		Use: "mode", Short: "say what happens to mail by source", Args: none,
		Long: `mode lists what happens to new mail connections by source prefix; the longest prefix wins, whoever has it. Rules made
here beat the configuration at the same prefix and outlive restarts. They hold from the next connection on; open ones go on.

intercept: through the proxy. canary: that for a share of the users, shadow for the others. shadow: through the proxy from
the customer's own address, judged and logged, nothing changed. observe: forwarded and looked at in passing. pass:
forwarded. reject: TCP reset. drop: no answer.

What is looser than the configuration needs the prefix in intercept.runtime_loosen.`,
		RunE: func(cmd *cobra.Command, _ []string) error { return p.listModes(cmd.Context()) },
	}
	list := &cobra.Command{Use: "list", Short: "list the modes by prefix", Args: none, RunE: cmd.RunE}
	show := &cobra.Command{
		Use: "show ADDRESS", Short: "show the mode of a source address or prefix, and what says so", Args: exactly("ADDRESS"),
		RunE: func(cmd *cobra.Command, args []string) error {
			var m api.Mode
			print, err := p.get(cmd.Context(), rulePath("modes", args[0]), &m)
			if err == nil && print {
				p.screen.mode(args[0], &m)
			}
			return err
		},
	}
	set := &cobra.Command{
		Use: "set PREFIX MODE --reason WHY", Short: "make a rule for a source prefix",
		Example: "  sluice mode set 192.0.2.0/24 shadow --reason \"roll-out, ticket 4711\"\n  sluice mode set 2001:db8:1::/48 canary --percent 5 --reason \"roll-out\"\n  sluice mode set 192.0.2.7 reject --for 2h --reason \"flood\"",
		Args:    f.withReason(exactly("PREFIX", "MODE")),
		RunE: func(cmd *cobra.Command, args []string) error {
			until, err := f.end(p.screen.now())
			if err != nil {
				return err
			}
			var m api.Mode
			r := api.ModeRequest{Prefix: args[0], Mode: args[1], Percent: f.percent, Reason: f.reason, Until: until}
			if err := p.client.Do(cmd.Context(), "POST", "/v1/modes", r, &m); err != nil {
				return err
			}
			end := ""
			if m.Until != nil {
				end = " until " + p.screen.until(m.Until)
			}
			return p.screen.done(m, "new connections from %s: %s%s", m.Prefix, modeName(&m), end)
		},
	}
	f.add(set)
	set.Flags().IntVar(&f.percent, "percent", 0, "of mode canary: the share of users that is intercepted, 1 to 99")
	remove := &cobra.Command{
		Use: "remove PREFIX", Short: "remove a rule that was made with set", Args: exactly("PREFIX"),
		RunE: func(cmd *cobra.Command, args []string) error {
			var m api.Mode
			if err := p.client.Do(cmd.Context(), "DELETE", rulePath("modes", args[0])+"?reason="+url.QueryEscape(f.reason), nil, &m); err != nil {
				return err
			}
			return p.screen.done(m, "the rule is removed; new connections from %s: %s", args[0], p.screen.rule(&m))
		},
	}
	remove.Flags().StringVar(&f.reason, "reason", "", "`why`, for the audit log")
	cmd.AddCommand(list, show, set, remove)
	return cmd
}

// rulePath keeps the slash of prefixes, which the API's route takes as it is.
func rulePath(what, prefix string) string {
	return "/v1/" + what + "/" + strings.ReplaceAll(url.PathEscape(prefix), "%2F", "/")
}

func (p *program) listModes(ctx context.Context) error {
	return listed(ctx, p, "/v1/modes", "", ruleColumns("PREFIX"), func(m *api.Mode) []string {
		if m.Prefix == "" {
			m.Prefix = "all others"
		}
		return []string{m.Prefix, modeName(m), m.Origin + beaten(m.Beaten, m.Refused), p.screen.until(m.Until), m.By, m.Reason}
	})
}

func ruleColumns(first string) []column {
	return []column{{head: first}, {head: "MODE"}, {head: "FROM"}, {head: "UNTIL"}, {head: "BY"}, {head: "REASON", cut: true}}
}

// beaten tells why a rule is not in force.
func beaten(beaten bool, refused string) string {
	switch {
	case refused != "":
		return " (not allowed)"
	case beaten:
		return " (beaten)"
	}
	return ""
}

func modeName(m *api.Mode) string {
	if m.Percent != 0 {
		return fmt.Sprintf("%s %d%%", m.Mode, m.Percent)
	}
	return m.Mode
}

func (s *screen) until(t *time.Time) string {
	if t == nil {
		return ""
	}
	return s.at(*t) + " (in " + s.ago(*t) + ")"
}

// rule tells a mode in one line.
func (s *screen) rule(m *api.Mode) string {
	text := modeName(m)
	if m.Until != nil {
		text += " until " + s.until(m.Until)
	}
	where := ""
	if m.Prefix != "" {
		where = " of " + m.Prefix
	}
	return fmt.Sprintf("%s (%s%s: %s)", text, m.Origin, where, plain(m.Reason))
}

func (s *screen) mode(asked string, m *api.Mode) {
	pairs := [][2]string{{"source", plain(asked)}, {"mode", modeName(m)}}
	if m.Canary != "" {
		pairs = append(pairs, [2]string{"canary", m.Canary})
	}
	if m.User != "" {
		pairs = append(pairs, [2]string{"user", plain(m.User)})
	}
	from := m.Origin
	if m.Prefix != "" {
		from += ", " + m.Prefix
	}
	pairs = append(pairs, [2]string{"from", from}, [2]string{"reason", plain(m.Reason)})
	if m.By != "" {
		pairs = append(pairs, [2]string{"by", plain(m.By) + ", " + s.at(*m.Since)})
	}
	if m.Until != nil {
		pairs = append(pairs, [2]string{"until", s.until(m.Until)})
	}
	s.pairs(pairs...)
}

func (p *program) exemptCommand() *cobra.Command {
	var f ruleFlags
	cmd := &cobra.Command{
		Use: "exempt", Short: "treat destinations otherwise than their sources' mode says", Args: none,
		Long: `exempt lists the destinations whose connections have a mode of their own, whatever their source's is. The longest prefix
wins; with equal ones the one with a port. Exemptions made here beat those of the configuration for the same prefix and
port, and outlive restarts. A lock is stronger.

What is less strict than intercept needs the prefix in intercept.runtime_exempt.`,
		RunE: func(cmd *cobra.Command, _ []string) error { return p.listExemptions(cmd.Context()) },
	}
	list := &cobra.Command{Use: "list", Short: "list the exempt destinations", Args: none, RunE: cmd.RunE}
	set := &cobra.Command{
		Use: "set PREFIX MODE --reason WHY", Short: "give a destination a mode of its own",
		Example: "  sluice exempt set 198.51.100.7 pass --for 7d --reason \"their filter takes our address for a forger's, ticket 4711\"",
		Args:    f.withReason(exactly("PREFIX", "MODE")),
		RunE: func(cmd *cobra.Command, args []string) error {
			until, err := f.end(p.screen.now())
			if err != nil {
				return err
			}
			var x api.Exemption
			r := api.ExemptRequest{Prefix: args[0], Port: f.port, Mode: args[1], Reason: f.reason, Until: until}
			if err := p.client.Do(cmd.Context(), "POST", "/v1/exemptions", r, &x); err != nil {
				return err
			}
			return p.screen.done(x, "new connections to %s%s: %s", x.Prefix, onPort(x.Port), x.Mode)
		},
	}
	f.add(set)
	remove := &cobra.Command{
		Use: "remove PREFIX", Short: "remove an exemption that was made with set", Args: exactly("PREFIX"),
		RunE: func(cmd *cobra.Command, args []string) error {
			q := url.Values{"reason": {f.reason}}
			if f.port != 0 {
				q.Set("port", fmt.Sprint(f.port))
			}
			var x api.Exemption
			if err := p.client.Do(cmd.Context(), "DELETE", rulePath("exemptions", args[0])+"?"+q.Encode(), nil, &x); err != nil {
				return err
			}
			return p.screen.done(x, "%s%s is not exempt any more (was %s)", x.Prefix, onPort(x.Port), x.Mode)
		},
	}
	remove.Flags().StringVar(&f.reason, "reason", "", "`why`, for the audit log")
	for _, c := range []*cobra.Command{set, remove} {
		c.Flags().Uint16Var(&f.port, "port", 0, "only this destination `port`; every mail port unless told")
	}
	cmd.AddCommand(list, set, remove)
	return cmd
}

func onPort(port uint16) string {
	if port == 0 {
		return ""
	}
	return fmt.Sprintf(" port %d", port)
}

func (p *program) listExemptions(ctx context.Context) error {
	return listed(ctx, p, "/v1/exemptions", "no destination is exempt", ruleColumns("DESTINATION"), func(x *api.Exemption) []string {
		return []string{x.Prefix + onPort(x.Port), x.Mode, x.Origin + beaten(x.Beaten, x.Refused), p.screen.until(x.Until), x.By, x.Reason}
	})
}
