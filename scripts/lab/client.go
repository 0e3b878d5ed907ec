package lab

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Listen opens a TCP listener in host's namespace, never MPTCP.
func (l *Lab) Listen(host, addr string) (net.Listener, error) {
	var ln net.Listener
	err := l.In(host, func() (err error) {
		ln, err = listen(addr)
		return err
	})
	return ln, err
}

// listen waits for an address whose listener was just closed: a process that another test is starting has it, too, until it
// runs its own program.
func listen(addr string) (net.Listener, error) {
	var lc net.ListenConfig
	lc.SetMultipathTCP(false)
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		ln, err := lc.Listen(context.Background(), "tcp", addr)
		if !errors.Is(err, syscall.EADDRINUSE) || time.Now().After(end) {
			return ln, err
		}
	}
}

// Dial connects from host's namespace. laddr is "", an address, or an address
// and port; a port may be used again at once (SO_REUSEADDR).
func (l *Lab) Dial(ctx context.Context, host, laddr, raddr string) (net.Conn, error) {
	var d net.Dialer
	d.SetMultipathTCP(false)
	d.KeepAlive = -1
	if laddr != "" {
		a, err := parseLocal(laddr)
		if err != nil {
			return nil, err
		}
		d.LocalAddr = net.TCPAddrFromAddrPort(a)
		d.Control = func(_, _ string, c syscall.RawConn) error {
			var set error
			if err := c.Control(func(fd uintptr) {
				set = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
			}); err != nil {
				return err
			}
			return set
		}
	}
	if _, err := netip.ParseAddrPort(raddr); err != nil {
		return nil, fmt.Errorf("could not dial %q: it must be ADDRESS:PORT: %w", raddr, err)
	}
	var conn net.Conn
	err := l.In(host, func() (err error) {
		// With a literal address the dialer makes the socket on this thread.
		conn, err = d.DialContext(ctx, "tcp", raddr)
		return err
	})
	return conn, err
}

func parseLocal(s string) (netip.AddrPort, error) {
	if a, err := netip.ParseAddr(s); err == nil {
		return netip.AddrPortFrom(a, 0), nil
	}
	a, err := netip.ParseAddrPort(s)
	if err != nil {
		return a, fmt.Errorf("could not bind to %q: it must be ADDRESS or ADDRESS:PORT: %w", s, err)
	}
	return a, nil
}

// Resolver asks the lab's DNS server from host.
func (l *Lab) Resolver(host string) *net.Resolver {
	return &net.Resolver{PreferGo: true, StrictErrors: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		var d net.Dialer
		var conn net.Conn
		err := l.In(host, func() (err error) {
			conn, err = d.DialContext(ctx, network, netip.AddrPortFrom(ResolverV4, 53).String())
			return err
		})
		return conn, err
	}}
}

// Reply of an SMTP server.
type Reply struct {
	Code  int
	Lines []string // without code, separator and line end
	Raw   string   // as received
}

// String is the reply in one line, as in "250 2.0.0 Ok"; further lines follow
// after " / ".
func (r Reply) String() string {
	return fmt.Sprintf("%d %s", r.Code, strings.Join(r.Lines, " / "))
}

// Client is a plain SMTP dialogue, one command after the other or anything
// else a test wants to say.
type Client struct {
	Conn     net.Conn
	Greeting Reply
	in       *bufio.Reader
	timeout  time.Duration
}

// SMTP connects from host and reads the greeting. laddr and raddr are as in
// Dial. Every reply is waited for at most 30 s; see Timeout.
func (l *Lab) SMTP(ctx context.Context, host, laddr, raddr string) (*Client, error) {
	conn, err := l.Dial(ctx, host, laddr, raddr)
	if err != nil {
		return nil, err
	}
	c := NewClient(conn)
	if c.Greeting, err = c.Reply(); err != nil {
		_ = conn.Close()
		return nil, fmt.Errorf("no greeting from %s: %w", raddr, err)
	}
	return c, nil
}

// NewClient makes a client of a connection whose greeting is still to come.
func NewClient(conn net.Conn) *Client {
	return &Client{Conn: conn, in: bufio.NewReader(conn), timeout: 30 * time.Second}
}

// Timeout sets how long Reply waits.
func (c *Client) Timeout(d time.Duration) { c.timeout = d }

// Write sends bytes as they are.
func (c *Client) Write(p []byte) (int, error) { return c.Conn.Write(p) }

