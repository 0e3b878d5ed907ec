package proxy

import (
	"bufio"
	"context"
	"crypto/tls"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sluice/filter"
	"sluice/filter/message"
	"sluice/filter/policy"
	"sluice/filter/sign"
	"sluice/intercept/flow"
	"sluice/proxy/cert"
	"sluice/proxy/pool"
	"sluice/proxy/relay"
)

// rig is a Server on the loopback interface between a client and a fake destination.
type rig struct {
	t      testing.TB
	srv    *Server
	cfg    Config
	log    *memLog
	locks  *fakeLocks
	quick  bool // idle talk is answered at once
	policy *policy.Settings
	target netip.AddrPort
	ln     net.Listener
	flows  atomic.Uint64
	take   func(net.Conn) // leads a session; nil: ServeConn does
	user   atomic.Uint32  // whose the next flow is, beyond the first
}

const wait = time.Minute // nothing in these tests takes as long, unless it hangs

var testKey = []byte("0123456789abcdef0123456789abcdef")

// newRig starts a Server whose flows all lead to target.
func newRig(t testing.TB, target netip.AddrPort, change ...func(*rig)) *rig {
	t.Helper()
	tracer, err := sign.NewTracer(testKey)
	must(t, err)
	p, err := pool.New(pool.Address{IP: netip.MustParseAddr("127.0.0.9"), Helo: "out.gw.example"})
	must(t, err)
	r := &rig{t: t, log: &memLog{ready: make(chan struct{}, 1024)}, locks: &fakeLocks{}, target: target, policy: &policy.Settings{}}
	r.cfg = Config{
		Settings: Settings{
			Name: "gw.example", HelpURL: "https://gw.example/why/", Contact: "abuse@gw.example", Admin: "postmaster@gw.example",
			Pool: p, Pipeline: filter.NewPipeline(), SpillDir: t.TempDir(),
			Timeouts: Timeouts{Command: wait, Block: wait, Answer: wait, Bye: 200 * time.Millisecond},
		},
		Policy: r, Locks: r.locks, Log: r.log, Tracer: tracer,
		Dialer: relay.NewDialer(relay.Options{Timeouts: relay.Timeouts{Connect: wait, Greeting: wait, Command: wait, Final: wait, Handshake: wait}}),
	}
	for _, c := range change {
		c(r)
	}
	r.srv, err = New(r.cfg)
	must(t, err)
	r.srv.longWait = time.Hour // also where the machine is slow: a test that is about waiting says so
	if r.quick {
		r.srv.noiseStep = 0 // idle talk is answered at once
	}
	if _, measured := t.(*testing.B); !measured {
		r.srv.parkAfter = 2 * time.Millisecond // so that sessions are parked and resumed all the time
	}
	r.ln, err = net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	go r.accept()
	t.Cleanup(func() {
		r.ln.Close()
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		_ = r.srv.Shutdown(ctx) // whatever is open is cut
	})
	return r
}

func (r *rig) accept() {
	for {
		nc, err := r.ln.Accept()
		if err != nil {
			return
		}
		if r.take != nil {
			go r.take(nc)
			continue
		}
		go r.srv.ServeConn(context.Background(), nc, r.flow(nc.RemoteAddr().(*net.TCPAddr).AddrPort()), func() {})
	}
}

func (r *rig) flow(client netip.AddrPort) *flow.Flow {
	return &flow.Flow{
		ID: flow.ID(r.flows.Add(1)), Client: client, Target: r.target, Start: time.Now(), User: flow.User{ID: 7 + r.user.Load(), Name: "alice"},
	}
}

// Settings gives every user the rig's.
func (r *rig) Settings(uint32) *policy.Settings { return r.policy }

// steps replaces the filter.
func steps(s ...filter.Step) func(*rig) {
	return func(r *rig) { r.cfg.Settings.Pipeline = filter.NewPipeline(s...) }
}

// impatient shortens the waits for the destination.
func impatient(r *rig) {
	const d = time.Second // what is not awaited comes in less, also on a busy machine
	r.cfg.Dialer = relay.NewDialer(relay.Options{Timeouts: relay.Timeouts{Connect: wait, Greeting: d, Command: d, Final: d, Handshake: wait}})
}

