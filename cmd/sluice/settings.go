package main

import (
	"cmp"
	"context"
	"fmt"
	"net/url"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"sluice/cmd/internal/api"
	"sluice/cmd/internal/config"
)

func (p *program) explainUser(ctx context.Context, name string) error {
	var x api.Explained
	print, err := p.get(ctx, "/v1/settings?"+url.Values{"user": {name}}.Encode(), &x)
	if err == nil && print {
		p.screen.explained(&x)
	}
	return err
}

func (s *screen) explained(x *api.Explained) {
	until := ""
	if !x.Until.IsZero() {
		until = s.at(x.Until)
	}
	s.pairs([2]string{"user", plain(x.User)}, [2]string{"account", plain(x.Account)}, [2]string{"shares", plain(strings.Join(x.Budgets, ", "))},
		[2]string{"for a time", until})
	rows := make([][]string, len(x.Settings))
	for i, t := range x.Settings {
		from := t.From
		if t.Would != "" {
			from += " (else " + t.Would + ")"
		}
		rows[i] = []string{t.Key, t.Value, from}
	}
	s.table([]column{{head: "SETTING"}, {head: "VALUE", cut: true}, {head: "FROM", cut: true}}, rows)
}

// assignments reads KEY=VALUE.
func assignments(args []string) (map[string]string, error) {
	set := map[string]string{}
	for _, a := range args {
		k, v, ok := strings.Cut(a, "=")
		if !ok || k == "" {
			return nil, usageError{fmt.Errorf("%q is not a setting with a value; write it like messages_per_day=5000", a)}
		}
		set[k] = v
	}
	return set, nil
}

func (p *program) setCommand() *cobra.Command {
	reason, span := "", ""
	cmd := &cobra.Command{
		Use: "set USER KEY=VALUE...", Short: "change settings of a user, for good or for a time",
		Long: `set gives a user settings of his own. Mail that begins afterwards is treated accordingly. With --for the change ends by itself,
and until then it stands above all else. "sluice settings keys" lists all settings, "sluice users show USER --explain" what holds.`,
		Example: "  sluice user set alice messages_per_day=5000 messages_per_day.action=reject\n  sluice user set alice recipients_per_hour=20000 --for 6h --reason \"newsletter, announced\"",
		Args:    atLeast(2, "USER and KEY=VALUE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			set, err := assignments(args[1:])
			if err != nil {
				return err
			}
			c := api.SettingsChange{User: args[0], Set: set, Reason: reason}
			if span != "" {
				var d config.Duration
				if err := d.UnmarshalText([]byte(span)); err != nil || d == 0 {
					return usageError{fmt.Errorf("--for %q is not a time span; write it like 90m, 6h or 3d", span)}
				}
				until := p.screen.now().Add(d.D()).UTC().Truncate(time.Second)
				c.Until = &until
			}
			return p.changeSettings(cmd.Context(), c)
		},
	}
	cmd.Flags().StringVar(&reason, "reason", "", "why, for the audit log")
	cmd.Flags().StringVar(&span, "for", "", "how long, like `6h` or 3d; left out: for good")
	return cmd
}

func (p *program) unsetCommand() *cobra.Command {
	reason := ""
	cmd := &cobra.Command{
		Use: "unset USER KEY...", Short: "let settings of a user be inherited again", Args: atLeast(2, "USER and KEY"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return p.changeSettings(cmd.Context(), api.SettingsChange{User: args[0], Unset: args[1:], Reason: reason})
		},
	}
	cmd.Flags().StringVar(&reason, "reason", "", "why, for the audit log")
	return cmd
}

func atLeast(n int, what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) < n {
			return fmt.Errorf("%s are needed: %s", what, cmd.UseLine())
		}
		return nil
	}
}

func (p *program) changeSettings(ctx context.Context, c api.SettingsChange) error {
	var x api.Explained
	if err := p.client.Do(ctx, "POST", "/v1/settings", c, &x); err != nil {
		return err
	}
	if p.screen.json {
		return p.screen.writeJSON(x)
	}
	for _, t := range x.Settings {
		_, set := c.Set[t.Key]
		for _, k := range c.Unset {
			set = set || k == t.Key
		}
		if set {
			p.screen.say("%s of user %s is %s (%s)", t.Key, plain(x.User), cmp.Or(plain(t.Value), "empty"), t.From)
		}
	}
	return nil
}

