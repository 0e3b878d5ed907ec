//go:build labtest

package lab

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// silentConfig has the shortest patience that may be set. Bob's mail leaves from his own address.
var silentConfig = strings.NewReplacer(
	"[delivery]", "[delivery]\nconnect_timeout = \"1s\"\ncommand_timeout = \"10s\"\nanswer_timeout = \"30s\"",
	`name = "{{.Name}}"`, "name = \"{{.Name}}\"{{if eq .Name \"bob\"}}\ndelivery = \"own\"{{end}}",
).Replace(unjudged)

// silence is a destination that says nothing at some point, and what a client and the log make of it.
type silence struct {
	host   string
	to     string
	peer   string // the scripted one there; "" for none
	script string
	at     int // the command of silentWords that is answered so
	want   string
	least  time.Duration
	status string
	left   bool // the message is at the destination
}

var silentWords = []string{"EHLO mail.mallory.example", "MAIL FROM:<a@mallory.example>", "RCPT TO:<u@peer.example>", "DATA", "Subject: x\r\n\r\nx\r\n."}

// TestSilentDestinations: a destination that does not accept a connection, greet or answer is given up after the time that
// is set, once. Before it is ready for mail the client hears 421 4.4.1 and is let go, so that he tries his next exchanger;
// else he hears 451 4.4.2 and may go on. What was silent behind the final dot is ambiguous in the log, as the destination
// may have it. The client's next try is delivered.
func TestSilentDestinations(t *testing.T) {
	t.Parallel()
	ctx, l := testContext(t), ForTest(t, Options{})
	g := startGatewayWith(t, l, silentConfig)
	const gone, lost = "421 4.4.1 gw.example: ", "451 4.4.2 gw.example: "
	var wg sync.WaitGroup
	defer wg.Wait()
	for _, c := range []silence{
		{"bob", "198.51.100.42:25", "", "", 0, gone, time.Second, "no-message", false},
		{"bob", "[2001:db8:100::42]:25", "", "", 0, gone, time.Second, "no-message", false},
		{"bob", "198.51.100.109:25", "peer09", "connect: stall", 0, gone, 10 * time.Second, "no-message", false},
		{"bob", "[2001:db8:100::110]:25", "peer10", "dot: stall", 4, lost, 30 * time.Second, "ambiguous", false},
		{"mallory", "198.51.100.42:25", "", "", 0, gone, time.Second, "no-message", false},
		{"mallory", "[2001:db8:100::42]:25", "", "", 0, gone, time.Second, "no-message", false},
		{"mallory", "198.51.100.101:25", "peer01", "connect: stall", 0, gone, 10 * time.Second, "no-message", false},
		{"mallory", "[2001:db8:100::102]:25", "peer02", "connect: raw 220-wait | stall", 0, gone, 10 * time.Second, "no-message", false},
		{"mallory", "198.51.100.103:25", "peer03", "ehlo: stall", 0, gone, 10 * time.Second, "no-message", false},
		{"mallory", "198.51.100.104:25", "peer04", "mail: stall", 2, lost, 10 * time.Second, "deferred", false},
		{"mallory", "[2001:db8:100::105]:25", "peer05", "rcpt: stall", 2, lost, 10 * time.Second, "deferred", false},
		{"mallory", "198.51.100.106:25", "peer06", "data: stall", 4, lost, 10 * time.Second, "deferred", false},
		{"mallory", "198.51.100.107:25", "peer07", "dot: stall", 4, lost, 30 * time.Second, "ambiguous", false},
		{"mallory", "[2001:db8:100::108]:25", "peer08", "dot: store | raw 250-wait | stall", 4, lost, 30 * time.Second, "ambiguous", true},
	} {
		if c.peer != "" {
			if err := l.Sink(c.peer).Script(c.script); err != nil {
				t.Fatal(err)
			}
		}
		wg.Go(func() {
			if err := errors.Join(c.drive(ctx, l), c.logged(ctx, g)); err != nil {
				t.Errorf("%s to %s, %q: %v", c.host, c.to, c.script, err)
			}
		})
	}
}

// TestSilentAtSTARTTLS: a destination that offers STARTTLS and says nothing to it gets the mail as it would have come without
// the gateway, in plain text.
func TestSilentAtSTARTTLS(t *testing.T) {
	t.Parallel()
	ctx, l := testContext(t), ForTest(t, Options{})
	startGateway(t, l, "")
	mx := l.Sink("selfsigned")
	if err := mx.Script("starttls: stall"); err != nil {
		t.Fatal(err)
	}
	x, err := l.SMTP(ctx, "alice", "", "198.51.100.21:25")
	if err != nil {
		t.Fatal(err)
	}
	defer x.Close()
	x.Timeout(time.Minute)
	if r, err := x.Cmd("EHLO mail.alice.example"); err != nil || r.Code != 250 || strings.Contains(r.Raw, "STARTTLS") {
		t.Fatalf("EHLO is answered %s, %v", r, err)
	}
	if _, last, err := x.Send("a@alice.example", []string{"u@selfsigned.example"}, letter("alice", "plain")); err != nil || last.Code != 250 {
		t.Fatalf("the message hears %s, %v", last, err)
	}
	if all := mx.Messages(); len(all) != 1 || all[0].TLS || len(mx.Sessions()) != 2 {
		t.Errorf("%d messages arrived in %d sessions, want one in plain text by the second", len(all), len(mx.Sessions()))
	}
}

