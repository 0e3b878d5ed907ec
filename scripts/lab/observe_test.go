//go:build labtest

package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// observedRecord is what this test reads of a record of the log.
type observedRecord struct {
	User, Helo, From, Class, Remote, Note string
	Client, Target                        netip.AddrPort
	To                                    []struct {
		Address string
		Code    int
	}
}

// watched is the usual configuration where every customer is in mode observe.
var watched = strings.Replace(GatewayConfig, `name = "{{.Name}}"`, `name = "{{.Name}}"
mode = "observe"`, 1)

// observedRecords waits until the log holds n observed records that f wants.
func observedRecords(ctx context.Context, t *testing.T, g *Gateway, n int, f func(observedRecord) bool) []observedRecord {
	t.Helper()
	for {
		var all, got []observedRecord
		if err := sluiceJSON(ctx, g, &all, "log", "--status", "observed", "--limit", "500"); err != nil {
			t.Fatal(err)
		}
		for _, m := range all {
			if f(m) {
				got = append(got, m)
			}
		}
		if len(got) >= n {
			return got
		}
		if err := sleep(ctx, 50*time.Millisecond); err != nil {
			t.Fatalf("%d of %d observed records came: %+v", len(got), n, all)
		}
	}
}

// TestObserve: mail of customers in mode observe goes its way untouched, and the log tells what was said.
func TestObserve(t *testing.T) {
	t.Parallel()
	ctx, l := testContext(t), ForTest(t, Options{})
	g := startGatewayWith(t, l, watched)
	p, err := g.StartObserve(ctx)
	if err != nil {
		t.Fatal(err)
	}
	unprivileged(t, readerOf(t, p))
	body := []byte("Subject: seen\r\n\r\n.\r\n..\r\nMAIL FROM:<inside@body.example>\r\n")
	rawDialogue(ctx, t, l, g, body)
	encrypted(ctx, t, l, g)
	realServer(ctx, t, l, g)

	var u struct {
		Observed *struct {
			Flows, Opaque int
			OpaqueShare   float64 `json:"opaque_share"`
		}
	}
	if err := sluiceJSON(ctx, g, &u, "users", "show", "bob"); err != nil {
		t.Fatal(err)
	}
	if u.Observed == nil || u.Observed.Flows != 1 || u.Observed.Opaque != 1 || u.Observed.OpaqueShare != 1 {
		t.Errorf("bob sent under STARTTLS only, and is counted as %+v", u.Observed)
	}
	deadObserver(ctx, t, l, g, p, body)
}

