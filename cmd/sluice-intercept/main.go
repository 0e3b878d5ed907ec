// Command sluice-intercept sets routes, rules and programs in the kernel, opens the listening socket, and does what
// sluiced asks within the bounds that root's configuration sets.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"runtime"
	"syscall"

	"sluice/cmd/internal/textlog"
	"sluice/intercept"
	"sluice/intercept/attach"
	"sluice/intercept/control"
	"sluice/intercept/nft"
	"sluice/intercept/ruleset"
)

// version is set when the program is built.
var version = "unknown"

const usage = `usage: sluice-intercept [command] --config FILE

  (no command)  bring the kernel to the desired state and keep it there; SIGHUP reads the file again,
                SIGTERM ends the program and leaves the kernel's state in force
  check         read the file and show what would be set, and what on this host is in the way
  bypass        forward mail untouched for a while, whatever sluiced does; see sluice-intercept bypass --help
  cleanup       remove every trace from the kernel; no sluice-intercept may run
  version       print the version
`

// The trial of a data path and the proxy's namespace take threads into other networks. The first thread, by which others
// see where this process is (/proc/PID/ns/net), must never be one of them: it is main's alone.
func init() { runtime.LockOSThread() }

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// exitConfig ends a start with a bad configuration (EX_CONFIG of sysexits(3)): the unit does not try again until a person
// has corrected it.
const exitConfig = 78

// configError is what is wrong with the configuration file.
type configError struct{ error }

func (e configError) Unwrap() error { return e.error }

// run is the whole program; it returns the exit status: 0, 1 when something failed, 2 for a wrong command line, 78 for a
// bad configuration.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	command := "serve"
	if len(args) > 0 && args[0] != "" && args[0][0] != '-' {
		command, args = args[0], args[1:]
	}
	if command == "bypass" {
		return bypass(ctx, args, stdout, stderr)
	}
	fs := flag.NewFlagSet("sluice-intercept", flag.ContinueOnError)
	fs.SetOutput(stderr)
	fs.Usage = func() { fmt.Fprint(stderr, usage) }
	file := fs.String("config", "/etc/sluice/sluice.toml", "configuration file")
	if err := fs.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return 0
		}
		return 2
	}
	if fs.NArg() > 0 {
		fmt.Fprintf(stderr, "sluice-intercept: %q is too much\n%s", fs.Arg(0), usage)
		return 2
	}
	var err error
	switch command {
	case "serve":
		err = serve(ctx, *file, stderr)
	case "check":
		err = check(*file, stdout)
	case "cleanup":
		err = cleanup(*file, stdout)
	case "version":
		fmt.Fprintln(stdout, "sluice-intercept", version)
	default:
		fmt.Fprintf(stderr, "sluice-intercept: %q is no command\n%s", command, usage)
		return 2
	}
	if err != nil {
		fmt.Fprintf(stderr, "sluice-intercept: %v\n", err)
		if _, bad := errors.AsType[configError](err); bad {
			return exitConfig
		}
		return 1
	}
	return 0
}

// serve runs until the context ends.
func serve(ctx context.Context, file string, stderr io.Writer) error {
	log := textlog.New(stderr, slog.LevelInfo)
	set, err := load(file)
	if err != nil {
		return err
	}
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	defer signal.Stop(hup)

	// The control socket comes first: a second helper must not touch what the first holds.
	l, err := control.Listen(set.socket, set.gid)
	if err != nil {
		return err
	}
	defer l.Close()
	engine, err := intercept.Open(set.engine, log)
	if err != nil {
		return err
	}
	defer func() {
		if err := engine.Close(); err != nil {
			log.Error("closing", "error", err)
		}
	}()
	server := &control.Server{
		Handler: engine,
		Allow:   func(p control.Peer) bool { return p.UID == 0 || p.UID == set.uid },
		Logf:    func(format string, args ...any) { log.Warn(fmt.Sprintf(format, args...)) },
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go reloads(ctx, hup, file, set, engine, log)
	return engine.Run(ctx, func(ctx context.Context) error { return server.Serve(ctx, l) }, func() {
		log.Info("ready", "version", version, "socket", set.socket)
		tell(log, "READY=1")
	})
}

// reloads reads the configuration again at each SIGHUP. A bad one leaves the old state in force.
func reloads(ctx context.Context, hup <-chan os.Signal, file string, first *settings, engine *intercept.Engine, log *slog.Logger) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-hup:
		}
		tell(log, reloading())
		if err := reload(file, first, engine); err != nil {
			log.Error("configuration not reloaded, the old one stays in force", "error", err)
		} else {
			log.Info("configuration reloaded", "file", file)
		}
		tell(log, "READY=1")
	}
}

func reload(file string, first *settings, engine *intercept.Engine) error {
	set, err := load(file)
	if err != nil {
		return err
	}
	switch {
	case set.socket != first.socket:
		return fmt.Errorf("%s: intercept.control_socket changed, which needs a restart of sluice-intercept", file)
	case set.uid != first.uid:
		return fmt.Errorf("%s: intercept.daemon_user changed, which needs a restart of sluice-intercept", file)
	}
	if err := engine.Reload(set.engine); err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	return nil
}

// check shows the desired state and what is in its way; it changes nothing.
func check(file string, out io.Writer) error {
	set, err := load(file)
	if err != nil {
		return err
	}
	k, err := attach.Open()
	if err != nil {
		return err
	}
	defer k.Close()
	links, err := k.Links()
	if err != nil {
		return err
	}
	path, reason, err := intercept.TryPath(set.engine)
	if err != nil {
		return err
	}
	plan := set.engine.Plan()
	if path != nft.Path {
		if none := intercept.TryRoom(set.engine, path); none == nil {
			plan = plan.WithRoom()
		} else {
			reason += fmt.Sprintf("; policy rules deliver to the proxy: %v", none)
		}
	}
	seats := ruleset.Seats(links, set.engine.Customers, set.engine.Uplinks)
	fmt.Fprintf(out, "%s is valid. Desired state:\n\n%s%s\n", file, plan.Text(), ruleset.SeatsText(seats))
	fmt.Fprintf(out, "\ndata path: %s (%s)\n", path, reason)
	conflicts, err := k.Conflicts(plan)
	if err != nil {
		return err
	}
	for _, p := range append(conflicts, attach.CheckSysctls(plan)...) {
		fmt.Fprintf(out, "warning: %s\n", p)
	}
	return nil
}

// cleanup removes everything, unless a helper runs that would bring it back.
func cleanup(file string, out io.Writer) error {
	set, err := load(file)
	if err != nil {
		return err
	}
	if intercept.Serving(set.socket) {
		return fmt.Errorf("could not clean up: a sluice-intercept serves %s and would set everything again; stop it first", set.socket)
	}
	if err := errors.Join(intercept.Cleanup(set.engine.PinDir, set.engine.StateDir), intercept.RemoveSocket(set.socket)); err != nil {
		return fmt.Errorf("could not clean up: %w", err)
	}
	fmt.Fprintln(out, "every trace of sluice-intercept is removed from the kernel")
	return nil
}
