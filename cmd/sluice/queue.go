package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"sluice/cmd/internal/api"
)

func (p *program) queueCommand() *cobra.Command {
	watch := false
	cmd := &cobra.Command{
		Use: "queue", Short: "see and change what waits for delivery", Args: none,
		Long: `queue tells how many deliveries wait for each domain. A delivery is a message to the recipients of one domain; list shows them,
show tells all about one. hold, release, retry and delete take the id of a delivery, or flags that select several.`,
		Example: "  sluice queue --watch",
		RunE:    func(cmd *cobra.Command, _ []string) error { return p.shown(cmd.Context(), watch, p.queueLanes) },
	}
	watchFlag(cmd, &watch)
	cmd.AddCommand(p.queueList(), p.queueShow(), p.queueSubmit())
	for _, do := range []struct{ name, short, done string }{
		{"hold", "put deliveries on hold until they are released", "is on hold|are on hold"},
		{"release", "lift holds; what was held is tried at once", "is released|are released"},
		{"retry", "try deliveries at once", "is tried now|are tried now"},
		{"delete", "drop deliveries without a word to their senders", "is deleted|are deleted"},
	} {
		cmd.AddCommand(p.queueChange(do.name, do.short, do.done))
	}
	return cmd
}

// queueFlags select deliveries.
func queueFlags(cmd *cobra.Command, f *api.QueueFilter) {
	fl := cmd.Flags()
	fl.StringVar(&f.Message, "message", "", "those of the message with this `id` in the log")
	fl.StringVar(&f.User, "user", "", "those of this outgoing `user`")
	fl.StringVar(&f.Identity, "identity", "", "those of this `login`")
	fl.StringVar(&f.Sender, "sender", "", "those from this `address` or domain")
	fl.StringVar(&f.Domain, "domain", "", "those to recipients of this `domain`")
	fl.StringVar(&f.Campaign, "campaign", "", "copies of this `campaign`")
}

func (p *program) queueLanes(ctx context.Context) error {
	return listed(ctx, p, "/v1/queue/lanes", "nothing waits", []column{{head: "DOMAIN"}, {head: "WAITING", right: true}, {head: "NOW", right: true}, {head: "NEXT"}, {head: "MISSES", right: true},
		{head: "HOST", cut: true}, {head: "WHY", cut: true}}, func(l *api.QueueLane) []string {
		next := ""
		if l.Next != nil {
			next = p.screen.at(*l.Next)
		}
		return []string{l.Domain, strconv.Itoa(l.Waiting), strconv.Itoa(l.Active), next, strconv.Itoa(l.Misses), l.Site, l.Why}
	})
}

func (p *program) queueList() *cobra.Command {
	q, watch := api.QueueQuery{Limit: 100}, false
	cmd := &cobra.Command{
		Use: "list", Short: "list deliveries", Args: none,
		Example: "  sluice queue list --user alice\n  sluice queue list --domain example.net --held\n  sluice queue list --watch --user alice",
		RunE: func(cmd *cobra.Command, _ []string) error {
			return p.shown(cmd.Context(), watch, func(ctx context.Context) error { return p.queuePage(ctx, &q) })
		},
	}
	watchFlag(cmd, &watch)
	queueFlags(cmd, &q.QueueFilter)
	cmd.Flags().BoolVar(&q.Held, "held", false, "only what is on hold")
	cmd.Flags().IntVar(&q.Limit, "limit", 100, "how many")
	cmd.Flags().Uint32Var(&q.From, "from", 0, "go on after a page: the number that it ends with")
	return cmd
}

func (p *program) queuePage(ctx context.Context, q *api.QueueQuery) error {
	var page api.QueuePage
	print, err := p.get(ctx, "/v1/queue?"+q.Values().Encode(), &page)
	if err == nil && print {
		p.screen.queuePage(&page)
	}
	return err
}

func (s *screen) queuePage(page *api.QueuePage) {
	rows := make([][]string, len(page.Deliveries))
	for i := range page.Deliveries {
		m := &page.Deliveries[i]
		rows[i] = []string{m.ID, m.User, sender(m.Sender), m.Domain, strconv.Itoa(len(m.Recipients)), size(m.Size), s.ago(m.Received), strconv.Itoa(m.Tries), s.nextTry(m), lastAnswer(m)}
	}
	if len(rows) > 0 {
		s.table([]column{{head: "ID"}, {head: "USER"}, {head: "SENDER", cut: true}, {head: "DOMAIN", cut: true}, {head: "TO", right: true}, {head: "SIZE", right: true},
			{head: "AGE"}, {head: "TRIES", right: true}, {head: "NEXT"}, {head: "LAST ANSWER", cut: true}}, rows)
	}
	s.say("%s in the queue, %d on hold, %s on disk", count(page.Total, "delivery", "deliveries"), page.Held, size(page.Bytes))
	if page.Next > 0 {
		s.say("more: --from %d", page.Next)
	}
}

func sender(address string) string {
	if address == "" {
		return "<>"
	}
	return address
}

// nextTry tells when a delivery is tried.
func (s *screen) nextTry(m *api.QueuedMail) string {
	switch {
	case m.Hold != "":
		return "held"
	case m.Trying:
		return "now"
	case m.Next == nil:
		return ""
	}
	return s.at(*m.Next)
}

