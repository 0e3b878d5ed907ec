package main

import (
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"sluice/cmd/internal/api"
)

func (p *program) replayCommand() *cobra.Command {
	since := "30d"
	var set []string
	cmd := &cobra.Command{
		Use: "replay [--since TIME] [--set NAME=VALUE]...", Short: "whom proposed lock settings would have locked", Args: none,
		Long: `replay runs settings of automatic locks over the message log, as if they had been in force for everybody, and shows whom they
would have locked. Nothing is changed. What is not named is as it stands. The log does not have the texts: copies of one message
are known by its group, or by sender and size. Only verdicts count: not complaints, refused logins and what destinations answered.`,
		Example: "  sluice replay\n  sluice replay --since 7d --set lock_spam_count=3 --set lock_day_count=10",
		RunE: func(cmd *cobra.Command, _ []string) error {
			at, err := moment("--since", since, p.screen.now())
			if err != nil {
				return err
			}
			q := api.ReplayRequest{Since: at, Settings: map[string]string{}}
			for _, s := range set {
				name, value, _ := strings.Cut(s, "=")
				q.Settings[name] = value
			}
			var r api.Replay
			if err := p.client.Do(cmd.Context(), "POST", "/v1/replay", q, &r); err != nil {
				return err
			}
			if p.screen.json {
				return p.screen.writeJSON(&r)
			}
			p.screen.replay(&r)
			return nil
		},
	}
	cmd.Flags().StringVar(&since, "since", since, "from when on: a time span, or a `TIME` like 2027-01-31T12:00:00Z")
	cmd.Flags().StringArrayVar(&set, "set", nil, "a setting, `NAME=VALUE`, by the names of sluice settings; may be given several times")
	return cmd
}

func (s *screen) replay(r *api.Replay) {
	s.say("%s of %s since %s: %s", count(r.Messages, "message", "messages"), count(r.Users, "user", "users"), s.at(r.Since), count(len(r.Locks), "sender would have been locked", "senders would have been locked"))
	if len(r.Locks) == 0 {
		return
	}
	rows := make([][]string, len(r.Locks))
	for i, l := range r.Locks {
		rows[i] = []string{s.at(l.First), whom(&api.Lock{User: l.User, Identity: l.Identity}), l.Rule, strconv.Itoa(l.Count), plain(l.Reason)}
	}
	s.table([]column{{head: "FIRST"}, {head: "WHO"}, {head: "RULE"}, {head: "TIMES"}, {head: "REASON", cut: true}}, rows)
}
