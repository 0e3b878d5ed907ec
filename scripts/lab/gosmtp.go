package lab

import (
	"io"
	"net/netip"
	"path/filepath"
	"strings"
	"time"

	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"
)

// goSMTP makes a sink's storage the backend of go-smtp's server: a peer whose
// dialogue this project did not write. Scripts do not apply to it.
type goSMTP struct {
	sink *Sink
}

// startGoSMTP must run inside the namespace "net".
func (l *Lab) startGoSMTP(m MX) error {
	s, err := newSink(m, filepath.Join(l.dir, "sink", m.Name), l.certs, 0)
	if err != nil {
		return err
	}
	for _, d := range m.Doors() {
		if err := l.goSMTPDoor(m, s, d); err != nil {
			return err
		}
	}
	l.addSink(m.Name, s)
	return nil
}

// goSMTPDoor serves one address.
func (l *Lab) goSMTPDoor(m MX, s *Sink, d Door) error {
	server := smtp.NewServer(goSMTP{s})
	server.Domain = m.Hostname()
	server.ReadTimeout, server.WriteTimeout = 5*time.Minute, 5*time.Minute
	server.MaxMessageBytes = 50 << 20
	server.MaxLineLength = 1 << 20 // bodies may have long lines
	server.EnableSMTPUTF8, server.EnableDSN, server.EnableREQUIRETLS = true, true, true
	if d.TLS {
		server.TLSConfig = l.certs.config(m.Hostname())
	}
	server.ErrorLog = discardLog{}
	ln, err := listen(netip.AddrPortFrom(d.Addr, 25).String())
	if err != nil {
		return err
	}
	go func() { _ = server.Serve(ln) }() // ends with server.Close
	l.onClose(server)
	return nil
}

// discardLog drops the server's complaints about clients that leave.
type discardLog struct{}

func (discardLog) Printf(string, ...any) {}
func (discardLog) Println(...any)        {}

// NewSession is part of smtp.Backend.
func (g goSMTP) NewSession(c *smtp.Conn) (smtp.Session, error) {
	return &goSMTPSession{sink: g.sink, conn: c}, nil
}

type goSMTPSession struct {
	sink *Sink
	conn *smtp.Conn
	msg  Message
	user string
}

// Mailbox is the account at go-smtp's server; anything else is refused. It is offered under TLS alone.
const Mailbox, MailboxPassword = "mailbox@gosmtp.example", "canary-4711-password"

// AuthMechanisms is part of smtp.AuthSession.
func (x *goSMTPSession) AuthMechanisms() []string { return []string{sasl.Plain} }

// Auth is part of smtp.AuthSession.
func (x *goSMTPSession) Auth(mech string) (sasl.Server, error) {
	if mech != sasl.Plain {
		return nil, smtp.ErrAuthUnknownMechanism
	}
	return sasl.NewPlainServer(func(_, user, password string) error {
		if user != Mailbox || password != MailboxPassword {
			return smtp.ErrAuthFailed
		}
		x.user = user
		return nil
	}), nil
}

func (x *goSMTPSession) Mail(from string, o *smtp.MailOptions) error {
	x.msg.Mail = "FROM:<" + from + ">"
	if o.RequireTLS {
		x.msg.Mail += " REQUIRETLS"
	}
	return nil
}

func (x *goSMTPSession) Rcpt(to string, _ *smtp.RcptOptions) error {
	switch {
	case strings.HasPrefix(to, "reject"):
		return &smtp.SMTPError{Code: 550, EnhancedCode: smtp.EnhancedCode{5, 1, 1}, Message: "Recipient unknown"}
	case strings.HasPrefix(to, "defer"):
		return &smtp.SMTPError{Code: 451, EnhancedCode: smtp.EnhancedCode{4, 3, 0}, Message: "Try again later"}
	}
	x.msg.Rcpts = append(x.msg.Rcpts, "TO:<"+to+">")
	return nil
}

func (x *goSMTPSession) Data(r io.Reader) error {
	data, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	m := x.msg
	m.Data, m.User = data, x.user
	m.Helo = x.conn.Hostname()
	m.ESMTP = true
	_, m.TLS = x.conn.TLSConnectionState()
	m.Peer, _ = netip.ParseAddrPort(x.conn.Conn().RemoteAddr().String())
	m.Local, _ = netip.ParseAddrPort(x.conn.Conn().LocalAddr().String())
	m.Reply = "250 2.0.0 OK: queued"
	return x.sink.store(&m)
}

func (x *goSMTPSession) Reset()        { x.msg = Message{} }
func (x *goSMTPSession) Logout() error { return nil }
