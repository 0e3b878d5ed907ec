package proxy

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"
)

// TestBinaryMessagesHoldNoCommands: what goes onward in a chunk is as long as it says, whatever stands in it.
func TestBinaryMessagesHoldNoCommands(t *testing.T) {
	t.Parallel()
	o := newOverWire(t)
	o.wire.ehlo = "250-CHUNKING\r\n250-BINARYMIME\r\n"
	for _, a := range lineEnds {
		for _, b := range lineEnds {
			body := "Content-Transfer-Encoding: binary\r\n\r\nx" + a + "." + b + smuggled
			for _, cut := range []int{0, len(body) - len(smuggled), len(body)} {
				o.say("EHLO x\r\nMAIL FROM:<a@client.example> BODY=BINARYMIME\r\nRCPT TO:<b@sink.example>\r\n", bdat(body[:cut], false), bdat(body[cut:], true))
				o.wire.obeys(t, fmt.Sprintf("%q cut at %d", body, cut))
				if m := o.wire.messages; len(m) != 1 || !strings.HasSuffix(m[0], "\r\n"+body) || !strings.HasPrefix(m[0], "Received: ") {
					t.Errorf("%q arrived as %q", body, m)
				}
			}
		}
	}
}

// TestCommandsAndChunksInAnyOrder: three commands of each kind behind each other, by a client that waits for each answer.
// What stands in messages and chunks is never obeyed, and nothing arrives that was not answered with 250.
func TestCommandsAndChunksInAnyOrder(t *testing.T) {
	t.Parallel()
	envelope := "MAIL FROM:<a@client.example>\r\n|RCPT TO:<b@sink.example>\r\n"
	steps := []string{
		"DATA\r\n", bdat(smuggled, false), bdat(smuggled, true), bdat("", false), bdat("", true), "BDAT 5 FIRST\r\n" + smuggled, "BDAT -1 LAST\r\n" + smuggled,
		"RSET\r\n", "NOOP\r\n", "EHLO y\r\n", "RCPT TO:<c@sink.example>\r\n", envelope,
	}
	for i := range steps {
		t.Run(fmt.Sprintf("%.12q", steps[i]), func(t *testing.T) {
			t.Parallel()
			o := newOverWire(t)
			for j := range steps {
				for k := range steps {
					seq := []string{"EHLO x\r\n", envelope, steps[i], steps[j], steps[k]}
					taken := o.talk(seq)
					o.wire.obeys(t, fmt.Sprintf("%q", seq[2:]))
					for _, m := range o.wire.messages {
						oneEnd(t, fmt.Sprintf("%q", seq[2:]), m)
					}
					if got := len(o.wire.messages); got != taken {
						t.Errorf("%q: %d messages arrived, the client was told of %d", seq[2:], got, taken)
					}
				}
			}
		})
	}
}

// obeys makes sure that the destination heard no command of what was in a message.
func (w *wire) obeys(t testing.TB, what string) {
	t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range w.commands {
		if line, ok := strings.CutSuffix(c, "\r\n"); !ok || strings.ContainsAny(line, "\r\n\x00") || strings.Contains(line, "evil") {
			t.Errorf("%s: the destination heard %q", what, c)
		}
	}
}

// talk leads a session in lock-step, each step one command or more; a message follows DATA where that is answered with
// 354. It tells how many messages were answered with 250.
func (o *overWire) talk(steps []string) (taken int) {
	t := o.r.t
	t.Helper()
	o.wire.forget()
	client, server := net.Pipe()
	done := make(chan struct{})
	go o.srv.ServeConn(context.Background(), server, o.r.flow(addrPort("192.0.2.10:40000")), func() { close(done) })
	must(t, client.SetDeadline(time.Now().Add(2*wait)))
	br := bufio.NewReader(client)
	answer := func() string {
		for {
			line, err := br.ReadString('\n')
			if err != nil || len(line) < 4 || line[3] == ' ' {
				return line
			}
		}
	}
	ask := func(s string) string { // the answer may come before all is said
		go func() { _, _ = io.WriteString(client, s) }()
		return answer()
	}
	answer()
	for _, s := range steps {
		for line := range strings.SplitSeq(s, "|") {
			reply := ask(line)
			if strings.HasPrefix(reply, "354") {
				reply = ask(smuggled)
			}
			if strings.HasPrefix(reply, "250") && strings.HasSuffix(strings.TrimSpace(reply), "taken") {
				taken++
			}
		}
	}
	ask("QUIT\r\n")
	client.Close()
	select {
	case <-done:
	case <-time.After(2 * wait):
		t.Fatal("the session does not end")
	}
	return taken
}
