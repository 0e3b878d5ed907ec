package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strconv"

	"github.com/spf13/cobra"

	"sluice/cmd/internal/api"
	"sluice/cmd/internal/config"
)

func (p *program) locksCommand() *cobra.Command {
	history, user, limit := false, "", 100
	cmd := &cobra.Command{
		Use: "locks", Short: "show who is locked, why and until when", Args: none,
		RunE: func(cmd *cobra.Command, _ []string) error {
			q := url.Values{}
			if user != "" {
				q.Set("user", user)
			}
			if history {
				q.Set("history", "1")
				q.Set("limit", strconv.Itoa(limit))
			}
			return p.locks(cmd.Context(), "/v1/locks?"+q.Encode(), history)
		},
	}
	cmd.Flags().BoolVar(&history, "history", false, "also those that have ended, newest first")
	cmd.Flags().StringVar(&user, "user", "", "only those of this `USER`")
	cmd.Flags().IntVar(&limit, "limit", 100, "how many of the history")
	return cmd
}

func (p *program) locks(ctx context.Context, path string, history bool) error {
	var ls []api.Lock
	print, err := p.get(ctx, path, &ls)
	if err != nil || !print {
		return err
	}
	if len(ls) == 0 {
		p.screen.say("nobody is locked")
		return nil
	}
	rows := make([][]string, len(ls))
	for i, l := range ls {
		rows[i] = []string{l.Ticket, whom(&l), p.screen.at(l.Since), p.screen.end(&l), l.By, l.Code, l.Reason}
	}
	cols := []column{{head: "TICKET"}, {head: "USER"}, {head: "SINCE"}, {head: "UNTIL"}, {head: "BY"}, {head: "CODE"}, {head: "REASON", cut: true}}
	if history {
		cols[3].head = "END"
	}
	p.screen.table(cols, rows)
	return nil
}

// whom names whom a lock stops.
func whom(l *api.Lock) string {
	if l.Identity == "" {
		return l.User
	}
	return plain(l.Identity) + " of " + l.User
}

// end tells when a lock ended or will.
func (s *screen) end(l *api.Lock) string {
	switch {
	case l.Ended != nil:
		return s.at(*l.Ended) + " by " + l.EndedBy
	case l.Until != nil:
		return s.at(*l.Until) + " (in " + s.ago(*l.Until) + ")"
	}
	return "until unlocked"
}

func (p *program) lockCommand() *cobra.Command {
	var time config.Duration
	reason, identity, account, forever, cut, plan := "", "", "", false, false, false
	text := "60m"
	cmd := &cobra.Command{
		Use: "lock {USER | --account NAME} --reason WHY", Short: "lock a user in the kernel, or all users of an account",
		Long: `lock stops a user's outgoing mail at once. While locked, the first connections in each minute are answered with the
reason and the ticket; further ones are reset. Good mail stays in the client's own queue and goes out after unlock.
Sessions that are open through the proxy end with the same reply at once or at their next command, a message that is
being sent after its own answer. Connections past the proxy are reset at their next packet. With --cut open sessions
end at once, but for those whose message has gone whole to its destination: they pass on the answer first.
An address may stand for its user. With --account all users are locked who belong to the account now, those of accounts
inside it too; with --plan-only nothing is locked: it is said whom that would stop.`,
		Example: "  sluice lock --account house --plan-only\n  sluice lock alice --for 2h --reason \"compromised web shop, ticket 4711\"",
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := time.UnmarshalText([]byte(text)); err != nil {
				return usageError{fmt.Errorf("--for: %w", err)}
			}
			if plan {
				return p.lockHits(cmd.Context(), account, args)
			}
			if account != "" {
				l := api.AccountLock{Account: account, Reason: reason, Seconds: int(time.D().Seconds())}
				if forever {
					l.Seconds = 0
				}
				return p.lockAccount(cmd.Context(), "/v1/lock/account", l, "locked")
			}
			r := api.LockRequest{User: args[0], Identity: identity, Reason: reason, Cut: cut, Seconds: int(time.D().Seconds())}
			if forever {
				r.Seconds = 0
			} else if r.Seconds == 0 {
				return usageError{errors.New("--for 0: a lock needs a time; use --until-unlocked for one without end")}
			}
			var l api.Lock
			if err := p.client.Do(cmd.Context(), "POST", "/v1/lock", r, &l); err != nil {
				return err
			}
			until := "until somebody unlocks"
			if l.Until != nil {
				until = "until " + p.screen.at(*l.Until)
			}
			if cut {
				until += ", " + count(l.Cut, "session", "sessions") + " cut"
				if l.Left > 0 {
					until += fmt.Sprintf(", %d left to hear the destination's answer", l.Left)
				}
			}
			return p.screen.done(l, "%s is locked %s, ticket %s%s", whole(&l), until, l.Ticket, warning(&l))
		},
	}
	cmd.Flags().StringVar(&text, "for", text, "how long, like `60m`, 2h or 3d, at most 7d")
	cmd.Flags().BoolVar(&forever, "until-unlocked", false, "until a person unlocks")
	cmd.Flags().StringVar(&reason, "reason", "", "why: it stands in the client's reply and in the audit log")
	cmd.Flags().StringVar(&identity, "identity", "", "lock this `NAME` inside the user alone; his other mail goes on")
	cmd.Flags().BoolVar(&cut, "cut", false, "end the user's open connections at once")
	cmd.Flags().StringVar(&account, "account", "", "lock all users of this account `NAME`")
	cmd.Flags().BoolVar(&plan, "plan-only", false, "lock nobody, say whom it would stop")
	cmd.AddCommand(p.evidenceCommand())
	cmd.MarkFlagsMutuallyExclusive("for", "until-unlocked")
	cmd.MarkFlagsMutuallyExclusive("identity", "cut")
	cmd.MarkFlagsMutuallyExclusive("account", "identity")
	cmd.MarkFlagsMutuallyExclusive("account", "cut")
	cmd.Args = func(cmd *cobra.Command, args []string) error {
		if reason == "" && !plan {
			return fmt.Errorf("--reason is missing: %s", cmd.UseLine())
		}
		if account != "" {
			return none(cmd, args)
		}
		return exactly("USER")(cmd, args)
	}
	return cmd
}

