package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"sluice/cmd/internal/api"
)

func (p *program) tlsCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "tls", Short: "say what becomes of clients' STARTTLS, and show how the leg to destinations is encrypted", Args: none,
		Long: `tls lists what becomes of STARTTLS on the client's leg: by default, of users with a setting of their own, and towards
destinations, whose rule is the strongest. It holds from a connection's next EHLO on, and outlives restarts.

terminate: offered with the gateway's certificate wherever the destination encrypts, too; mail is read and judged. pass:
left to client and destination, from the customer's own address; connections and bytes are counted, locks end them, and what
is in them is not read. strip: not offered, so that mail stays readable for whoever is on the way; it needs a reason, stands
in the log, and is never a default.`,
		RunE: func(cmd *cobra.Command, _ []string) error { return p.listTLS(cmd.Context()) },
	}
	list := &cobra.Command{Use: "list", Short: "list what becomes of STARTTLS", Args: none, RunE: cmd.RunE}
	cmd.AddCommand(list, p.tlsSetCommand(), p.tlsUserCommand(), p.tlsRemoveCommand(), p.authorityCommand(), p.refusalsCommand())
	cmd.AddCommand(p.onwardCommands()...)
	return cmd
}

func (p *program) tlsSetCommand() *cobra.Command {
	var f ruleFlags
	set := &cobra.Command{
		Use: "set DESTINATION POLICY --reason WHY", Short: "make a rule for STARTTLS towards destinations",
		Example: "  sluice tls set 198.51.100.7 pass --for 7d --reason \"they check our clients' certificates, ticket 4711\"\n  sluice tls set 2001:db8:7::/48 strip --reason \"their appliance breaks in TLS, ticket 4712\"",
		Args:    f.withReason(exactly("DESTINATION", "POLICY")),
		RunE: func(cmd *cobra.Command, args []string) error {
			until, err := f.end(p.screen.now())
			if err != nil {
				return err
			}
			return p.setTLS(cmd.Context(), api.TLSRequest{Prefix: args[0], Port: f.port, Policy: args[1], Reason: f.reason, Until: until})
		},
	}
	f.add(set)
	set.Flags().Uint16Var(&f.port, "port", 0, "only this destination `port`; every mail port unless told")
	return set
}

func (p *program) tlsUserCommand() *cobra.Command {
	var reason string
	user := &cobra.Command{
		Use: "user USER POLICY --reason WHY", Short: "say what becomes of a user's STARTTLS",
		Long:    "user sets what becomes of STARTTLS of a user's clients; the policy inherit gives him that of the configuration again.",
		Example: "  sluice tls user alice pass --reason \"scans her mail herself, contract 12\"\n  sluice tls user alice inherit",
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 2 && args[1] != "inherit" && reason == "" {
				return fmt.Errorf("--reason is missing: %s", cmd.UseLine())
			}
			return exactly("USER", "POLICY")(cmd, args)
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if args[1] == "inherit" {
				return p.removeTLS(cmd.Context(), url.Values{"user": {args[0]}, "reason": {reason}})
			}
			return p.setTLS(cmd.Context(), api.TLSRequest{User: args[0], Policy: args[1], Reason: reason})
		},
	}
	user.Flags().StringVar(&reason, "reason", "", "`why`, for the list and the audit log")
	return user
}

func (p *program) tlsRemoveCommand() *cobra.Command {
	var f ruleFlags
	remove := &cobra.Command{
		Use: "remove DESTINATION", Short: "remove a rule that was made with set", Args: exactly("DESTINATION"),
		RunE: func(cmd *cobra.Command, args []string) error {
			q := url.Values{"prefix": {args[0]}, "reason": {f.reason}}
			if f.port != 0 {
				q.Set("port", fmt.Sprint(f.port))
			}
			return p.removeTLS(cmd.Context(), q)
		},
	}
	remove.Flags().StringVar(&f.reason, "reason", "", "`why`, for the audit log")
	remove.Flags().Uint16Var(&f.port, "port", 0, "of the rule; every mail port unless told")
	return remove
}

