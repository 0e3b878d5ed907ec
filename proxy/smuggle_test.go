package proxy

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"sluice/filter"
	"sluice/filter/policy"
	"sluice/filter/sign"
	"sluice/proxy/relay"
)

// A client may write line ends so that we see one message where the next server sees two, or the other way round. Here
// all ways to write the end of data are tried at every place of a message, in every cut, and what goes onward is looked at
// byte by byte: whoever reads it, however leniently, finds one end, the one that we found.

// lineEnds are what some server somewhere takes for the end of a line.
var lineEnds = []string{"\r\n", "\n", "\r", "\r\r\n", "\n\r", "\r\n\x00", "\x00\r\n", "\r\x00\n"}

// lones are what some server somewhere takes for a lone dot.
var lones = []string{".", "..", ". ", ".\x00", "\x00."}

// smuggled is what a client would have the next server obey.
const smuggled = "MAIL FROM:<evil@client.example>\r\nRCPT TO:<evil@sink.example>\r\nDATA\r\nSubject: evil\r\n\r\nevil\r\n.\r\n"

// places are messages into which an end of data is put; @ is where.
var places = []string{"@", "Subject: x@", "Subject: x\r\n@", "Subject: x\r\n\r\n@", "Subject: x\r\n\r\none line@two lines\r\n", "Subject: x\r\n\r\n..@..\r\n"}

// TestNoMessageIsSmuggled tries all of them by DATA.
func TestNoMessageIsSmuggled(t *testing.T) {
	t.Parallel()
	for _, place := range places {
		before, after, _ := strings.Cut(place, "@")
		t.Run(fmt.Sprintf("%q", place), func(t *testing.T) {
			t.Parallel()
			o := newOverWire(t)
			starts := lineEnds
			if before == "" {
				starts = append([]string{""}, starts...)
			}
			for _, a := range starts {
				for _, dot := range lones {
					for _, b := range lineEnds {
						end := a + dot + b
						body := before + end + smuggled + after + "\r\n.\r\n"
						all := cutsOf(len(before), len(end), len(body))
						some := os.Getenv("SLUICE_SOAK") == ""
						switch {
						case some && dot != ".":
							all = all[len(all)-1:] // byte by byte
						case some && place != places[4]:
							all = [][]int{nil, all[len(all)-1]} // whole as well
						}
						for _, cuts := range all {
							o.byData(body, cuts)
						}
						if dot == "." || !some {
							o.byChunks(body, len(before), len(end))
						}
					}
				}
			}
		})
	}
}

const envelopeThenData = "EHLO x\r\nMAIL FROM:<a@client.example>\r\nRCPT TO:<b@sink.example>\r\nDATA\r\n"

// cutsOf gives where to cut a message with an end of data at a place: nowhere, at each byte of that end, and everywhere.
func cutsOf(at, n, whole int) [][]int {
	all := [][]int{nil}
	for i := at; i <= at+n; i++ {
		all = append(all, []int{i})
	}
	every := make([]int, 0, 2*n)
	for i := max(1, at-1); i < min(whole, at+n+2); i++ {
		every = append(every, i)
	}
	return append(all, every)
}

// byData sends a body by DATA, whatever stands in it, and compares with what strict reading makes of it.
func (o *overWire) byData(body string, cuts []int) {
	o.r.t.Helper()
	text, rest, bad := strictly(body)
	o.say(append([]string{envelopeThenData}, pieces(body, cuts)...)...)
	want, commands := []string{text}, []string{"MAIL FROM:<a@client.example>", "RCPT TO:<b@sink.example>"}
	if bad {
		want = nil
	}
	if strings.HasPrefix(rest, "MAIL") { // a real end: what follows are commands of the client's own
		text, _, bad = strictly(rest[strings.Index(rest, "DATA\r\n")+len("DATA\r\n"):])
		commands = append(commands, "MAIL FROM:<evil@client.example>", "RCPT TO:<evil@sink.example>")
		if !bad {
			want = append(want, text)
		}
	}
	o.wire.check(o.r.t, fmt.Sprintf("%q cut at %v", body, cuts), want, commands)
}

