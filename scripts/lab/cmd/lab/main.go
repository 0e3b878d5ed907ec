// Command lab opens Sluice's test network to play with: customers, gateway and
// internet in network namespaces.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"sluice/scripts/lab"
)

const usage = `usage:
  lab demo [flags]            real mail through the gateway, and what became of it
  lab up [flags]              open the network, show it, stay until Ctrl-C
  lab shell HOST              a shell on a host of the open network
  lab run HOST COMMAND...     one command there
  lab mta SERVER COMMAND...   one command inside a mail server's root (alice-postfix, dave-exim, mx-postfix …)
  lab mail [MX]               what arrived at the MX hosts
  lab scripts                 how to make an MX misbehave
`

func main() {
	if err := run(os.Args[1:]); err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			os.Exit(exit.ExitCode())
		}
		fmt.Fprintln(os.Stderr, "lab:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) == 0 {
		fmt.Fprint(os.Stderr, usage)
		return errors.New("no command")
	}
	switch cmd, args := args[0], args[1:]; {
	case cmd == "demo":
		return showDemo(args)
	case cmd == "up":
		return up(args)
	case cmd == "shell" && len(args) == 1:
		return inside(args[0], "bash", "--norc", "--noprofile")
	case cmd == "run" && len(args) > 1:
		return inside(args[0], args[1:]...)
	case cmd == "mta" && len(args) > 1:
		return mta(args[0], args[1:])
	case cmd == "mail" && len(args) < 2:
		return mail(args)
	case cmd == "scripts" && len(args) == 0:
		fmt.Print(scriptHelp)
		return nil
	}
	fmt.Fprint(os.Stderr, usage)
	return fmt.Errorf("could not understand %q", strings.Join(args, " "))
}

func inside(host string, args ...string) error {
	l, err := lab.Attach("")
	if err != nil {
		return err
	}
	return l.Terminal(host, "", args...)
}

// mta runs a command in the root and on the host of a mail server.
func mta(server string, args []string) error {
	l, err := lab.Attach("")
	if err != nil {
		return err
	}
	host, _, _ := strings.Cut(server, "-")
	if host == "mx" {
		host = lab.HostInternet
	}
	root := filepath.Join(l.Dir(), "mta", server)
	if _, err := os.Stat(root); err != nil {
		return fmt.Errorf("could not find mail server %q: %w; lab up starts it", server, err)
	}
	return l.Terminal(host, root, append([]string{"/usr/bin/env"}, args...)...)
}

func up(args []string) error {
	flags := flag.NewFlagSet("lab up", flag.ContinueOnError)
	postfix := flags.String("postfix", "alice,bob", "customers that run Postfix")
	exim := flags.String("exim", "dave", "customers that run Exim")
	gateway := flags.Bool("gateway", false, "run Sluice on the gateway")
	config := flags.String("config", "", "its configuration, a template file (default: the lab's own)")
	bin := flags.String("bin", "", "folder with its programs (default: build them)")
	keep := flags.Bool("keep", false, "leave messages and logs in place at the end")
	if err := flags.Parse(args); err != nil {
		return err
	}
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer cancel()
	start := time.Now()
	l, err := lab.New(ctx, lab.Options{Keep: *keep})
	if err != nil {
		return err
	}
	err = play(ctx, l, start, *postfix, *exim, *gateway, *config, *bin)
	return errors.Join(err, l.Close())
}

func play(ctx context.Context, l *lab.Lab, start time.Time, postfix, exim string, gateway bool, config, bin string) error {
	fmt.Println("starting mail servers …")
	if err := servers(ctx, l, split(postfix), split(exim)); err != nil {
		return err
	}
	if gateway {
		var text []byte
		if config != "" {
			var err error
			if text, err = os.ReadFile(config); err != nil {
				return err
			}
		}
		if _, err := l.StartGateway(ctx, lab.GatewayOptions{Config: string(text), Binaries: bin}); err != nil {
			return err
		}
	}
	fmt.Print(l.Picture())
	fmt.Printf(hints, time.Since(start).Seconds(), l.Dir())
	for line := range strings.Lines(commands) {
		fmt.Printf("    %s %s", os.Args[0], line)
	}
	if gateway {
		fmt.Printf("    %s run gw sluice status              Sluice runs there; or log, lock, why\n", os.Args[0])
	}
	fmt.Println("  Ctrl-C closes it.")
	<-ctx.Done()
	fmt.Println("\nclosing")
	return nil
}

// servers starts all mail servers at once.
func servers(ctx context.Context, l *lab.Lab, postfix, exim []string) error {
	var (
		wg   sync.WaitGroup
		mu   sync.Mutex
		errs []error
	)
	start := func(f func(context.Context, string) (*lab.MTA, error), name string) {
		wg.Go(func() {
			_, err := f(ctx, name)
			mu.Lock()
			defer mu.Unlock()
			errs = append(errs, err)
		})
	}
	for _, name := range []string{"postfix", "exim"} {
		start(l.MX, name)
	}
	for _, name := range postfix {
		start(func(ctx context.Context, n string) (*lab.MTA, error) { return l.Postfix(ctx, n) }, name)
	}
	for _, name := range exim {
		start(l.Exim, name)
	}
	wg.Wait()
	return errors.Join(errs...)
}

func split(list string) []string {
	if list == "" {
		return nil
	}
	return strings.Split(list, ",")
}

func mail(names []string) error {
	l, err := lab.Attach("")
	if err != nil {
		return err
	}
	pattern := "*"
	if len(names) == 1 {
		pattern = names[0]
	}
	messages, err := lab.ReadMessages(filepath.Join(l.Dir(), "sink", pattern))
	if err != nil {
		return err
	}
	for _, m := range messages {
		tls := ""
		if m.TLS {
			tls = " TLS"
		}
		fmt.Printf("%s %-10s from %-22v helo %-22s <%s> to %v%s %d bytes %s\n",
			m.Time.Format("15:04:05.000"), m.MX, m.Peer.Addr(), m.Helo, m.Sender(), m.Recipients(), tls, len(m.Data), m.File)
	}
	return nil
}

const hints = `
  open after %.1f s; files in %s
  in another terminal:
`

const commands = `shell alice                       a shell on alice's server: swaks --from a@alice.example --to u@sink.example
shell gw                          a shell on the gateway: tcpdump -ni up0 tcp port 25
mta alice-postfix sendmail -f a@alice.example u@exim.example    (text, then Ctrl-D)
mta alice-postfix mailq           her queue; of Exim: mta dave-exim exim4 -bp
mail                              what arrived
`

const scriptHelp = `An MX is told to misbehave by a file "script" in its folder (see lab up) sink/NAME, read at each connection.
Each line is STEP: ACTION | ACTION ...

steps    connect ehlo helo starttls mail rcpt data body dot bdat rset noop quit auth vrfy other any
         rcpt#2 second time; rcpt@bad* local part; body#1000 after 1000 bytes
actions  ok, reply 451 4.3.0 text (\n for more lines), raw BYTES, drip 50ms REPLY, flood BYTES, store,
         stall 10s (or until the peer leaves), close, reset

example  echo 'rcpt: stall 3s | reply 451 4.7.1 later' > DIR/sink/peer01/script
`
