package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"sluice/cmd/internal/api"
)

func (p *program) poolCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "pool", Short: "see and change from which addresses mail leaves", Args: none,
		Long: `pool lists the delivery addresses by pool. Each is checked all the time: it is on this host, its PTR, HELO name and A or AAAA
agree, and no list of bad senders has it. One that fails is not used until it is good again, as long as half of its pool is left.`,
		RunE: func(cmd *cobra.Command, _ []string) error { return p.poolList(cmd.Context()) },
	}
	list := &cobra.Command{Use: "list", Short: "list pools and addresses", Args: none,
		RunE: func(cmd *cobra.Command, _ []string) error { return p.poolList(cmd.Context()) }}
	show := &cobra.Command{Use: "show NAME", Short: "tell all about one pool, or one address", Args: exactly("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error { return p.poolShow(cmd.Context(), args[0]) }}
	check := &cobra.Command{Use: "check [ADDRESS]", Short: "check all addresses, or one, now", Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return p.poolCheck(cmd.Context(), args) }}
	relays := &cobra.Command{Use: "relays", Short: "list destinations that take mail for others, to which delivery auto uses customers' own addresses", Args: none,
		RunE: func(cmd *cobra.Command, _ []string) error { return p.poolRelays(cmd.Context()) }}
	cmd.AddCommand(list, show, check, p.poolChange("suspend", "use an address no more until it is resumed", "is not used any more"),
		p.poolChange("resume", "use a suspended address again, once it is good", "is the gate's again"), relays)
	return cmd
}

func (p *program) poolList(ctx context.Context) error {
	var ps []api.Pool
	print, err := p.get(ctx, "/v1/pools", &ps)
	if err == nil && print {
		p.screen.pools(ps)
	}
	return err
}

// poolColumns are those of a list of addresses.
var poolColumns = []column{{head: "POOL"}, {head: "ADDRESS"}, {head: "HELO"}, {head: "WEIGHT", right: true}, {head: "STATE"}, {head: "FOR"}, {head: "CHECKED"}, {head: "WHY", cut: true}}

func (s *screen) pools(ps []api.Pool) {
	var rows [][]string
	for i := range ps {
		if ps[i].Own {
			rows = append(rows, []string{ps[i].Name, "the customers' own"})
		}
		for j := range ps[i].Addresses {
			rows = append(rows, s.poolRow(ps[i].Name, &ps[i].Addresses[j]))
		}
	}
	if len(rows) == 0 {
		s.say("there are no delivery addresses: mail leaves from the customers' own")
		return
	}
	s.table(poolColumns, rows)
}

func (s *screen) poolRow(name string, a *api.PoolAddress) []string {
	since, checked := "", "never"
	if a.Since != nil {
		since = s.ago(*a.Since)
	}
	if a.Checked != nil {
		checked = s.ago(*a.Checked) + " ago"
	}
	return []string{name, a.Address.String(), a.Helo, strconv.Itoa(a.Weight), a.State, since, checked, whyOut(a)}
}

// whyOut tells what is wrong with an address, or what is not known.
func whyOut(a *api.PoolAddress) string {
	if a.Why == "" && a.Unsure != "" {
		return "not known: " + a.Unsure
	}
	return a.Why
}

func (p *program) poolShow(ctx context.Context, name string) error {
	var ps []api.Pool
	if err := p.client.Do(ctx, "GET", "/v1/pools", nil, &ps); err != nil {
		return err
	}
	if i := slices.IndexFunc(ps, func(x api.Pool) bool { return x.Name == name }); i >= 0 {
		if p.screen.json {
			return p.screen.writeJSON(ps[i])
		}
		p.screen.onePool(&ps[i])
		return nil
	}
	for i := range ps {
		for _, a := range ps[i].Addresses {
			if a.Address.String() != name {
				continue
			}
			if p.screen.json {
				return p.screen.writeJSON(a)
			}
			r := p.screen.poolRow(ps[i].Name, &a)
			p.screen.pairs([2]string{"address", r[1] + " as " + r[2]}, [2]string{"pool", r[0]}, [2]string{"weight", r[3]}, [2]string{"state", r[4] + ", for " + r[5]},
				[2]string{"checked", r[6]}, [2]string{"why", plain(a.Why)}, [2]string{"not known", plain(a.Unsure)})
			return nil
		}
	}
	return fmt.Errorf("there is no pool and no delivery address %s; `sluice pool list` shows them", name)
}

func (s *screen) onePool(x *api.Pool) {
	s.pairs([2]string{"pool", x.Name}, [2]string{"users", strings.Join(x.Users, ", ")}, [2]string{"senders", strings.Join(x.Senders, ", ")}, [2]string{"class", x.Class})
	s.pools([]api.Pool{*x})
}

func (p *program) poolCheck(ctx context.Context, args []string) error {
	var q api.PoolRequest
	if len(args) == 1 {
		a, err := netip.ParseAddr(args[0])
		if err != nil {
			return usageError{fmt.Errorf("%q is no address; `sluice pool list` shows them", args[0])}
		}
		q.Address = a
	}
	var as []api.PoolAddress
	if err := p.client.Do(ctx, "POST", "/v1/pools/check", q, &as); err != nil {
		return err
	}
	if p.screen.json {
		return p.screen.writeJSON(as)
	}
	rows := make([][]string, len(as))
	for i := range as {
		rows[i] = p.screen.poolRow("", &as[i])[1:]
	}
	p.screen.table(poolColumns[1:], rows)
	return nil
}

func (p *program) poolChange(do, short, done string) *cobra.Command {
	var q api.PoolRequest
	cmd := &cobra.Command{
		Use: do + " ADDRESS", Short: short, Args: exactly("ADDRESS"),
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			if q.Address, err = netip.ParseAddr(args[0]); err != nil {
				return usageError{fmt.Errorf("%q is no address; `sluice pool list` shows them", args[0])}
			}
			if do == "suspend" && q.Reason == "" {
				return usageError{errors.New("--reason is missing: say why, it stands in the list and in the audit log")}
			}
			var a api.PoolAddress
			if err := p.client.Do(cmd.Context(), "POST", "/v1/pools/"+do, q, &a); err != nil {
				return err
			}
			if do == "resume" && a.State == api.Out {
				return p.screen.done(a, "%s is still out: %s", a.Address, a.Why)
			}
			return p.screen.done(a, "%s %s", a.Address, done)
		},
	}
	if do == "suspend" {
		cmd.Flags().StringVar(&q.Reason, "reason", "", "why")
	}
	return cmd
}

func (p *program) poolRelays(ctx context.Context) error {
	return listed(ctx, p, "/v1/relays", "none was met in the last 24 hours", []column{{head: "RELAY"}, {head: "MAILS", right: true}, {head: "LAST"}, {head: "FOR", cut: true}}, func(r *api.Relay) []string {
		return []string{r.Address.String(), strconv.Itoa(r.Mails), p.screen.ago(r.Last) + " ago", r.Domain}
	})
}
