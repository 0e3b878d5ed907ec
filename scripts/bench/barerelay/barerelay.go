// Package barerelay is the yardstick of the benchmark: the least SMTP-aware cut-through relay, which only follows commands, replies and the end of data.
//
// It filters nothing, keeps nothing and adds nothing. One goroutine serves a
// session in lock-step: whatever complete command lines have arrived go onward
// in one write, as many replies come back in one write, and after a 354 bytes
// are copied until CRLF.CRLF. So it costs little more than the two TCP
// connections themselves.
package barerelay

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	bufSize     = 16 << 10 // holds a 10 KiB message, so that it crosses in one read
	replySize   = 4 << 10
	dialTimeout = 25 * time.Second
	lifetime    = 5 * time.Minute // one deadline for a session: the runs last seconds
)

var (
	endOfData = []byte("\r\n.\r\n")
	errLine   = errors.New("line is longer than the buffer")
)

// Listen opens a listener that also takes connections to foreign addresses,
// as TPROXY hands them over. It needs CAP_NET_ADMIN.
func Listen(ctx context.Context, addr string) (net.Listener, error) {
	lc := net.ListenConfig{Control: transparent}
	lc.SetMultipathTCP(false)
	return lc.Listen(ctx, "tcp4", addr)
}

func transparent(_, _ string, c syscall.RawConn) error {
	var err error
	ctlErr := c.Control(func(fd uintptr) {
		err = unix.SetsockoptInt(int(fd), unix.SOL_IP, unix.IP_TRANSPARENT, 1)
	})
	return errors.Join(ctlErr, err)
}

// Serve relays every connection of l to the address that onward names for it,
// until l is closed. A message of no lines at all is the one thing it does not
// follow: the load never sends one.
func Serve(ctx context.Context, l net.Listener, onward func(net.Conn) string) error {
	var sessions sync.WaitGroup
	defer sessions.Wait()
	dialer := net.Dialer{Timeout: dialTimeout}
	dialer.SetMultipathTCP(false)
	pool := sync.Pool{New: func() any { return new(session) }}
	for {
		client, err := l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			return err
		}
		sessions.Go(func() {
			defer client.Close()
			remote, err := dialer.DialContext(ctx, "tcp", onward(client))
			if err != nil {
				return // the client sees its connection close, as with a dead server
			}
			defer remote.Close()
			s := pool.Get().(*session)
			defer pool.Put(s)
			s.reset(client, remote)
			s.run()
		})
	}
}

// OriginalDestination is where the client meant to go: TPROXY leaves it as the local address.
func OriginalDestination(c net.Conn) string { return c.LocalAddr().String() }

type session struct {
	client, remote net.Conn
	buf            [bufSize]byte
	n              int // bytes of the client in buf
	replies        [replySize]byte
}

func (s *session) reset(client, remote net.Conn) {
	s.client, s.remote, s.n = client, remote, 0
}

// run relays until either side leaves; there is nobody to tell why.
func (s *session) run() {
	end := time.Now().Add(lifetime)
	if s.client.SetDeadline(end) != nil || s.remote.SetDeadline(end) != nil {
		return
	}
	if _, err := s.relayReplies(1); err != nil {
		return
	}
	for {
		last, err := s.relayCommands()
		if err != nil || last == "QUIT" {
			return
		}
	}
}

// relayCommands sends on all complete lines and brings back their replies. It
// returns the last command's verb.
func (s *session) relayCommands() (string, error) {
	end := bytes.LastIndexByte(s.buf[:s.n], '\n') + 1
	for end == 0 {
		if s.n == len(s.buf) {
			return "", errLine
		}
		n, err := s.client.Read(s.buf[s.n:])
		if n == 0 {
			return "", err
		}
		end = bytes.LastIndexByte(s.buf[s.n:s.n+n], '\n') + 1
		if end > 0 {
			end += s.n
		}
		s.n += n
	}
	batch := s.buf[:end]
	last := verb(batch)
	count := bytes.Count(batch, []byte{'\n'})
	if _, err := s.remote.Write(batch); err != nil {
		return "", err
	}
	s.n = copy(s.buf[:], s.buf[end:s.n])
	code, err := s.relayReplies(count)
	if err == nil && last == "DATA" && code == '3' {
		err = s.relayBody()
	}
	return last, err
}

// verb names the last command of a batch; DATA and QUIT can only be last (RFC 2920 3.1).
func verb(batch []byte) string {
	line := batch[bytes.LastIndexByte(batch[:len(batch)-1], '\n')+1:]
	switch {
	case len(line) >= 4 && bytes.EqualFold(line[:4], []byte("DATA")):
		return "DATA"
	case len(line) >= 4 && bytes.EqualFold(line[:4], []byte("QUIT")):
		return "QUIT"
	}
	return ""
}

// relayReplies brings count replies back and returns the first digit of the last one.
func (s *session) relayReplies(count int) (byte, error) {
	var first byte
	kept := 0
	for count > 0 {
		n, err := s.remote.Read(s.replies[kept:])
		if n == 0 {
			return 0, err
		}
		all := s.replies[:kept+n]
		rest := all
		for i := bytes.IndexByte(rest, '\n'); i >= 0; i = bytes.IndexByte(rest, '\n') {
			if i < 4 || rest[3] != '-' {
				count--
				first = rest[0]
			}
			rest = rest[i+1:]
		}
		if done := all[:len(all)-len(rest)]; len(done) > 0 {
			if _, err := s.client.Write(done); err != nil {
				return 0, err
			}
		}
		if len(rest) == len(s.replies) {
			return 0, errLine
		}
		kept = copy(s.replies[:], rest)
	}
	return first, nil
}

// relayBody copies until the end of data and brings the reply back. What
// follows the end stays in the buffer.
func (s *session) relayBody() error {
	sent := 0 // bytes of buf that are already onward, kept for an end that is split
	for {
		if i := bytes.Index(s.buf[:s.n], endOfData); i >= 0 {
			end := i + len(endOfData)
			if _, err := s.remote.Write(s.buf[sent:end]); err != nil {
				return err
			}
			s.n = copy(s.buf[:], s.buf[end:s.n])
			_, err := s.relayReplies(1)
			return err
		}
		if s.n > sent {
			if _, err := s.remote.Write(s.buf[sent:s.n]); err != nil {
				return err
			}
		}
		sent = min(s.n, len(endOfData)-1)
		s.n = copy(s.buf[:], s.buf[s.n-sent:s.n])
		n, err := s.client.Read(s.buf[s.n:])
		if n == 0 {
			if err == nil {
				err = io.ErrNoProgress
			}
			return err
		}
		s.n += n
	}
}
