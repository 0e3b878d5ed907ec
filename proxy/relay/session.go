package relay

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"net"
	"net/netip"
	"strings"

	"sluice/proxy/smtp"
	"sluice/proxy/tlspolicy"
)

// Session is one onward SMTP session. It belongs to one goroutine. After an error of one of its methods it is of no
// further use but to be closed.
type Session struct {
	route    Route
	timeouts *Timeouts
	nc       net.Conn
	conn     *smtp.Conn
	caps     *Caps // shared with what is remembered of the destination once the session stands
	rep      smtp.Reply
	begun    int  // transactions that MAIL opened
	another  bool // another client has it since

	open    bool        // MAIL was accepted and not yet ended
	refused *smtp.Reply // MAIL's refusal in this transaction; nil: none
	reset   bool        // RSET is owed before the next MAIL
	limits  limits      // what counts towards the destination's own bounds
	taker   *taker      // the destination, where small messages may go as one chunk; else nil
	binary  bool        // MAIL said BODY=BINARYMIME: no DATA (RFC 3030 3)
	data    dataState   // what became of a DATA that went ahead of the message
	stream  *streaming  // the message goes while it comes; nil: it does not

	roots      *x509.CertPool    // trusted where a certificate is looked at
	met        *tlspolicy.Policy // that the session was found to meet
	leg        *tlspolicy.Leg    // made once
	refusedTLS bool              // STARTTLS was offered, and refused
	avoided    bool              // in plain text, since the handshake is known to fail

	done   func()       // the session has ended
	client Client       // of the message on its way
	ask    func() error // stillThere, made once
}

// begin reads the greeting and says EHLO.
func (s *Session) begin() *Failure {
	if err := s.conn.ReadReply(&s.rep); err != nil {
		return s.silent(err)
	}
	if s.rep.Class() != 2 {
		if s.rep.Class() == 3 {
			return broken("the connection with an impossible code", nil)
		}
		return refusal(&s.rep)
	}
	s.caps = &Caps{Greeting: firstText(&s.rep)} // what it was greeted with, first line
	return s.hello()
}

// mostText is how much is kept of a line by which a destination presents itself: more than names are long.
const mostText = 300

// firstText is the text of a reply's first line, as far as it is kept.
func firstText(r *smtp.Reply) (text string) {
	r.EachLine(func(line []byte) bool {
		text = string(bytes.TrimSpace(line[:min(len(line), mostText)]))
		return false
	})
	return text
}

// silent sorts an error before the session stands: to the client it is a destination that cannot be reached.
func (s *Session) silent(err error) *Failure {
	f := failed(err)
	if f.Enh == errProto {
		return f
	}
	return unreachable(f.Text, err)
}

// hello says EHLO, or HELO to a server that does not know EHLO (RFC 5321 3.2).
func (s *Session) hello() *Failure {
	for _, verb := range [...]string{"EHLO ", "HELO "} {
		if f := s.command(verb, s.route.Helo); f != nil {
			if f.Raw == nil {
				return s.silent(f)
			}
			return f
		}
		switch s.rep.Class() {
		case 2:
			s.caps = &Caps{ESMTP: verb == "EHLO ", Greeting: s.caps.Greeting}
			s.caps.Name, _, _ = strings.Cut(firstText(&s.rep), " ")
			if s.caps.ESMTP {
				s.caps.Extensions = smtp.ParseExtensions(&s.rep)
			}
			return nil
		case 3:
			return broken("EHLO with an impossible code", nil)
		case 4:
			return refusal(&s.rep)
		}
	}
	return refusal(&s.rep)
}

// command writes one command and reads its reply into s.rep.
func (s *Session) command(parts ...string) *Failure {
	if f := s.quiet(); f != nil {
		return f
	}
	if err := s.conn.WriteCommand(parts...); err != nil {
		return failed(err)
	}
	return s.read()
}

// read reads one reply into s.rep; 421 is a failure wherever it comes (RFC 5321 3.8).
func (s *Session) read() *Failure {
	if err := s.conn.ReadReply(&s.rep); err != nil {
		return failed(err)
	}
	if s.rep.Code == 421 {
		return refusal(&s.rep)
	}
	return nil
}

