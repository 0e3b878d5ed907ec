package main

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"sluice/cmd/internal/api"
)

func (p *program) usersCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "users", Aliases: []string{"user"}, Short: "list, show, add, change and remove users", Args: none,
		RunE: func(cmd *cobra.Command, _ []string) error { return p.listUsers(cmd.Context()) },
	}
	list := &cobra.Command{
		Use: "list", Short: "list all users", Args: none,
		RunE: func(cmd *cobra.Command, _ []string) error { return p.listUsers(cmd.Context()) },
	}
	explain := false
	show := &cobra.Command{
		Use: "show USER", Short: "show a user with what holds for him", Args: exactly("USER"),
		Long: "show prints a user with his limits, lock settings and the kernel's counters. An address may stand for its user.",
		RunE: func(cmd *cobra.Command, args []string) error {
			if explain {
				return p.explainUser(cmd.Context(), args[0])
			}
			var u api.UserDetail
			print, err := p.get(cmd.Context(), userPath(args[0]), &u)
			if err == nil && print {
				p.screen.user(&u)
			}
			return err
		},
	}
	show.Flags().BoolVar(&explain, "explain", false, "print every setting with the place that says so instead")
	contact := ""
	add := &cobra.Command{
		Use: "add NAME PREFIX...", Short: "add a user who answers for the mail of prefixes",
		Example: "  sluice users add alice 192.0.2.0/29 2001:db8:1::/64 --contact alice@customer.example",
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) < 2 {
				return fmt.Errorf("a user needs a name and at least one prefix: %s", cmd.UseLine())
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			return p.addUser(cmd.Context(), args[0], args[1:], contact)
		},
	}
	add.Flags().StringVar(&contact, "contact", "", "mailbox of the person who answers for the user")
	remove := &cobra.Command{
		Use: "remove USER", Short: "remove a user that was added by command", Args: exactly("USER"),
		Long: "remove takes a user away that `sluice users add` made. Users of the configuration file are removed there.",
		RunE: func(cmd *cobra.Command, args []string) error {
			var u api.User
			if err := p.client.Do(cmd.Context(), "DELETE", userPath(args[0]), nil, &u); err != nil {
				return err
			}
			return p.screen.done(u, "user %s is removed; his prefixes are unknown sources from now on", u.Name)
		},
	}
	cmd.AddCommand(list, show, add, remove, p.importCommand(), p.setCommand(), p.unsetCommand(), p.joinCommand())
	cmd.AddCommand(p.suggestCommand(), p.sendersCommand())
	return cmd
}

// userMode tells a user's mode, and his side of a canary.
func userMode(u *api.User) string {
	if u.Canary == "" {
		return u.Mode
	}
	return u.Mode + " (" + u.Canary + ")"
}

// userPath keeps the slash of names that are prefixes, which the API's route takes as it is.
func userPath(name string) string {
	return "/v1/users/" + strings.ReplaceAll(url.PathEscape(name), "%2F", "/")
}

// done prints what came of a change.
func (s *screen) done(v any, format string, args ...any) error {
	if s.json {
		return s.writeJSON(v)
	}
	s.say(format, args...)
	return nil
}

func (p *program) listUsers(ctx context.Context) error {
	var us []api.User
	print, err := p.get(ctx, "/v1/users", &us)
	if err != nil || !print {
		return err
	}
	if len(us) == 0 {
		p.screen.say("no users yet: add [[user]] to the configuration, or `sluice users add NAME PREFIX`")
		return nil
	}
	observed := slices.ContainsFunc(us, func(u api.User) bool { return u.Observed != nil })
	rows := make([][]string, len(us))
	for i, u := range us {
		lock := ""
		if u.Locked {
			lock = "locked " + u.Ticket
		}
		rows[i] = []string{u.Name, prefixes(u.Prefixes), userMode(&u), u.Origin, fmt.Sprint(u.Flows), lock}
		if u.Observed != nil {
			rows[i] = append(rows[i], seen(u.Observed))
		} else if observed {
			rows[i] = append(rows[i], "")
		}
	}
	columns := []column{{head: "USER"}, {head: "PREFIXES", cut: true}, {head: "MODE"}, {head: "FROM"}, {head: "FLOWS", right: true},
		{head: "LOCK", style: func(string) string { return red }}}
	if observed {
		columns = append(columns, column{head: "OBSERVED"})
	}
	p.screen.table(columns, rows)
	return nil
}

