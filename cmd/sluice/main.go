// Command sluice is the operator's command: it shows what the gateway does, locks and unlocks users, and checks the host.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"sluice/cmd/internal/api"
)

// version is set when the program is built.
var version = "unknown"

const defaultSocket = "/run/sluice/api.sock"

// The exit codes.
const (
	exitOK          = 0
	exitFailed      = 1 // the request was refused or failed, or doctor found a failure
	exitUsage       = 2 // the command line makes no sense
	exitUnreachable = 3 // sluiced could not be reached
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	s := &screen{out: os.Stdout, now: time.Now, zone: time.Local}
	if fd := int(os.Stdout.Fd()); term.IsTerminal(fd) {
		s.colour = os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
		if w, _, err := term.GetSize(fd); err == nil {
			s.width = w
		}
	}
	code := run(ctx, s, os.Stderr, os.Args[1:])
	stop()
	os.Exit(code)
}

// usageError is a mistake on the command line that only the command itself can see.
type usageError struct{ error }

// program is one call of the command.
type program struct {
	screen *screen
	client *api.Client
	socket string
}

// run executes the command line and returns the exit code.
func run(ctx context.Context, s *screen, stderr io.Writer, args []string) int {
	p := &program{screen: s}
	root := p.root()
	root.SetArgs(args)
	root.SetOut(s.out)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	var problem *api.Problem
	switch {
	case err == nil || errors.Is(err, context.Canceled) && ctx.Err() != nil:
		return exitOK
	case errors.Is(err, errFindings):
		return exitFailed
	case errors.As(err, &problem):
		fmt.Fprintf(stderr, "sluice: %s\n", problem.What)
		if problem.Remedy != "" {
			fmt.Fprintf(stderr, "  help: %s\n", problem.Remedy)
		}
		if problem.Code == "unreachable" {
			return exitUnreachable
		}
		return exitFailed
	case errors.As(err, new(usageError)) || p.client == nil: // or cobra refused the command line before any command ran
		fmt.Fprintf(stderr, "sluice: %v\n  help: %s\n", err, helpFor(root, args))
		return exitUsage
	}
	fmt.Fprintf(stderr, "sluice: %v\n", err)
	return exitFailed
}

// helpFor names the help of the command that a command line is about.
func helpFor(root *cobra.Command, args []string) string {
	c, _, err := root.Find(args)
	if err != nil || c == root {
		return "`sluice --help` lists the commands"
	}
	return fmt.Sprintf("`%s --help` tells more", c.CommandPath())
}

func (p *program) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "sluice",
		Short: "show and steer the outgoing mail gateway",
		Long: `sluice shows what the gateway does, locks and unlocks users, and checks the host.
It speaks to sluiced on a unix socket. Output is made for people; with --json for programs. With a token in the variable
SLUICE_TOKEN it may do what that allows, and no more.

Exit codes: 0 done, 1 refused or failed, 2 the command line makes no sense, 3 sluiced could not be reached.`,
		Version:       version,
		SilenceErrors: true,
		SilenceUsage:  true,
		PersistentPreRun: func(*cobra.Command, []string) {
			p.client = api.NewClient(p.socket)
			p.client.Token = os.Getenv("SLUICE_TOKEN")
		},
	}
	socket := os.Getenv("SLUICE_SOCKET")
	if socket == "" {
		socket = defaultSocket
	}
	root.PersistentFlags().StringVar(&p.socket, "socket", socket, "`path` of the socket of sluiced's API, also from SLUICE_SOCKET")
	root.PersistentFlags().BoolVar(&p.screen.json, "json", false, "print JSON instead of tables")
	root.CompletionOptions.HiddenDefaultCmd = true
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return plainFlagError(err) })
	for _, g := range p.groups() {
		root.AddGroup(&cobra.Group{ID: g.title, Title: g.title + ":"})
		for _, c := range g.commands {
			c.GroupID = g.title
			root.AddCommand(c)
		}
	}
	root.SetHelpCommandGroupID(ownGroup)
	root.InitDefaultHelpCmd()
	if help, _, err := root.Find([]string{"help"}); err == nil {
		help.Short = "print the help of a command"
	}
	return root
}

// get asks the API and, with --json, prints the answer as it came. The result tells whether it is left to the caller
// to print v.
func (p *program) get(ctx context.Context, path string, v any) (print bool, err error) {
	if err := p.client.Do(ctx, "GET", path, nil, v); err != nil {
		return false, err
	}
	if p.screen.json {
		return false, p.screen.writeJSON(v)
	}
	return true, nil
}

// listed asks for a list and shows it as a table; where it is empty, none says so.
func listed[T any](ctx context.Context, p *program, path, none string, cols []column, row func(*T) []string) error {
	var all []T
	print, err := p.get(ctx, path, &all)
	if err != nil || !print {
		return err
	}
	if len(all) == 0 && none != "" {
		p.screen.say("%s", none)
		return nil
	}
	rows := make([][]string, len(all))
	for i := range all {
		rows[i] = row(&all[i])
	}
	p.screen.table(cols, rows)
	return nil
}

// none takes no arguments. Of a command with others below it a word is one that is not there, else it is too much.
func none(cmd *cobra.Command, args []string) error {
	if cmd.HasSubCommands() {
		return cobra.NoArgs(cmd, args)
	}
	return exactly()(cmd, args)
}

// exactly demands n arguments and names them when they are missing.
func exactly(names ...string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) == len(names) {
			return nil
		}
		if len(args) < len(names) {
			return fmt.Errorf("%s is missing: %s", names[len(args)], cmd.UseLine())
		}
		return fmt.Errorf("%q is too much: %s", args[len(names)], cmd.UseLine())
	}
}