// withTLS gives the client leg a certificate.
func withTLS(r *rig) {
	c, err := cert.New(cert.Options{Name: "gw.example"})
	must(r.t, err)
	r.cfg.TLS = c.Config()
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// memLog keeps records.
type memLog struct {
	mu    sync.Mutex
	all   []*Record
	ready chan struct{}
}

func (l *memLog) Put(r *Record) {
	l.mu.Lock()
	l.all = append(l.all, r)
	l.mu.Unlock()
	select {
	case l.ready <- struct{}{}:
	default:
	}
}

// wait returns the first n records once they are there.
func (l *memLog) wait(t testing.TB, n int) []*Record {
	t.Helper()
	end := time.After(wait)
	for {
		l.mu.Lock()
		all := l.all
		l.mu.Unlock()
		if len(all) >= n {
			return all
		}
		select {
		case <-l.ready:
		case <-end:
			t.Fatalf("%d records after %v, want %d", len(all), wait, n)
		}
	}
}

// fakeLocks locks by hand, or at the first bad message.
type fakeLocks struct {
	ticket  atomic.Pointer[string]
	onSpam  bool
	why     string
	judged  atomic.Int32
	atJudge func(*message.Message, *filter.Verdict)
}

func (l *fakeLocks) lock(ticket string) { l.ticket.Store(&ticket) }
func (l *fakeLocks) unlock()            { l.ticket.Store(nil) }

func (l *fakeLocks) Locked(uint32) (string, bool) {
	if t := l.ticket.Load(); t != nil {
		return *t, true
	}
	return "", false
}

func (l *fakeLocks) Reason(uint32) string {
	if l.ticket.Load() == nil {
		return ""
	}
	return l.why
}

func (l *fakeLocks) Stopped(*message.Message) (string, bool) { return l.Locked(0) }

func (l *fakeLocks) Judged(m *message.Message, v *filter.Verdict) {
	l.judged.Add(1)
	if l.onSpam && v.Class.Bad() {
		l.lock("T1")
	}
	if l.atJudge != nil {
		l.atJudge(m, v)
	}
}

// peer is a client that speaks by hand.
type peer struct {
	t  testing.TB
	nc net.Conn
	br *bufio.Reader
}

// dial connects to the rig and reads the greeting.
func (r *rig) dial() *peer {
	p := r.connect()
	p.want("220 gw.example ESMTP")
	return p
}

func (r *rig) connect() *peer {
	r.t.Helper()
	nc, err := net.Dial("tcp", r.ln.Addr().String())
	must(r.t, err)
	r.t.Cleanup(func() { nc.Close() })
	must(r.t, nc.SetDeadline(time.Now().Add(2*wait)))
	return &peer{t: r.t, nc: nc, br: bufio.NewReader(nc)}
}

// hello dials and says EHLO.
func (r *rig) hello() *peer {
	p := r.dial()
	p.cmd("EHLO client.example", "250")
	return p
}

func (p *peer) write(s string) {
	p.t.Helper()
	_, err := p.nc.Write([]byte(s))
	must(p.t, err)
}

// reply reads one reply, its lines joined by LF.
func (p *peer) reply() string {
	p.t.Helper()
	var lines []string
	for {
		l, err := p.br.ReadString('\n')
		if err != nil {
			p.t.Fatalf("reading a reply: %v, after %q", err, lines)
		}
		if !strings.HasSuffix(l, "\r\n") || len(l) < 5 {
			p.t.Fatalf("malformed reply line %q", l)
		}
		lines = append(lines, strings.TrimSuffix(l, "\r\n"))
		if l[3] != '-' {
			return strings.Join(lines, "\n")
		}
	}
}

// want reads a reply that must begin like this.
func (p *peer) want(prefix string) string {
	p.t.Helper()
	got := p.reply()
	if !strings.HasPrefix(got, prefix) {
		p.t.Fatalf("reply %q, want %q…", got, prefix)
	}
	return got
}

func (p *peer) cmd(line, prefix string) string {
	p.t.Helper()
	p.write(line + "\r\n")
	return p.want(prefix)
}

// envelope says MAIL and one RCPT.
func (p *peer) envelope() {
	p.t.Helper()
	p.cmd("MAIL FROM:<a@client.example>", "250")
	p.cmd("RCPT TO:<b@sink.example>", "250")
}

// send sends a message after an accepted envelope and wants this answer.
func (p *peer) send(body, prefix string) string {
	p.t.Helper()
	p.cmd("DATA", "354")
	return p.cmd(body+"\r\n.", prefix)
}

// group says MAIL, one RCPT and DATA in one write.
func (p *peer) group() {
	p.t.Helper()
	p.write("MAIL FROM:<a@client.example>\r\nRCPT TO:<b@sink.example>\r\nDATA\r\n")
}

// together sends a whole message so, and wants this answer.
func (p *peer) together(body, prefix string) string {
	p.t.Helper()
	p.group()
	for _, want := range []string{"250", "250", "354"} {
		p.want(want)
	}
	return p.cmd(body+"\r\n.", prefix)
}

// closed wants the end of the connection.
func (p *peer) closed() {
	p.t.Helper()
	if b, err := p.br.ReadByte(); err == nil {
		p.t.Fatalf("got %q, want the connection closed", b)
	}
	p.nc.Close()
}

func (p *peer) startTLS() tls.ConnectionState {
	p.t.Helper()
	p.cmd("STARTTLS", "220")
	return p.handshake()
}

// handshake begins TLS once STARTTLS is answered.
func (p *peer) handshake() tls.ConnectionState {
	p.t.Helper()
	return p.encrypt(&tls.Config{InsecureSkipVerify: true})
}

func (p *peer) encrypt(cfg *tls.Config) tls.ConnectionState {
	p.t.Helper()
	c := tls.Client(p.nc, cfg)
	must(p.t, c.Handshake())
	p.nc, p.br = c, bufio.NewReader(c)
	return c.ConnectionState()
}

const goodMail = "From: a@client.example\r\nTo: b@sink.example\r\nSubject: hello\r\n\r\nHow are you?\r\n"

func addrPort(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }

func isLoopback(a netip.Addr) bool { return a.IsLoopback() }
