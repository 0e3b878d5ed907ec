package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"sluice/cmd/internal/api"
	"sluice/cmd/internal/config"
)

type logFlags struct {
	q                    api.Query
	since, until, client string
	target, saved        string
	do, reason           string
	follow, csv, plan    bool
}

func (p *program) logCommand() *cobra.Command {
	var f logFlags
	cmd := &cobra.Command{
		Use: "log", Short: "search the message log, or follow it", Args: none,
		Long: `log prints one line for every message, and for every session that never became one, the newest last.
` + "`sluice why ID`" + ` tells everything about one of them.

--do acts on what is found: lock and unlock users, or identities; release and delete copies in quarantine and mail in the
queue; block senders, or allow them without the check that stopped their mail, each for mail of that user; spam and good
teach the filter from what is kept of the messages.`,
		Example: "  sluice log --user alice --since 2h --status refused\n  sluice log --follow --json\n  sluice log --since 1d --where 'reply~greylisted' --where 'size>1000000' --limit 100000 --csv > greylisted.csv\n" +
			"  sluice log --code SPAM --since 1h --do lock --reason 'one wave' --plan\n" +
			"  sluice log save refused-today --status refused --since 1d; sluice log --saved refused-today",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := f.resolve(p.screen.now()); err != nil {
				return err
			}
			if f.follow {
				return p.follow(cmd.Context(), f.q)
			}
			return p.searchLog(cmd.Context(), &f)
		},
	}
	f.flags(cmd)
	fl := cmd.Flags()
	fl.BoolVarP(&f.follow, "follow", "f", false, "go on with new lines as they come")
	fl.StringVar(&f.saved, "saved", "", "the search that was saved under this `NAME`, in the place of all other conditions")
	fl.BoolVar(&f.csv, "csv", false, "print a table of comma-separated values with all members")
	fl.StringVar(&f.do, "do", "", "do this about what is found, each user, sender or message once: "+strings.Join(api.HitActions, ", "))
	fl.StringVar(&f.reason, "reason", "", "of --do")
	fl.BoolVar(&f.plan, "plan", false, "only tell what --do would do")
	cmd.AddCommand(p.saveSearchCommand(), p.searchesCommand(), p.forgetSearchCommand())
	return cmd
}

// flags are the conditions of a search.
func (f *logFlags) flags(cmd *cobra.Command) {
	fl := cmd.Flags()
	fl.StringVar(&f.q.User, "user", "", "only of this `USER`")
	fl.StringVar(&f.q.Status, "status", "", "delivered, refused, deferred, ambiguous, lost, no-message, observed, withheld, queued, quarantined or discarded")
	fl.StringVar(&f.q.ID, "id", "", "only this message, or this flow")
	fl.StringVar(&f.q.Ticket, "ticket", "", "only what this lock answered")
	fl.StringVar(&f.q.Campaign, "campaign", "", "only copies of this `CAMPAIGN`")
	fl.StringVar(&f.q.Identity, "identity", "", "only of this sender inside a user")
	fl.StringVar(&f.q.From, "from", "", "only from this address or domain")
	fl.StringVar(&f.q.To, "to", "", "only to this address or domain")
	fl.StringVar(&f.client, "client", "", "only from this source address or prefix")
	fl.StringVar(&f.since, "since", "", "not older: a time span like `2h`, or a time like 2027-01-31T12:00:00Z")
	fl.StringVar(&f.until, "until", "", "not younger: as --since")
	fl.IntVar(&f.q.Limit, "limit", 100, "how many at most")
	fl.StringVar(&f.target, "target", "", "only to this destination's address")
	fl.StringVar(&f.q.Code, "code", "", "only what this public code decided")
	fl.StringArrayVar(&f.q.Where, "where", nil, "`CONDITION` on any member of a line as --json shows it, with =, !=, ~ (contains), <, <=, >, >=; may be given several times. It is slow where no other condition narrows the search")
}