// TestServersTryAgainWhatWentSilent: mail servers whose destination took a message and did not say so keep it and deliver it
// the next time. It is there twice then, and the log says of which message that may be.
func TestServersTryAgainWhatWentSilent(t *testing.T) {
	t.Parallel()
	ctx, l := testContext(t), ForTest(t, Options{})
	g := startGatewayWith(t, l, silentConfig)
	postfix, err := l.Postfix(ctx, "alice")
	if err != nil {
		t.Fatal(err)
	}
	exim, err := l.Exim(ctx, "dave")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	for name, m := range map[string]*MTA{"v4only": postfix, "v6only": exim} { // at a second address they would try again at once
		mx := l.Sink(name)
		if err := mx.Script("dot: store | stall"); err != nil {
			t.Fatal(err)
		}
		wg.Go(func() {
			if err := triedAgain(ctx, g, m, mx); err != nil {
				t.Errorf("%s: %v", m.host, err)
			}
		})
	}
}

// triedAgain has a server send to a destination that is silent behind the final dot at first.
func triedAgain(ctx context.Context, g *Gateway, m *MTA, mx *Sink) error {
	to := "u@" + mx.mx.Domain()
	if err := m.Send(ctx, Mail{From: "a@" + m.domain, To: []string{to}, Data: letter(m.host, "silent")}); err != nil {
		return err
	}
	tried, err := m.WaitDeliveries(ctx, func(all []Delivery) bool { return len(With(all, to, "")) > 0 })
	if err != nil {
		return err
	}
	if d := With(tried, to, "")[0]; d.Status != Deferred || !strings.HasPrefix(d.Reply, "451 4.4.2 ") {
		return fmt.Errorf("at first it is %s, %q", d.Status, d.Reply)
	}
	if err := errors.Join(mx.Script(), flushUntilSent(ctx, m, to)); err != nil {
		return err
	}
	if n := len(mx.Messages()); n != 2 {
		return fmt.Errorf("%d messages arrived, want the one that was silent and another try", n)
	}
	for _, status := range []string{"ambiguous", "delivered"} {
		var all []struct{ To []struct{ Address string } }
		if !eventually(ctx, func() bool {
			all = nil
			return sluiceJSON(ctx, g, &all, "log", "--user", m.host, "--status", status) != nil || len(all) > 0
		}) || len(all) != 1 || len(all[0].To) != 1 || all[0].To[0].Address != to {
			return fmt.Errorf("%s in the log: %+v", status, all)
		}
	}
	return nil
}

// drive leads a dialogue up to the command that the destination leaves unanswered, and tries again once it answers.
func (c *silence) drive(ctx context.Context, l *Lab) error {
	x, err := l.SMTP(ctx, c.host, "", c.to)
	if err != nil {
		return err
	}
	defer x.Close()
	x.Timeout(2 * time.Minute)
	if err := c.unanswered(x); err != nil {
		return err
	}
	if c.peer == "" {
		return nil
	}
	mx, kept := l.Sink(c.peer), 0
	if c.left {
		kept++
	}
	if len(mx.Messages()) != kept || len(mx.Sessions()) != 1 {
		return fmt.Errorf("%d messages arrived in %d sessions, want %d in one", len(mx.Messages()), len(mx.Sessions()), kept)
	}
	if err := mx.Script(); err != nil {
		return err
	}
	if c.let() {
		if x, err = l.Hello(ctx, c.host, "", c.to); err != nil {
			return err
		}
		defer x.Close()
	}
	_, last, err := x.Send("a@mallory.example", []string{"u@peer.example"}, []byte("Subject: x\r\n\r\nx\r\n"))
	if err != nil || last.Code != 250 || len(mx.Messages()) != kept+1 {
		return fmt.Errorf("the next try hears %s, %v, and %d messages arrived, not %d", last, err, len(mx.Messages()), kept+1)
	}
	return x.Quit()
}

// let tells whether the client is let go.
func (c *silence) let() bool { return strings.HasPrefix(c.want, "421") }