func (p *program) authorityCommand() *cobra.Command {
	only := false
	cmd := &cobra.Command{
		Use: "ca", Short: "show who certifies the names that clients ask for", Args: none,
		Long: `ca shows the authority that makes certificates for the very names that clients ask for, inside of tls.ca_domains only: its
own certificate bars it from any other name, so who trusts it trusts nothing more. Clients that verify have to be given it:
with --pem it is printed, for their store of trusted certificates. Its key is made at the first start and does not leave
the folder store.dir of this gateway. When the domains change it gets a new certificate, which is to be given out anew
where it shall hold for the added ones.`,
		Example: "  sluice tls ca --pem > /usr/local/share/ca-certificates/sluice.crt",
		RunE: func(cmd *cobra.Command, _ []string) error {
			var a api.Authority
			print, err := p.get(cmd.Context(), "/v1/authority", &a)
			if err != nil || !print {
				return err
			}
			if only {
				_, err := fmt.Fprint(p.screen.out, a.PEM)
				return err
			}
			p.screen.pairs([2]string{"domains", strings.Join(a.Domains, "\n")}, [2]string{"SHA-256", a.Fingerprint},
				[2]string{"valid until", a.NotAfter.In(p.screen.zone).Format(time.DateTime)}, [2]string{"made", count(a.Leaves, "certificate", "certificates") + " in memory"})
			return nil
		},
	}
	cmd.Flags().BoolVar(&only, "pem", false, "print its certificate")
	return cmd
}

func (p *program) setTLS(ctx context.Context, r api.TLSRequest) error {
	var x api.TLSRule
	if err := p.client.Do(ctx, "POST", "/v1/starttls", r, &x); err != nil {
		return err
	}
	end := ""
	if x.Until != nil {
		end = " until " + p.screen.until(x.Until)
	}
	return p.screen.done(x, "STARTTLS %s: %s%s", tlsScope(&x), x.Policy, end)
}

func (p *program) removeTLS(ctx context.Context, q url.Values) error {
	var x api.TLSRule
	if err := p.client.Do(ctx, "DELETE", "/v1/starttls?"+q.Encode(), nil, &x); err != nil {
		return err
	}
	if x.User != "" {
		return p.screen.done(x, "STARTTLS %s: %s again", tlsScope(&x), x.Policy)
	}
	return p.screen.done(x, "STARTTLS %s has no rule any more (was %s)", tlsScope(&x), x.Policy)
}

// tlsScope tells for whom a rule is.
func tlsScope(x *api.TLSRule) string {
	switch {
	case x.User != "":
		return "of " + x.User
	case x.Prefix != "":
		return "to " + x.Prefix + onPort(x.Port)
	}
	return "of all others"
}

func (p *program) listTLS(ctx context.Context) error {
	var xs []api.TLSRule
	print, err := p.get(ctx, "/v1/starttls", &xs)
	if err != nil || !print {
		return err
	}
	rows := make([][]string, len(xs))
	for i, x := range xs {
		rows[i] = []string{tlsScope(&x), x.Policy, x.Origin + beaten(x.Beaten, ""), p.screen.until(x.Until), x.By, x.Reason}
	}
	columns := ruleColumns("STARTTLS")
	columns[1] = column{head: "POLICY", style: func(text string) string {
		if text == "strip" || text == "pass" {
			return yellow
		}
		return ""
	}}
	p.screen.table(columns, rows)
	return nil
}

