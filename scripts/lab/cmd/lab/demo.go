package main

import (
	"context"
	"flag"
	"os"
	"os/signal"
	"syscall"
	"time"

	"sluice/scripts/lab/demo"
)

func showDemo(args []string) error {
	flags := flag.NewFlagSet("lab demo", flag.ContinueOnError)
	bin := flags.String("bin", "", "folder with the gateway's programs (default: build them)")
	messages := flags.Int("messages", 200, "good messages sent each way")
	quiet := flags.Duration("quiet", time.Minute, "how long the customer who behaves is watched before the attack")
	if err := flags.Parse(args); err != nil {
		return err
	}
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer cancel()
	return demo.Run(ctx, demo.Options{Binaries: *bin, Out: os.Stdout, Messages: *messages, Quiet: *quiet})
}
