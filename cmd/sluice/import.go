package main

import (
	"fmt"
	"net/url"
	"os"

	"github.com/spf13/cobra"

	"sluice/cmd/internal/api"
)

func (p *program) importCommand() *cobra.Command {
	replace, reason := false, ""
	cmd := &cobra.Command{
		Use: "import FILE", Short: "take users with their prefixes from a list, up to a million", Args: exactly("FILE"),
		Long: `import reads lines of prefix,user or prefix,user,mode, as an address management or a billing system writes them; - is the
standard input. Empty lines and those that begin with # are passed over.

A user of the list holds exactly the prefixes that it gives him; users of the configuration file cannot be in it. A mode
becomes a rule as of "sluice mode set". All of the list is taken, or nothing. Single users are better added with "users add".`,
		Example: "  sluice users import --replace /var/lib/ipam/customers.csv",
		RunE: func(cmd *cobra.Command, args []string) error {
			f := os.Stdin
			if args[0] != "-" {
				var err error
				if f, err = os.Open(args[0]); err != nil {
					return fmt.Errorf("could not read the list: %w", err)
				}
				defer f.Close() // only read
			}
			q := url.Values{}
			if replace {
				q.Set("replace", "1")
			}
			if reason != "" {
				q.Set("reason", reason)
			}
			var done api.Imported
			if err := p.client.Do(cmd.Context(), "POST", "/v1/import?"+q.Encode(), f, &done); err != nil {
				return err
			}
			text := fmt.Sprintf("%s, %s with a mode, of %s are in force after %.1f s; %d added, %d removed",
				count(done.Prefixes, "prefix", "prefixes"), fmt.Sprint(done.Modes), count(done.Users, "user", "users"), done.Seconds, done.Added, done.Removed)
			if done.Warning != "" {
				text += "\nwarning: " + done.Warning
			}
			return p.screen.done(done, "%s", text)
		},
	}
	cmd.Flags().BoolVar(&replace, "replace", false, "remove users added by command who are not in the list")
	cmd.Flags().StringVar(&reason, "reason", "", "`why`, for the audit log and the list of modes")
	return cmd
}
