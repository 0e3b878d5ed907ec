// Command sluiced is the proxy: it accepts the mail flows that the kernel hands over, speaks SMTP, filters, relays, and
// serves the API. It needs no privilege.
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

	"golang.org/x/sys/unix"

	"sluice/cmd/internal/config"
	"sluice/cmd/internal/textlog"
)

// version is set when the program is built.
var version = "unknown"

// exitConfig ends a start with a bad configuration (EX_CONFIG of sysexits(3)): the unit does not try again until a person
// has corrected it.
const exitConfig = 78

// The proxy's namespace takes threads into other networks. The first thread, by which others
// see where this process is (/proc/PID/ns/net), must never be one of them: it is main's alone.
func init() { runtime.LockOSThread() }

func main() {
	os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
}

// flags are the command line.
type flags struct {
	config                   string
	check, describe, version bool
	verbose                  bool
}

func parseFlags(args []string, stderr io.Writer) (f flags, err error) {
	fs := flag.NewFlagSet("sluiced", flag.ContinueOnError)
	fs.SetOutput(stderr)
	fs.StringVar(&f.config, "config", "/etc/sluice/sluice.toml", "configuration `file`")
	fs.BoolVar(&f.check, "check", false, "check the configuration, say what is wrong with it, and exit")
	fs.BoolVar(&f.describe, "describe", false, "print every key of the configuration with type, default and meaning, and exit")
	fs.BoolVar(&f.version, "version", false, "print the version and exit")
	fs.BoolVar(&f.verbose, "verbose", false, "log refused connections, too")
	if err := fs.Parse(args); err != nil {
		return f, err
	}
	if fs.NArg() > 0 {
		return f, fmt.Errorf("%q is too much; sluiced takes flags only, see -help", fs.Arg(0))
	}
	return f, nil
}

func run(args []string, stdout, stderr io.Writer) (code int) {
	f, err := parseFlags(args, stderr)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err != nil:
		fmt.Fprintln(stderr, "sluiced:", err)
		return 2
	case f.version:
		fmt.Fprintln(stdout, "sluiced", version)
		return 0
	case f.describe:
		if err := config.Describe(stdout); err != nil {
			return 1
		}
		return 0
	}
	cfg, err := config.Load(f.config)
	if err != nil {
		fmt.Fprintln(stderr, "sluiced:", err)
		return exitConfig
	}
	if f.check {
		fmt.Fprintf(stdout, "%s: good: %d users, %d delivery addresses\n", f.config, len(cfg.User), len(cfg.Delivery.Address))
		return 0
	}
	level := slog.LevelInfo
	if f.verbose {
		level = slog.LevelDebug
	}
	return serve(cfg, textlog.New(stderr, level))
}

// serve runs the daemon until a signal ends it.
func serve(cfg *config.Config, log *slog.Logger) int {
	if os.Geteuid() == 0 {
		log.Warn("running as root, which sluiced neither needs nor should have; start it as the user of intercept.daemon_user")
	}
	// What customers say passes through the memory, passwords among it: a core file would keep it (AUT4). The limit alone
	// does not bind a program that the kernel hands cores to (core(5)).
	if err := errors.Join(syscall.Setrlimit(syscall.RLIMIT_CORE, &syscall.Rlimit{}), unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0)); err != nil {
		log.Warn("could not forbid core files", "err", err)
	}
	takeTwoProcessors()
	limitMemory(cfg, log)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	defer signal.Stop(hup)
	usr2 := make(chan os.Signal, 1)
	signal.Notify(usr2, syscall.SIGUSR2)
	defer signal.Stop(usr2)

	d, err := newDaemon(cfg, options{log: log})
	if err != nil {
		log.Error("could not start", "err", err)
		return 1
	}
	go func() {
		for {
			select {
			case <-hup:
				_ = d.reload() // it has said what was wrong
			case <-usr2:
				d.succeed()
			}
		}
	}()
	if err := d.Run(ctx); err != nil {
		log.Error("could not go on", "err", err)
		return 1
	}
	return 0
}
