package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"sluice/cmd/internal/api"
)

func (p *program) gateCommand() *cobra.Command {
	var q api.GateQuery
	prefix, since := "", ""
	cmd := &cobra.Command{
		Use: "gate", Short: "show what stands before the next step of the roll-out", Args: none,
		Long: `gate reads the message log and tells, for all users, one, or a prefix, whom the next step towards enforcement would hurt.
Each line has a verdict: ok; look, somebody is concerned; stop, too many are; unknown, the present mode cannot show it.

traffic: what was seen; look while nothing was, or less than a day.
opaque: connections in shadow or observe that went on encrypted; look above half of them.
refusals: messages that were or would be refused; stop above 5 % by rules (limits, sizes, syntax). Bad mail is for looking at only.
locks: users who would be locked by themselves; stop above 1 % of the users.
spf: sender domains that allow the customer's address and not the delivery addresses; stop above 1 % of the messages.
relay: destinations that are no mail exchanger of their recipients' domains, such as smart hosts; stop above 1 % of the messages.
tls: clients that end the handshake after the gateway's certificate; stop above 1 % of the enforced connections.
caps: connections that waited for their greeting or got 421, or would have; stop when 421 or would-be waits are above 1 %.

No line says stop for fewer than five cases. The DNS is asked in the background: a second call knows more.`,
		Example: "  sluice gate\n  sluice gate --prefix 192.0.2.0/24 --since 3d",
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			if prefix != "" {
				if q.Prefix, err = api.ParsePrefix(prefix); err != nil {
					return err
				}
			}
			if q.Since, err = moment("--since", since, p.screen.now()); err != nil {
				return err
			}
			var g api.Gate
			print, err := p.get(cmd.Context(), "/v1/gate?"+q.Values().Encode(), &g)
			if err == nil && print {
				p.screen.gate(&g)
			}
			return err
		},
	}
	cmd.Flags().StringVar(&q.User, "user", "", "only this `USER`; an address may stand for its user")
	cmd.Flags().StringVar(&prefix, "prefix", "", "only sources inside this prefix")
	cmd.Flags().StringVar(&since, "since", "", "not older: a time span like `2h`, or a time like 2027-01-31T12:00:00Z (default 24h)")
	return cmd
}

// gate prints the lines below each other, what to do behind them.
func (s *screen) gate(g *api.Gate) {
	s.say("%s, since %s: %s", plain(g.Scope), s.at(g.Since), s.paint(verdictStyle(g.Verdict), g.Verdict))
	s.say("%s: %d enforced, %d shadow, %d observed", count(g.Flows, "connection", "connections"), g.Enforced, g.Shadow, g.Observed)
	s.say("")
	for i := range g.Lines {
		l := &g.Lines[i]
		s.judged(l.Check, verdictStyle(l.Verdict), l.Verdict, l.Text)
		var worst []string
		for _, w := range l.Worst {
			text := fmt.Sprintf("%s %d", w.User, w.Count)
			if w.Detail != "" {
				text += " (" + w.Detail + ")"
			}
			worst = append(worst, text)
		}
		if len(worst) > 0 {
			s.judged("", "", "", "most: "+strings.Join(worst, "; "))
		}
		if l.Remedy != "" {
			s.judged("", "", "", "help: "+l.Remedy)
		}
	}
	if !g.Whole {
		s.say("")
		s.say("the log has more: only the newest part, since %s, was read", g.Since.In(s.zone).Format(time.DateTime))
	}
}

// judged prints a check with its verdict, wrapped to the terminal.
func (s *screen) judged(check, style, verdict, text string) {
	const indent = 20
	lines := wrap(plain(text), s.width-indent)
	fmt.Fprintf(s.out, "%-9s  %s  %s\n", check, s.paint(style, fmt.Sprintf("%-7s", verdict)), lines[0])
	for _, l := range lines[1:] {
		fmt.Fprintf(s.out, "%*s%s\n", indent, "", l)
	}
}

// wrap breaks text at blanks so that no line is longer than width; one that is too small to be of use breaks nothing.
func wrap(text string, width int) (lines []string) {
	for width >= 30 && len([]rune(text)) > width {
		cut := strings.LastIndexByte(string([]rune(text)[:width+1]), ' ')
		if cut <= 0 {
			break
		}
		lines = append(lines, text[:cut])
		text = text[cut+1:]
	}
	return append(lines, text)
}

func verdictStyle(verdict string) string {
	switch verdict {
	case api.GateOK:
		return green
	case api.GateLook:
		return yellow
	case api.GateStop:
		return red
	}
	return faint
}