func (p *program) unlockCommand() *cobra.Command {
	reason, identity, account, reset := "", "", "", false
	cmd := &cobra.Command{
		Use: "unlock {USER | --account NAME}", Short: "lift a user's lock, or those of an account's users",
		Args: func(cmd *cobra.Command, args []string) error {
			if account != "" {
				return none(cmd, args)
			}
			return exactly("USER")(cmd, args)
		},
		Long: `unlock lets a user's mail go again; the next connection is served. An address may stand for its user. After some automatic
unlocks, and after some by the link of a notice, only a person may unlock (lock_max_unlocks, lock_unlocks_by_link): with --reset both
numbers begin anew, and links that were taken away are given again. That works without a lock, too.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if account != "" {
				return p.lockAccount(cmd.Context(), "/v1/unlock/account", api.AccountLock{Account: account, Reason: reason}, "unlocked")
			}
			var l api.Lock
			if err := p.client.Do(cmd.Context(), "POST", "/v1/unlock", api.UnlockRequest{User: args[0], Identity: identity, Reason: reason, Reset: reset}, &l); err != nil {
				return err
			}
			if l.Ticket == "" {
				return p.screen.done(l, "%s is not locked; his unlocks are counted anew", whole(&l))
			}
			return p.screen.done(l, "%s is unlocked (ticket %s, locked for %s)%s", whole(&l), l.Ticket, p.screen.ago(l.Since), warning(&l))
		},
	}
	cmd.Flags().StringVar(&reason, "reason", "", "why, for the audit log")
	cmd.Flags().StringVar(&identity, "identity", "", "unlock this `NAME` inside the user")
	cmd.Flags().StringVar(&account, "account", "", "lift the locks that the lock of this account `NAME` brought")
	cmd.MarkFlagsMutuallyExclusive("account", "identity")
	cmd.Flags().BoolVar(&reset, "reset", false, "count his automatic unlocks and those by link anew")
	return cmd
}

// whole names whom a lock stops, and what he is.
func whole(l *api.Lock) string {
	if l.Identity == "" {
		return "user " + l.User
	}
	return "identity " + whom(l)
}

func (p *program) undoCommand() *cobra.Command {
	check, since := "", ""
	cmd := &cobra.Command{
		Use: "undo --check NAME --since TIME", Short: "lift all that a check locked by itself",
		Args: func(cmd *cobra.Command, args []string) error {
			if check == "" || since == "" {
				return fmt.Errorf("--check and --since are both needed: %s", cmd.UseLine())
			}
			return none(cmd, args)
		},
		Long: `undo lifts every automatic lock that a check brought since a moment, for the day on which a check was wrong. A check that
locks more than five users, and more than one in a hundred, within ten minutes stops locking by itself; then it only refuses.`,
		Example: "  sluice undo --check content --since 2h",
		RunE: func(cmd *cobra.Command, _ []string) error {
			at, err := moment("--since", since, p.screen.now())
			if err != nil {
				return err
			}
			var ls []api.Lock
			if err := p.client.Do(cmd.Context(), "POST", "/v1/undo", api.UndoRequest{Check: check, Since: at}, &ls); err != nil {
				return err
			}
			return p.screen.done(ls, "%s lifted", count(len(ls), "lock", "locks"))
		},
	}
	cmd.Flags().StringVar(&check, "check", "", "`NAME` of the check, as `sluice log` shows it")
	cmd.Flags().StringVar(&since, "since", "", "a `TIME`, or how long ago, like 2h")
	_ = cmd.MarkFlagRequired("check")
	_ = cmd.MarkFlagRequired("since")
	return cmd
}

// warning is what is not yet so, on a line of its own.
func warning(l *api.Lock) string {
	if l.Warning == "" {
		return ""
	}
	return "\nwarning: " + l.Warning
}
