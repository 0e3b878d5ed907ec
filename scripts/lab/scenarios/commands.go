package scenarios

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/rogpeppe/go-internal/testscript"

	"sluice/scripts/lab"
)

// call is one command of a scenario at work.
type call struct {
	*world
	ctx  context.Context
	args []string
	file func(name string) []byte // contents; ends the scenario when absent
	out  io.Writer
}

func (c *call) printf(format string, args ...any) error {
	_, err := fmt.Fprintf(c.out, format, args...)
	return err
}

// want checks the number of arguments; max < 0 is any.
func (c *call) want(least, most int) error {
	if n := len(c.args); n < least || (most >= 0 && n > most) {
		return fmt.Errorf("wrong number of arguments: %q", c.args)
	}
	return nil
}

// command makes a testscript command of a function; "!" asks it to fail.
func command(least, most int, f func(*call) error) func(*testscript.TestScript, bool, []string) {
	return func(ts *testscript.TestScript, neg bool, args []string) {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		c := &call{
			world: ts.Value(worldKey{}).(*world), ctx: ctx, args: args, out: ts.Stdout(),
			file: func(name string) []byte { return []byte(ts.ReadFile(name)) },
		}
		ts.Check(c.want(least, most))
		err := f(c)
		switch {
		case neg && err == nil:
			ts.Fatalf("did not fail")
		case !neg && err != nil:
			ts.Fatalf("%v", err)
		case neg:
			ts.Logf("fails as it should: %v", err)
		}
	}
}

func commands() map[string]func(*testscript.TestScript, bool, []string) {
	return map[string]func(*testscript.TestScript, bool, []string){
		"swaks":         command(1, -1, swaks),
		"on":            command(2, -1, on),
		"smtp":          command(3, 4, smtp),
		"postfix":       command(1, 1, func(c *call) error { return c.serve(c.lab.MX, c.startPostfix) }),
		"exim":          command(1, 1, func(c *call) error { return c.serve(c.lab.MX, c.lab.Exim) }),
		"mx":            command(1, 1, func(c *call) error { c.args[0] = "mx:" + c.args[0]; return c.serve(c.lab.MX, nil) }),
		"send":          command(4, -1, send),
		"wait-delivery": command(3, 4, waitDelivery),
		"wait-message":  command(2, 2, waitMessage),
		"same-message":  command(3, 4, sameMessage),
		"ends-with":     command(3, 3, endsWith),
		"mailbox":       command(2, 2, mailbox),
		"queue":         command(1, 1, queue),
		"flush":         command(1, 1, flush),
		"wait-empty":    command(1, 1, waitEmpty),
		"script":        command(1, -1, func(c *call) error { return c.lab.Sink(c.args[0]).Script(c.args[1:]...) }),
		"sessions":      command(1, 1, sessions),
		"list":          command(1, 1, func(c *call) error { return c.lab.List(c.ctx, c.args[0]) }),
		"capture":       command(3, -1, capture),
		"captured":      command(1, 1, captured),
		"expect":        command(3, 7, expect),
		"gateway":       command(0, 1, gateway),
		"gateway-do":    command(1, 1, gatewayDo),
		"sluice":        command(1, -1, sluice),
	}
}

func swaks(c *call) error {
	return c.ran(c.lab.Swaks(c.ctx, c.args[0], c.args[1:]...))
}

func on(c *call) error {
	return c.ran(c.lab.Exec(c.ctx, c.args[0], c.args[1:]...))
}

// ran shows a program's output and turns its exit code into an error.
func (c *call) ran(out lab.Output, err error) error {
	if err != nil {
		return err
	}
	if err := c.printf("%s%s", out.Stdout, out.Stderr); err != nil {
		return err
	}
	if out.Code != 0 {
		return fmt.Errorf("exit code %d: %s", out.Code, strings.TrimSpace(out.Stdout+out.Stderr))
	}
	return nil
}

func smtp(c *call) error {
	from, to := "", c.args[1]
	if len(c.args) == 4 {
		from, to = c.args[1], c.args[2]
	}
	conn, err := c.lab.Dial(c.ctx, c.args[0], from, to)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }() // the dialogue may have closed it
	text := c.file(c.args[len(c.args)-1])
	said, err := Play(lab.NewClient(conn), string(text), c.file)
	if printed := c.printf("%s", said); printed != nil {
		return printed
	}
	return err
}

func (c *call) startPostfix(ctx context.Context, host string) (*lab.MTA, error) {
	return c.lab.Postfix(ctx, host)
}

type starter func(context.Context, string) (*lab.MTA, error)