// byChunks sends the same as one message in two chunks, cut at each byte of the end of data, which in chunks is none.
func (o *overWire) byChunks(body string, at, n int) {
	o.r.t.Helper()
	text := strings.ReplaceAll(strings.ReplaceAll(body, "\r\n", "\n"), "\n", "\r\n")
	var want []string
	if bare := strings.ReplaceAll(text, "\r\n", ""); !strings.ContainsAny(bare, "\r\x00") {
		want = []string{text}
	}
	envelope := []string{"MAIL FROM:<a@client.example>", "RCPT TO:<b@sink.example>"}
	for i := at; i <= at+n; i += max(1, n/2) {
		o.say(strings.TrimSuffix(envelopeThenData, "DATA\r\n"), bdat(body[:i], false), bdat(body[i:], true))
		o.wire.check(o.r.t, fmt.Sprintf("%q in chunks cut at %d", body, i), want, envelope)
	}
}

// strictly reads a message as RFC 5321 4.1.1.4 has it, normalises bare LF, and tells whether it is refused.
func strictly(s string) (text, rest string, bad bool) {
	crlf := true
	for {
		line, more, ok := strings.Cut(s, "\n")
		if !ok {
			return text, "", true
		}
		s = more
		body, ends := strings.CutSuffix(line, "\r")
		if body == "." && ends && crlf {
			return text, s, bad
		}
		if body != "." {
			body = strings.TrimPrefix(body, ".")
		}
		bad = bad || strings.ContainsAny(body, "\r\x00")
		text += body + "\r\n"
		crlf = ends
	}
}

// pieces cuts text at offsets.
func pieces(text string, at []int) (out []string) {
	from := 0
	for _, i := range at {
		if i > from && i < len(text) {
			out = append(out, text[from:i])
			from = i
		}
	}
	return append(out, text[from:])
}

// theTracer is made once for thousands of servers.
var theTracer, _ = sign.NewTracer(testKey)

// wire is what a destination heard, byte for byte.
type wire struct {
	ehlo     string
	mu       sync.Mutex
	commands []string
	messages []string // what followed 354 or BDAT, its end included
	begun    []string // what followed 354 without an end
	open     sync.WaitGroup
}

// DialOwn connects to it in memory.
func (w *wire) DialOwn(context.Context, netip.Addr, netip.AddrPort) (net.Conn, error) {
	a, b := net.Pipe()
	w.open.Go(func() { w.serve(b) })
	return a, nil
}

func (w *wire) serve(nc net.Conn) {
	defer nc.Close()
	br := bufio.NewReader(nc)
	say := func(s string) { _, _ = io.WriteString(nc, s+"\r\n") }
	say("220 mx")
	for {
		line, err := br.ReadString('\n')
		if err != nil {
			return
		}
		w.mu.Lock()
		w.commands = append(w.commands, line)
		w.mu.Unlock()
		switch verb, _, _ := strings.Cut(strings.TrimSpace(line), " "); verb {
		case "EHLO":
			say("250-mx\r\n" + w.ehlo + "250 PIPELINING")
		case "QUIT":
			say("221 bye")
			return
		case "BDAT":
			var n int
			_, _ = fmt.Sscanf(line, "BDAT %d", &n)
			b := make([]byte, n)
			if _, err := io.ReadFull(br, b); err != nil {
				return
			}
			w.took(string(b))
			say("250 taken")
		case "DATA":
			say("354 go")
			var b strings.Builder
			for !strings.HasSuffix("\r\n"+b.String(), "\r\n.\r\n") {
				c, err := br.ReadByte()
				if err != nil {
					w.mu.Lock()
					w.begun = append(w.begun, b.String())
					w.mu.Unlock()
					return
				}
				b.WriteByte(c)
			}
			w.took(b.String())
			say("250 taken")
		default:
			say("250 ok")
		}
	}
}

func (w *wire) forget() {
	w.mu.Lock()
	w.commands, w.messages, w.begun = nil, nil, nil
	w.mu.Unlock()
}

func (w *wire) took(m string) {
	w.mu.Lock()
	w.messages = append(w.messages, m)
	w.mu.Unlock()
}

