// Command bench measures Sluice beside plain kernel forwarding and a bare SMTP relay in network namespaces of its own.
//
// Without a subcommand it runs the whole matrix; load, hold, sink and barerelay
// are its parts, which it starts inside the namespaces and which run alone as
// well. memory measures idle sessions instead, kernel the kernel's programs
// (packets, connections, memory), and smarthost what is kept and delivered, beside
// Postfix.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"sluice/scripts/bench/barerelay"
	"sluice/scripts/bench/load"
	"sluice/scripts/bench/sink"
)

func main() {
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := dispatch(ctx, os.Args[1:])
	cancel()
	if errors.Is(err, flag.ErrHelp) {
		return
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func dispatch(ctx context.Context, args []string) error {
	if len(args) > 0 {
		switch args[0] {
		case "load":
			return runLoad(ctx, args[1:])
		case "sink":
			return runSink(args[1:])
		case "barerelay":
			return runRelay(ctx, args[1:])
		case "kernel":
			return runKernel(ctx, args[1:])
		case "hold":
			return runHold(ctx, args[1:])
		case "memory":
			return runMemory(ctx, args[1:])
		case "smarthost":
			return runSmarthost(ctx, args[1:])
		}
	}
	return runMatrix(ctx, args)
}

func runLoad(ctx context.Context, args []string) error {
	var cfg load.Config
	fs := flag.NewFlagSet("bench load", flag.ContinueOnError)
	targets := fs.String("targets", "", "`address:port,...` to send to, in turn")
	sources := fs.String("sources", "", "`address,...` to send from, in turn; empty: the kernel chooses")
	run := fs.Uint("run", 0, "`number` of the run, as the sink was told")
	fs.IntVar(&cfg.Sessions, "sessions", 1, "sessions at once")
	fs.IntVar(&cfg.PerConn, "per-connection", 100, "messages per connection")
	fs.IntVar(&cfg.Size, "size", 10<<10, "`bytes` of one message")
	fs.BoolVar(&cfg.Pipeline, "pipeline", false, "send MAIL, RCPT and DATA in one write")
	fs.BoolVar(&cfg.TLS, "tls", false, "say STARTTLS first")
	fs.DurationVar(&cfg.Duration, "duration", 0, "when to stop")
	fs.IntVar(&cfg.Count, "count", 0, "`messages` to stop after")
	if err := fs.Parse(args); err != nil {
		return err
	}
	cfg.Run = uint32(*run)
	if err := cfg.Address(*targets, *sources); err != nil {
		return err
	}
	r, err := load.Run(ctx, cfg)
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(r)
}

// runSink ends with its standard input; a signal ends it in the usual way, as it keeps nothing.
func runSink(args []string) error {
	signal.Reset()
	fs := flag.NewFlagSet("bench sink", flag.ContinueOnError)
	listen := fs.String("listen", ":25", "`address:port` to listen on")
	chunks := fs.Bool("chunking", true, "offer CHUNKING")
	if err := fs.Parse(args); err != nil {
		return err
	}
	return sink.Run(context.Background(), *listen, *chunks, os.Stdin, os.Stdout)
}

func runRelay(ctx context.Context, args []string) error {
	fs := flag.NewFlagSet("bench barerelay", flag.ContinueOnError)
	listen := fs.String("listen", "0.0.0.0:2525", "`address:port` that TPROXY hands connections to")
	if err := fs.Parse(args); err != nil {
		return err
	}
	l, err := barerelay.Listen(ctx, *listen)
	if err != nil {
		return err
	}
	defer context.AfterFunc(ctx, func() { l.Close() })()
	return barerelay.Serve(ctx, l, barerelay.OriginalDestination)
}