// Reply reads one reply (RFC 5321 4.2).
func (c *Client) Reply() (Reply, error) {
	var r Reply
	if err := c.Conn.SetReadDeadline(time.Now().Add(c.timeout)); err != nil {
		return r, err
	}
	for {
		line, err := c.in.ReadString('\n')
		r.Raw += line
		if err != nil {
			return r, err
		}
		line = strings.TrimRight(line, "\r\n")
		if len(line) < 3 {
			return r, fmt.Errorf("no SMTP reply: %q", line)
		}
		if r.Code, err = strconv.Atoi(line[:3]); err != nil {
			return r, fmt.Errorf("no SMTP reply: %q", line)
		}
		more := len(line) > 3 && line[3] == '-'
		r.Lines = append(r.Lines, strings.TrimLeft(line[3:], "- "))
		if !more {
			return r, nil
		}
	}
}

// Cmd sends one command line and reads its reply.
func (c *Client) Cmd(line string) (Reply, error) {
	if _, err := io.WriteString(c.Conn, line+"\r\n"); err != nil {
		return Reply{}, err
	}
	return c.Reply()
}

// Data sends DATA, the message with dots doubled, and the final dot. A message
// must end with CRLF to arrive as it is. The reply is the one to the dot, or
// to DATA where that was refused.
func (c *Client) Data(message []byte) (Reply, error) {
	r, err := c.Cmd("DATA")
	if err != nil || r.Code != 354 {
		return r, err
	}
	if _, err := c.Conn.Write(Stuff(message)); err != nil {
		return Reply{}, err
	}
	return c.Reply()
}

// Stuff doubles dots at line starts and adds the end-of-data line.
func Stuff(message []byte) []byte {
	out := bytes.ReplaceAll(message, []byte("\r\n."), []byte("\r\n.."))
	if bytes.HasPrefix(out, []byte(".")) {
		out = append([]byte("."), out...)
	}
	if len(out) > 0 && !bytes.HasSuffix(out, []byte("\r\n")) {
		out = append(bytes.Clone(out), "\r\n"...)
	}
	return append(bytes.Clone(out), ".\r\n"...)
}

// Send is one whole transaction: EHLO if not said, MAIL, every RCPT, DATA. The
// replies to the RCPTs and the last reply are returned.
func (c *Client) Send(from string, to []string, message []byte) (rcpts []Reply, last Reply, err error) {
	if last, err = c.Cmd("MAIL FROM:<" + from + ">"); err != nil || last.Code != 250 {
		return nil, last, err
	}
	accepted := false
	for _, t := range to {
		r, err := c.Cmd("RCPT TO:<" + t + ">")
		if err != nil {
			return rcpts, r, err
		}
		rcpts = append(rcpts, r)
		accepted = accepted || r.Code/100 == 2
		last = r
	}
	if !accepted {
		return rcpts, last, nil
	}
	last, err = c.Data(message)
	return rcpts, last, err
}

// StartTLS says STARTTLS and upgrades the connection, whatever the certificate;
// it returns what was agreed.
func (c *Client) StartTLS() (tls.ConnectionState, error) {
	r, err := c.Cmd("STARTTLS")
	if err != nil {
		return tls.ConnectionState{}, err
	}
	if r.Code != 220 {
		return tls.ConnectionState{}, fmt.Errorf("STARTTLS refused: %s", r)
	}
	if err := c.Handshake(); err != nil {
		return tls.ConnectionState{}, err
	}
	return c.Conn.(*tls.Conn).ConnectionState(), nil
}

// Handshake upgrades the connection after the server agreed to STARTTLS.
func (c *Client) Handshake() error {
	// The lab's certificates are self-signed; tests look at the state.
	t := tls.Client(c.Conn, &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS12})
	if err := t.SetDeadline(time.Now().Add(c.timeout)); err != nil {
		return err
	}
	if err := t.Handshake(); err != nil {
		return fmt.Errorf("TLS handshake: %w", err)
	}
	if err := t.SetDeadline(time.Time{}); err != nil {
		return err
	}
	c.Conn, c.in = t, bufio.NewReader(t)
	return nil
}

// Quit says QUIT, waits for the answer and closes.
func (c *Client) Quit() error {
	_, err := c.Cmd("QUIT")
	if closed := c.Conn.Close(); err == nil {
		err = closed
	}
	return err
}

// Close ends the connection with FIN.
func (c *Client) Close() error { return c.Conn.Close() }

// Reset ends the connection with RST, as a client that crashed.
func (c *Client) Reset() error {
	if t, ok := c.Conn.(*net.TCPConn); ok {
		if err := t.SetLinger(0); err != nil {
			return err
		}
	}
	return c.Conn.Close()
}

// sleep waits, or fails with ctx.
func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

// Swaks runs the swaks mail client on host.
func (l *Lab) Swaks(ctx context.Context, host string, args ...string) (Output, error) {
	return l.Exec(ctx, host, append([]string{"swaks"}, args...)...)
}