// overWire is a server between clients and a destination in memory, which keeps the cuts of both.
type overWire struct {
	r    *rig
	srv  *Server
	wire *wire
}

func newOverWire(t *testing.T, change ...func(*Config)) *overWire {
	t.Helper()
	o := &overWire{wire: &wire{}}
	o.r = &rig{t: t, log: &memLog{ready: make(chan struct{}, 1)}, locks: &fakeLocks{}, policy: &policy.Settings{Delivery: policy.Own}, target: addrPort("198.51.100.20:25")}
	cfg := Config{
		Settings: Settings{Name: "gw.example", SpillDir: t.TempDir(), Pipeline: filter.NewPipeline(), Timeouts: Timeouts{Command: wait, Block: wait, Bye: time.Millisecond}},
		Policy:   o.r, Locks: o.r.locks, Log: forgetful{}, Tracer: theTracer,
		Dialer: relay.NewDialer(relay.Options{Own: o.wire, Timeouts: relay.Timeouts{Command: wait}}),
	}
	for _, c := range change {
		c(&cfg)
	}
	var err error
	o.srv, err = New(cfg)
	must(t, err)
	o.srv.noiseStep = 0
	return o
}

// forgetful is a log that keeps nothing.
type forgetful struct{}

func (forgetful) Put(*Record) {}

// say leads a session: each piece in a write of its own, and QUIT. The client listens only for the end.
func (o *overWire) say(pieces ...string) {
	t := o.r.t
	t.Helper()
	o.wire.forget()
	client, server := net.Pipe()
	done := make(chan struct{})
	go o.srv.ServeConn(context.Background(), server, o.r.flow(addrPort("192.0.2.10:40000")), func() { close(done) })
	must(t, client.SetDeadline(time.Now().Add(2*wait)))
	over := make(chan struct{})
	go func() {
		defer close(over)
		for br := bufio.NewReader(client); ; {
			if line, err := br.ReadString('\n'); err != nil || strings.HasPrefix(line, "221") || strings.HasPrefix(line, "421") {
				return
			}
		}
	}()
	for _, p := range append(pieces, "QUIT\r\n") {
		if _, err := io.WriteString(client, p); err != nil {
			break // the session has ended by itself
		}
	}
	<-over
	client.Close()
	select {
	case <-done:
	case <-time.After(2 * wait):
		t.Fatal("the session does not end")
	}
}

// check compares what the destination heard.
func (w *wire) check(t testing.TB, what string, texts, envelopes []string) {
	t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	var heard []string
	for _, c := range w.commands {
		line, ok := strings.CutSuffix(c, "\r\n")
		if !ok || strings.ContainsAny(line, "\r\n\x00") {
			t.Errorf("%s: the destination heard %q", what, c)
		}
		if verb := line[:min(4, len(line))]; verb == "MAIL" || verb == "RCPT" {
			heard = append(heard, line)
		}
	}
	if !slices.Equal(heard, envelopes) {
		t.Errorf("%s: the destination heard %q, want %q", what, heard, envelopes)
	}
	var got []string
	for _, m := range w.messages {
		oneEnd(t, what, m)
		_, m, _ = strings.Cut(strings.TrimSuffix(m, ".\r\n"), ";\r\n\t") // our own field's last line
		_, m, _ = strings.Cut(m, "\r\n")
		m = strings.ReplaceAll("\r\n"+m, "\r\n..", "\r\n.")[2:]
		got = append(got, m)
	}
	if !slices.Equal(got, texts) {
		t.Errorf("%s: arrived as %q, want %q", what, got, texts)
	}
}

// oneEnd makes sure that in whatever way the line ends of a message are read, it has one end, at its end.
func oneEnd(t testing.TB, what, m string) {
	t.Helper()
	for i, c := range m {
		if c == 0 || c == '\r' && (i+1 == len(m) || m[i+1] != '\n') || c == '\n' && (i == 0 || m[i-1] != '\r') {
			t.Errorf("%s: the destination got a bare line end or NUL at %d of %q", what, i, m)
			return
		}
	}
	if n := strings.Count("\r\n"+m, "\r\n.\r\n"); n != 1 {
		t.Errorf("%s: the destination got %d ends of data in %q", what, n, m)
	}
}