func (f *logFlags) resolve(now time.Time) (err error) {
	if f.q.Since, err = moment("--since", f.since, now); err != nil {
		return err
	}
	if f.q.Until, err = moment("--until", f.until, now); err != nil {
		return err
	}
	if f.client != "" {
		if f.q.Client, err = api.ParsePrefix(f.client); err != nil {
			return err
		}
	}
	if f.target != "" {
		if f.q.Target, err = netip.ParseAddr(f.target); err != nil {
			return usageError{fmt.Errorf("--target: %q is not an address", f.target)}
		}
	}
	return nil
}

// moment reads a time span before now, or a time.
func moment(flag, text string, now time.Time) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	if t, err := time.Parse(time.RFC3339, text); err == nil {
		return t, nil
	}
	var d config.Duration
	if err := d.UnmarshalText([]byte(text)); err != nil {
		return time.Time{}, usageError{fmt.Errorf("%s: %q is neither a time span nor a time; write it like 90m, 2h, 3d or 2027-01-31T12:00:00Z", flag, text)}
	}
	return now.Add(-d.D()), nil
}

var logColumns = []column{{head: "TIME"}, {head: "ID"}, {head: "USER", cut: true}, {head: "STATUS", style: statusStyle}, {head: "CODE"},
	{head: "FROM", cut: true}, {head: "TO", cut: true}, {head: "SIZE", right: true}, {head: "REPLY", cut: true}}

func (s *screen) messages(ms []*api.Message) {
	if len(ms) == 0 {
		s.say("no message matches")
		return
	}
	rows := make([][]string, 0, len(ms))
	for _, m := range slices.Backward(ms) {
		rows = append(rows, s.line(m))
	}
	s.table(logColumns, rows)
}

func (s *screen) line(m *api.Message) []string {
	from, to := "<"+m.From+">", ""
	switch {
	case m.Status == "no-message":
		from, to = "from "+m.Client.Addr().String(), "at "+m.Target.Addr().String()
	case len(m.To) == 1:
		to = m.To[0].Address
	case len(m.To) > 1:
		to = fmt.Sprintf("%s +%d", m.To[0].Address, len(m.To)-1)
	}
	reply := m.Reply
	if reply == "" {
		reply = m.Note
	}
	if m.Would != "" {
		reply = "would have said " + m.Would
	}
	bytes := ""
	if m.Size > 0 {
		bytes = size(m.Size)
	}
	return []string{s.at(m.Time), m.ID, m.User, m.Status, m.Code, from, to, bytes, reply}
}

// follow prints new lines as they come. The columns cannot know what is still to come: they have the widths that
// suit most lines.
func (p *program) follow(ctx context.Context, q api.Query) error {
	s := p.screen
	widths := []int{19, 14, 18, 10, 9, 28, 28, 9, 60}
	s.shrink(logColumns, widths)
	first := true
	return p.client.Follow(ctx, q, func(m *api.Message) error {
		if s.json {
			return json.NewEncoder(s.out).Encode(m)
		}
		if first {
			heads := make([]string, len(logColumns))
			for i, c := range logColumns {
				heads[i] = c.head
			}
			s.row(logColumns, widths, heads, true)
			first = false
		}
		cells := s.line(m)
		for i := range cells {
			cells[i] = plain(cells[i])
		}
		s.row(logColumns, widths, cells, false)
		return nil
	})
}

func (p *program) whyCommand() *cobra.Command {
	return &cobra.Command{
		Use: "why ID|TICKET", Short: "explain what became of a message, a flow or a lock", Args: exactly("ID or TICKET"),
		Long: `why tells everything that is known: the lines of the log, the locks that answered them or that they led to, the pages of
their codes, copies in quarantine and in the queue, appeals, and what was done about it. ID is that of a message or a flow, or
the word behind "id" in the Received field that the gateway wrote.`,
		RunE: func(cmd *cobra.Command, args []string) error { return p.why(cmd.Context(), args[0]) },
	}
}

func (p *program) why(ctx context.Context, id string) error {
	var t api.Story
	print, err := p.get(ctx, "/v1/why/"+url.PathEscape(id), &t)
	if err == nil && print {
		p.screen.story(&t)
	}
	return err
}

