package main

import (
	"context"
	"fmt"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"sluice/cmd/internal/api"
)

// onwardCommands tell about the leg to destinations.
func (p *program) onwardCommands() []*cobra.Command {
	return []*cobra.Command{
		{
			Use: "policy DOMAIN", Short: "show what a domain asks for, by DANE and MTA-STS, and why", Args: exactly("DOMAIN"),
			Long: `policy asks the DNS and the domain's web server, or what is remembered of them, and shows for each mail exchanger what a
connection must be. On intercepted flows this is only reported: the client decides, and is promised no more than there is.`,
			RunE: func(cmd *cobra.Command, args []string) error { return p.tlsPolicy(cmd.Context(), args[0]) },
		},
		{
			Use: "broken", Short: "list the destinations whose handshake fails, to which mail goes in plain text", Args: none,
			RunE: func(cmd *cobra.Command, _ []string) error { return p.brokenTLS(cmd.Context()) },
		},
		{
			Use: "retry ADDRESS", Short: "try a failing handshake again with the next connection", Args: exactly("ADDRESS"),
			Example: "  sluice tls retry 192.0.2.25\n  sluice tls retry [2001:db8::25]:2525",
			RunE: func(cmd *cobra.Command, args []string) error {
				target := args[0]
				if a, err := netip.ParseAddr(target); err == nil {
					target = netip.AddrPortFrom(a, 25).String()
				}
				var b api.BrokenTLS
				if err := p.client.Do(cmd.Context(), "DELETE", "/v1/tls/broken/"+url.PathEscape(target), nil, &b); err != nil {
					return err
				}
				return p.screen.done(b, "the next connection to %s tries TLS again", b.Target)
			},
		},
	}
}

func (p *program) tlsPolicy(ctx context.Context, domain string) error {
	var t api.TLSPolicy
	print, err := p.get(ctx, "/v1/tls/policy/"+url.PathEscape(domain), &t)
	if err == nil && print {
		p.screen.tlsPolicy(&t)
	}
	return err
}

func (s *screen) tlsPolicy(t *api.TLSPolicy) {
	mx := "not vouched for by DNSSEC"
	if t.MXSecure {
		mx = "vouched for by DNSSEC"
	}
	if t.NullMX {
		mx = "the domain takes no mail"
	}
	sts := "none"
	if m := t.MTASTS; m != nil {
		sts = fmt.Sprintf("%s, id %s, for %s, fetched %s ago, until %s", m.Mode, plain(m.ID), plain(strings.Join(m.MX, ", ")), s.ago(m.Fetched), s.at(m.Until))
	}
	if t.STSError != "" {
		sts += "; " + s.paint(yellow, plain(t.STSError))
	}
	s.pairs(
		[2]string{"domain", plain(t.Domain)},
		[2]string{"exchangers", mx},
		[2]string{"MTA-STS", sts},
		[2]string{"own rule", plain(t.Rule)},
		[2]string{"DNSSEC", s.paint(yellow, plain(t.Validator))},
	)
	rows := make([][]string, 0, len(t.Hosts))
	for _, h := range t.Hosts {
		rows = append(rows, []string{h.Host, h.Level, h.Source, because(&h)})
	}
	if len(rows) > 0 {
		s.table([]column{{head: "EXCHANGER"}, {head: "LEVEL"}, {head: "BY"}, {head: "WHY", cut: true}}, rows)
	}
}

// because explains a host's level.
func because(h *api.TLSHost) string {
	parts := []string{h.Why}
	switch {
	case h.Error != "":
		parts[0] = h.Error
	case h.Barred != "":
		parts[0] = h.Barred
	}
	if len(h.TLSA) > 0 {
		parts = append(parts, strings.Join(h.TLSA, ", "))
	}
	if h.Testing != "" {
		parts = append(parts, "in testing: "+h.Testing)
	}
	return strings.Join(parts, "; ")
}

func (p *program) brokenTLS(ctx context.Context) error {
	return listed(ctx, p, "/v1/tls/broken", "no destination's handshake fails", []column{{head: "DESTINATION"}, {head: "SINCE", right: true}, {head: "FAILURES", right: true}, {head: "AGAIN IN", right: true}, {head: "WHY", cut: true}}, func(b *api.BrokenTLS) []string {
		return []string{b.Target.String(), p.screen.ago(b.Since), fmt.Sprint(b.Failures), span(max(0, b.Again.Sub(p.screen.now())).Round(time.Second)), b.Why}
	})
}

// onward tells how connections to destinations are encrypted.
func (s *screen) onward(o *api.OnwardTLS) string {
	text := fmt.Sprintf("%d encrypted, %d in plain text", o.Encrypted, o.Plain+o.Avoided)
	if o.Unmet > 0 {
		text += fmt.Sprintf(", %d not what is required", o.Unmet)
	}
	if o.Broken > 0 {
		text += ", " + s.paint(yellow, count(o.Broken, "destination", "destinations")+" with broken TLS (`sluice tls broken`)")
	}
	for _, m := range []struct {
		name string
		met  api.Met
	}{{"DANE", o.DANE}, {"MTA-STS", o.Enforced}, {"MTA-STS in testing", o.Testing}} {
		if m.met.OK+m.met.Failed > 0 {
			text += fmt.Sprintf("\n%s: %d messages met it, %d did not", m.name, m.met.OK, m.met.Failed)
		}
	}
	return text
}

// asked tells what a message's domain asked for, and whether it got it.
func asked(m *api.Message) string {
	switch {
	case m.TLSPolicy == "" || m.TLSPolicy == "none":
		return ""
	case m.TLSResult == "ok":
		return m.TLSPolicy + ": met"
	}
	return m.TLSPolicy + ": " + m.TLSResult + " (reported only)"
}
