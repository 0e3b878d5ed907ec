package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"sluice/cmd/internal/api"
)

// lockHits tells whom a lock would stop.
func (p *program) lockHits(ctx context.Context, account string, args []string) error {
	q := url.Values{"account": {account}}
	if account == "" {
		q = url.Values{"user": {args[0]}}
	}
	var hits []api.LockHit
	print, err := p.get(ctx, "/v1/lock/hits?"+q.Encode(), &hits)
	if err != nil || !print {
		return err
	}
	rows, stopped := make([][]string, len(hits)), 0
	for i, h := range hits {
		state := "would be locked"
		switch {
		case h.Never:
			state = "never to be locked"
		case h.Ticket != "":
			state = "is locked, ticket " + h.Ticket
		default:
			stopped++
		}
		rows[i] = []string{h.User, state, strconv.Itoa(h.Flows), strings.Join(h.Identities, ", ")}
	}
	p.screen.table([]column{{head: "USER"}, {head: "STATE"}, {head: "FLOWS", right: true}, {head: "SENT WITHIN A DAY", cut: true}}, rows)
	p.screen.say("%s would be locked; nothing was changed", count(stopped, "user", "users"))
	return nil
}

// lockAccount locks or unlocks the users of an account.
func (p *program) lockAccount(ctx context.Context, path string, l api.AccountLock, done string) error {
	var out api.AccountLocked
	if err := p.client.Do(ctx, "POST", path, l, &out); err != nil {
		return err
	}
	text := fmt.Sprintf("account %s: %s %s", plain(out.Account), count(len(out.Locks), "user", "users"), done)
	for _, one := range out.Locks {
		text += "\n  " + one.User + ", ticket " + one.Ticket + warning(&one)
	}
	for _, left := range out.Left {
		text += "\n  left as it is: " + plain(left)
	}
	return p.screen.done(out, "%s", text)
}

func (p *program) evidenceCommand() *cobra.Command {
	file := ""
	cmd := &cobra.Command{
		Use: "evidence TICKET", Short: "write what a lock rests on into a tar archive", Args: exactly("TICKET"),
		Long: `evidence writes what a lock rests on, in force or ended: the lock with its reputation's factors, the connections that were open,
the message log of the user from a day before it, and the messages that count, as far as they are kept. It holds other people's mail;
that it was read stands in the audit log.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			path := "/v1/locks/" + url.PathEscape(args[0]) + "/evidence"
			if file == "-" {
				return p.client.Fetch(cmd.Context(), path, p.screen.out)
			}
			if file == "" {
				file = args[0] + ".tar.gz"
			}
			f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
			if errors.Is(err, fs.ErrExist) {
				return usageError{fmt.Errorf("%s is there already; name another file with -o", file)}
			}
			if err != nil {
				return fmt.Errorf("could not write the evidence: %w", err)
			}
			if err := errors.Join(p.client.Fetch(cmd.Context(), path, f), f.Close()); err != nil {
				return errors.Join(err, os.Remove(file))
			}
			return p.screen.done(map[string]string{"file": file}, "%s has the evidence of lock %s", file, args[0])
		},
	}
	cmd.Flags().StringVarP(&file, "output", "o", "", "the `FILE`; - for standard output; TICKET.tar.gz unless told")
	return cmd
}