func (c *silence) unanswered(x *Client) error {
	for i, cmd := range silentWords[:c.at+1] {
		began := time.Now()
		r, err := x.Cmd(cmd)
		switch {
		case err != nil:
			return err
		case i < c.at && r.Code >= 400:
			return fmt.Errorf("%q is answered %s", cmd, r)
		case i < c.at:
			continue
		case !strings.HasPrefix(r.Raw, c.want):
			return fmt.Errorf("%q is answered %s, not %s", cmd, r, c.want)
		}
		// A connection may be on its way since the greeting. Usual are 25 s, two, four and nine minutes.
		if took := time.Since(began); took < c.least-time.Second || took > c.least+20*time.Second {
			return fmt.Errorf("the answer took %v, the time is %v", took, c.least)
		}
	}
	if c.let() {
		if r, err := x.Reply(); err == nil {
			return fmt.Errorf("behind 421 the client hears %s", r)
		}
		return nil
	}
	for _, cmd := range []string{"RSET", "NOOP"} {
		if r, err := x.Cmd(cmd); err != nil || r.Code != 250 {
			return errors.Join(err, fmt.Errorf("%s is answered %s", cmd, r))
		}
	}
	return nil
}

// logged finds what the log says: of the silence, and of the try that was delivered.
func (c *silence) logged(ctx context.Context, g *Gateway) error {
	want := []string{"delivered", c.status} // newest first
	if c.peer == "" {
		want = want[1:]
	}
	var all []struct {
		Target              netip.AddrPort
		Status, Reply, Note string
	}
	var got []string
	says := ""
	if !eventually(ctx, func() bool {
		got, all = nil, nil
		err := sluiceJSON(ctx, g, &all, "log", "--user", c.host)
		for _, e := range all {
			if e.Target == netip.MustParseAddrPort(c.to) {
				got = append(got, e.Status)
				if e.Status == c.status {
					says = e.Reply + " / " + e.Note
				}
			}
		}
		return err != nil || len(got) >= len(want)
	}) || !slices.Equal(got, want) || !strings.HasPrefix(says, c.want) || !strings.Contains(says, "the destination") {
		return fmt.Errorf("the log says %q, of the silence %q; want %q", got, says, want)
	}
	return nil
}

// TestTheQueueAndSilence: a destination that is silent is given up after the time that is set, and its mail kept for the next try.
// Where it was silent behind the final dot the log says that it may have the message, which is there twice then.
func TestTheQueueAndSilence(t *testing.T) {
	t.Parallel()
	ctx, l := testContext(t), ForTest(t, Options{})
	smarthost := strings.Replace(strings.TrimPrefix(smarthostConfig, GatewayConfig), "callout = true\n", "", 1) // nobody waits at RCPT
	g := startGatewayWith(t, l, silentConfig+smarthost)
	var wg sync.WaitGroup
	defer wg.Wait()
	for _, c := range []struct{ mx, script, status string }{
		{"v4only", "dot: store | stall", "ambiguous"},
		{"v6only", "connect: stall", "deferred"},
		{"selfsigned", "rcpt: stall", "deferred"},
	} {
		if err := l.Sink(c.mx).Script(c.script); err != nil {
			t.Fatal(err)
		}
		wg.Go(func() {
			if err := silentInTheQueue(ctx, l, g, c.mx, c.status); err != nil {
				t.Errorf("%s, %q: %v", c.mx, c.script, err)
			}
		})
	}
}

func silentInTheQueue(ctx context.Context, l *Lab, g *Gateway, name, status string) error {
	mx := l.Sink(name)
	x, err := l.Hello(ctx, "alice", "", "203.0.113.1:587")
	if err != nil {
		return err
	}
	defer x.Close()
	if _, last, err := x.Send("a@alice.example", []string{"u@" + mx.mx.Domain()}, letter("alice", name)); err != nil || last.Code != 250 {
		return fmt.Errorf("it hears %s, %v", last, err)
	}
	tried := func(status string) (notes []string) {
		var all []struct {
			Note string
			To   []struct{ Address string }
		}
		eventually(ctx, func() bool {
			all, notes = nil, nil
			err := sluiceJSON(ctx, g, &all, "log", "--user", "alice", "--status", status, "--limit", "1000")
			for _, e := range all {
				if len(e.To) == 1 && e.To[0].Address == "u@"+mx.mx.Domain() {
					notes = append(notes, e.Note)
				}
			}
			return err != nil || len(notes) > 0
		})
		return notes
	}
	if notes := tried(status); len(notes) == 0 || !strings.Contains(notes[0], "did not answer in time") {
		return fmt.Errorf("%s in the log: %q", status, notes)
	}
	if err := mx.Script(); err != nil {
		return err
	}
	if out, err := g.Sluice(ctx, "queue", "retry", "--domain", mx.mx.Domain()); err != nil || out.Code != 0 { // its pause is a minute
		return errors.Join(err, fmt.Errorf("retry: %s", out.Stderr))
	}
	if notes := tried("delivered"); len(notes) != 1 {
		return fmt.Errorf("delivered %d times", len(notes))
	}
	want := 1
	if status == "ambiguous" {
		want++
	}
	if n := len(mx.Messages()); n != want {
		return fmt.Errorf("%d messages arrived, want %d", n, want)
	}
	return nil
}
