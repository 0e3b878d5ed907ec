package main

import (
	"context"
	"encoding/csv"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"sluice/cmd/internal/api"
)

// searchLog prints what a search finds, and does with it what is asked.
func (p *program) searchLog(ctx context.Context, f *logFlags) error {
	query := f.q.Values().Encode()
	if f.saved != "" {
		one, err := p.savedSearch(ctx, f.saved)
		if err != nil {
			return err
		}
		query = one.Query
	}
	if f.do != "" {
		return p.actOnHits(ctx, api.HitAction{Query: query, Do: f.do, Reason: f.reason, Plan: f.plan})
	}
	var ms []*api.Message
	if err := p.client.Do(ctx, "GET", "/v1/log?"+query, nil, &ms); err != nil {
		return err
	}
	switch {
	case f.csv:
		return p.screen.csv(ms)
	case p.screen.json:
		return p.screen.writeJSON(ms)
	}
	p.screen.messages(ms)
	return nil
}

func (p *program) savedSearch(ctx context.Context, name string) (*api.Search, error) {
	var all []api.Search
	if err := p.client.Do(ctx, "GET", "/v1/searches", nil, &all); err != nil {
		return nil, err
	}
	for i := range all {
		if all[i].Name == name {
			return &all[i], nil
		}
	}
	return nil, &api.Problem{Code: "no-such-search", What: fmt.Sprintf("there is no search %q", name), Remedy: "`sluice log searches` lists them, `sluice log save NAME` makes one"}
}

// actOnHits has something done about what a search finds, and tells about what it was done.
func (p *program) actOnHits(ctx context.Context, a api.HitAction) error {
	var out api.HitsActed
	if err := p.client.Do(ctx, "POST", "/v1/log/act", a, &out); err != nil {
		return err
	}
	if p.screen.json {
		return p.screen.writeJSON(out)
	}
	what := out.Do
	if a.Plan {
		what = "would " + out.Do
	}
	for _, name := range out.Done {
		p.screen.say("%s %s", what, plain(name))
	}
	for _, why := range out.Refused {
		p.screen.say("not done: %s", plain(why))
	}
	p.screen.say("%s found; %s: %d done, %d not", count(out.Lines, "line", "lines"), what, len(out.Done), len(out.Refused))
	return nil
}

func (p *program) saveSearchCommand() *cobra.Command {
	var f logFlags
	cmd := &cobra.Command{
		Use: "save NAME", Short: "save a search for everybody, in the place of one of the same name", Args: exactly("NAME"),
		Long: "save keeps the conditions under a name; a time span counts from the moment of asking.",
		RunE: func(cmd *cobra.Command, args []string) error {
			since, until := f.since, f.until
			if err := f.resolve(p.screen.now()); err != nil {
				return err
			}
			v := f.q.Values()
			for name, text := range map[string]string{"since": since, "until": until} {
				if text != "" {
					v.Set(name, text)
				}
			}
			var s api.Search
			if err := p.client.Do(cmd.Context(), "POST", "/v1/searches", api.Search{Name: args[0], Query: v.Encode()}, &s); err != nil {
				return err
			}
			return p.screen.done(s, "`sluice log --saved %q` asks for it", s.Name)
		},
	}
	f.flags(cmd)
	return cmd
}

func (p *program) searchesCommand() *cobra.Command {
	return &cobra.Command{
		Use: "searches", Short: "list the saved searches", Args: none,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return listed(cmd.Context(), p, "/v1/searches", "no searches yet: `sluice log save NAME` makes one",
				[]column{{head: "NAME"}, {head: "CONDITIONS", cut: true}, {head: "BY"}, {head: "SINCE"}}, func(s *api.Search) []string {
					query, err := url.QueryUnescape(strings.ReplaceAll(s.Query, "&", " "))
					if err != nil {
						query = s.Query
					}
					return []string{s.Name, query, s.By, p.screen.at(s.Since)}
				})
		},
	}
}

func (p *program) forgetSearchCommand() *cobra.Command {
	return &cobra.Command{
		Use: "forget NAME", Short: "remove a saved search", Args: exactly("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			var s api.Search
			if err := p.client.Do(cmd.Context(), "DELETE", "/v1/searches/"+url.PathEscape(args[0]), nil, &s); err != nil {
				return err
			}
			return p.screen.done(s, "the search %s is removed", s.Name)
		},
	}
}

var csvHead = []string{"time", "id", "user", "holder", "identity", "client", "target", "status", "class", "code", "from", "to", "size", "duration_ms", "reply", "remote", "source", "tls_in", "tls_out", "ticket", "note"}

// csv prints messages for spreadsheets, the newest first. What could be taken for a formula there gets an apostrophe.
func (s *screen) csv(ms []*api.Message) error {
	w := csv.NewWriter(s.out)
	if err := w.Write(csvHead); err != nil {
		return err
	}
	for _, m := range ms {
		to := make([]string, len(m.To))
		for i, r := range m.To {
			to[i] = fmt.Sprintf("%s %d %s", r.Address, r.Code, r.Reply)
		}
		row := []string{m.Time.UTC().Format(time.RFC3339Nano), m.ID, m.User, m.Holder, m.Identity, m.Client.String(), m.Target.String(), m.Status, m.Class, m.Code, m.From, strings.Join(to, "\n"),
			fmt.Sprint(m.Size), fmt.Sprint(m.DurationMS), m.Reply, m.Remote, m.Source, m.TLSIn, m.TLSOut, m.Ticket, m.Note}
		for i, cell := range row {
			if cell != "" && strings.ContainsRune("=+-@\t\r", rune(cell[0])) {
				row[i] = "'" + cell
			}
		}
		if err := w.Write(row); err != nil {
			return err
		}
	}
	w.Flush()
	return w.Error()
}