// rawDialogue: what the record says is what the MX heard and said, over both families, for small and large messages.
func rawDialogue(ctx context.Context, t *testing.T, l *Lab, g *Gateway, body []byte) {
	if err := l.Sink("sink").Script("rcpt@bad*: reply 550 5.1.1 no such user"); err != nil {
		t.Fatal(err)
	}
	large := append(bytes.Clone(body), bytes.Repeat([]byte(strings.Repeat("0123456789abcdef", 4)+"\r\n"), 1000)...)
	n := 0
	for _, to := range []string{"198.51.100.20:25", "[2001:db8:100::20]:25"} {
		for _, b := range [][]byte{body, large} {
			n++
			from, rcpt := fmt.Sprintf("a%d@alice.example", n), fmt.Sprintf("raw%d@sink.example", n)
			c, err := l.Hello(ctx, "alice", "", to)
			if err != nil {
				t.Fatal(err)
			}
			rcpts, last, err := c.Send(from, []string{rcpt, "bad@sink.example"}, b)
			if err != nil || last.Code != 250 || len(rcpts) != 2 || rcpts[1].Code != 550 {
				t.Fatalf("to %s: %v, %v, %v", to, rcpts, last, err)
			}
			if err := c.Quit(); err != nil {
				t.Error(err)
			}
			m := messageTo(ctx, t, l, rcpt)
			if !bytes.Equal(m.Data, b) {
				t.Errorf("%d bytes arrived instead of %d: the message was touched", len(m.Data), len(b))
			}
			rec := observedRecords(ctx, t, g, 1, func(r observedRecord) bool { return r.From == from })[0]
			class := "clean"
			if len(b) == len(large) { // read in part only
				class = "unjudged"
			}
			want := fmt.Sprintf("alice mail.alice.example [{%s 250} {bad@sink.example 550}] %s", rcpt, class)
			var heard []string
			for _, r := range rec.To {
				heard = append(heard, fmt.Sprintf("{%s %d}", r.Address, r.Code))
			}
			if got := fmt.Sprintf("%s %s [%s] %s", rec.User, rec.Helo, strings.Join(heard, " "), rec.Class); got != want {
				t.Errorf("the record says %q, want %q", got, want)
			}
			if unmapped(rec.Client) != unmapped(m.Peer) || unmapped(rec.Target) != unmapped(m.Local) || rec.Remote != m.Reply || rec.Remote != last.String() {
				t.Errorf("the record tells of %v to %v, %q; the MX of %v to %v, %q, the client of %q", rec.Client, rec.Target, rec.Remote, m.Peer, m.Local, m.Reply, last)
			}
			if unmapped(m.Peer).Addr() != netip.MustParseAddr("192.0.2.10") && unmapped(m.Peer).Addr() != netip.MustParseAddr("2001:db8:1::10") {
				t.Errorf("the MX was reached from %v, not from alice's own address", m.Peer)
			}
		}
	}
}

func unmapped(a netip.AddrPort) netip.AddrPort { return netip.AddrPortFrom(a.Addr().Unmap(), a.Port()) }

// encrypted: what goes under STARTTLS is opaque, never clean, and none of it is in the log.
func encrypted(ctx context.Context, t *testing.T, l *Lab, g *Gateway) {
	c, err := l.Hello(ctx, "bob", "", "198.51.100.21:25")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.StartTLS(); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Cmd("EHLO mail.bob.example"); err != nil {
		t.Fatal(err)
	}
	if _, last, err := c.Send("secret@bob.example", []string{"x@selfsigned.example"}, []byte("Subject: secret\r\n\r\nx\r\n")); err != nil || last.Code != 250 {
		t.Fatal(last, err)
	}
	if err := c.Quit(); err != nil {
		t.Error(err)
	}
	all := observedRecords(ctx, t, g, 1, func(r observedRecord) bool { return r.User == "bob" })
	if len(all) != 1 || all[0].Class != "opaque" || all[0].From != "" || len(all[0].To) != 0 || !strings.Contains(all[0].Note, "STARTTLS") {
		t.Errorf("an encrypted flow is told as %+v", all)
	}
}

// realServer: the same of Debian's Postfix, which pipelines.
func realServer(ctx context.Context, t *testing.T, l *Lab, g *Gateway) {
	m, err := l.Postfix(ctx, "dave")
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Send(ctx, Mail{From: "p@dave.example", To: []string{"post1@sink.example", "post2@sink.example"}, Data: letter("dave", "1")}); err != nil {
		t.Fatal(err)
	}
	got := messageTo(ctx, t, l, "post1@sink.example")
	rec := observedRecords(ctx, t, g, 1, func(r observedRecord) bool { return r.From == "p@dave.example" })[0]
	if len(rec.To) != 2 || rec.To[0].Code != 250 || rec.To[1].Code != 250 || rec.Remote != got.Reply || rec.Helo != got.Helo || unmapped(rec.Client) != unmapped(got.Peer) {
		t.Errorf("the record is %+v, the MX has %+v", rec, *got)
	}
}

