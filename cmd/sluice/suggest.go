package main

import (
	"fmt"
	"net/url"
	"strconv"

	"github.com/spf13/cobra"

	"sluice/cmd/internal/api"
)

func (p *program) suggestCommand() *cobra.Command {
	return &cobra.Command{
		Use: "suggest USER", Short: "suggest limits for a user from his own history", Args: exactly("USER"),
		Long: `suggest looks at what went out of a user's mail in the last 30 days and proposes limits: twice the busiest hour and day, rounded up.
Nothing is changed; the last line says how to. "messages_per_hour.shadow=on" tries a limit without refusing anything.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			var g api.Suggestion
			print, err := p.get(cmd.Context(), "/v1/suggest?"+url.Values{"user": {args[0]}}.Encode(), &g)
			if err != nil || !print {
				return err
			}
			rows, set := make([][]string, len(g.Limits)), ""
			for i, l := range g.Limits {
				now := "none"
				if l.Now > 0 {
					now = strconv.FormatInt(l.Now, 10)
				}
				rows[i] = []string{l.Limit, strconv.FormatInt(l.Busiest, 10), strconv.FormatInt(l.Usual, 10), now, strconv.FormatInt(l.Suggested, 10)}
				if l.Suggested > 0 {
					set += fmt.Sprintf(" %s=%d", l.Limit, l.Suggested)
				}
			}
			p.screen.table([]column{{head: "LIMIT"}, {head: "BUSIEST", right: true}, {head: "USUAL", right: true}, {head: "NOW", right: true}, {head: "SUGGESTED", right: true}}, rows)
			p.screen.say("from %s on %s", count(g.Messages, "message", "messages"), count(g.Days, "day", "days"))
			switch {
			case set == "":
			case !g.Enough:
				p.screen.say("that is a short history: look again when there are 7 days of it")
			default:
				p.screen.say("sluice users set %s%s", plain(g.User), set)
			}
			return nil
		},
	}
}
