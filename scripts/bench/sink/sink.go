// Package sink is the destination of the benchmark: an SMTP server that checks every message and keeps none.
package sink

import (
	"bytes"
	"crypto/tls"
	"errors"
	"net"
	"strconv"
	"sync"
	"time"

	"sluice/scripts/bench/message"
)

// idle ends a session whose client has gone away without a word.
const idle = 2 * time.Minute

// bufSize holds a 10 KiB message whole; larger ones pass through it in pieces.
const bufSize = 32 << 10

var (
	endOfData  = []byte("\r\n.\r\n")
	lineDot    = []byte("\n.")
	dot        = []byte(".")
	errTooLong = errors.New("command line is longer than the buffer")
)

const (
	greeting  = "220 sink.example ESMTP\r\n"
	ehlo      = "250-sink.example\r\n250-PIPELINING\r\n250-SIZE 52428800\r\n250-ENHANCEDSTATUSCODES\r\n"
	withTLS   = "250-STARTTLS\r\n"
	chunking  = "250-CHUNKING\r\n"
	ehloEnd   = "250 8BITMIME\r\n"
	ready     = "220 2.0.0 Ready\r\n"
	helo      = "250 sink.example\r\n"
	okSender  = "250 2.1.0 Sender ok\r\n"
	okRcpt    = "250 2.1.5 Recipient ok\r\n"
	goOn      = "354 End data with <CR><LF>.<CR><LF>\r\n"
	accepted  = "250 2.0.0 Message accepted\r\n"
	ok        = "250 2.0.0 Ok\r\n"
	bye       = "221 2.0.0 Bye\r\n"
	noRcpt    = "554 5.5.1 No recipient\r\n"
	noCommand = "502 5.5.2 Command not known\r\n"
	damaged   = "554 5.6.0 Message is damaged\r\n"
)

// Serve answers connections of l until l is closed, and tells tracker of every
// message; chunks tells whether it offers CHUNKING. It returns after the last session ended.
func Serve(l net.Listener, tracker *Tracker, chunks bool) error {
	secret, err := certificate()
	if err != nil {
		return err
	}
	var sessions sync.WaitGroup
	// With one message per connection a fresh buffer for each would be the sink's largest cost.
	pool := sync.Pool{New: func() any { return new(session) }}
	defer sessions.Wait()
	for {
		c, err := l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			return err
		}
		sessions.Go(func() {
			defer c.Close()
			s := pool.Get().(*session)
			defer pool.Put(s)
			s.reset(c, tracker, secret, chunks)
			s.run()
		})
	}
}

type session struct {
	conn    net.Conn
	kind    Kind
	secret  *tls.Config // nil once the connection is encrypted
	chunks  bool        // CHUNKING is offered
	tracker *Tracker
	check   message.Checker
	buf     [bufSize]byte
	r, w    int // unread bytes are buf[r:w]
	out     []byte
	rcpts   int
	done    bool
}

func (s *session) reset(c net.Conn, tracker *Tracker, secret *tls.Config, chunks bool) {
	s.conn, s.tracker, s.secret, s.chunks, s.kind = c, tracker, secret, chunks, Plain
	if local, ok := c.LocalAddr().(*net.TCPAddr); ok {
		s.kind = kindOf(local.AddrPort().Addr())
	}
	s.r, s.w, s.rcpts, s.done = 0, 0, 0, false
	s.out, s.check = s.out[:0], message.Checker{}
}

// run serves one session; a client that breaks off simply ends it, because
// what it lost shows in the tracker's missing numbers.
func (s *session) run() {
	s.out = append(s.out, greeting...)
	for {
		if err := s.flush(); err != nil || s.done {
			return
		}
		line, err := s.line()
		for ; err == nil; line, err = s.buffered() {
			if err = s.command(line); err != nil || s.done {
				break
			}
		}
		if err != nil && !errors.Is(err, errNoLine) {
			return
		}
	}
}

// flush sends all replies of a pipelined batch in one write (RFC 2920 3.2).
func (s *session) flush() error {
	if len(s.out) == 0 {
		return nil
	}
	_, err := s.conn.Write(s.out)
	s.out = s.out[:0]
	return err
}

var errNoChunk = errors.New("a BDAT that is not known here")

var errNoLine = errors.New("no complete line is buffered")

// buffered returns the next command line that has already arrived, else errNoLine.
func (s *session) buffered() ([]byte, error) {
	i := bytes.IndexByte(s.buf[s.r:s.w], '\n')
	if i < 0 {
		return nil, errNoLine
	}
	line := s.buf[s.r : s.r+i+1]
	s.r += i + 1
	return line, nil
}

func (s *session) line() ([]byte, error) {
	for {
		line, err := s.buffered()
		if !errors.Is(err, errNoLine) {
			return line, err
		}
		if err := s.fill(); err != nil {
			return nil, err
		}
	}
}