// quiet makes sure, by a look at the socket, that nothing is there which nobody asked for, and which would be taken for the
// reply to what is asked next; a 421 may come at any time. A destination that waits for a message would take a command for
// its text.
func (s *Session) quiet() *Failure {
	if s.Waits() {
		return failed(errWaits)
	}
	switch pending, err := s.conn.Probe(); {
	case err != nil:
		return failed(err)
	case !pending:
		return nil
	}
	half := s.conn.Buffered() > 0 && !s.conn.LineBuffered() // the rest of half a reply is not waited for
	if !half && s.conn.LastReply(&s.rep, lastWords) == nil && s.rep.Code == 421 {
		return refusal(&s.rep)
	}
	return failed(smtp.ErrUnsolicited)
}

// Listener hears the destination's reply to each recipient. The reply is valid during the call.
type Listener interface {
	Answer(i int, r *smtp.Reply)
}

// Recipients sends rcpts onward, before them MAIL where it has not gone yet in this transaction (and RSET where one is
// owed), in one write if the destination takes PIPELINING, and tells each reply in order. When MAIL is refused its
// refusal answers every recipient. The error is a *Failure; recipients up to it have been told.
func (s *Session) Recipients(mail *smtp.Mail, rcpts []smtp.Rcpt, told Listener) error {
	if f := s.recipients(mail, rcpts, told, false); f != nil {
		return f
	}
	return nil
}

func (s *Session) recipients(mail *smtp.Mail, rcpts []smtp.Rcpt, told Listener, data bool) *Failure {
	// A look at the socket is a system call. At the first recipients of a client's further mail what has come unseen shows before
	// the message goes at the latest.
	if s.Waits() || s.open || s.refused != nil || s.another || s.conn.Unread() {
		s.another = false
		if f := s.quiet(); f != nil {
			return f
		}
	}
	s.data = notAsked
	if s.open || s.refused != nil {
		return s.more(rcpts, told, data)
	}
	reset := s.reset
	s.begun++
	if !s.caps.Has(smtp.ExtPipelining) {
		if reset {
			if f := s.Reset(); f != nil {
				return f
			}
		}
		if err := s.writeMail(mail); err != nil {
			return failed(err)
		}
		if f := s.readMail(); f != nil {
			return f
		}
		return s.more(rcpts, told, false)
	}
	if reset {
		if err := s.conn.WriteCommand("RSET"); err != nil {
			return failed(err)
		}
	}
	if err := s.writeMail(mail); err != nil {
		return failed(err)
	}
	if err := s.writeGroup(rcpts, data); err != nil {
		return failed(err)
	}
	if reset {
		if f := s.readReset(); f != nil {
			return f
		}
	}
	if f := s.readMail(); f != nil {
		return f
	}
	return s.groupAnswers(rcpts, told, data)
}

// more sends further recipients of an open transaction.
func (s *Session) more(rcpts []smtp.Rcpt, told Listener, data bool) *Failure {
	switch {
	case s.refused != nil:
		for i := range rcpts {
			told.Answer(i, s.refused)
		}
		return nil
	case s.caps.Has(smtp.ExtPipelining):
		if err := s.writeGroup(rcpts, data); err != nil {
			return failed(err)
		}
		return s.groupAnswers(rcpts, told, data)
	}
	for i := range rcpts {
		if err := s.writeRcpts(rcpts[i : i+1]); err != nil {
			return failed(err)
		}
		if f := s.answers(i, rcpts[i:i+1], told); f != nil {
			return f
		}
	}
	return nil
}

// answers reads the replies to rcpts, the first of which is number from.
func (s *Session) answers(from int, rcpts []smtp.Rcpt, told Listener) *Failure {
	for i := range rcpts {
		if f := s.read(); f != nil {
			if s.refused == nil {
				return f
			}
			for ; i < len(rcpts); i++ { // it refused MAIL and left: that is its answer, and the session is dead
				told.Answer(from+i, s.refused)
			}
			s.conn.Interrupt()
			return nil
		}
		switch {
		case s.refused != nil: // what it says to RCPT without a MAIL does not matter
			told.Answer(from+i, s.refused)
		case s.rep.Class() == 3:
			return broken("RCPT with an impossible code", nil)
		default:
			told.Answer(from+i, &s.rep)
		}
	}
	return nil
}

