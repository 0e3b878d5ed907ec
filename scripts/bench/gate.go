package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"time"

	"sluice/filter/content"
	"sluice/scripts/bench/matrix"
	"sluice/scripts/bench/testbed"
)

// gate is a gateway namespace and the programs that do its work.
type gate struct {
	testbed.Gate
	programs []*testbed.Process
	logs     []string
	undo     []func() error // run in reverse after the programs ended
}

// starters put each way of forwarding to work in its gateway.
var starters = map[string]func(context.Context, *bench, *gate, options) error{
	"forward":     func(context.Context, *bench, *gate, options) error { return nil },
	"relay":       startRelay,
	"sluice":      withContent(content.LearnedOff),
	"content":     withContent(content.LearnedNever),
	matrix.Before: startBefore,
}

// greeters are the names by which clients are greeted: a gateway that is not ready yet may forward like any other.
var greeters = map[string]string{"forward": "sink.example", "relay": "sink.example", "sluice": "gateway.example", "content": "gateway.example", matrix.Before: "gateway.example"}

// launch starts a program of the gateway; its output goes to a log that explain shows.
func (b *bench) launch(g *gate, name string, c *exec.Cmd) error {
	log, err := os.Create(b.path(g.Name + "-" + name + ".log"))
	if err != nil {
		return err
	}
	defer log.Close()
	c.Stdout, c.Stderr = log, log
	p, err := testbed.Start(g.Namespace, c)
	if err != nil {
		return err
	}
	g.programs, g.logs = append(g.programs, p), append(g.logs, log.Name())
	return nil
}

// cpu is what all programs of the gateway used so far.
func (g *gate) cpu() (time.Duration, error) {
	var sum time.Duration
	for _, p := range g.programs {
		used, err := p.CPU()
		if err != nil {
			return 0, errors.Join(err, g.explain())
		}
		sum += used
	}
	return sum, nil
}

// alive is an error once a program of the gateway has ended.
func (g *gate) alive() error {
	for _, p := range g.programs {
		if !p.Running() {
			return fmt.Errorf("a program of %s has ended", g.Name)
		}
	}
	return nil
}

// stop ends the programs, last started first.
func (g *gate) stop() error {
	var errs []error
	for i := len(g.programs) - 1; i >= 0; i-- {
		errs = append(errs, g.programs[i].Stop())
	}
	for i := len(g.undo) - 1; i >= 0; i-- {
		errs = append(errs, g.undo[i]())
	}
	return errors.Join(errs...)
}

// explain is the end of each log as an error, or nil.
func (g *gate) explain() error {
	const tail = 2 << 10
	var text strings.Builder
	for _, path := range g.logs {
		f, err := os.Open(path)
		if err != nil {
			continue // there is nothing to show, and the cause is reported already
		}
		if info, err := f.Stat(); err == nil && info.Size() > tail {
			_, err = f.Seek(-tail, io.SeekEnd)
			if err != nil {
				f.Close()
				continue
			}
		}
		b, err := io.ReadAll(f)
		f.Close()
		if err == nil && len(b) > 0 {
			fmt.Fprintf(&text, "\n--- end of %s\n%s", path, b)
		}
	}
	if text.Len() == 0 {
		return nil
	}
	return errors.New(text.String())
}

// relayRules hands every mail connection of customers to the relay's listener:
// packets of connections it has, and SYNs of new ones.
const relayRules = `table ip bench {
	chain pre {
		type filter hook prerouting priority mangle; policy accept;
		iifname "%s" tcp dport 25 tproxy to :2525 meta mark set 0x19 accept
	}
}
`

// relayRoutes deliver marked packets locally; the host's own are left out first.
const relayRoutes = `rule add pref 110 nop
rule add pref 90 iif lo goto 110
rule add pref 100 fwmark 0x19/0x19 lookup 100
route add local default dev lo table 100
`

func startRelay(ctx context.Context, b *bench, g *gate, _ options) error {
	if err := testbed.Exec(ctx, g.Namespace, fmt.Sprintf(relayRules, g.Customer), "nft", "-f", "-"); err != nil {
		return err
	}
	if err := testbed.Exec(ctx, g.Namespace, relayRoutes, "ip", "-batch", "-"); err != nil {
		return err
	}
	return b.launch(g, "barerelay", exec.Command(b.self, "barerelay"))
}
