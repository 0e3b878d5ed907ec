package proxy

import (
	"errors"
	"net"
	"strconv"
	"sync/atomic"
	"time"

	"sluice/filter"
	"sluice/filter/message"
	"sluice/filter/policy"
	"sluice/intercept/flow"
	"sluice/proxy/relay"
	"sluice/proxy/smtp"
)

// session is one connection's dialogue. One goroutine leads it; others touch only what is atomic.
type session struct {
	srv     *Server
	set     *resolved
	user    *policy.Settings
	ctx     life      // ends when the session is cut
	over    func()    // hears, once, that the session has ended
	gate    func()    // gives back the place of a session that was let in; may be nil
	until   time.Time // how long a command is waited for, where that is begun; else zero
	house   *House    // the smarthost that it is a session of; nil: it is intercepted
	who     *Client   // who logged in there; &nobody where nobody did
	tenancy *tenancy  // whom the service at the source may speak for there; nil: nobody
	draft   Draft     // of the message that is coming there; nil: none
	client  clientConn
	conn    *smtp.Conn
	flow    *flow.Flow

	stageAt atomic.Int64 // unix nanoseconds
	sent    atomic.Int32 // transactions begun
	name    atomic.Pointer[string]
	secure  atomic.Bool                   // the client leg is encrypted
	cut     atomic.Pointer[relay.Session] // the last onward session

	explains atomic.Bool // began under the lock that is in force
	doomed   atomic.Bool // is to end at once
	ticket   string      // of the lock that ended the session

	helo   string
	esmtp  bool
	offer  smtp.Extensions // what the client was offered
	host   string          // what the destination calls itself; "" where it was not asked
	remote *relay.Session  // nil: none
	early  *early          // an onward session that is being opened; nil: none
	blind  *relay.Session  // one in plain text, for the client's own handshake with the destination; nil: none
	used   time.Time       // last use of remote
	*work                  // nil while the session is parked without a transaction
	manner manner

	ahead bool

	starttls policy.StartTLS // what becomes of STARTTLS
	why      string          // somebody said so
	withheld string          // that it was not offered, though the destination does
	learnt   string          // why it passes, where nobody said so; "" else
	left     bool            // the client ended the session
	own      bool            // the mail leaves from the customer's own address, whatever is set: he authenticates
	authed   bool            // and did
	attempts int             // wrong passwords
	parts    bool            // the body is coming in chunks, of which the last is still to come
	last     string          // our last reply that was worth a note
	heard    string          // the destination's last reply
	note     string          // why the session ended without a message
	waited   time.Duration   // for the greeting
	block    Obstacle        // why the client could not send
	shadow   bool            // the dialogue is not ours
	opaque   bool            // what was said went by encrypted
	passed   Unread          // and how much it was
	bye      bool            // the last reply is written: close
	gone     bool            // nobody is there to be answered: close

	tick func() error // noop, made once
	row  uint8        // commands since it last waited for something
	turn bool         // has one of the turns of those who are busy
	slot int          // of the message in flight; -1: none

	overtaken string // ticket of a lock that came between a message's verdict and its dot
}

func newSession(srv *Server, nc net.Conn, f *flow.Flow) *session {
	s := &session{srv: srv, set: srv.set.Load(), flow: f, who: &nobody, slot: -1, manner: manner{step: srv.noiseStep}}
	s.takeUp()
	s.tick = s.noop
	s.client.Conn = nc
	s.client.place.Who = s
	s.conn = smtp.NewConn(&s.client, smtp.Options{
		ReadTimeout: s.set.Timeouts.Command, WriteTimeout: s.set.Timeouts.Command,
	})
	s.stageAt.Store(f.Start.UnixNano())
	return s
}

// lead takes the session on with one step and what follows, until it ends or is parked.
func (s *session) lead(step func() (ok, parked bool)) {
	parked, mistake := false, true
	defer func() {
		if !parked {
			s.rest()
			if !mistake { // else nobody is to work in what it left
				s.layDown()
			}
			s.over()
		}
	}()
	defer s.srv.survive(s)
	defer func() {
		if !parked {
			s.end()
		}
	}()
	ok, parked := step()
	for ok && !parked && !s.bye && !s.gone {
		ok, parked = s.step()
	}
	mistake = false
}

// step reads and answers one command; not ok ends the session. One that is parked is somebody else's from then on.
func (s *session) step() (ok, parked bool) {
	if !s.tx.open && !s.between() {
		return false, false
	}
	return s.await()
}

// between begins the wait for a command outside a transaction, or ends the session.
func (s *session) between() bool {
	s.set = s.srv.set.Load()
	s.stage(idle)
	if s.srv.drain.Err() != nil {
		s.stage(envelope)
		return s.leave(stopping)
	}
	if s.lockedOut() {
		return false
	}
	if s.doomed.Load() { // cut while the destination had a message's dot; the lock may be lifted by now
		s.stage(envelope)
		return s.leave(connectAgain)
	}
	return true
}

// await waits for a command, parked if that takes long, and answers it.
func (s *session) await() (ok, parked bool) {
	cmd, err := s.read()
	if err == smtp.ErrIdle {
		if s.park() {
			return true, true
		}
		cmd, err = s.read()
	}
	return s.heed(&cmd, err), false
}