// fill reads once more; unread bytes first move to the front.
func (s *session) fill() error {
	if s.r > 0 {
		s.w = copy(s.buf[:], s.buf[s.r:s.w])
		s.r = 0
	}
	if s.w == len(s.buf) {
		return errTooLong
	}
	n, err := s.conn.Read(s.buf[s.w:])
	s.w += n
	if n > 0 {
		return nil
	}
	return err
}

func (s *session) command(line []byte) error {
	var verb [4]byte
	copy(verb[:], line)
	switch string(bytes.ToUpper(verb[:])) {
	case "EHLO":
		// One deadline for each greeting, not for each read: timers cost as much as parsing.
		if err := s.conn.SetDeadline(time.Now().Add(idle)); err != nil {
			return err
		}
		s.out = append(s.out, ehlo...)
		if s.kind == TLS && s.secret != nil {
			s.out = append(s.out, withTLS...)
		}
		if s.chunks {
			s.out = append(s.out, chunking...)
		}
		s.out = append(s.out, ehloEnd...)
	case "HELO":
		s.out = append(s.out, helo...)
	case "MAIL":
		s.rcpts = 0
		s.out = append(s.out, okSender...)
	case "RCPT":
		s.rcpts++
		s.out = append(s.out, okRcpt...)
	case "DATA":
		return s.data()
	case "BDAT":
		return s.chunk(line)
	case "STAR":
		return s.startTLS()
	case "RSET":
		s.rcpts = 0
		s.out = append(s.out, ok...)
	case "NOOP":
		s.out = append(s.out, ok...)
	case "QUIT":
		s.out = append(s.out, bye...)
		s.done = true
	default:
		s.out = append(s.out, noCommand...)
	}
	return nil
}

func (s *session) startTLS() error {
	if s.kind != TLS || s.secret == nil {
		s.out = append(s.out, noCommand...)
		return nil
	}
	s.out = append(s.out, ready...)
	if err := s.flush(); err != nil {
		return err
	}
	c := tls.Server(s.conn, s.secret)
	s.conn, s.secret = c, nil
	s.r, s.w = 0, 0 // what came before is not to be trusted (RFC 3207 4)
	return c.Handshake()
}

func (s *session) data() error {
	if s.rcpts == 0 {
		s.out = append(s.out, noRcpt...)
		return nil
	}
	s.rcpts = 0
	s.out = append(s.out, goOn...)
	if err := s.flush(); err != nil {
		return err
	}
	for {
		i := bytes.Index(s.buf[s.r:s.w], endOfData)
		if i >= 0 {
			s.check.Write(s.buf[s.r : s.r+i+2])
			s.r += i + len(endOfData)
			break
		}
		// The last four bytes may be the begin of the end.
		if n := s.w - s.r - (len(endOfData) - 1); n > 0 {
			s.check.Write(s.buf[s.r : s.r+n])
			s.r += n
		}
		if err := s.fill(); err != nil {
			return err
		}
	}
	return s.received()
}

// chunk takes a message that comes as one chunk (RFC 3030). Whatever else the command says ends the session, since what
// follows it may be text.
func (s *session) chunk(line []byte) error {
	f := bytes.Fields(line)
	if len(f) != 3 || !bytes.EqualFold(f[2], []byte("LAST")) {
		return errNoChunk
	}
	size, err := strconv.Atoi(string(f[1]))
	if err != nil || size < 0 {
		return errNoChunk
	}
	if s.rcpts == 0 {
		return errNoChunk
	}
	s.rcpts = 0
	for begins := true; ; {
		n := min(size, s.w-s.r)
		begins = s.checkPlain(s.buf[s.r:s.r+n], begins)
		s.r += n
		if size -= n; size == 0 {
			return s.received()
		}
		if err := s.fill(); err != nil {
			return err
		}
	}
}

// checkPlain checks a piece of a message whose dots are not doubled: the sum is of one whose dots are. begins tells whether the
// piece begins a line; given back is whether the next one does.
func (s *session) checkPlain(p []byte, begins bool) bool {
	for len(p) > 0 {
		if begins && p[0] == '.' {
			s.check.Write(dot)
		}
		i := bytes.Index(p, lineDot)
		if i < 0 {
			s.check.Write(p)
			return p[len(p)-1] == '\n'
		}
		s.check.Write(p[:i+1])
		p, begins = p[i+1:], true
	}
	return begins
}

// received answers a message that is here whole.
func (s *session) received() error {
	id, err := s.check.Finish()
	if err != nil {
		s.tracker.Damaged()
		s.out = append(s.out, damaged...)
		return nil
	}
	if s.kind == Slow {
		time.Sleep(SlowBy) // what it is for
	}
	s.tracker.Received(id)
	s.out = append(s.out, accepted...)
	return nil
}
