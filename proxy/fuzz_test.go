package proxy

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"sluice/filter"
	"sluice/filter/policy"
	"sluice/filter/sign"
	"sluice/proxy/relay"
)

// pipeDialer connects to a fake destination in memory.
type pipeDialer struct{ mx *wiretap }

func (d pipeDialer) DialOwn(context.Context, netip.Addr, netip.AddrPort) (net.Conn, error) {
	a, b := net.Pipe()
	go d.mx.serve(b)
	return a, nil
}

// wiretap is a destination that takes everything and checks what it hears.
type wiretap struct {
	t     *testing.T
	rcpts chan string
}

func (w *wiretap) serve(nc net.Conn) {
	defer nc.Close()
	br := bufio.NewReader(nc)
	say := func(s string) { _, _ = io.WriteString(nc, s+"\r\n") }
	say("220 mx.example")
	for {
		line, err := br.ReadString('\n')
		if err != nil {
			return
		}
		if !strings.HasSuffix(line, "\r\n") || strings.ContainsAny(strings.TrimSuffix(line, "\r\n"), "\r\n\x00") {
			w.t.Errorf("a command that is no line reached the destination: %q", line)
		}
		verb, rest, _ := strings.Cut(strings.TrimSuffix(line, "\r\n"), " ")
		switch verb {
		case "EHLO":
			say("250-mx.example\r\n250-PIPELINING\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n250-DSN\r\n250 SIZE 100000")
		case "RCPT":
			if strings.Contains(rest, "refuse") {
				say("550 5.1.1 no")
				continue
			}
			select {
			case w.rcpts <- rest:
			default:
			}
			say("250 ok")
		case "DATA":
			say("354 go")
			if !w.message(br) {
				return
			}
			say("250 taken")
		case "MAIL", "RSET", "NOOP":
			say("250 ok")
		case "QUIT":
			say("221 bye")
			return
		default:
			w.t.Errorf("the destination heard %q", line)
			return
		}
	}
}

func (w *wiretap) message(br *bufio.Reader) bool {
	for n := 0; ; n++ {
		line, err := br.ReadString('\n')
		if err != nil {
			return false
		}
		if n == 0 && !strings.HasPrefix(line, "Received: from ") {
			w.t.Errorf("a message begins %q", line)
		}
		if i := strings.IndexAny(line, "\r\x00"); i != len(line)-2 {
			w.t.Errorf("a bare CR, bare LF or NUL reached the destination: %q", line)
		}
		if strings.Contains(line, "SPAMWORD") {
			w.t.Error("a message that was refused reached the destination")
		}
		if line == ".\r\n" {
			return true
		}
	}
}

// states are what a client says before the fuzzer takes over.
var states = []string{
	"",
	"EHLO fuzz.example\r\n",
	"EHLO fuzz.example\r\nMAIL FROM:<a@client.example>\r\n",
	"EHLO fuzz.example\r\nMAIL FROM:<a@client.example>\r\nRCPT TO:<b@sink.example>\r\n",
	"EHLO fuzz.example\r\nMAIL FROM:<a@client.example>\r\nRCPT TO:<b@sink.example>\r\nDATA\r\n",
	"HELO fuzz.example\r\nMAIL FROM:<>\r\nRCPT TO:<b@sink.example>\r\nDATA\r\nSubject: x\r\n\r\nhalf a line",
	"LOCKED", // of a locked user, after RCPT
}

// FuzzSession sends a stranger's bytes to the real server in each state of a session. It must not panic, its replies
// must be well-formed, and nothing may reach the destination that was not accepted.
func FuzzSession(f *testing.F) {
	for _, s := range []string{
		"EHLO x\r\nMAIL FROM:<a@b.example> SIZE=1\r\nRCPT TO:<c@d.example>\r\nDATA\r\nx\r\n.\r\nQUIT\r\n",
		"NOOP\nRSET\r\nVRFY x\r\nHELP\r\n\r\n\x00\r\n",
		"MAIL FROM:<a\r\nRCPT TO:<b>\r\nRCPT TO:<refuse@x.example>\r\nRCPT TO:<q@x.example>\r\nDATA\r\n.\r\n",
		"x\n.\nMAIL FROM:<smuggled@evil.example>\r\n.\r\n", "x\r\n.\rMAIL\r\n.\r\n", "SPAMWORD\r\n.\r\n", "\r\n.\r\nDATA\r\n",
		strings.Repeat("RCPT TO:<many@x.example>\r\n", 130) + "DATA\r\n.\r\n", strings.Repeat("x", 3000) + "\r\n", strings.Repeat("NOOP\r\n", 120), "STARTTLS\r\nBDAT 5 LAST\r\nhello",
		"..\r\n.x\r\n.\r\nRSET\r\nEHLO again\r\nMAIL FROM:<a@b.example> BODY=8BITMIME SMTPUTF8 RET=FULL\r\nRCPT TO:<\xc3\xbc@x.example> NOTIFY=NEVER\r\nDATA\r\n\xff\r\n.\r\n",
	} {
		for state := range states {
			f.Add(byte(state), []byte(s))
		}
	}
	f.Fuzz(func(t *testing.T, state byte, input []byte) {
		if len(input) > 1<<16 {
			return
		}
		fuzzOne(t, states[int(state)%len(states)], input)
	})
}