func (s *Session) writeMail(m *smtp.Mail) error {
	s.binary = m.Body == smtp.BodyBinaryMIME
	p := m.Params
	if p != "" {
		if !s.caps.Has(smtp.ExtSize) && m.Size >= 0 {
			p = p.Without("SIZE") // the client's own estimate: nothing is lost with it
		}
		if !s.caps.Has(smtp.Ext8BitMIME) && m.Body != smtp.BodyBinaryMIME {
			p = p.Without("BODY") // of 8-bit messages the caller sees that they do not follow
		}
		if !s.caps.Has(smtp.ExtAuth) && m.Auth != "" {
			p = p.Without("AUTH") // who submitted it: told to whom it may concern, and lost to all others (RFC 4954 5)
		}
	}
	return s.conn.WriteCommand("MAIL FROM:<", m.Address, ">", p.Wire())
}

func (s *Session) writeRcpts(rcpts []smtp.Rcpt) error {
	for i := range rcpts {
		s.limits.sent(&s.caps.Limits, rcpts[i].Domain)
		if err := s.conn.WriteCommand("RCPT TO:<", rcpts[i].Address, ">", rcpts[i].Params.Wire()); err != nil {
			return err
		}
	}
	return nil
}

func (s *Session) readMail() *Failure {
	if f := s.read(); f != nil {
		return f
	}
	switch s.rep.Class() {
	case 2:
		s.open = true
	case 3:
		return broken("MAIL with an impossible code", nil)
	default:
		r := s.rep.Clone()
		s.refused = &r
	}
	return nil
}

func (s *Session) readReset() *Failure {
	if f := s.read(); f != nil {
		return f
	}
	if s.rep.Class() != 2 { // not an error of the protocol: a fresh session will do
		return &Failure{Code: 451, Enh: errLost, Text: "the destination could not forget an earlier message"}
	}
	s.reset = false
	return nil
}

// Abandon ends the transaction without a message. RSET goes out with the next MAIL, or never. A destination that waits for
// the message is not to be told in words: the session is to be closed.
func (s *Session) Abandon() {
	s.reset = s.reset || s.open
	s.open = false
	s.refused = nil
	if s.data == refusedData {
		s.data = notAsked
	}
}

// Reset sends the RSET that is owed, at once.
func (s *Session) Reset() *Failure {
	if f := s.quiet(); f != nil {
		return f
	}
	if err := s.conn.WriteCommand("RSET"); err != nil {
		return failed(err)
	}
	return s.readReset()
}

// Noop keeps the destination patient while a client uploads slowly. The error is a *Failure.
func (s *Session) Noop() error {
	if f := s.command("NOOP"); f != nil {
		return f
	}
	return nil
}

// Caps returns what the destination can do.
func (s *Session) Caps() *Caps { return s.caps }

// Begun returns how many transactions were begun on the session.
func (s *Session) Begun() int { return s.begun }

// Refused tells whether MAIL was refused in this transaction.
func (s *Session) Refused() bool { return s.refused != nil }

// Source returns the address the session leaves from.
func (s *Session) Source() netip.Addr { return s.route.Source }

// Local returns the address that the session really leaves from.
func (s *Session) Local() netip.Addr {
	if a, ok := s.nc.LocalAddr().(*net.TCPAddr); ok {
		return a.AddrPort().Addr().Unmap()
	}
	return netip.Addr{}
}

// Route returns the way of the session.
func (s *Session) Route() *Route { return &s.route }

// TLS returns the state of the leg's encryption.
func (s *Session) TLS() (tls.ConnectionState, bool) { return s.conn.TLS() }

// Encrypted tells whether the leg is encrypted.
func (s *Session) Encrypted() bool { return s.conn.Encrypted() }

// Protected tells whether what goes over the session is encrypted by TLS 1.2 or newer, as it is now and not as it was
// remembered.
func (s *Session) Protected() bool {
	st, encrypted := s.conn.TLS()
	return encrypted && st.HandshakeComplete && st.Version >= tls.VersionTLS12
}
