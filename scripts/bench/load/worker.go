package load

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"sluice/scripts/bench/message"
)

const (
	dialTimeout = 15 * time.Second
	// patience bounds a whole connection beyond the run's own duration.
	patience = 60 * time.Second
	// pause keeps a session from hammering a target that refuses it.
	pause = 20 * time.Millisecond
)

// The wire forms of the commands, made once: a conversion for each write would allocate.
var (
	starttls = []byte("STARTTLS\r\n")
	rset     = []byte("RSET\r\n")
	ehlo     = []byte("EHLO client.example\r\n")
	mail     = []byte("MAIL FROM:<sender@client.example>\r\n")
	rcpt     = []byte("RCPT TO:<recipient@sink.example>\r\n")
	dataCmd  = []byte("DATA\r\n")
	quit     = []byte("QUIT\r\n")
	together = bytes.Join([][]byte{mail, rcpt, dataCmd}, nil)
)

// worker is one session after another, and what it measured.
type worker struct {
	*shared
	tpl       *message.Template
	conn      net.Conn
	buf       [2048]byte
	r, w      int // unread bytes are buf[r:w]
	latencies []time.Duration
	sessions  []time.Duration
	unacked   []uint32
	faultsBy  map[string]Fault
	last      time.Time
}

// fault is a step that did not get the reply it needs.
type fault struct {
	step string
	text string
}

func (f *fault) Error() string { return f.step + ": " + f.text }

func (w *worker) run(ctx context.Context) {
	for !w.over() {
		start := time.Now()
		err := w.session(ctx)
		if err == nil {
			w.sessions = append(w.sessions, time.Since(start))
			continue
		}
		w.note(err)
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
	}
}

// note counts err under its step and the code of the reply.
func (w *worker) note(err error) {
	key, text := "other", err.Error()
	var f *fault
	if errors.As(err, &f) {
		fields := bytes.Fields([]byte(f.text))
		key = f.step + ": " + string(bytes.Join(fields[:min(2, len(fields))], []byte(" ")))
	} else {
		for _, known := range []error{syscall.ECONNREFUSED, syscall.ECONNRESET, syscall.EPIPE, syscall.EADDRNOTAVAIL, os.ErrDeadlineExceeded} {
			if errors.Is(err, known) {
				key = known.Error()
			}
		}
	}
	w.faultsBy[key] = Fault{Count: w.faultsBy[key].Count + 1, Sample: text}
	if w.faults.Add(1) >= maxFaults {
		w.stop.Store(true)
	}
}

// session makes one connection and sends up to PerConn messages through it.
func (w *worker) session(ctx context.Context) error {
	if err := w.dial(ctx); err != nil {
		return err
	}
	defer func() { w.conn.Close() }()
	if err := w.hello(); err != nil {
		return err
	}
	for range w.cfg.PerConn {
		place, more := w.claim()
		if !more {
			break
		}
		if err := w.transaction(place); err != nil {
			w.unacked = append(w.unacked, place)
			return err
		}
	}
	return w.ask("QUIT", quit, 221)
}

// hello brings the session to where mail may come.
func (w *worker) hello() error {
	if err := w.expect("greeting", 220); err != nil {
		return err
	}
	if err := w.ask("EHLO", ehlo, 250); err != nil || !w.cfg.TLS {
		return err
	}
	if err := w.ask("STARTTLS", starttls, 220); err != nil {
		return err
	}
	c := tls.Client(w.conn, w.secret())
	if err := c.Handshake(); err != nil {
		return err
	}
	w.conn, w.r, w.w = c, 0, 0
	return w.ask("EHLO", ehlo, 250)
}

// secret is a client's TLS: the same session is taken up again, as a mail server does.
func (s *shared) secret() *tls.Config {
	s.once.Do(func() {
		s.tls = &tls.Config{
			MinVersion: tls.VersionTLS12, InsecureSkipVerify: true, ServerName: "sink.example", DynamicRecordSizingDisabled: true,
			ClientSessionCache: tls.NewLRUClientSessionCache(16),
		}
	})
	return s.tls
}

