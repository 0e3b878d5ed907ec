package proxy

import (
	"bufio"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"sluice/proxy/smtp"
)

// remote is a destination that does as its script says.
type remote struct {
	ln     net.Listener
	greet  string
	ehlo   []string            // extension lines; nil: EHLO is not known
	on     map[string][]string // verb -> replies in turn, the last for ever; "." is the reply to the message
	tls    *tls.Config
	noTLS  bool // goes on in plain text behind the reply to STARTTLS
	mu     sync.Mutex
	said   []string // all commands, with the number of the connection: "1 MAIL FROM:<>"
	mails  []string // what lay between 354 and dot
	part   string   // of a message that comes in chunks
	lines  bool     // it does not know chunks, whatever it offers: what is in one it takes for commands
	conns  int
	open   []net.Conn  // and some that are closed
	event  chan string // every command and message as it comes
	turns  map[string]int
	before func(verb string)
	hold   chan struct{}      // the message is not read before it closes
	taken  int                // bytes of messages that came, on all connections
	grew   chan struct{}      // has something in it when some came
	resets int                // messages that ended by a reset
	midway func(n int) string // what is said, before it closes, to n bytes of a message; "" for nothing
}

// Replies with a meaning of their own. Anything else is written as it is, with CRLF behind it.
const (
	closeNow = "CLOSE"
	stall    = "STALL"
)

func newRemote(t testing.TB, change ...func(*remote)) *remote {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	r := &remote{
		ln: ln, greet: "220 mx.sink.example ESMTP", ehlo: []string{"PIPELINING", "SIZE 1000000", "8BITMIME", "DSN", "SMTPUTF8", "ENHANCEDSTATUSCODES", "CHUNKING", "X-ODD"},
		on: map[string][]string{}, event: make(chan string, 4096), turns: map[string]int{},
		grew: make(chan struct{}, 1),
	}
	for _, c := range change {
		c(r)
	}
	t.Cleanup(func() { ln.Close() })
	go func() {
		for {
			nc, err := ln.Accept()
			if err != nil {
				return
			}
			r.mu.Lock()
			r.conns++
			n := r.conns
			r.open = append(r.open, nc)
			r.mu.Unlock()
			go r.serve(nc, n)
			t.Cleanup(func() { nc.Close() })
		}
	}()
	return r
}

// reply sets the replies to a verb.
func reply(verb string, replies ...string) func(*remote) {
	return func(r *remote) { r.on[verb] = replies }
}

func (r *remote) addr() netip.AddrPort { return r.ln.Addr().(*net.TCPAddr).AddrPort() }

// turn gives the reply that is due to a verb.
func (r *remote) turn(verb, def string) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	list := r.on[verb]
	if len(list) == 0 {
		return def
	}
	n := r.turns[verb]
	r.turns[verb]++
	return list[min(n, len(list)-1)]
}

func (r *remote) note(n int, s string) {
	r.mu.Lock()
	r.said = append(r.said, strconv.Itoa(n)+" "+s)
	r.mu.Unlock()
	r.event <- s
}

// commands returns what was said.
func (r *remote) commands() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]string(nil), r.said...)
}

func (r *remote) messages() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]string(nil), r.mails...)
}

// hangUp closes all connections.
func (r *remote) hangUp() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, nc := range r.open {
		nc.Close()
	}
}

// hasLeft is the event of a destination that closed in the midst of a message.
const hasLeft = "(left)"

// hungUp is the event of a client that closed without a word.
const hungUp = "(closed)"

// await waits for a command that begins with one of these.
func (r *remote) await(t testing.TB, prefixes ...string) {
	t.Helper()
	end := time.After(wait)
	for {
		select {
		case s := <-r.event:
			if slices.ContainsFunc(prefixes, func(p string) bool { return strings.HasPrefix(s, p) }) {
				return
			}
		case <-end:
			t.Fatalf("the destination did not hear %q in %v", prefixes, wait)
		}
	}
}

