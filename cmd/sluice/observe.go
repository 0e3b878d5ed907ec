package main

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"sluice/cmd/internal/api"
)

func (p *program) observeCommand() *cobra.Command {
	return &cobra.Command{
		Use: "observe [USER]", Short: "show what enforcement would have done with what was observed",
		Long: "observe tells, by user, what sluice-observe saw of mail that mode observe forwards untouched, and what enforcement\n" +
			"would have done with it: messages that would have been refused, or one of their recipients, by public code, and\n" +
			"locks that there would have been. Flows that went on under STARTTLS are opaque: nobody knows what was in them.\n" +
			"So are unread ones in part, of which bytes were lost. The counts begin with the start of sluiced; the single\n" +
			"messages are in the log: `sluice log --status observed`.",
		Example: "  sluice observe\n  sluice observe alice",
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 1 {
				return exactly("USER")(cmd, args)
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			var r api.ObserveReport
			if err := p.client.Do(cmd.Context(), "GET", "/v1/observed", nil, &r); err != nil {
				return err
			}
			if len(args) == 1 {
				var u api.UserDetail // an address may stand for its user
				if err := p.client.Do(cmd.Context(), "GET", userPath(args[0]), nil, &u); err != nil {
					return err
				}
				r.Users = slices.DeleteFunc(r.Users, func(o api.ObservedUser) bool { return o.User != u.Name })
			}
			if p.screen.json {
				return p.screen.writeJSON(r)
			}
			p.screen.observed(&r)
			return nil
		},
	}
}

func (s *screen) observed(r *api.ObserveReport) {
	s.pairs([2]string{"observer", s.observer(&r.Observer)}, [2]string{"since", s.at(r.Since)})
	if len(r.Users) == 0 {
		s.say("nothing was observed")
		return
	}
	rows := make([][]string, len(r.Users))
	for i := range r.Users {
		o := &r.Users[i]
		rows[i] = []string{o.User, o.Mode, fmt.Sprint(o.Flows), fmt.Sprintf("%.0f %%", 100*o.OpaqueShare), fmt.Sprint(o.Unread), fmt.Sprint(o.Messages), fmt.Sprint(o.Recipients),
			byCode(o.WouldRefuse), number(o.WouldLocks)}
	}
	s.table([]column{{head: "USER", cut: true}, {head: "MODE"}, {head: "FLOWS", right: true}, {head: "OPAQUE", right: true}, {head: "UNREAD", right: true},
		{head: "MESSAGES", right: true}, {head: "RECIPIENTS", right: true}, {head: "WOULD REFUSE", style: func(string) string { return yellow }},
		{head: "WOULD LOCK", right: true, style: func(string) string { return red }}}, rows)
}

func number(n int) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprint(n)
}

// byCode tells how many messages would have been refused for what, the most frequent first.
func byCode(counts map[string]int) string {
	codes := slices.SortedFunc(maps.Keys(counts), func(x, y string) int {
		return cmp.Or(cmp.Compare(counts[y], counts[x]), cmp.Compare(x, y))
	})
	parts := make([]string, len(codes))
	for i, code := range codes {
		name := code
		if code == "" {
			name = "other"
		}
		parts[i] = fmt.Sprintf("%d %s", counts[code], plain(name))
	}
	return strings.Join(parts, ", ")
}

// observer tells whether somebody watches what is to be observed; "" where nobody needs to.
func (s *screen) observer(o *api.Observer) string {
	switch {
	case !o.Present && o.Wanted:
		return s.paint(red, "sluice-observe does not report: what mode observe forwards is not read")
	case !o.Present:
		return ""
	}
	text := fmt.Sprintf("%s seen", count(int(o.Flows), "flow", "flows"))
	for _, l := range []struct {
		n         uint64
		one, many string
	}{{o.LostPieces, "piece", "pieces"}, {o.LostFlows, "flow", "flows"}, {o.LostRecords, "record", "records"}} {
		if l.n > 0 {
			text += ", " + s.paint(yellow, count(int(l.n), l.one, l.many)+" lost")
		}
	}
	return text
}
