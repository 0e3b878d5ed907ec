// Command sluice-observe reads the beginnings of the mail flows that mode observe forwards untouched, and tells sluiced
// who sent what to whom and what the server said. It is in nobody's way: when it is dead, mail goes on unseen.
//
// It is two processes. The keeper has the rights to copy packets and looks into none. The reader has no rights; it
// understands what the keeper hands it.
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
	"syscall"

	"sluice/cmd/internal/textlog"
)

// version is set when the program is built.
var version = "unknown"

const usage = `usage: sluice-observe [--config FILE] [--limit BYTES]
       sluice-observe version

Copies the beginnings of observed flows for a process without any privilege, which reads them and reports to sluiced, until
SIGTERM.
`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// exitConfig is EX_CONFIG of sysexits(3): the unit does not try again until a person has corrected the file.
const exitConfig = 78

// The bounds of --limit. A packet is copied in at most 16 KiB.
const (
	usualLimit = 8 << 10
	leastLimit = 512
	mostLimit  = 16 << 10
)

// run is the whole program; it returns the exit status: 0, 1 when something failed, 2 for a wrong command line, 78 for a
// bad configuration.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	if len(args) == 1 && args[0] == "version" {
		fmt.Fprintln(stdout, "sluice-observe", version)
		return 0
	}
	if len(args) > 0 && args[0] == readerCommand { // started by keep, below
		return read(args[1:], stderr)
	}
	fs := flag.NewFlagSet("sluice-observe", flag.ContinueOnError)
	fs.SetOutput(stderr)
	fs.Usage = func() { fmt.Fprint(stderr, usage) }
	file := fs.String("config", "/etc/sluice/sluice.toml", "configuration file")
	limit := fs.Int("limit", usualLimit, "bytes of what a side says before the other speaks that are read")
	if err := fs.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return 0
		}
		return 2
	}
	if fs.NArg() > 0 {
		fmt.Fprintf(stderr, "sluice-observe: %q is no command\n%s", fs.Arg(0), usage)
		return 2
	}
	if *limit < leastLimit || *limit > mostLimit {
		fmt.Fprintf(stderr, "sluice-observe: --limit is %d to %d bytes\n%s", leastLimit, mostLimit, usage)
		return 2
	}
	set, err := load(*file)
	if err != nil {
		fmt.Fprintf(stderr, "sluice-observe: %v\n", err)
		return exitConfig
	}
	if err := keep(ctx, set, *limit, textlog.New(stderr, slog.LevelInfo)); err != nil {
		fmt.Fprintf(stderr, "sluice-observe: %v\n", err)
		return 1
	}
	return 0
}
