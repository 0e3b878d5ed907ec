package lab

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// errEnd ends a session on purpose; its text is the reason.
type errEnd string

func (e errEnd) Error() string { return string(e) }

// sinkSession is one SMTP dialogue of a sink (RFC 5321), lenient in what it
// takes and exact in what it stores.
type sinkSession struct {
	sink  *Sink
	conn  net.Conn
	tcp   net.Conn
	in    *bufio.Reader
	out   *bufio.Writer
	rec   *Session
	seen  map[string]int
	msg   Message
	began bool // MAIL was accepted
	chunk bytes.Buffer
	last  string // the last reply that was sent
}

// maxIdle is longer than any patience of a client (RFC 5321 4.5.3.2).
const maxIdle = 15 * time.Minute

func (s *Sink) session(conn net.Conn) {
	x := &sinkSession{sink: s, conn: conn, tcp: conn, seen: map[string]int{}}
	x.rec = &Session{Start: time.Now()}
	x.rec.Peer, _ = netip.ParseAddrPort(conn.RemoteAddr().String())
	x.rec.Local, _ = netip.ParseAddrPort(conn.LocalAddr().String())
	x.msg.Peer, x.msg.Local = x.rec.Peer, x.rec.Local
	x.wrap(conn)
	s.mu.Lock()
	s.sessions = append(s.sessions, x.rec)
	s.changed()
	s.mu.Unlock()

	err := s.readScriptFile()
	if err == nil && s.stranger(x.rec.Peer.Addr()) {
		err = errors.Join(x.say("554 5.7.1 I do not know you\r\n"), errEnd("a stranger"))
	} else if err == nil {
		err = x.talk()
	}
	_ = x.out.Flush()
	s.mu.Lock()
	x.rec.End = err.Error()
	s.changed()
	s.mu.Unlock()
}

func (x *sinkSession) wrap(conn net.Conn) {
	x.conn = conn
	x.in, x.out = bufio.NewReaderSize(conn, 64<<10), bufio.NewWriterSize(conn, 16<<10)
}

// talk never returns nil: a session ends with a reason.
func (x *sinkSession) talk() error {
	if err := x.step("connect", "", fmt.Sprintf("220 %s ESMTP lab", x.sink.host)); err != nil {
		return err
	}
	for {
		if x.in.Buffered() == 0 {
			if err := x.out.Flush(); err != nil {
				return err
			}
		}
		if err := x.conn.SetReadDeadline(time.Now().Add(maxIdle)); err != nil {
			return err
		}
		line, err := x.in.ReadString('\n')
		if err != nil {
			return err
		}
		line = strings.TrimRight(line, "\r\n")
		x.note("C: " + line)
		verb, arg, _ := strings.Cut(line, " ")
		if err := x.command(strings.ToLower(verb), strings.TrimSpace(arg)); err != nil {
			return err
		}
	}
}

func (x *sinkSession) note(line string) {
	x.sink.mu.Lock()
	x.rec.Lines = append(x.rec.Lines, line)
	x.sink.mu.Unlock()
}

func (x *sinkSession) command(verb, arg string) error {
	switch verb {
	case "ehlo", "helo":
		return x.hello(verb, arg)
	case "starttls":
		return x.startTLS()
	case "mail":
		return x.mail(arg)
	case "rcpt":
		return x.rcpt(arg)
	case "data":
		return x.data()
	case "bdat":
		return x.bdat(arg)
	case "rset":
		x.clear()
		return x.step(verb, "", "250 2.0.0 Ok")
	case "noop":
		return x.step(verb, "", "250 2.0.0 Ok")
	case "vrfy":
		return x.step(verb, "", "252 2.0.0 Perhaps")
	case "auth":
		return x.step(verb, "", "503 5.5.1 No authentication here")
	case "quit":
		if err := x.step(verb, "", "221 2.0.0 Bye"); err != nil {
			return err
		}
		return errEnd("quit")
	}
	return x.step("other", "", "500 5.5.2 Unknown command")
}

func (x *sinkSession) clear() {
	x.began = false
	x.chunk.Reset()
	x.msg.Mail, x.msg.Rcpts, x.msg.Data, x.msg.Chunking = "", nil, nil, false
}

func (x *sinkSession) hello(verb, arg string) error {
	if verb == "ehlo" && x.sink.opts.NoESMTP {
		return x.step(verb, "", "502 5.5.2 Command not implemented")
	}
	x.clear()
	x.msg.Helo, x.msg.ESMTP = arg, verb == "ehlo"
	if verb == "helo" {
		return x.step(verb, "", "250 "+x.sink.host)
	}
	lines := []string{x.sink.host, "PIPELINING", "SIZE 52428800", "8BITMIME", "SMTPUTF8", "DSN", "ENHANCEDSTATUSCODES"}
	if !x.sink.opts.NoChunks {
		lines = append(lines, "CHUNKING")
	}
	if x.sink.encrypts() && !x.msg.TLS {
		lines = append(lines, "STARTTLS")
	}
	var reply strings.Builder
	for i, l := range lines {
		sep := "-"
		if i == len(lines)-1 {
			sep = " "
		}
		reply.WriteString("250" + sep + l + "\r\n")
	}
	return x.step(verb, "", strings.TrimSuffix(reply.String(), "\r\n"))
}

