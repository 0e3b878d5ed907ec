//go:build labtest

package lab

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

const (
	aheadSize = 24 << 20 // of the large messages
	aheadBad  = 6 << 20  // of the bad one: the checks see all of it
)

// aheadLetter is a letter with a large attachment, which ends with a line of text.
func aheadLetter(subject string, size int, last string) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "From: Alice <a@alice.example>\r\nTo: <u@far.example>\r\nSubject: %s\r\nMessage-ID: <%[1]s@alice.example>\r\n"+
		"Date: Sun, 22 Nov 2026 10:00:00 +0000\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\n"+
		"Hello Bob, here are the drawings of the new hall that we spoke about on Tuesday. See you on Friday, Alice\r\n"+
		"--b\r\nContent-Type: application/octet-stream; name=hall.dwg\r\nContent-Transfer-Encoding: base64\r\n\r\n", subject)
	for line := []byte(strings.Repeat("QUJDREVG", 9) + "QUJD\r\n"); b.Len() < size; b.Write(line) {
	}
	fmt.Fprintf(&b, "--b\r\nContent-Type: text/plain; name=last.txt\r\n\r\n%s\r\n--b--\r\n", last)
	return b.Bytes()
}

// TestLargeMessagesGoAhead: with delivery.stream a real server has a large message, but for its end, before its client has sent
// the end, and the client waits less behind it. What turns out to be bad in its last attachment, or is cut by a kill, leaves
// nothing there; and whose message was bad sends the next one as without the setting.
func TestLargeMessagesGoAhead(t *testing.T) {
	t.Parallel()
	ctx, l := testContext(t), ForTest(t, Options{})
	config := strings.Replace(GatewayConfig, "[delivery]", "[delivery]\nstream = \"1MiB\"", 1)
	g := startGatewayWith(t, l, strings.Replace(config, "[smtp]", "[smtp]\nbody_memory = \"8MiB\"", 1))
	m, err := l.MXWith(ctx, "postfix", "message_size_limit = 0", "mailbox_size_limit = 0")
	if err != nil {
		t.Fatal(err)
	}
	a := &ahead{ctx: ctx, t: t, l: l, mx: m}
	const times = 2
	var early, late time.Duration
	for i := range times {
		early += a.good("alice", fmt.Sprint("early", i), true)
	}
	all, err := m.WaitMailbox(ctx, times)
	if err != nil {
		t.Fatal(err)
	}
	for i, mail := range all {
		if want := aheadLetter(fmt.Sprint("early", i), aheadSize, "the end"); !bytes.HasSuffix(bytes.ReplaceAll(mail, []byte("\r\n"), []byte("\n")), bytes.ReplaceAll(want[bytes.Index(want, []byte("\r\n\r\n")):], []byte("\r\n"), []byte("\n"))) {
			t.Errorf("message %d of %d bytes is not the one that was sent", i, len(mail))
		}
	}
	bad := aheadLetter("bad", aheadBad, gtubeLine)
	c := a.begin("bob", bad, true)
	if r, err := c.Cmd("."); err != nil || r.Code != 550 || !strings.Contains(r.Raw, "[GTUBE]") {
		t.Errorf("the bad one hears %v, %v", r, err)
	}
	for i := range times {
		late += a.good("bob", fmt.Sprint("late", i), false)
	}
	t.Logf("from the final dot to its answer, %d messages of %d MiB: %v, else %v", times, aheadSize>>20, early, late)
	if early >= late {
		t.Errorf("clients waited %v for their answers, and %v where nothing goes ahead", early, late)
	}
	c = a.begin("alice", aheadLetter("killed", aheadSize, "the end"), true)
	if err := g.Sluiced.Kill(); err != nil {
		t.Fatal(err)
	}
	if r, err := c.Cmd("."); err == nil {
		t.Errorf("behind a kill the client hears %v", r)
	}
	if err := g.StartSluiced(ctx); err != nil {
		t.Fatal(err)
	}
	a.good("alice", "after", true)
	if all, err = m.WaitMailbox(ctx, 2*times+1); err != nil {
		t.Fatal(err)
	}
	for _, mail := range all {
		if bytes.Contains(mail, []byte("GTUBE")) || bytes.Contains(mail, []byte("Subject: killed")) {
			t.Errorf("the server has %.300s", mail)
		}
	}
	if log, err := os.ReadFile(m.LogPath()); err != nil || len(all) != 2*times+1 || strings.Count(string(log), "lost connection after DATA") != 2 {
		t.Errorf("%d messages, %v; the server saw %d connections end within a message, want 2", len(all), err, strings.Count(string(log), "lost connection after DATA"))
	}
}

// ahead sends large messages and watches when they cross the gateway.
type ahead struct {
	ctx context.Context
	t   *testing.T
	l   *Lab
	mx  *MTA
}

// good sends a message and gives the time from its final dot to 250.
func (a *ahead) good(host, subject string, early bool) time.Duration {
	a.t.Helper()
	c := a.begin(host, aheadLetter(subject, aheadSize, "the end"), early)
	dot := time.Now()
	if r, err := c.Cmd("."); err != nil || r.Code != 250 {
		a.t.Fatalf("%s hears %v, %v", subject, r, err)
	}
	waited := time.Since(dot)
	if err := c.Quit(); err != nil {
		a.t.Error(err)
	}
	return waited
}

// begin sends a message but for its end, and looks whether it crosses the gateway.
func (a *ahead) begin(host string, letter []byte, early bool) *Client {
	a.t.Helper()
	c, err := a.l.Hello(a.ctx, host, "", a.mx.mx.V4().String()+":25")
	if err != nil {
		a.t.Fatal(err)
	}
	a.t.Cleanup(func() { _ = c.Close() })
	for _, cmd := range []string{"MAIL FROM:<a@alice.example>", "RCPT TO:<u@" + a.mx.domain + ">", "DATA"} {
		if r, err := c.Cmd(cmd); err != nil || r.Code/100 > 3 {
			a.t.Fatalf("%s: %v, %v", cmd, r, err)
		}
	}
	before := a.crossed()
	if _, err := c.Write(letter); err != nil {
		a.t.Fatal(err)
	}
	if !early {
		if n := a.crossed() - before; n > aheadSize/10 {
			a.t.Errorf("%d bytes went ahead", n)
		}
		return c
	}
	want := int64(len(letter)) - 128<<10 // what does not fill a buffer waits
	if err := poll(a.ctx, func() (bool, error) { return a.crossed()-before > want, nil }); err != nil {
		a.t.Fatalf("of %d bytes %d went ahead: %v", len(letter), a.crossed()-before, err)
	}
	return c
}

// crossed is how many bytes have come to the internet from the gateway.
func (a *ahead) crossed() int64 {
	n, err := a.l.fromGateway()
	if err != nil {
		a.t.Fatal(err)
	}
	return n
}

// fromGateway is how many bytes have come to the internet from the gateway.
func (l *Lab) fromGateway() (n int64, err error) {
	err = l.In(HostInternet, func() error {
		text, err := os.ReadFile("/proc/thread-self/net/dev")
		_, line, _ := strings.Cut(string(text), "gw0:")
		if _, serr := fmt.Sscan(line, &n); err == nil {
			err = serr
		}
		return err
	})
	return n, err
}
