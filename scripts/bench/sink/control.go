package sink

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
)

// Run listens on addr and obeys one-line orders from in until it ends: "begin
// RUN" starts to count a run, "report N" tells what arrived of its first N
// messages. Each order is answered by one line of JSON on out.
func Run(ctx context.Context, addr string, chunks bool, in io.Reader, out io.Writer) error {
	lc := net.ListenConfig{KeepAlive: -1}
	lc.SetMultipathTCP(false)
	l, err := lc.Listen(ctx, "tcp", addr)
	if err != nil {
		return fmt.Errorf("could not open the sink: %w", err)
	}
	tracker := new(Tracker)
	served := make(chan error, 1)
	go func() { served <- Serve(l, tracker, chunks) }()
	err = obey(tracker, in, out)
	return errors.Join(err, l.Close(), <-served)
}

func obey(tracker *Tracker, in io.Reader, out io.Writer) error {
	answers := json.NewEncoder(out)
	lines := bufio.NewScanner(in)
	for lines.Scan() {
		var order string
		var n uint32
		if _, err := fmt.Sscan(lines.Text(), &order, &n); err != nil {
			return fmt.Errorf("could not read order %q: %w; it is a word and a number", lines.Text(), err)
		}
		var r Report
		switch order {
		case "begin":
			tracker.Begin(n)
		case "report":
			r = tracker.Report(n)
		default:
			return fmt.Errorf("could not obey %q: unknown; say begin or report", order)
		}
		if err := answers.Encode(r); err != nil {
			return err
		}
	}
	return lines.Err()
}