func (p *program) settingsCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "settings", Short: "list, export and import settings of users", Args: none,
		RunE: func(cmd *cobra.Command, _ []string) error { return p.listKeys(cmd.Context()) }}
	keys := &cobra.Command{Use: "keys", Short: "list all settings that a user may have, with their defaults", Args: none,
		Long: "keys lists all settings that a user may have, with what holds where nothing is said of him. sluice.toml(5) tells what they mean.",
		RunE: func(cmd *cobra.Command, _ []string) error { return p.listKeys(cmd.Context()) }}
	form := "csv"
	export := &cobra.Command{Use: "export", Short: "print what users have of their own", Args: none,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var rows []api.SettingRow
			print, err := p.get(cmd.Context(), "/v1/settings/export", &rows)
			if err == nil && print {
				err = writeSettings(p.screen.out, form, rows)
			}
			return err
		}}
	export.Flags().StringVar(&form, "format", "csv", "`csv` or toml")
	cmd.AddCommand(keys, export, p.importSettings("plan FILE", "show what an import would change, and whom it hits", true),
		p.importSettings("import FILE", "have users have exactly the settings of a file of their own", false))
	return cmd
}

func (p *program) listKeys(ctx context.Context) error {
	return listed(ctx, p, "/v1/settings/keys", "", []column{{head: "SETTING"}, {head: "DEFAULT", cut: true}}, func(k *api.SettingKey) []string {
		return []string{k.Key, k.Default}
	})
}

func (p *program) importSettings(use, short string, dry bool) *cobra.Command {
	reason, replace := "", false
	cmd := &cobra.Command{Use: use, Short: short, Args: exactly("FILE"),
		Long: `FILE is what "sluice settings export" prints: CSV with the columns user, key and value, or TOML (its name ends in .toml) with a
table for each user. Users of the file have exactly the settings in it of their own; all of it is taken, or nothing. An empty
value in CSV for a key stands for a user who inherits everything.`,
		Example: "  sluice settings export --format toml >settings.toml\n  sluice settings plan settings.toml",
		RunE: func(cmd *cobra.Command, args []string) error {
			rows, err := readSettings(args[0])
			if err != nil {
				return err
			}
			var plan api.SettingsPlan
			if err := p.client.Do(cmd.Context(), "POST", "/v1/settings/import", api.SettingsImport{Rows: rows, Replace: replace, Plan: dry, Reason: reason}, &plan); err != nil {
				return err
			}
			if p.screen.json {
				return p.screen.writeJSON(plan)
			}
			for _, c := range plan.Changes {
				p.screen.say("%s: %s %s -> %s", plain(c.User), c.Key, inherited(c.Old), inherited(c.New))
			}
			verb := "would change"
			if plan.Done {
				verb = "are changed"
			}
			p.screen.say("%s %s (%s)", count(plan.Users, "user", "users"), verb, filepath.Base(args[0]))
			return nil
		}}
	cmd.Flags().BoolVar(&replace, "replace", false, "users who are not in the file inherit everything")
	if !dry {
		cmd.Flags().StringVar(&reason, "reason", "", "why, for the audit log")
	}
	return cmd
}

func inherited(v string) string {
	if v == "" {
		return "inherited"
	}
	return plain(v)
}

func (p *program) auditCommand() *cobra.Command {
	limit := 100
	cmd := &cobra.Command{Use: "audit", Short: "list what was done by hand, the newest last", Args: none,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var all []api.Act
			print, err := p.get(cmd.Context(), fmt.Sprint("/v1/audit?limit=", limit), &all)
			if err != nil || !print {
				return err
			}
			if len(all) == 0 {
				p.screen.say("nothing was done by hand yet")
				return nil
			}
			rows := make([][]string, len(all))
			for i, a := range all {
				rows[len(all)-1-i] = []string{p.screen.at(a.At), a.Who, a.What, a.Subject, a.Detail}
			}
			p.screen.table([]column{{head: "TIME"}, {head: "WHO"}, {head: "WHAT"}, {head: "SUBJECT", cut: true}, {head: "DETAIL", cut: true}}, rows)
			return nil
		}}
	cmd.Flags().IntVar(&limit, "limit", 100, "how many at most")
	return cmd
}