// deadObserver: mail does not notice that nobody observes it any more.
func deadObserver(ctx context.Context, t *testing.T, l *Lab, g *Gateway, p *Process, body []byte) {
	c, err := l.Hello(ctx, "alice", "", "198.51.100.20:25")
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Kill(); err != nil {
		t.Fatal(err)
	}
	for i, open := range []bool{true, false} {
		if !open {
			if c, err = l.Hello(ctx, "alice", "", "198.51.100.20:25"); err != nil {
				t.Fatal(err)
			}
		}
		rcpt := fmt.Sprintf("dead%d@sink.example", i)
		if _, last, err := c.Send("a@alice.example", []string{rcpt}, body); err != nil || last.Code != 250 {
			t.Fatalf("with the observer dead: %v %v", last, err)
		}
		if err := c.Quit(); err != nil {
			t.Error(err)
		}
		if m := messageTo(ctx, t, l, rcpt); !bytes.Equal(m.Data, body) {
			t.Errorf("with the observer dead, %d bytes arrived instead of %d", len(m.Data), len(body))
		}
	}
	// Another one goes on by itself.
	again, err := g.StartObserve(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if c, err = l.Hello(ctx, "alice", "", "198.51.100.20:25"); err != nil {
		t.Fatal(err)
	}
	if _, last, err := c.Send("again@alice.example", []string{"again@sink.example"}, body); err != nil || last.Code != 250 {
		t.Fatal(last, err)
	}
	if err := c.Quit(); err != nil {
		t.Error(err)
	}
	observedRecords(ctx, t, g, 1, func(r observedRecord) bool { return r.From == "again@alice.example" })
	lateInterface(ctx, t, l, g, again, body)
}

// readerOf is the process that a keeper hands packets to.
func readerOf(t *testing.T, keeper *Process) (pid int) {
	t.Helper()
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", keeper.Pid()))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		if n, _ := fmt.Sscan(string(b), &pid); n == 1 {
			return pid
		}
	}
	t.Fatal("there is no reader")
	return 0
}

// unprivileged: what reads strangers' bytes has no right left, in none of its threads.
func unprivileged(t *testing.T, pid int) {
	t.Helper()
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", pid))
	if err != nil || len(threads) == 0 {
		t.Fatalf("no threads: %v", err)
	}
	for _, file := range threads {
		b, err := os.ReadFile(file)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{"Uid:\t65534\t65534\t65534\t65534\n", "Gid:\t65534\t65534\t65534\t65534\n", "NoNewPrivs:\t1\n",
			"CapEff:\t0000000000000000\n", "CapPrm:\t0000000000000000\n", "CapAmb:\t0000000000000000\n"} {
			if !strings.Contains(string(b), want) {
				t.Errorf("%s does not say %q", file, want)
			}
		}
	}
}

// lateInterface: an interface that appears is observed as well.
func lateInterface(ctx context.Context, t *testing.T, l *Lab, g *Gateway, p *Process, body []byte) {
	late := Customer{Name: "late", V4: netip.MustParseAddr("192.0.2.90"), V6: netip.MustParseAddr("2001:db8:90::90")}
	if err := l.AddCustomer(ctx, late); err != nil {
		t.Fatal(err)
	}
	if err := g.Configure(watched, ""); err != nil {
		t.Fatal(err)
	}
	if err := g.Reload(); err != nil {
		t.Fatal(err)
	}
	for { // until the reload has come to the kernel, and the observer to the interface
		c, err := l.Hello(ctx, "late", "", "198.51.100.20:25")
		if err != nil {
			t.Fatal(err)
		}
		if _, last, err := c.Send("late@late.example", []string{"late@sink.example"}, body); err != nil || last.Code != 250 {
			t.Fatal(last, err)
		}
		if err := c.Quit(); err != nil {
			t.Error(err)
		}
		mine := unmapped(messageTo(ctx, t, l, "late@sink.example").Peer).Addr() == late.V4
		l.Sink("sink").Reset()
		var all []observedRecord
		if err := sluiceJSON(ctx, g, &all, "log", "--from", "late@late.example", "--status", "observed"); err != nil {
			t.Fatal(err)
		}
		if mine && len(all) > 0 {
			break
		}
	}
	if err := p.Stop(ctx); err != nil {
		t.Error(err)
	}
}