func (c *call) serve(mx, customer starter) error {
	name := c.args[0]
	start := customer
	bare, isMX := strings.CutPrefix(name, "mx:")
	if isMX {
		start = mx
	}
	m, err := start(c.ctx, bare)
	if err != nil {
		return err
	}
	c.servers[name] = m
	return nil
}

func (c *call) server(name string) (*lab.MTA, error) {
	m, ok := c.servers[name]
	if !ok {
		return nil, fmt.Errorf("no mail server was started on %s", name)
	}
	return m, nil
}

func send(c *call) error {
	m, err := c.server(c.args[0])
	if err != nil {
		return err
	}
	return m.Send(c.ctx, lab.Mail{From: strings.Trim(c.args[1], "<>"), Data: c.file(c.args[2]), To: c.args[3:]})
}

func waitDelivery(c *call) error {
	m, err := c.server(c.args[0])
	if err != nil {
		return err
	}
	pattern := "*"
	if len(c.args) == 4 {
		pattern = c.args[3]
	}
	all, err := m.WaitDeliveries(c.ctx, func(all []lab.Delivery) bool {
		for _, d := range lab.With(all, c.args[1], c.args[2]) {
			if glob(pattern, d.Reply) {
				return true
			}
		}
		return false
	})
	for _, d := range all {
		if err := c.printf("%s %s %s %s\n", d.Status, d.To, d.Relay, d.Reply); err != nil {
			return err
		}
	}
	return err
}

func waitMessage(c *call) error {
	n, err := strconv.Atoi(c.args[1])
	if err != nil {
		return err
	}
	all, err := c.lab.Sink(c.args[0]).Wait(c.ctx, n)
	for i, m := range all {
		if err := c.printf("%d peer=%v helo=%s tls=%v from=<%s> to=%s size=%d\n",
			i+1, m.Peer.Addr(), m.Helo, m.TLS, m.Sender(), strings.Join(m.Recipients(), ","), len(m.Data)); err != nil {
			return err
		}
	}
	return err
}

// message is the Nth message at an MX.
func (c *call) message(mx, nth string) ([]byte, error) {
	n, err := strconv.Atoi(nth)
	if err != nil {
		return nil, err
	}
	all, err := c.lab.Sink(mx).Wait(c.ctx, n)
	if err != nil {
		return nil, err
	}
	return all[n-1].Data, nil
}

func sameMessage(c *call) error {
	got, err := c.message(c.args[0], c.args[1])
	if err != nil {
		return err
	}
	if len(c.args) == 4 {
		skip, err := strconv.Atoi(c.args[3])
		if err != nil {
			return err
		}
		for range skip {
			_, got, _ = bytes.Cut(got, []byte("\r\n"))
		}
	}
	if want := crlf(c.file(c.args[2])); !bytes.Equal(got, want) {
		return fmt.Errorf("it arrived as %q, not %q", got, want)
	}
	return nil
}

func endsWith(c *call) error {
	got, err := c.message(c.args[0], c.args[1])
	if err != nil {
		return err
	}
	if want := crlf(c.file(c.args[2])); !bytes.HasSuffix(got, want) {
		return fmt.Errorf("%q does not end with %q", got, want)
	}
	return nil
}

// crlf gives the lines of a scenario's file the line ends of mail.
func crlf(data []byte) []byte {
	return bytes.ReplaceAll(bytes.ReplaceAll(data, []byte("\r\n"), []byte("\n")), []byte("\n"), []byte("\r\n"))
}

func mailbox(c *call) error {
	m, err := c.server(c.args[0])
	if err != nil {
		return err
	}
	n, err := strconv.Atoi(c.args[1])
	if err != nil {
		return err
	}
	all, err := m.WaitMailbox(c.ctx, n)
	for _, data := range all {
		if err := c.printf("%s\n", data); err != nil {
			return err
		}
	}
	return err
}

func queue(c *call) error {
	m, err := c.server(c.args[0])
	if err != nil {
		return err
	}
	entries, err := m.Queue(c.ctx)
	for _, e := range entries {
		for _, r := range e.Recipients {
			if err := c.printf("<%s> to %s: %s\n", e.Sender, r.Address, r.Reason); err != nil {
				return err
			}
		}
	}
	return err
}

func flush(c *call) error {
	m, err := c.server(c.args[0])
	if err != nil {
		return err
	}
	return m.Flush(c.ctx)
}

func waitEmpty(c *call) error {
	m, err := c.server(c.args[0])
	if err != nil {
		return err
	}
	return m.WaitEmpty(c.ctx)
}

func sessions(c *call) error {
	for i, s := range c.lab.Sink(c.args[0]).Sessions() {
		if err := c.printf("session %d from %v (%s)\n%s\n", i+1, s.Peer.Addr(), s.End, strings.Join(s.Lines, "\n")); err != nil {
			return err
		}
	}
	return nil
}