// heed answers a command, or why there is none; false ends the session.
func (s *session) heed(cmd *smtp.Command, err error) bool {
	s.until = time.Time{}
	if !s.tx.open && !s.client.stage.CompareAndSwap(idle, envelope) || errors.Is(err, errWoken) {
		return s.interrupted()
	}
	if err != nil {
		return s.unread(err)
	}
	if !s.parts && s.lockedOut() { // a message in chunks has its answer first, like one in DATA
		return false
	}
	if s.yield(); s.gone {
		return false
	}
	s.dispatch(cmd)
	if s.manner.worn() && !s.bye {
		return s.leave(tooManyErrors)
	}
	return true
}

// read gives the next command, the one read ahead first.
func (s *session) read() (smtp.Command, error) {
	if s.ahead {
		s.ahead = false
		return s.next, s.nextErr
	}
	if (s.row > 0 || s.turn) && !s.conn.LineBuffered() {
		s.rest()
	}
	return s.conn.ReadCommand()
}

// unread answers a command that could not be read; false ends the session.
func (s *session) unread(err error) bool {
	code, enh, text, ok := smtp.ReplyFor(err)
	if !ok {
		s.note, s.gone, s.left = "client reset", true, true
		s.refusedLate(err)
		return false
	}
	s.say(answer{code, enh, text})
	if !smtp.Recoverable(err) {
		s.note = text
		s.bye = true
		return false
	}
	if s.manner.worn() {
		return s.leave(tooManyErrors)
	}
	return true
}

func (s *session) dispatch(cmd *smtp.Command) {
	switch cmd.Verb {
	case smtp.EHLO, smtp.HELO:
		s.hello(cmd)
	case smtp.MAIL:
		s.mail(cmd)
	case smtp.RCPT:
		s.rcpt(cmd)
	case smtp.DATA:
		s.dataCommand(cmd)
	case smtp.BDAT:
		s.chunk(cmd)
	case smtp.RSET:
		s.reset()
	case smtp.NOOP:
		s.noopCommand(cmd)
	case smtp.QUIT:
		s.quit()
	case smtp.AUTH:
		s.auth(cmd)
	case smtp.VRFY, smtp.EXPN:
		s.noisy(s.set.fixed.verify)
	case smtp.HELP:
		s.noisy(s.set.fixed.help)
	case smtp.STARTTLS:
		s.startTLS(cmd)
	case smtp.Unknown:
		s.say(notKnown)
	default:
		s.say(notImplemented)
	}
}

// say writes an answer of ours, with the gateway's name, and counts errors.
func (s *session) say(a answer) {
	text := s.set.Name + ": " + a.text
	s.conn.WriteReply(a.code, a.enh, text)
	s.last = line(a.code, a.enh, text)
	s.pause(s.manner.replied(a.code))
	s.bye = s.bye || a.code == 421 // RFC 5321 3.8: nothing follows it
}

// line is a reply as the log keeps it.
func line(code int, enh smtp.Enhanced, text string) string {
	if enh == (smtp.Enhanced{}) {
		return strconv.Itoa(code) + " " + text
	}
	return strconv.Itoa(code) + " " + enh.String() + " " + text
}

// pass writes a reply of the destination as it is.
func (s *session) pass(raw []byte) {
	s.conn.WriteRaw(raw)
	s.last = s.lines.of(raw)
}

// lines are the last two first lines of replies: most destinations say the same to each recipient.
type lines struct {
	two    [2]string
	newest int
}

// of is the first line of a reply.
func (l *lines) of(raw []byte) string {
	line := cutToLine(raw)
	for i := range l.two {
		if l.two[i] == string(line) {
			l.newest = i
			return l.two[i]
		}
	}
	l.newest = 1 - l.newest
	l.two[l.newest] = string(line)
	return l.two[l.newest]
}

// mostLine is how much of a reply's line the log keeps (RFC 5321 4.5.3.1.5); a destination may send more.
const mostLine = 512

// firstLine cuts a reply to its first line.
func firstLine(raw []byte) string { return string(cutToLine(raw)) }

func cutToLine(raw []byte) []byte {
	raw = raw[:min(len(raw), mostLine)]
	for i, c := range raw {
		if c == '\r' || c == '\n' {
			return raw[:i]
		}
	}
	return raw
}

// leave says a last answer; always false.
func (s *session) leave(a answer) bool {
	s.say(a)
	if s.note == "" {
		s.note = a.text
	}
	s.bye = true
	return false
}

// quit answers QUIT.
func (s *session) quit() {
	s.conn.WriteRaw(s.set.fixed.bye)
	s.bye, s.left = true, true
	if s.note == "" {
		s.note = "client quit"
	}
}

func (s *session) stage(to uint32) {
	s.client.stage.Store(to)
}

// live tells what the session is at. The server's list is locked: who answers for it may change.
func (s *session) live() Live {
	l := Live{
		Flow: *s.flow, State: stages[s.client.stage.Load()], Messages: int(s.sent.Load()), TLS: s.secure.Load(),
		Since: time.Unix(0, s.stageAt.Load()),
	}
	if n := s.name.Load(); n != nil {
		l.Helo = *n
	}
	return l
}

// base returns the message as far as the session knows it.
func (s *session) base() message.Message {
	return message.Message{Flow: s.flow, Helo: s.helo, TLS: s.secure.Load()}
}

// ask asks the filter at a phase without a time limit of its own: those checks do not wait.
func (s *session) ask(p filter.Phase, m *message.Message) filter.Verdict {
	return s.set.Pipeline.Ask(&s.ctx, p, m)
}
