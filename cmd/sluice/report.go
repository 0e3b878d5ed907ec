package main

import (
	"bytes"
	"fmt"

	"github.com/spf13/cobra"

	"sluice/cmd/internal/api"
)

func (p *program) reportCommand() *cobra.Command {
	return &cobra.Command{
		Use: "report PATH...", Short: "hand in what others report about mail that left here",
		Long: `report hands in complaints about mail that left through this gateway: by the Abuse Reporting Format (RFC 5965), or mails with
the message attached. A PATH is a file, a folder with all below it, a mailbox (mbox), or - for the standard input. The message
is found by the gateway's own trace field in its header; the complaint counts towards a lock of who sent it, and the content
filter learns the text, within the budget of the reporter. The folder reports.folder does the same by itself.`,
		Example: "  sluice report complaint.eml\n  sluice report --json Maildir/new/",
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return fmt.Errorf("PATH is missing: %s", cmd.UseLine())
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			return eachMail(args, cmd.InOrStdin(), func(path string, data []byte) error {
				var r api.Report
				if err := p.client.Do(cmd.Context(), "POST", "/v1/reports", bytes.NewReader(data), &r); err != nil {
					return fmt.Errorf("%s: %w", plain(path), err)
				}
				if p.screen.json {
					return p.screen.writeJSON(r)
				}
				p.screen.reported(path, &r)
				return nil
			})
		},
	}
}

// reported tells what became of a report.
func (s *screen) reported(path string, r *api.Report) {
	if r.Again {
		s.say("%s: known already, nothing was done", plain(path))
		return
	}
	if r.Message == "" {
		s.say("%s: %s by %s, about no message of ours that the log has", plain(path), r.Kind, plain(r.Reporter))
		return
	}
	whom, counted := r.User, "does not count towards a lock"
	if r.Identity != "" {
		whom += ", " + r.Identity
	}
	if r.Counted {
		counted = "counts towards a lock"
	}
	s.say("%s: %s by %s about %s of %s; %s; learnt: %s", plain(path), r.Kind, plain(r.Reporter), r.Message, plain(whom), counted, plain(r.Learnt))
}