func prefixes(ps []netip.Prefix) string {
	parts := make([]string, len(ps))
	for i, p := range ps {
		parts[i] = p.String()
	}
	return strings.Join(parts, " ")
}

func (p *program) addUser(ctx context.Context, name string, args []string, contact string) error {
	n := api.NewUser{Name: name, Contact: contact}
	for _, a := range args {
		pre, err := api.ParsePrefix(a)
		if err != nil {
			return err
		}
		n.Prefixes = append(n.Prefixes, pre)
	}
	var u api.User
	if err := p.client.Do(ctx, "POST", "/v1/users", n, &u); err != nil {
		return err
	}
	return p.screen.done(u, "user %s answers for %s from now on", u.Name, prefixes(u.Prefixes))
}

// seen tells what was observed; opaque flows stand first, because nobody knows what was in them.
func seen(o *api.Observed) string {
	text := fmt.Sprintf("%s, %.0f %% opaque, %s", count(o.Flows, "flow", "flows"), 100*o.OpaqueShare, count(o.Messages, "message", "messages"))
	if n := o.WouldRefused(); n > 0 {
		text += fmt.Sprintf(", %d would be refused", n)
	}
	return text
}

// standing tells how near a lock somebody is.
func standing(st *api.Standing) string {
	text := st.Rung
	if st.Probation {
		text += ", on probation"
	}
	if st.Cause != "" {
		text += ": " + plain(st.Cause)
	}
	if text += fmt.Sprintf("\nreputation %d of 100 (0 is best)", st.Score); len(st.Factors) == 0 {
		return text
	}
	for _, f := range st.Factors {
		text += fmt.Sprintf("\n  %+d %s: %s", f.Points, f.Name, plain(f.Why))
	}
	return text
}

