//go:build labtest

package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// The slow uploads: pieces of a message so long apart, all together well beyond the destinations' patience.
const (
	slowPieces   = 15
	slowGap      = 800 * time.Millisecond
	slowPatience = 8 * time.Second // of the real server, from one command to the next
)

// slowUpload is one client that takes its time with one message to one of Postfix's doors.
type slowUpload struct {
	id    string
	door  int // of the MX
	tls   bool
	chunk bool // BDAT, else DATA
}

var slowUploads = []slowUpload{
	{id: "tls4", door: 0, tls: true},
	{id: "tls6", door: 1, tls: true, chunk: true},
	{id: "bare4", door: 2},
	{id: "bare6", door: 3, chunk: true},
}

// slowLetter ends with a line for each piece. It is without a field that the delivering server would rewrite.
func slowLetter(id string) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "From: <a@mallory.example>\r\nTo: <b@example.net>\r\nSubject: %s\r\nMessage-ID: <%[1]s@mallory.example>\r\n"+
		"Date: Sat, 21 Nov 2026 10:00:00 +0000\r\n\r\n", id)
	for i := range slowPieces {
		fmt.Fprintf(&b, "..%d MAIL FROM:<a@b.example>\r\n", i)
	}
	return b.Bytes()
}

// TestSlowUploadsToARealServer uploads slowly to a Postfix that waits eight seconds for the next command. Where the gateway
// says NOOP in between, Postfix stays; where it does not, Postfix leaves in the midst of the upload and is asked again at
// its end. Either way the client hears 250 and the message is there once for each recipient.
func TestSlowUploadsToARealServer(t *testing.T) {
	t.Parallel()
	ctx := testContext(t)
	var wg sync.WaitGroup
	defer wg.Wait()
	for _, c := range []struct {
		noop  string
		stays bool
	}{{"1s", true}, {"75s", false}} {
		l := ForTest(t, Options{})
		startGatewayWith(t, l, slowConfig(c.noop))
		wg.Go(func() {
			if err := uploadSlowly(ctx, l, c.stays); err != nil {
				t.Errorf("%s between two NOOPs: %v", c.noop, err)
			}
		})
	}
}

// uploadSlowly has all uploads done at once and looks at what came of them.
func uploadSlowly(ctx context.Context, l *Lab, stays bool) error {
	m, err := l.MXWith(ctx, "postfix", fmt.Sprintf("smtpd_timeout = %v", slowPatience))
	if err != nil {
		return err
	}
	n := len(slowUploads)
	errs := make([]error, n)
	last := func() error { return nil }
	if !stays {
		last = func() error { return awaitTimeouts(ctx, m, n) }
	}
	var wg sync.WaitGroup
	for i, u := range slowUploads {
		wg.Go(func() {
			if err := u.play(ctx, l, m.doors()[u.door], last); err != nil {
				errs[i] = fmt.Errorf("%s: %w", u.id, err)
			}
		})
	}
	wg.Wait()
	if err := errors.Join(append(errs, onceEach(ctx, m))...); err != nil {
		return err
	}
	left, came, err := patience(m)
	if err == nil && (stays && (left != 0 || came != n) || !stays && (left != n || came != 2*n)) {
		err = fmt.Errorf("for %d uploads Postfix was connected to %d times and left %d times", n, came, left)
	}
	return err
}

// patience tells how often Postfix has run out of it behind the recipients, and how often it was connected to.
func patience(m *MTA) (left, came int, err error) {
	log, err := os.ReadFile(m.LogPath())
	return bytes.Count(log, []byte("]: timeout after RCPT ")), bytes.Count(log, []byte("]: connect from ")), err
}

// awaitTimeouts waits until Postfix has left n sessions.
func awaitTimeouts(ctx context.Context, m *MTA, n int) error {
	for {
		if left, _, err := patience(m); err != nil || left >= n {
			return err
		}
		if err := sleep(ctx, logPoll); err != nil {
			return fmt.Errorf("Postfix does not leave: %w", err)
		}
	}
}

// slowConfig is the lab's configuration with another time between two NOOPs.
func slowConfig(noop string) string {
	return strings.Replace(unjudged, "[smtp]", fmt.Sprintf("[smtp]\nnoop_interval = %q", noop), 1)
}

// play sends the message to two recipients; last is waited for before its end.
func (u slowUpload) play(ctx context.Context, l *Lab, door Door, last func() error) error {
	x, err := l.SMTP(ctx, "mallory", "", netip.AddrPortFrom(door.Addr, 25).String())
	if err != nil {
		return err
	}
	defer x.Close()
	if err := hello(x, u.tls); err != nil {
		return err
	}
	if err := slowEnvelope(x, u.id, door.Domain); err != nil {
		return err
	}
	if err := upload(ctx, x, slowLetter(u.id), u.chunk, last); err != nil {
		return err
	}
	if r, err := x.Reply(); err != nil || r.Code != 250 {
		return fmt.Errorf("the message heard %v, %v", r, err)
	}
	return x.Quit()
}

func slowRcpts(id, domain string) []string {
	return []string{"one-" + id + "@" + domain, "two-" + id + "@" + domain}
}

// slowEnvelope has two recipients accepted.
func slowEnvelope(x *Client, id, domain string) error {
	lines := []string{"MAIL FROM:<a@mallory.example>"}
	for _, rcpt := range slowRcpts(id, domain) {
		lines = append(lines, "RCPT TO:<"+rcpt+">")
	}
	for _, line := range lines {
		if r, err := x.Cmd(line); err != nil || r.Code != 250 {
			return fmt.Errorf("%s: %v, %v", line, r, err)
		}
	}
	return nil
}