func (p *program) refusalsCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "refusals", Short: "show for whom the gateway's certificate does not do, and let them pass", Args: none,
		Long: `refusals lists the sources that refused the gateway's certificate for a destination: by a TLS alert about it, or three times
within a day by a connection that ended in the handshake, or right after it without mail. Nothing passes for that alone.

Where the destination publishes TLSA records or an MTA-STS policy in mode enforce, its clients have to refuse any certificate
but its own: then their STARTTLS passes unread, by the setting tls.refused. So it does where the destination wants a
certificate which only the client has: it breaks TLS off without one, or it is nobody's mail exchanger, asks for one, and does
not relay for who has none. Who asks for one and takes mail without is read as ever. A person may allow the same for a pair
of source and destination. Either way it is from the source's own address, 30 connections and 50 MB an hour for the source,
for 7 days.`,
		RunE: func(cmd *cobra.Command, _ []string) error { return p.listRefusals(cmd.Context()) },
	}
	list := &cobra.Command{Use: "list", Short: "list for whom, and what passes", Args: none, RunE: cmd.RunE}
	var f ruleFlags
	allow := &cobra.Command{
		Use: "allow SOURCE DESTINATION --reason WHY", Short: "let a source's STARTTLS to a destination pass unread",
		Example: "  sluice tls refusals allow 192.0.2.7 198.51.100.7 --reason \"pins the certificate, ticket 4711\"",
		Args:    f.withReason(exactly("SOURCE", "DESTINATION")),
		RunE: func(cmd *cobra.Command, args []string) error {
			until, err := f.end(p.screen.now())
			if err != nil {
				return err
			}
			if until != nil && until.After(p.screen.now().Add(7*24*time.Hour)) {
				return usageError{errors.New("--for or --until: it passes for at most 7d; allow it again then")}
			}
			var r api.Refusal
			if err := p.client.Do(cmd.Context(), "POST", "/v1/refusals", api.RefusalRequest{Source: args[0], Target: args[1], Reason: f.reason, Until: until}, &r); err != nil {
				return err
			}
			return p.screen.done(r, "STARTTLS from %s to %s passes unread until %s", r.Source, r.Target, p.screen.until(r.Until))
		},
	}
	f.add(allow)
	allow.Flags().Lookup("for").Usage = "how `long`, like 30m, 2h or 7d, which is the most, and meant unless told"
	reason := ""
	forget := &cobra.Command{
		Use: "forget SOURCE DESTINATION", Short: "forget a refusal and what was allowed for it", Args: exactly("SOURCE", "DESTINATION"),
		RunE: func(cmd *cobra.Command, args []string) error {
			var r api.Refusal
			q := url.Values{"source": {args[0]}, "target": {args[1]}, "reason": {reason}}
			if err := p.client.Do(cmd.Context(), "DELETE", "/v1/refusals?"+q.Encode(), nil, &r); err != nil {
				return err
			}
			return p.screen.done(r, "nothing is known of %s and %s any more", r.Source, r.Target)
		},
	}
	forget.Flags().StringVar(&reason, "reason", "", "`why`, for the audit log")
	cmd.AddCommand(list, allow, forget)
	return cmd
}

func (p *program) listRefusals(ctx context.Context) error {
	var rs []api.Refusal
	print, err := p.get(ctx, "/v1/refusals", &rs)
	if err != nil || !print {
		return err
	}
	if len(rs) == 0 {
		p.screen.say("the gateway's certificate does for everybody")
		return nil
	}
	rows := make([][]string, len(rs))
	for i, r := range rs {
		passes := "no"
		if r.Allowed {
			passes = "until " + p.screen.until(r.Until)
			if r.By != "" {
				passes += ", by " + plain(r.By)
			}
		}
		rows[i] = []string{r.Source, r.Target.String(), r.User, signs(&r), p.screen.ago(r.Last), passes, fmt.Sprintf("%d, %s", r.Connections, size(int64(r.Bytes))), r.Why}
	}
	p.screen.table([]column{{head: "SOURCE"}, {head: "DESTINATION"}, {head: "USER", cut: true}, {head: "SIGNS"}, {head: "LAST", right: true},
		{head: "PASSES"}, {head: "LEFT THIS HOUR"}, {head: "WHY", cut: true}}, rows)
	return nil
}

// signs tells how a client refused.
func signs(r *api.Refusal) string {
	text := ""
	for _, n := range []struct {
		count     int
		one, many string
	}{{r.Alerts, "alert", "alerts"}, {r.Shakes, "handshake cut", "handshakes cut"}, {r.Lefts, "left without mail", "left without mail"}, {r.Wanted, "certificate wanted", "certificates wanted"}} {
		if n.count > 0 {
			if text != "" {
				text += ", "
			}
			text += count(n.count, n.one, n.many)
		}
	}
	if text == "" {
		return "never"
	}
	return text
}