func fuzzOne(t *testing.T, before string, input []byte) {
	mx := &wiretap{t: t, rcpts: make(chan string, 1)}
	settled := newSettler()
	r := &rig{t: t, log: &memLog{ready: make(chan struct{}, 1)}, locks: &fakeLocks{}, policy: &policy.Settings{Delivery: policy.Own, MessageSize: 20000}}
	if before == "LOCKED" {
		r.locks.lock("L1")
		before = states[3]
	}
	tracer := fuzzTracer(t)
	srv, err := New(Config{
		Settings: Settings{Name: "gw.example", BodyMemory: 4096, SpillDir: t.TempDir(), Timeouts: Timeouts{Command: wait, Block: wait, Bye: wait},
			Pipeline: filter.NewPipeline(filter.Step{Name: "n", Phases: []filter.Phase{filter.Mail}, Check: settled}, spamStep())},
		Policy: r, Locks: r.locks, Log: r.log, Tracer: tracer,
		Dialer: relay.NewDialer(relay.Options{Own: pipeDialer{mx}, Timeouts: relay.Timeouts{Command: wait}}),
	})
	must(t, err)
	srv.noiseStep = 0 // idle talk is answered at once
	client, server := net.Pipe()
	r.target = netip.MustParseAddrPort("198.51.100.20:25")
	done := make(chan struct{})
	go func() {
		srv.ServeConn(context.Background(), server, r.flow(netip.MustParseAddrPort("192.0.2.10:40000")), func() { close(done) })
	}()
	must(t, client.SetDeadline(time.Now().Add(wait)))
	replies := make(chan []byte, 1)
	go func() {
		b, _ := io.ReadAll(client)
		replies <- b
	}()
	_, _ = io.WriteString(client, before)
	_, _ = client.Write(input)
	_, _ = io.WriteString(client, "\r\n.\r\nQUIT\r\n")
	client.Close()
	select {
	case <-done:
	case <-time.After(wait):
		t.Fatal("the session does not end")
	}
	wellFormed(t, <-replies)
	if m, s := settled.mail.Load(), settled.settled.Load(); m != s {
		t.Errorf("%d transactions were begun, %d settled", m, s)
	}
	must(t, srv.Shutdown(context.Background()))
	if n := srv.bodies.Load(); n != 0 {
		t.Errorf("%d bytes of bodies are still accounted for", n)
	}
	if r.locks.ticket.Load() != nil && len(mx.rcpts) > 0 {
		t.Errorf("a recipient of a locked user reached the destination")
	}
	for _, rec := range r.log.all {
		if rec.Flow.ID == 0 || rec.ID == "" || rec.Status == Delivered && len(rec.To) == 0 {
			t.Errorf("record %+v", rec)
		}
	}
}

// wellFormed checks that b is made of whole reply lines; the last may be cut, since the client left.
func wellFormed(t *testing.T, b []byte) {
	for line := range bytes.Lines(b) {
		if !bytes.HasSuffix(line, []byte("\n")) {
			continue
		}
		l := bytes.TrimSuffix(line, []byte("\r\n"))
		if len(l) < 4 || len(l) > 510 || l[0] < '2' || l[0] > '5' || (l[3] != ' ' && l[3] != '-') || bytes.ContainsAny(l, "\r\n\x00") {
			t.Errorf("reply line %q", line)
		}
	}
}

func fuzzTracer(t *testing.T) *sign.Tracer {
	tr, err := sign.NewTracer(testKey)
	must(t, err)
	return tr
}