// upload sends a message as one chunk or up to its dot: the head at once, and then a line or a part of one now and then.
func upload(ctx context.Context, x *Client, letter []byte, chunk bool, last func() error) error {
	wire := Stuff(letter)
	if chunk {
		wire = append(fmt.Appendf(nil, "BDAT %d LAST\r\n", len(letter)), letter...)
	} else if r, err := x.Cmd("DATA"); err != nil || r.Code != 354 {
		return fmt.Errorf("DATA: %v, %v", r, err)
	}
	body := bytes.Index(wire, []byte("\r\n\r\n")) + 4
	if _, err := x.Write(wire[:body]); err != nil {
		return err
	}
	end := len(wire) - len(".\r\n")
	for part := range slices.Chunk(wire[body:end], (end-body+slowPieces-1)/slowPieces) {
		if err := sleep(ctx, slowGap); err != nil { // the client's pace: the subject of the test
			return err
		}
		if _, err := x.Write(part); err != nil {
			return err
		}
	}
	if err := last(); err != nil {
		return err
	}
	_, err := x.Write(wire[end:])
	return err
}

// onceEach holds every letter to one copy for each of its recipients, whole.
func onceEach(ctx context.Context, m *MTA) error {
	if err := m.WaitEmpty(ctx); err != nil {
		return err
	}
	box, err := m.Mailbox()
	if err != nil {
		return err
	}
	for _, u := range slowUploads {
		whole := bytes.ReplaceAll(slowLetter(u.id), []byte("\r\n"), []byte("\n"))
		for _, rcpt := range slowRcpts(u.id, m.doors()[u.door].Domain) {
			n := 0
			for _, got := range box {
				if bytes.Contains(got, []byte("\nDelivered-To: "+rcpt+"\n")) && bytes.HasSuffix(got, whole) {
					n++
				}
			}
			if n != 1 {
				return fmt.Errorf("%s has the message %d times", rcpt, n)
			}
		}
	}
	if n := 2 * len(slowUploads); len(box) != n {
		return fmt.Errorf("%d messages arrived, not %d", len(box), n)
	}
	return nil
}

// TestDestinationChangesItsMind: one that leaves during a slow upload and then does not take what it had taken. The client
// hears 451 for all of it, and nothing is delivered. One that takes it again gets it once.
func TestDestinationChangesItsMind(t *testing.T) {
	t.Parallel()
	ctx, l := testContext(t), ForTest(t, Options{})
	startGatewayWith(t, l, slowConfig("1s"))
	var wg sync.WaitGroup
	defer wg.Wait()
	for i, c := range []struct{ then, want string }{
		{"rcpt@two*: reply 550 5.1.1 no such user", "451 4.4.2 "},
		{"rcpt@one*: reply 450 4.2.1 later", "451 4.4.2 "},
		{"mail: reply 550 5.7.1 not from you", "451 4.4.2 "},
		{"connect: reply 421 4.3.2 closing | close", "421 4.3.2 "},
		{"rset: ok", "250 2.0.0 "},
	} {
		for _, v6 := range []bool{false, true} {
			wg.Go(func() {
				peer := fmt.Sprintf("peer%02d", 2*i+1)
				if v6 {
					peer = fmt.Sprintf("peer%02d", 2*i+2)
				}
				if err := changedMind(ctx, l, peer, v6, c.then, c.want); err != nil {
					t.Errorf("%s, IPv6 %t: %v", c.then, v6, err)
				}
			})
		}
	}
}

func changedMind(ctx context.Context, l *Lab, peer string, v6 bool, then, want string) error {
	mx, err := HostMX(peer)
	if err != nil {
		return err
	}
	addr, sink := mx.V4(), l.Sink(peer)
	if v6 {
		addr = mx.V6()
	}
	leave := "noop: reply 421 4.4.2 you are slow | close"
	if err := sink.Script(leave); err != nil {
		return err
	}
	x, err := l.SMTP(ctx, "mallory", "", netip.AddrPortFrom(addr, 25).String())
	if err != nil {
		return err
	}
	defer x.Close()
	if err := hello(x, false); err != nil {
		return err
	}
	if err := slowEnvelope(x, "mind", mx.Domain()); err != nil {
		return err
	}
	if r, err := x.Cmd("DATA"); err != nil || r.Code != 354 {
		return fmt.Errorf("DATA: %v, %v", r, err)
	}
	if err := sink.Script(leave, then); err != nil {
		return err
	}
	if _, err := x.Write([]byte("Subject: slow\r\n\r\n")); err != nil {
		return err
	}
	left := func(all []Session) bool {
		return slices.ContainsFunc(all, func(s Session) bool { return slices.Contains(s.Lines, "C: NOOP") && s.End != "" })
	}
	if err := sink.WaitSessions(ctx, left); err != nil {
		return err
	}
	r, err := x.Cmd(".")
	if err != nil || !strings.HasPrefix(r.Raw, want) {
		return fmt.Errorf("the message heard %v, %v, not %s", r, err, want)
	}
	if n := len(sink.Messages()); (n == 1) != (r.Code == 250) || n > 1 {
		return fmt.Errorf("%s, and %d messages arrived", r, n)
	}
	if r.Code == 421 {
		return nil // it ends the session
	}
	return x.Quit()
}
