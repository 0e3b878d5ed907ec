package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"sluice/cmd/internal/api"
)

// loginFlags are what the command line says about a login.
type loginFlags struct {
	user, own, ownTLS, file string
}

func (p *program) loginCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "login", Short: "say who may log in on the smarthost ports", Args: none,
		Long: `login lists the names by which customers log in on the smarthost ports. A name is a domain, which may send as everybody in
it, or a mailbox. One is made for each domain that a user has by itself, without a password: sluice login password gives it one. Passwords
are kept as Argon2id hashes; or the customer's own server is asked each time.`,
		RunE: func(cmd *cobra.Command, _ []string) error { return p.listLogins(cmd.Context()) },
	}
	list := &cobra.Command{Use: "list", Short: "list the logins", Args: none, RunE: cmd.RunE}
	var f loginFlags
	add := &cobra.Command{
		Use: "add NAME --user USER", Short: "make a login and print what the customer needs", Args: exactly("NAME"),
		Example: "  sluice login add customer.example --user alice\n  sluice login add bob@customer.example --user alice --password-file -\n" +
			"  sluice login add carol@customer.example --user alice --own mail.customer.example:587",
		RunE: func(cmd *cobra.Command, args []string) error {
			if f.user == "" {
				return usageError{errors.New("--user is missing: name the outgoing user who answers for what is sent")}
			}
			return p.putLogin(cmd.Context(), args[0], &f, cmd.InOrStdin())
		},
	}
	add.Flags().StringVar(&f.user, "user", "", "outgoing `user` who answers for what is sent")
	add.Flags().StringVar(&f.own, "own", "", "the customer's own server, `host:port`, that is asked for the password")
	add.Flags().StringVar(&f.ownTLS, "own-tls", "starttls", "how that server encrypts: starttls or implicit")
	password := &cobra.Command{
		Use: "password NAME", Short: "give a login a new password", Args: exactly("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return p.putLogin(cmd.Context(), args[0], &f, cmd.InOrStdin())
		},
	}
	for _, c := range []*cobra.Command{add, password} {
		c.Flags().StringVar(&f.file, "password-file", "", "`file` with the password in its first line, - for standard input; without it one is made")
	}
	remove := &cobra.Command{
		Use: "remove NAME", Short: "take a login away", Args: exactly("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			var l api.Login
			if err := p.client.Do(cmd.Context(), "DELETE", "/v1/logins/"+url.PathEscape(args[0]), nil, &l); err != nil {
				return err
			}
			return p.screen.done(l, "nobody logs in as %s any more", l.Name)
		},
	}
	cmd.AddCommand(list, add, password, remove)
	return cmd
}

func (p *program) listLogins(ctx context.Context) error {
	return listed(ctx, p, "/v1/logins", "no logins yet: `sluice login add NAME --user USER` makes one", []column{{head: "LOGIN"}, {head: "KIND"}, {head: "USER"}, {head: "PASSWORD"}, {head: "SERVER", cut: true}, {head: "SINCE"}}, func(l *api.Login) []string {
		where := "here"
		if l.Own != "" {
			where = l.Own + " (" + l.OwnTLS + ")"
		}
		if l.Unset {
			where = "none yet"
		}
		return []string{l.Name, l.Kind, l.User, where, strings.Join(l.Servers, "; "), p.screen.at(l.Changed)}
	})
}

func (p *program) putLogin(ctx context.Context, name string, f *loginFlags, in io.Reader) error {
	n := api.NewLogin{Name: name, User: f.user, Own: f.own}
	if f.own != "" {
		n.OwnTLS = f.ownTLS
	}
	var err error
	if n.Password, err = f.password(in); err != nil {
		return err
	}
	var made api.MadeLogin
	if err := p.client.Do(ctx, "POST", "/v1/logins", n, &made); err != nil {
		return err
	}
	if p.screen.json {
		return p.screen.writeJSON(made)
	}
	pairs := [][2]string{{"login", made.Name}}
	if made.Password != "" {
		pairs = append(pairs, [2]string{"password", made.Password + "  (shown this once)"})
	}
	servers := "none: [[smarthost.listener]] is missing in the configuration"
	if len(made.Servers) > 0 {
		servers = strings.Join(made.Servers, "\n")
	}
	p.screen.pairs(append(pairs, [2]string{"server", servers}, [2]string{"answers for it", made.User})...)
	return nil
}

// password reads the password that was given, "" for none. It is not taken from the command line, where others see it.
func (f *loginFlags) password(in io.Reader) (string, error) {
	if f.file == "" {
		return "", nil
	}
	if f.file != "-" {
		file, err := os.Open(f.file)
		if err != nil {
			return "", fmt.Errorf("could not read the password: %w", err)
		}
		defer file.Close()
		in = file
	}
	b, err := io.ReadAll(io.LimitReader(in, 1<<10))
	if err != nil {
		return "", fmt.Errorf("could not read the password: %w", err)
	}
	line, _, _ := strings.Cut(string(b), "\n")
	if line = strings.TrimSuffix(line, "\r"); line == "" {
		return "", usageError{fmt.Errorf("the first line of %s is empty; write the password there", f.file)}
	}
	return line, nil
}

func (p *program) guessersCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "guessers", Short: "show who guesses passwords on the smarthost ports", Args: none,
		Long: `guessers lists the addresses that tried wrong passwords: slowed down after 3 different ones, shut out after 10, for an
hour and longer each time. An address from which good logins come regularly is never shut out.`,
		RunE: func(cmd *cobra.Command, _ []string) error { return p.listGuessers(cmd.Context()) },
	}
	forgive := &cobra.Command{
		Use: "forgive ADDRESS", Short: "let an address try again", Args: exactly("ADDRESS"),
		RunE: func(cmd *cobra.Command, args []string) error {
			var d api.Done
			if err := p.client.Do(cmd.Context(), "DELETE", "/v1/guessers/"+url.PathEscape(args[0]), nil, &d); err != nil {
				return err
			}
			return p.screen.done(d, "%s", d.Done)
		},
	}
	cmd.AddCommand(forgive)
	return cmd
}

func (p *program) listGuessers(ctx context.Context) error {
	return listed(ctx, p, "/v1/guessers", "nobody guesses passwords", []column{{head: "FROM"}, {head: "STATE"}, {head: "WRONG", right: true}, {head: "LAST"}, {head: "LOGIN", cut: true}}, func(o *api.Guesser) []string {
		state := "slowed down"
		if o.Until != nil {
			state = "shut out until " + p.screen.until(o.Until)
		}
		if o.Exempt {
			state += ", good logins too"
		}
		return []string{o.Place.String(), state, fmt.Sprint(o.Wrong), p.screen.at(o.Last), o.Login}
	})
}
