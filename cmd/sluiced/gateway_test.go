package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-smtp"

	"sluice/cmd/internal/api"
	"sluice/cmd/internal/config"
)

// exchanger is a mail exchanger that keeps what it is given.
type exchanger struct {
	addr netip.AddrPort
	mu   sync.Mutex
	got  []string
}

func (x *exchanger) NewSession(*smtp.Conn) (smtp.Session, error) { return &exchange{x}, nil }

type exchange struct{ x *exchanger }

func (exchange) Reset()                               {}
func (exchange) Logout() error                        { return nil }
func (exchange) Mail(string, *smtp.MailOptions) error { return nil }
func (exchange) Rcpt(to string, _ *smtp.RcptOptions) error {
	if strings.HasPrefix(to, "reject") {
		return &smtp.SMTPError{Code: 550, EnhancedCode: smtp.EnhancedCode{5, 1, 1}, Message: "nobody of that name"}
	}
	return nil
}
func (e exchange) Data(r io.Reader) error {
	b, err := io.ReadAll(r)
	e.x.mu.Lock()
	defer e.x.mu.Unlock()
	e.x.got = append(e.x.got, string(b))
	return err
}

func (x *exchanger) messages() []string {
	x.mu.Lock()
	defer x.mu.Unlock()
	return append([]string(nil), x.got...)
}

func startExchanger(t *testing.T) *exchanger {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	x := &exchanger{addr: l.Addr().(*net.TCPAddr).AddrPort()}
	s := smtp.NewServer(x)
	s.Domain = "mx.example"
	done := make(chan struct{})
	go func() { defer close(done); _ = s.Serve(l) }() // ends with Close
	t.Cleanup(func() { _, _ = s.Close(), l.Close(); <-done })
	return x
}

// gateway is a running daemon on loopback.
type gateway struct {
	t      *testing.T
	dir    string
	toml   string
	addr   string // where clients connect
	port   uint16
	mx     *exchanger
	api    *api.Client
	daemon *daemon
	stop   context.CancelFunc
	done   chan error
	log    *lines

	systemd supervisor    // whom the daemon tells
	before  func(*daemon) // changes it before it runs
}

// lines is a log that tests can read.
type lines struct {
	mu sync.Mutex
	b  strings.Builder
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

const baseConfig = `[gateway]
name = "gw.example"
help_url = "https://gw.example/help/"
[intercept]
customer_interfaces = ["cust*"]
uplinks = ["up0"]
control_socket = "DIR/control.sock"
[delivery]
mode = "managed"
[[delivery.address]]
address = "127.0.0.2"
helo = "out.gw.example"
[smtp]
spill_dir = "DIR/spill"
fin_wait = "100ms"
drain = "5s"
[store]
dir = "DIR/store"
[log]
dir = "DIR/log"
[api]
socket = "DIR/api.sock"
`

// newGateway prepares a gateway with extra configuration.
func newGateway(t *testing.T, extra string) *gateway {
	t.Helper()
	dir, err := os.MkdirTemp("", "sluiced")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	g := &gateway{t: t, dir: dir, log: &lines{}, mx: startExchanger(t), api: api.NewClient(filepath.Join(dir, "api.sock"))}
	g.configure(extra)
	return g
}

func (g *gateway) configure(extra string) {
	g.toml = strings.ReplaceAll(baseConfig, "DIR", g.dir) + extra
	if err := os.WriteFile(g.file(), []byte(g.toml), 0o600); err != nil {
		g.t.Fatal(err)
	}
}

func (g *gateway) file() string { return filepath.Join(g.dir, "sluice.toml") }

// run starts the daemon. Without a listener of its own it asks the helper.
func (g *gateway) run(socket *os.File, port uint16) {
	g.t.Helper()
	cfg, err := config.Load(g.file())
	if err != nil {
		g.t.Fatal(err)
	}
	ready := make(chan struct{})
	var once sync.Once
	o := options{log: slog.New(slog.NewTextHandler(g.log, nil)), socket: socket, ports: []uint16{port}, local: true, undelivered: true,
		target: func(netip.AddrPort) netip.AddrPort { return g.mx.addr }, ready: func() { once.Do(func() { close(ready) }) }}
	if g.daemon, err = newDaemon(cfg, o); err != nil {
		g.t.Fatal(err)
	}
	g.daemon.systemd = g.systemd
	if g.before != nil {
		g.before(g.daemon)
	}
	ctx, cancel := context.WithCancel(context.Background())
	g.stop, g.done = cancel, make(chan error, 1)
	d, done := g.daemon, g.done
	go func() { done <- d.Run(ctx) }()
	if socket != nil {
		<-ready
		return
	}
	waitFor(g.t, func() bool { return strings.Contains(g.log.String(), "msg=started") })
}

// start runs the daemon on a loopback listener.
func (g *gateway) start() {
	g.t.Helper()
	f, port := g.socket()
	g.t.Cleanup(func() { f.Close() })
	g.run(f, port)
}

// socket opens a listening socket on loopback.
func (g *gateway) socket() (*os.File, uint16) {
	g.t.Helper()
	var lc net.ListenConfig
	lc.SetMultipathTCP(false)
	nl, err := lc.Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		g.t.Fatal(err)
	}
	defer nl.Close()
	f, err := nl.(*net.TCPListener).File()
	if err != nil {
		g.t.Fatal(err)
	}
	g.addr = nl.Addr().String()
	g.port = nl.Addr().(*net.TCPAddr).AddrPort().Port()
	return f, g.port
}

