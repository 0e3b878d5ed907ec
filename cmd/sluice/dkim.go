package main

import (
	"net/url"
	"strings"

	"github.com/spf13/cobra"

	"sluice/cmd/internal/api"
)

func (p *program) dkimCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "dkim", Short: "make, show, replace and remove the keys that sign mail", Args: none,
		Long: `Mail is signed (DKIM) where its user's setting dkim says so, in the name of the domain in From. generate makes a key and prints the
TXT record to publish; the key signs as soon as the record is found in the DNS, also behind a CNAME. rotate makes a new key in its place:
the old one signs until the new record is found, and its own record has to stay for dkim.keep after that. Private keys are
shown to nobody; they lie in the folder dkim of store.dir.`,
		RunE: func(cmd *cobra.Command, _ []string) error { return p.dkimList(cmd) },
	}
	list := &cobra.Command{Use: "list", Short: "list all keys", Args: none, RunE: func(cmd *cobra.Command, _ []string) error { return p.dkimList(cmd) }}
	show := &cobra.Command{
		Use: "show DOMAIN", Short: "show the records to publish, and what the DNS has of them now", Args: exactly("DOMAIN"),
		RunE: func(cmd *cobra.Command, args []string) error {
			var all []api.DKIMKey
			print, err := p.get(cmd.Context(), "/v1/dkim/"+url.PathEscape(args[0]), &all)
			if err == nil && print {
				for i := range all {
					p.screen.dkimKey(&all[i])
				}
			}
			return err
		},
	}
	cmd.AddCommand(list, show, p.dkimMake(false), p.dkimMake(true), p.dkimRemove())
	return cmd
}

func (p *program) dkimList(cmd *cobra.Command) error {
	return listed(cmd.Context(), p, "/v1/dkim", "there are no keys; `sluice dkim generate DOMAIN` makes one", []column{{head: "DOMAIN", cut: true}, {head: "SELECTOR"}, {head: "TYPE"}, {head: "STATE"}, {head: "MADE"}, {head: "UNTIL"}, {head: "DNS", cut: true}},
		func(k *api.DKIMKey) []string {
			row := []string{k.Domain, k.Selector, k.Type, k.State, "", "", k.DNS}
			if k.Made != nil {
				row[4] = p.screen.at(*k.Made)
			}
			if k.Until != nil {
				row[5] = p.screen.at(*k.Until)
			}
			return row
		})
}

func (p *program) dkimMake(rotate bool) *cobra.Command {
	r := api.DKIMRequest{Rotate: rotate}
	cmd := &cobra.Command{
		Use: "generate DOMAIN", Short: "make a key for a domain", Args: exactly("DOMAIN"),
		Example: "  sluice dkim generate customer.example --type both\n  sluice users set alice dkim=unsigned from_domains=customer.example",
		RunE: func(cmd *cobra.Command, args []string) error {
			r.Domain = args[0]
			var all []api.DKIMKey
			if err := p.client.Do(cmd.Context(), "POST", "/v1/dkim", r, &all); err != nil {
				return err
			}
			if p.screen.json {
				return p.screen.writeJSON(all)
			}
			for i := range all {
				p.screen.dkimKey(&all[i])
			}
			return nil
		},
	}
	if rotate {
		cmd.Use, cmd.Short, cmd.Example = "rotate DOMAIN", "make a new key in place of those a domain has", "  sluice dkim rotate customer.example"
	}
	f := cmd.Flags()
	f.StringVar(&r.Selector, "selector", "", "`name` of the key; without it by the day, like s20270131")
	f.StringVar(&r.Type, "type", "", "rsa, ed25519 or both; with both the second has an e behind its selector. Without it rsa, or what the domain has")
	f.BoolVar(&r.AtOnce, "at-once", false, "sign without waiting for the record in the DNS")
	f.StringVar(&r.Reason, "reason", "", "why, for the audit log")
	return cmd
}

func (p *program) dkimRemove() *cobra.Command {
	selector, reason := "", ""
	cmd := &cobra.Command{
		Use: "remove DOMAIN", Short: "remove a key, or all keys of a domain; its mail goes unsigned then", Args: exactly("DOMAIN"),
		RunE: func(cmd *cobra.Command, args []string) error {
			var all []api.DKIMKey
			q := url.Values{"selector": {selector}, "reason": {reason}}
			if err := p.client.Do(cmd.Context(), "DELETE", "/v1/dkim/"+url.PathEscape(args[0])+"?"+q.Encode(), nil, &all); err != nil {
				return err
			}
			return p.screen.done(all, "%s of %s removed", count(len(all), "key", "keys"), args[0])
		},
	}
	cmd.Flags().StringVar(&selector, "selector", "", "only the key of this `name`")
	cmd.Flags().StringVar(&reason, "reason", "", "why, for the audit log")
	return cmd
}

// dkimKey prints a key with its record as a line of a zone.
func (s *screen) dkimKey(k *api.DKIMKey) {
	pairs := [][2]string{{"key", k.Selector + " of " + k.Domain}, {"type", k.Type}, {"state", k.State}, {"error", plain(k.Error)}}
	if k.State == "waiting" {
		pairs[2][1] += " for its record"
	}
	if k.Until != nil {
		pairs = append(pairs, [2]string{"record needed", "until " + s.at(*k.Until)})
	}
	dns := plain(k.DNS)
	if k.Asked != nil {
		dns += ", asked " + s.ago(*k.Asked) + " ago"
	}
	s.pairs(append(pairs, [2]string{"DNS", dns})...)
	if k.Record != "" {
		s.say("\n%s. IN TXT %s\n", k.Name, zoneText(k.Record))
	}
}

// zoneText writes a text for a zone file: one string has at most 255 bytes (RFC 1035 3.3).
func zoneText(text string) string {
	var parts []string
	for len(text) > 255 {
		parts, text = append(parts, `"`+text[:255]+`"`), text[255:]
	}
	if parts = append(parts, `"`+text+`"`); len(parts) == 1 {
		return parts[0]
	}
	return "( " + strings.Join(parts, " ") + " )"
}