func lastAnswer(m *api.QueuedMail) string {
	switch {
	case m.Error != "":
		return m.Error
	case m.Hold != "":
		return m.Hold
	}
	for _, r := range m.Recipients {
		if r.Reply != "" {
			return r.Reply
		}
	}
	return m.Note
}

func (p *program) queueShow() *cobra.Command {
	return &cobra.Command{
		Use: "show ID", Short: "tell all about one delivery", Args: exactly("ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			q := api.QueueQuery{QueueFilter: api.QueueFilter{ID: args[0]}}
			var page api.QueuePage
			if err := p.client.Do(cmd.Context(), "GET", "/v1/queue?"+q.Values().Encode(), nil, &page); err != nil {
				return err
			}
			if len(page.Deliveries) != 1 {
				return fmt.Errorf("there is no delivery %s; `sluice queue list` shows them", args[0])
			}
			if p.screen.json {
				return p.screen.writeJSON(page.Deliveries[0])
			}
			p.screen.queued(&page.Deliveries[0])
			return nil
		},
	}
}

func (s *screen) queued(m *api.QueuedMail) {
	last, client := "", ""
	if m.Last != nil {
		last = s.at(*m.Last)
	}
	if m.Client.IsValid() {
		client = m.Client.String()
	}
	s.pairs(
		[2]string{"delivery", m.ID}, [2]string{"message", m.Message}, [2]string{"user", plain(m.User)}, [2]string{"login", plain(m.Identity)},
		[2]string{"client", client}, [2]string{"sender", plain(sender(m.Sender))}, [2]string{"domain", plain(m.Domain)}, [2]string{"campaign", m.Campaign}, [2]string{"size", size(m.Size)},
		[2]string{"received", s.at(m.Received) + " (" + s.ago(m.Received) + " ago)"}, [2]string{"tries", strconv.Itoa(m.Tries)}, [2]string{"last", last},
		[2]string{"next", s.nextTry(m)}, [2]string{"hold", plain(m.Hold)}, [2]string{"note", plain(m.Note)}, [2]string{"error", plain(m.Error)},
	)
	rows := make([][]string, len(m.Recipients))
	for i, r := range m.Recipients {
		rows[i] = []string{r.Address, r.Host, r.Reply}
	}
	if len(rows) > 0 {
		s.table([]column{{head: "RECIPIENT"}, {head: "HOST"}, {head: "LAST ANSWER", cut: true}}, rows)
	}
}

func (p *program) queueChange(do, short, done string) *cobra.Command {
	c := api.QueueChange{Do: do}
	cmd := &cobra.Command{
		Use: do + " [ID]", Short: short, Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 {
				c.Filter.ID = args[0]
			}
			if c.Filter.Empty() && !c.All {
				return usageError{errors.New("nothing says which mail is meant: give the ID of a delivery, a flag that selects some, or --all")}
			}
			if c.Reason == "" && (do == "hold" || do == "delete") {
				return usageError{errors.New("--reason is missing: say why, it stands in the audit log")}
			}
			var r api.QueueChanged
			if err := p.client.Do(cmd.Context(), "POST", "/v1/queue", c, &r); err != nil {
				return err
			}
			one, many, _ := strings.Cut(done, "|")
			is := many
			if r.Count == 1 {
				is = one
			}
			return p.screen.done(r, "%s %s", count(r.Count, "delivery", "deliveries"), is)
		},
	}
	queueFlags(cmd, &c.Filter)
	cmd.Flags().BoolVar(&c.All, "all", false, "everything in the queue")
	if do == "hold" || do == "delete" {
		cmd.Flags().StringVar(&c.Reason, "reason", "", "why")
	}
	return cmd
}

func (p *program) queueSubmit() *cobra.Command {
	var m api.Submission
	cmd := &cobra.Command{
		Use: "submit FILE --from ADDRESS --to ADDRESS", Short: "have a message of the operator's delivered", Args: exactly("FILE"),
		Long:    `submit puts a message with its header, from a file or with - from standard input, into the queue. Nothing filters it.`,
		Example: "  sluice queue submit notice.eml --from postmaster@provider.example --to alice@customer.example",
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(m.To) == 0 {
				return usageError{errors.New("--to is missing: name at least one recipient")}
			}
			text, err := readFile(args[0], cmd.InOrStdin())
			if err != nil {
				return err
			}
			m.Text = string(text)
			var r api.Submitted
			if err := p.client.Do(cmd.Context(), "POST", "/v1/queue/messages", m, &r); err != nil {
				return err
			}
			return p.screen.done(r, "message %s is in the queue as %s", r.Message, strings.Join(r.Deliveries, ", "))
		},
	}
	cmd.Flags().StringVar(&m.From, "from", "", "`address` of the sender; left out: <>, and nobody hears of a failure")
	cmd.Flags().StringSliceVar(&m.To, "to", nil, "`address` of a recipient; may be given several times")
	cmd.Flags().StringVar(&m.User, "user", "", "outgoing `user` who answers for it; left out: the gateway")
	return cmd
}

// readFile reads a file, or in where its name is -.
func readFile(name string, in io.Reader) ([]byte, error) {
	if name == "-" {
		return io.ReadAll(in)
	}
	b, err := os.ReadFile(name)
	if err != nil {
		return nil, fmt.Errorf("could not read the file: %w", err)
	}
	return b, nil
}