// end stops the daemon as SIGTERM does.
func (g *gateway) end() {
	g.t.Helper()
	g.stop()
	if err := <-g.done; err != nil {
		g.t.Errorf("the daemon ended with %v\n%s", err, g.log)
	}
}

// get asks the API.
func get[T any](g *gateway, path string) T {
	g.t.Helper()
	var v T
	if err := g.api.Do(context.Background(), "GET", path, nil, &v); err != nil {
		g.t.Fatalf("GET %s: %v\n%s", path, err, g.log)
	}
	return v
}

// logged waits until the message log answers a query with n messages: a client hears its reply before the log does.
func (g *gateway) logged(query string, n int) []*api.Message {
	g.t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(2 * time.Millisecond) {
		ms := get[[]*api.Message](g, "/v1/log?"+query)
		if len(ms) == n || time.Now().After(deadline) {
			return ms
		}
	}
}

// client is a mail client that speaks by hand.
type client struct {
	g *gateway
	c net.Conn
	r *bufio.Reader
}

func (g *gateway) dial() *client {
	g.t.Helper()
	c, err := net.Dial("tcp", g.addr)
	if err != nil {
		g.t.Fatal(err)
	}
	g.t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		g.t.Fatal(err)
	}
	cl := &client{g, c, bufio.NewReader(c)}
	cl.expect("220")
	return cl
}

func (c *client) reply() string {
	c.g.t.Helper()
	var all strings.Builder
	for {
		line, err := c.r.ReadString('\n')
		if err != nil {
			c.g.t.Fatalf("no reply: %v after %q\n%s", err, all.String(), c.g.log)
		}
		all.WriteString(line)
		if len(line) > 3 && line[3] == ' ' {
			return all.String()
		}
	}
}

func (c *client) expect(prefix string) string {
	c.g.t.Helper()
	r := c.reply()
	if !strings.HasPrefix(r, prefix) {
		c.g.t.Fatalf("reply %q, want %s\n%s", r, prefix, c.g.log)
	}
	return r
}

func (c *client) say(line, prefix string) string {
	c.g.t.Helper()
	if _, err := fmt.Fprintf(c.c, "%s\r\n", line); err != nil {
		c.g.t.Fatal(err)
	}
	return c.expect(prefix)
}

// mail sends one message and returns the answer to its end.
func (c *client) mail(to, body string) string {
	c.g.t.Helper()
	c.say("MAIL FROM:<alice@customer.example>", "250")
	c.say("RCPT TO:<"+to+">", "250")
	c.say("DATA", "354")
	if _, err := io.WriteString(c.c, body+"\r\n.\r\n"); err != nil {
		c.g.t.Fatal(err)
	}
	return c.reply()
}

const (
	ham   = "From: alice@customer.example\r\nSubject: lunch\r\n\r\nAt noon?\r\n"
	gtube = "From: alice@customer.example\r\nSubject: buy\r\n\r\nOffer %d\r\nXJS*C4JDBQADN1.NSBN3*2IDNEN*GTUBE-STANDARD-ANTI-UBE-TEST-EMAIL*C.34X\r\n"
)