func (x *sinkSession) startTLS() error {
	if !x.sink.encrypts() || x.msg.TLS {
		return x.step("starttls", "", "503 5.5.1 Not here")
	}
	if err := x.step("starttls", "", "220 2.0.0 Go ahead"); err != nil {
		return err
	}
	if !strings.HasPrefix(x.last, "220") {
		return nil
	}
	if err := x.out.Flush(); err != nil {
		return err
	}
	if n := x.in.Buffered(); n > 0 {
		x.note(fmt.Sprintf("(%d bytes of plaintext after STARTTLS)", n))
	}
	t := tls.Server(x.tcp, x.sink.tlsConfig())
	if err := t.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		return err
	}
	if err := t.Handshake(); err != nil {
		return fmt.Errorf("TLS: %w", err)
	}
	if err := t.SetDeadline(time.Time{}); err != nil {
		return err
	}
	x.wrap(t)
	x.clear()
	x.msg.TLS, x.msg.Helo = true, ""
	x.note("(TLS)")
	return nil
}

func (x *sinkSession) mail(arg string) error {
	switch {
	case x.sink.opts.RequireTLS && !x.msg.TLS:
		return x.step("mail", "", "530 5.7.0 Must issue a STARTTLS command first")
	case x.msg.Helo == "":
		return x.step("mail", "", "503 5.5.1 Say HELO first")
	case x.began:
		return x.step("mail", "", "503 5.5.1 Nested MAIL")
	}
	if err := x.step("mail", local(arg), "250 2.1.0 Ok"); err != nil {
		return err
	}
	if strings.HasPrefix(x.last, "2") {
		x.began, x.msg.Mail = true, arg
	}
	return nil
}

func (x *sinkSession) rcpt(arg string) error {
	answer := "250 2.1.5 Ok"
	name := local(arg)
	switch {
	case !x.began:
		answer = "503 5.5.1 Say MAIL first"
	case strings.HasPrefix(name, "reject"):
		answer = "550 5.1.1 <" + pathOf(arg) + ">: Recipient unknown"
	case strings.HasPrefix(name, "defer"):
		answer = "451 4.3.0 <" + pathOf(arg) + ">: Try again later"
	case x.sink.opts.Grey && x.sink.greylisted(x.msg.Peer.Addr(), x.msg.Mail, arg):
		answer = "451 4.7.1 Greylisted, try again later"
	}
	if err := x.step("rcpt", name, answer); err != nil {
		return err
	}
	if strings.HasPrefix(x.last, "2") {
		x.msg.Rcpts = append(x.msg.Rcpts, arg)
	}
	return nil
}

// greylisted tells whether a triplet has to wait, and remembers it.
func (s *Sink) greylisted(peer netip.Addr, mail, rcpt string) bool {
	bits := 24
	if peer.Is6() {
		bits = 64
	}
	net, _ := peer.Prefix(bits)
	key := strings.ToLower(net.String() + " " + pathOf(mail) + " " + pathOf(rcpt))
	s.mu.Lock()
	defer s.mu.Unlock()
	first, known := s.grey[key]
	if !known {
		s.grey[key] = time.Now()
		return true
	}
	return time.Since(first) < s.gap
}

func (x *sinkSession) data() error {
	answer := "354 End data with <CR><LF>.<CR><LF>"
	if len(x.msg.Rcpts) == 0 {
		answer = "503 5.5.1 No valid recipients"
	}
	if err := x.step("data", "", answer); err != nil {
		return err
	}
	if !strings.HasPrefix(x.last, "354") {
		return nil
	}
	if err := x.out.Flush(); err != nil {
		return err
	}
	body, err := x.readBody()
	if err != nil {
		return err
	}
	return x.finish(body)
}

// readBody reads a message up to its final dot (RFC 5321 4.5.2). A line begins
// only after CRLF; a lone CR or LF is kept as it is and begins nothing.
func (x *sinkSession) readBody() ([]byte, error) {
	limit, actions := x.rules().bodyLimit()
	var body bytes.Buffer
	fresh := true // the next byte is the first of a line
	for {
		part, err := x.in.ReadSlice('\n')
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			return nil, fmt.Errorf("in the body after %d bytes: %w", body.Len(), err)
		}
		if fresh && bytes.Equal(part, []byte(".\r\n")) {
			return body.Bytes(), nil
		}
		if fresh && part[0] == '.' {
			part = part[1:]
		}
		body.Write(part)
		fresh = bytes.HasSuffix(body.Bytes(), []byte("\r\n"))
		if limit >= 0 && body.Len() >= limit {
			limit = -1
			if err := x.act(actions, ""); err != nil {
				return nil, err
			}
			if err := x.out.Flush(); err != nil {
				return nil, err
			}
		}
	}
}

// bdat takes one chunk (RFC 3030).
func (x *sinkSession) bdat(arg string) error {
	size, last, _ := strings.Cut(arg, " ")
	n, err := strconv.Atoi(size)
	if err != nil || n < 0 {
		return x.step("bdat", "", "501 5.5.4 BDAT size [LAST]")
	}
	if _, err := io.CopyN(&x.chunk, x.in, int64(n)); err != nil {
		return fmt.Errorf("in a chunk: %w", err)
	}
	if len(x.msg.Rcpts) == 0 {
		x.chunk.Reset()
		return x.step("bdat", "", "503 5.5.1 No valid recipients")
	}
	if !strings.EqualFold(last, "LAST") {
		return x.step("bdat", "", "250 2.0.0 Ok")
	}
	x.msg.Chunking = true
	return x.finish(bytes.Clone(x.chunk.Bytes()))
}

// finish answers the end of data; the message is stored before the reply.
func (x *sinkSession) finish(body []byte) error {
	m := x.msg
	m.Data = body
	defer x.clear()
	return x.end(&m)
}