func (s *screen) user(u *api.UserDetail) {
	set := u.Settings
	lock := "none"
	if u.Locked {
		lock = s.paint(red, "locked, ticket "+u.Ticket)
	}
	auto := "off: bad mail is refused and reported only"
	if set.LockAutomatic {
		auto = fmt.Sprintf("%d bad messages and %.0f %% of all in %s lock for %s, %d times by itself", set.LockSpamCount, 100*set.LockSpamShare,
			seconds(set.LockWindow), seconds(set.LockTime), set.LockMaxUnlocks)
	}
	s.pairs(
		[2]string{"user", plain(u.Name) + " (" + u.Origin + fmt.Sprintf(", id %d)", u.ID)},
		[2]string{"prefixes", prefixes(u.Prefixes)},
		[2]string{"contact", plain(u.Contact)},
		[2]string{"mode", userMode(&u.User) + ", when the proxy is dead: " + u.Fail},
		[2]string{"delivery", set.Delivery + ", encryption " + set.OnwardTLS},
		[2]string{"STARTTLS", startTLSOf(&set)},
		[2]string{"kept here", keptHere(&set)},
		[2]string{"signed", signed(&set)},
		[2]string{"flows", fmt.Sprintf("%d open", u.Flows)},
		[2]string{"lock", lock},
		[2]string{"standing", standing(&u.Standing)},
		[2]string{"automatic lock", auto},
		[2]string{"", fmt.Sprintf("%s so far", count(u.Unlocks, "automatic unlock", "automatic unlocks"))},
		[2]string{"while locked", explained(&set)},
		[2]string{"per hour", fmt.Sprintf("%s messages, %s recipients", limit(set.MessagesPerHour), limit(set.RecipientsPerHour))},
		[2]string{"per message", fmt.Sprintf("%s recipients, %s", limit(set.RecipientsPerMessage), size(set.MessageSize))},
		[2]string{"sessions", fmt.Sprintf("%d per source, %d per source and destination", set.SessionsPerSource, set.SessionsPerPair)},
		[2]string{"connections", limit(set.ConnectionsPerSecond) + " per second"},
	)
	if len(u.Bound) > 0 {
		s.pairs([2]string{"bound         ", strings.Join(u.Bound, "\n")})
	}
	if n := u.Kernel["spoofed"]; n > 0 {
		s.pairs([2]string{"spoofed       ", s.paint(yellow, fmt.Sprintf("%s in his name dropped: by another interface or Ethernet address than his", count(int(n), "connection", "connections")))})
	}
	if u.Auth != nil {
		s.pairs([2]string{"AUTH at destinations", fmt.Sprintf("%d accepted, %d refused", u.Auth.Accepted, u.Auth.Refused)})
	}
	if u.Unread != nil {
		s.pairs([2]string{"unread        ", unreadOf(u.Unread)})
	}
	if f := u.Forwarded; f != nil {
		s.pairs([2]string{"forwarded     ", fmt.Sprintf("%s, %d sent, %d bad", count(f.Messages, "message", "messages"), f.Sent, f.Bad)})
	}
	if u.Observed != nil {
		s.pairs([2]string{"observed      ", strings.TrimSuffix(seen(u.Observed)+"\n"+byCode(u.Observed.WouldRefuse), "\n")})
	}
	if u.WouldLocks > 0 {
		s.pairs([2]string{"would be locked", fmt.Sprintf("%s so far, by what was only watched", count(u.WouldLocks, "time", "times"))})
	}
	if len(u.Kernel) > 0 {
		var parts []string
		for _, k := range slices.Sorted(maps.Keys(u.Kernel)) {
			if u.Kernel[k] > 0 {
				parts = append(parts, fmt.Sprintf("%s %d", k, u.Kernel[k]))
			}
		}
		s.pairs([2]string{"kernel        ", strings.Join(parts, ", ")})
	}
}

// startTLSOf tells what becomes of a user's STARTTLS.
func startTLSOf(set *api.Settings) string {
	if set.StartTLSReason == "" {
		return set.StartTLS
	}
	return set.StartTLS + ": " + plain(set.StartTLSReason)
}

// keptHere tells what of a user's mail waits in the queue, and not with him.
func keptHere(set *api.Settings) string {
	var what []string
	if set.KeepWithheld {
		what = append(what, "what the filter withholds, on hold")
	}
	if set.KeepDeferred {
		what = append(what, "what destinations put off")
	}
	if what == nil {
		return "nothing that he sends to destinations himself"
	}
	return strings.Join(what, "; ")
}

// signed tells which of a user's mail is signed.
func signed(set *api.Settings) string {
	switch set.DKIM {
	case "unsigned":
		return strings.TrimSpace("what carries no valid signature of its author's domain " + bySelector(set))
	case "always":
		return strings.TrimSpace("all " + bySelector(set))
	}
	return ""
}

func bySelector(set *api.Settings) string {
	if set.DKIMSelector == "" {
		return ""
	}
	return "(by the key " + plain(set.DKIMSelector) + ")"
}

// explained tells what becomes of a locked user's connections.
func explained(set *api.Settings) string {
	passed := "reset"
	if set.LockKeepPassed {
		passed = "kept"
	}
	return fmt.Sprintf("%s a minute explained, the others reset; open ones past the proxy are %s", count(set.LockExplained, "connection", "connections"), passed)
}

func seconds(n int) string { return span(time.Duration(n) * time.Second) }

func limit(n int) string {
	if n == 0 {
		return "unlimited"
	}
	return fmt.Sprint(n)
}
