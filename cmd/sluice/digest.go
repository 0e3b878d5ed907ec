package main

import (
	"github.com/spf13/cobra"

	"sluice/filter/campaign"
	"sluice/filter/content"
)

// digestOf works without a gateway: it takes the message apart as the filter does.
func (p *program) digestOf() *cobra.Command {
	return &cobra.Command{
		Use: "of FILE", Short: "print what can be listed of a message, from a file or with - from standard input", Args: exactly("FILE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			data, err := readFile(args[0], cmd.InOrStdin())
			if err != nil {
				return err
			}
			all := campaign.DigestsOf(content.CRLF(data))
			if p.screen.json {
				return p.screen.writeJSON(all)
			}
			rows := make([][]string, len(all))
			for i, d := range all {
				rows[i] = []string{d.Hash, plain(d.Of)}
			}
			p.screen.table([]column{{head: "SHA-256"}, {head: "OF"}}, rows)
			return nil
		},
	}
}