func (w *worker) dial(ctx context.Context) error {
	n := w.conns.Add(1) - 1
	d := net.Dialer{Timeout: dialTimeout, KeepAlive: -1, Control: lateBind}
	d.SetMultipathTCP(false)
	var source netip.AddrPort
	if s := w.cfg.Sources; len(s) > 0 {
		source = netip.AddrPortFrom(s[n%uint32(len(s))], 0)
	}
	c, err := d.DialTCP(ctx, "tcp", source, w.target(n))
	if err != nil {
		return err
	}
	w.conn, w.r, w.w = c, 0, 0
	return c.SetDeadline(time.Now().Add(w.cfg.Duration + patience))
}

// target turns through all pairs of source and target, also when their numbers share a factor.
func (w *worker) target(n uint32) netip.AddrPort {
	if s := len(w.cfg.Sources); s > 0 {
		n += n / uint32(s)
	}
	return w.cfg.Targets[n%uint32(len(w.cfg.Targets))]
}

// lateBind lets the kernel choose the port at connect, so that one source
// address can use the same port towards several targets.
func lateBind(_, _ string, c syscall.RawConn) error {
	var err error
	ctlErr := c.Control(func(fd uintptr) {
		err = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1)
	})
	return errors.Join(ctlErr, err)
}

func (w *worker) transaction(place uint32) error {
	wire := w.tpl.Stamp(uint64(w.cfg.Run)<<32 | uint64(place))
	start := time.Now()
	if err := w.envelope(); err != nil {
		return err
	}
	if _, err := w.conn.Write(wire); err != nil {
		return err
	}
	if err := w.expect("end of data", 250); err != nil {
		return err
	}
	w.last = time.Now()
	w.latencies = append(w.latencies, w.last.Sub(start))
	return nil
}

// envelope brings the session to 354, in lock-step or in one batch.
func (w *worker) envelope() error {
	if w.cfg.Pipeline {
		return w.batch()
	}
	if err := w.ask("MAIL", mail, 250); err != nil {
		return err
	}
	if err := w.ask("RCPT", rcpt, 250); err != nil {
		return err
	}
	return w.ask("DATA", dataCmd, 354)
}

func (w *worker) batch() error {
	if _, err := w.conn.Write(together); err != nil {
		return err
	}
	if err := w.expect("MAIL", 250); err != nil {
		return err
	}
	if err := w.expect("RCPT", 250); err != nil {
		return err
	}
	return w.expect("DATA", 354)
}

// ask sends one command and reads its reply.
func (w *worker) ask(step string, command []byte, want int) error {
	if _, err := w.conn.Write(command); err != nil {
		return err
	}
	return w.expect(step, want)
}

// expect reads one reply, however many lines it has (RFC 5321 4.2.1), and
// returns a fault if its code is not want.
func (w *worker) expect(step string, want int) error {
	for {
		line, err := w.line()
		if err != nil {
			return fmt.Errorf("%s: %w", step, err)
		}
		if len(line) >= 5 && line[3] == '-' {
			continue
		}
		if want == 220 && w.greeting.Load() == nil {
			text := string(bytes.TrimRight(line, "\r\n"))
			w.greeting.Store(&text)
		}
		if len(line) < 5 || int(line[0]-'0')*100+int(line[1]-'0')*10+int(line[2]-'0') != want {
			return &fault{step: step, text: string(bytes.TrimRight(line, "\r\n"))}
		}
		return nil
	}
}

func (w *worker) line() ([]byte, error) {
	for {
		if i := bytes.IndexByte(w.buf[w.r:w.w], '\n'); i >= 0 {
			line := w.buf[w.r : w.r+i+1]
			w.r += i + 1
			return line, nil
		}
		w.w = copy(w.buf[:], w.buf[w.r:w.w])
		w.r = 0
		if w.w == len(w.buf) {
			return nil, errors.New("reply line is too long")
		}
		n, err := w.conn.Read(w.buf[w.w:])
		if n == 0 {
			return nil, err
		}
		w.w += n
	}
}
