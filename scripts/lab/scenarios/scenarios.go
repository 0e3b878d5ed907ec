// Package scenarios runs text files (testscript) against the lab's network, so
// that an operator can read and write tests of Sluice.
//
// Each file gets a lab of its own. Beside testscript's commands (stdout, cmp,
// grep, ! and so on) there are:
//
//	swaks HOST ARG...                  the swaks client; fails unless it exits with 0
//	smtp HOST [FROM] TO FILE           play a dialogue, see Play
//	postfix HOST / exim HOST / mx NAME start a mail server
//	send HOST SENDER FILE RCPT...      hand a file to that host's mail server
//	wait-delivery HOST RCPT STATUS [PATTERN]  sent, deferred or bounced, with that reply
//	wait-message MX N                  until the MX stored N messages; prints their envelopes
//	same-message MX N FILE [SKIP]      the Nth is FILE byte for byte (lines end in CRLF), SKIP header lines at its top left out
//	ends-with MX N FILE                the Nth ends with FILE
//	mailbox HOST N                     until a mail server has delivered N messages locally
//	queue HOST / flush HOST / wait-empty HOST
//	script MX RULE...                  misbehave, see lab.Sink.Script
//	sessions MX                        prints what was said there
//	list ADDRESS                       into the DNS block list
//	on HOST COMMAND...                 run a program on a host
//	capture NAME HOST IFACE FILTER...  start; captured NAME ends it
//	expect NAME syn|attempt|rst N [from X] [to Y]   count in an ended capture
//	gateway [EXTRA]                    start Sluice, FILE EXTRA appended to its configuration
//	sluice ARG...                      the operator's command
//	gateway-do ACTION                  kill-sluiced, start-sluiced, restart-sluiced, kill-intercept,
//	                                   start-intercept, restart-intercept, reload, cleanup, stop
//
// mail servers are named by their host, those of the internet mx:postfix and
// mx:exim. The condition [sluice] holds when Sluice runs for the whole file.
package scenarios

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"sluice/scripts/lab"
)

// patience is how long one command of a scenario may take.
const patience = time.Minute

// Params make testscript run the files of a folder. With sluice, the gateway's
// programs (from $SLUICE_BIN, else built) run from the start.
func Params(dir string, sluice bool) testscript.Params {
	return testscript.Params{
		Dir:                 dir,
		Setup:               func(env *testscript.Env) error { return open(env, sluice) },
		Cmds:                commands(),
		RequireExplicitExec: true,
		Condition: func(cond string) (bool, error) {
			if cond == "sluice" {
				return sluice, nil
			}
			return false, fmt.Errorf("no condition %q", cond)
		},
	}
}

// world is what a running scenario has.
type world struct {
	lab      *lab.Lab
	gateway  *lab.Gateway
	servers  map[string]*lab.MTA
	captures map[string]*lab.Capture
	packets  map[string]lab.Packets
}

type worldKey struct{}

func open(env *testscript.Env, sluice bool) error {
	ctx, cancel := context.WithTimeout(context.Background(), 2*patience)
	defer cancel()
	l, err := lab.New(ctx, lab.Options{})
	if err != nil {
		return err
	}
	env.Defer(func() {
		if err := l.Close(); err != nil {
			env.T().Log("close the lab: ", err)
		}
	})
	w := &world{lab: l, servers: map[string]*lab.MTA{}, captures: map[string]*lab.Capture{}, packets: map[string]lab.Packets{}}
	env.Values[worldKey{}] = w
	if sluice {
		w.gateway, err = l.StartGateway(ctx, lab.GatewayOptions{Binaries: os.Getenv("SLUICE_BIN")})
	}
	return err
}