func (s *screen) lock(l *api.Lock) {
	s.pairs(
		[2]string{"lock", l.Ticket + " of " + whole(l) + " (" + l.Prefix.String() + ")"},
		[2]string{"reason", l.Code + " " + plain(l.Reason)},
		[2]string{"rule", rule(l)},
		[2]string{"by", l.By},
		[2]string{"since", s.at(l.Since)},
		[2]string{"until", s.end(l)},
		[2]string{"ended", plain(l.EndedWhy)},
	)
	for _, v := range l.Evidence {
		s.say("  %s  %s  %s  %s", s.at(v.Time), v.Message, v.Code, plain(v.Text))
	}
}

// rule is what an automatic lock rests on.
func rule(l *api.Lock) string {
	if l.Rule == "" {
		return ""
	}
	return plain(l.Rule) + ", met by the check " + plain(l.Check)
}

func (s *screen) message(m *api.Message) {
	what := "message"
	if m.Status == "no-message" {
		what = "session"
	}
	var to []string
	for _, r := range m.To {
		to = append(to, fmt.Sprintf("%s (%d %s)", plain(r.Address), r.Code, plain(r.Reply)))
	}
	s.pairs(
		[2]string{what, m.ID + " of user " + plain(m.User) + heldBy(m) + ", " + s.paint(statusStyle(m.Status), m.Status)},
		[2]string{"time", fmt.Sprintf("%s, took %s", s.at(m.Time), span(time.Duration(m.DurationMS)*time.Millisecond))},
		[2]string{"client", fmt.Sprintf("%s as %s, %s", m.Client, plain(m.Helo), leg(m.TLSIn))},
		[2]string{"destination", fmt.Sprintf("%s, %s", m.Target, leg(m.TLSOut))},
		[2]string{"certificate", plain(m.TLSTrust)},
		[2]string{"had to be", plain(m.TLSTerms)},
		[2]string{"domain asks", plain(asked(m))},
		[2]string{"left from", leftFrom(m)},
		[2]string{"signed by", plain(m.Signed)},
		[2]string{"identity", plain(m.Identity)},
		[2]string{"from", "<" + plain(m.From) + ">"},
		[2]string{"to", strings.Join(to, "\n")},
		[2]string{"size", size(m.Size)},
		[2]string{"verdict", strings.TrimSpace(m.Class + " " + m.Code)},
		[2]string{"client heard", plain(m.Reply)},
		[2]string{"remote said", plain(m.Remote)},
		[2]string{"it means", m.Meaning},
		[2]string{"unread", unreadBytes(m)},
		[2]string{"copies", m.Campaign},
		[2]string{"forwarded", map[bool]string{true: "it came from elsewhere and was only passed on"}[m.Forwarded]},
		[2]string{"lock's ticket", m.Ticket},
		[2]string{"if enforced", enforced(m)},
		[2]string{"note", plain(m.Note)},
	)
	for _, h := range m.Hits {
		s.say("  %s: %s %s %s: %s (%s)", h.Check, h.Code, h.Class, h.Action, plain(h.Text), plain(h.Evidence))
	}
}

// heldBy tells who held the source at that time, where the provider's records say otherwise than the log.
func heldBy(m *api.Message) string {
	if m.Holder == "" {
		return ""
	}
	return " (then held by " + plain(m.Holder) + ")"
}

// leftFrom tells the address that a message left from, and why.
func leftFrom(m *api.Message) string {
	if m.Way == "" {
		return m.Source
	}
	return strings.TrimSpace(m.Source + " (" + m.Way + ")")
}

// unreadBytes tells how much passed encrypted.
func unreadBytes(m *api.Message) string {
	if m.UnreadOut+m.UnreadIn == 0 {
		return ""
	}
	return fmt.Sprintf("%s out, %s in, encrypted between client and destination", size(m.UnreadOut), size(m.UnreadIn))
}

// enforced tells what would have been done with a message that was left alone.
func enforced(m *api.Message) string {
	switch {
	case m.Would != "":
		return "would have said " + plain(m.Would)
	case m.Shadow, m.Status == "observed" && m.Class == "clean":
		return "would have gone on"
	case m.Status == "observed" && m.Class == "unjudged" && m.From != "":
		return "would have gone on, as far as it was read"
	}
	return ""
}

func leg(version string) string {
	if version == "" {
		return "plain text"
	}
	return version
}

// errFindings ends the command with exit code 1 after doctor has told everything.
var errFindings = errors.New("doctor found failures")
