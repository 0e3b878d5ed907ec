package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"sluice/bpf"
	"sluice/cmd/internal/textlog"
	"sluice/intercept/control"
	"sluice/intercept/observe"
)

// readyLine is what the reader says once it has no rights.
const readyLine = "ready\n"

// read is the reader: it gives up every right, then reads frames from descriptor 3 to their end.
func read(args []string, stderr io.Writer) int {
	signal.Ignore(syscall.SIGTERM, syscall.SIGINT) // the keeper hears them; then there are no frames any more
	fs := flag.NewFlagSet("sluice-observe "+readerCommand, flag.ContinueOnError)
	fs.SetOutput(stderr)
	socket, ports := fs.String("socket", "", "of sluiced"), fs.String("ports", "25", "of mail servers")
	uid, gid := fs.Int("uid", 0, "to become"), fs.Int("gid", 0, "to become")
	if fs.Parse(args) != nil || *socket == "" {
		return 2
	}
	err := errors.Join(drop(*uid, *gid), dropped())
	if err == nil {
		_, err = io.WriteString(os.Stdout, readyLine)
	}
	if err == nil {
		err = readFrames(os.NewFile(3, "frames"), mailPorts(*ports), newReporter(*socket, textlog.New(stderr, slog.LevelInfo)))
	}
	if err != nil {
		fmt.Fprintf(stderr, "sluice-observe: %v\n", err)
		return 1
	}
	return 0
}

func mailPorts(list string) func(uint16) bool {
	var ports []uint16
	for p := range strings.SplitSeq(list, ",") {
		if n, err := strconv.ParseUint(p, 10, 16); err == nil {
			ports = append(ports, uint16(n))
		}
	}
	return func(p uint16) bool { return slices.Contains(ports, p) }
}

// readFrames hands what the keeper copies to the observer, and its records to out.
func readFrames(from io.Reader, mail func(uint16) bool, out *reporter) error {
	obs, packets, frames := observe.New(observe.Options{}, out.put), observe.NewPackets(mail), observe.NewFrames(from)
	next := time.Now()
	for {
		kind, b, err := frames.Next()
		now := time.Now()
		if err != nil {
			obs.Close(now)
			out.close()
			if errors.Is(err, io.EOF) {
				return nil
			}
			return fmt.Errorf("could not read what the keeper hands over: %w", err)
		}
		switch kind {
		case observe.Piece:
			s, err := bpf.ParseSegment(b)
			if err != nil {
				return fmt.Errorf("could not read a record of the ring buffer: %w", err)
			}
			obs.Add(s, now)
		case observe.Packet:
			obs.AddPacket(packets, b, now)
		case observe.Lost: // comes every second, whatever else does
			out.tell(obs.Seen(), control.ObservedLoss{Kernel: observe.LostOf(b), Flows: obs.Lost()})
		}
		if !now.Before(next) {
			next = now.Add(every)
			obs.Tick(now)
		}
	}
}