func (r *remote) serve(nc net.Conn, n int) {
	defer nc.Close()
	br := bufio.NewReader(nc)
	answer := func(s string) bool {
		switch s {
		case closeNow:
			return false
		case stall:
			_, _ = br.ReadString(0) // until the other side gives up
			return false
		}
		_, err := nc.Write([]byte(s + "\r\n"))
		if err != nil {
			r.event <- hungUp
		}
		return err == nil
	}
	if !answer(r.turn("greet", r.greet)) {
		return
	}
	for {
		line, err := br.ReadString('\n')
		if err != nil {
			r.event <- hungUp
			return
		}
		line = strings.TrimRight(line, "\r\n")
		verb, _, _ := strings.Cut(strings.ToUpper(line), " ")
		r.note(n, line)
		r.mu.Lock()
		before := r.before
		r.mu.Unlock()
		if before != nil {
			before(verb)
		}
		reply := r.turn(verb, r.usual(verb))
		if verb == "BDAT" && !r.lines && !r.chunk(br, line) || !answer(reply) {
			return
		}
		switch {
		case verb == "QUIT":
			return
		case verb == "STARTTLS" && reply[0] == '2' && !r.noTLS:
			r.mu.Lock()
			cfg := r.tls
			r.mu.Unlock()
			tc := tls.Server(nc, cfg)
			if tc.Handshake() != nil {
				return
			}
			nc, br = tc, bufio.NewReader(tc)
		case verb == "DATA" && reply == "354 go":
			if !r.message(nc, br, n) || !answer(r.turn(".", "250 2.0.0 queued as X1")) {
				return
			}
		}
	}
}

func (r *remote) usual(verb string) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch verb {
	case "EHLO":
		if r.ehlo == nil {
			return "500 what?"
		}
		if len(r.ehlo) == 0 {
			return "250 mx.sink.example"
		}
		return "250-mx.sink.example\r\n250-" + strings.Join(r.ehlo[:len(r.ehlo)-1], "\r\n250-") + "\r\n250 " + r.ehlo[len(r.ehlo)-1]
	case "DATA":
		return "354 go"
	case "STARTTLS":
		return "220 go"
	}
	return "250 2.0.0 ok " + verb
}

// chunk reads what follows BDAT; each is kept as a message. False when the connection ended before.
func (r *remote) chunk(br *bufio.Reader, line string) bool {
	size, last, err := smtp.ParseBDAT(line[len("BDAT "):])
	b := make([]byte, size)
	if _, rerr := io.ReadFull(br, b); err != nil || rerr != nil {
		r.event <- hungUp
		return false
	}
	r.mu.Lock()
	if r.part += string(b); last {
		r.mails = append(r.mails, r.part)
		r.part = ""
	}
	r.mu.Unlock()
	r.took(len(b))
	return true
}

// took notes that n more bytes of a message came.
func (r *remote) took(n int) {
	r.mu.Lock()
	r.taken += n
	r.mu.Unlock()
	select {
	case r.grew <- struct{}{}:
	default:
	}
}

// has waits until n bytes of messages have come.
func (r *remote) has(t testing.TB, n int) {
	t.Helper()
	end := time.After(wait)
	for {
		r.mu.Lock()
		got := r.taken
		r.mu.Unlock()
		if got >= n {
			return
		}
		select {
		case <-r.grew:
		case <-end:
			t.Fatalf("%d bytes came in %v, want %d", got, wait, n)
		}
	}
}

// message reads to the dot; false when the connection ended before.
func (r *remote) message(nc net.Conn, br *bufio.Reader, n int) bool {
	var b strings.Builder
	if r.hold != nil {
		<-r.hold
	}
	for {
		line, err := br.ReadString('\n')
		if err != nil {
			if errors.Is(err, syscall.ECONNRESET) {
				r.mu.Lock()
				r.resets++
				r.mu.Unlock()
			}
			r.event <- hungUp
			return false
		}
		r.took(len(line))
		if r.midway != nil {
			if s := r.midway(b.Len()); s != "" {
				if s != closeNow {
					_, _ = nc.Write([]byte(s + "\r\n")) // it closes in any case
				}
				nc.Close()
				r.event <- hasLeft
				return false
			}
		}
		if line == ".\r\n" {
			r.mu.Lock()
			r.mails = append(r.mails, b.String())
			r.mu.Unlock()
			r.note(n, ".")
			return true
		}
		b.WriteString(line)
	}
}
