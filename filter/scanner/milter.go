package scanner

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"

	gomilter "github.com/emersion/go-milter"

	"sluice/filter"
	"sluice/filter/message"
)

// milter leads the dialogue with a milter from its beginning for each message. What the milter wants to change in message or
// envelope is said in the log, and not done: the proxy passes on what the client sent.
type milter struct {
	address string
	class   filter.Class
	marks   []string
}

// What is offered: all changes, since milters that want to make some refuse to work otherwise, and to leave out any step or
// its answer. Only "skip the rest of the body" is not: go-milter takes that answer for a mistake.
const (
	milterActions = gomilter.OptAddHeader | gomilter.OptChangeBody | gomilter.OptAddRcpt | gomilter.OptRemoveRcpt | gomilter.OptChangeHeader |
		gomilter.OptQuarantine | gomilter.OptChangeFrom
	milterSteps = gomilter.OptNoConnect | gomilter.OptNoHelo | gomilter.OptNoMailFrom | gomilter.OptNoRcptTo | gomilter.OptNoBody |
		gomilter.OptNoHeaders | gomilter.OptNoEOH | gomilter.OptNoUnknown | gomilter.OptNoData | gomilter.OptNoHeaderReply |
		gomilter.OptNoConnReply | gomilter.OptNoHeloReply | gomilter.OptNoMailReply | gomilter.OptNoRcptReply | gomilter.OptNoDataReply |
		gomilter.OptNoUnknownReply | gomilter.OptNoEOHReply | gomilter.OptNoBodyReply | gomilter.OptHeaderLeadingSpace
)

// milterAnswers bounds what is read of a milter, beside a new body of the old one's size.
const milterAnswers = 4 << 20

// milterConn is a connection that was made already, and from which only so much is read.
type milterConn struct {
	net.Conn
	left int64
}

// Dial returns the connection itself; go-milter asks for none but the first.
func (c *milterConn) Dial(string, string) (net.Conn, error) { return c, nil }

// Read reads until there was too much.
func (c *milterConn) Read(p []byte) (int, error) {
	if c.left <= 0 {
		return 0, fmt.Errorf("more than %d bytes of answers", int64(milterAnswers))
	}
	n, err := c.Conn.Read(p[:min(int64(len(p)), c.left)])
	c.left -= int64(n)
	return n, err
}

// open begins a dialogue. The connection is the caller's to close, since go-milter leaves it open where it fails.
func (c *milter) open(ctx context.Context, room int64) (net.Conn, *gomilter.ClientSession, error) {
	conn, err := dial(ctx, c.address)
	if err != nil {
		return nil, nil, err
	}
	mc := &milterConn{conn, room}
	s, err := gomilter.NewClientWithOptions("", "", gomilter.ClientOptions{Dialer: mc, ActionMask: milterActions, ProtocolMask: milterSteps}).Session()
	if err != nil {
		_ = conn.Close() // it is useless in any case
		return nil, nil, err
	}
	return conn, s, nil
}

func (c *milter) ping(ctx context.Context) error {
	conn, s, err := c.open(ctx, milterAnswers)
	if err != nil {
		return err
	}
	defer conn.Close()
	return s.Close()
}

func (c *milter) ask(ctx context.Context, q *question) ([]filter.Hit, error) {
	conn, s, err := c.open(ctx, milterAnswers+q.size)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	d := &milterDialogue{s: s, q: q}
	if err := d.lead(); err != nil {
		return nil, err
	}
	_ = s.Close() // it has answered; what it thinks of a good-bye is not asked
	return c.understand(d)
}

// milterDialogue is one message told to a milter, up to the answer that ends it.
type milterDialogue struct {
	s       *gomilter.ClientSession
	q       *question
	end     *gomilter.Action
	at      string // the step that was answered
	changes []gomilter.ModifyAction
}

// step notes an answer; false where nothing more needs to be told.
func (d *milterDialogue) step(at string, a *gomilter.Action, err error) (bool, error) {
	if err != nil {
		return false, fmt.Errorf("%s: %w", at, err)
	}
	if a.Code == gomilter.ActContinue {
		return true, nil
	}
	d.end, d.at = a, at
	return false, nil
}

func (d *milterDialogue) lead() error {
	for _, part := range []func() (bool, error){d.hello, d.envelope, d.header, d.body} {
		if goOn, err := part(); !goOn || err != nil {
			return err
		}
	}
	return nil
}

func (d *milterDialogue) hello() (bool, error) {
	m := d.q.m
	a := m.Flow.Client.Addr().Unmap()
	family := gomilter.FamilyInet
	if a.Is6() {
		family = gomilter.FamilyInet6
	}
	if err := d.s.Macros(gomilter.CodeConn, "j", "localhost", "{daemon_name}", "sluice", "{client_addr}", a.String()); err != nil {
		return false, err
	}
	answer, err := d.s.Conn("["+a.String()+"]", family, m.Flow.Client.Port(), a.String())
	if goOn, err := d.step("connect", answer, err); !goOn {
		return false, err
	}
	answer, err = d.s.Helo(noNUL(m.Helo))
	return d.step("helo", answer, err)
}

func (d *milterDialogue) envelope() (bool, error) {
	m := d.q.m
	macros := []string{"i", m.ID, "{mail_addr}", noNUL(string(m.Envelope.From))}
	if m.Login != "" {
		macros = append(macros, "{auth_authen}", noNUL(m.Login))
	}
	if err := d.s.Macros(gomilter.CodeMail, macros...); err != nil {
		return false, err
	}
	answer, err := d.s.Mail(noNUL(string(m.Envelope.From)), nil)
	if goOn, err := d.step("mail", answer, err); !goOn {
		return false, err
	}
	for _, to := range m.Envelope.To {
		if err := d.s.Macros(gomilter.CodeRcpt, "{rcpt_addr}", noNUL(string(to))); err != nil {
			return false, err
		}
		answer, err := d.s.Rcpt(noNUL(string(to)), nil)
		if goOn, err := d.step("rcpt "+short(string(to), 80), answer, err); !goOn {
			return false, err
		}
	}
	return true, nil
}

func (d *milterDialogue) header() (bool, error) {
	for name, value := range message.Header(d.q.m.Data) {
		v := noNUL(strings.ReplaceAll(string(value), "\r\n", "\n"))
		if d.s.ProtocolOption(gomilter.OptHeaderLeadingSpace) {
			v = " " + v
		}
		answer, err := d.s.HeaderField(noNUL(string(name)), v)
		if goOn, err := d.step("header", answer, err); !goOn {
			return false, err
		}
	}
	answer, err := d.s.HeaderEnd()
	return d.step("end of header", answer, err)
}

func (d *milterDialogue) body() (bool, error) {
	r := d.q.reader()
	skip := int64(len(d.q.m.Data) - len(message.Body(d.q.m.Data)))
	if _, err := io.CopyN(io.Discard, r, min(skip, d.q.size)); err != nil {
		return false, err
	}
	buf := make([]byte, gomilter.MaxBodyChunk)
	for {
		n, err := io.ReadFull(r, buf)
		if n > 0 {
			answer, err := d.s.BodyChunk(buf[:n])
			if goOn, err := d.step("body", answer, err); !goOn {
				return false, err
			}
		}
		if err == io.EOF || err == io.ErrUnexpectedEOF {
			break
		}
		if err != nil {
			return false, err
		}
	}
	changes, answer, err := d.s.End()
	d.changes = changes
	return d.step("end of message", answer, err)
}

// noNUL takes out what would end a text in the protocol.
func noNUL(s string) string {
	if strings.IndexByte(s, 0) < 0 {
		return s
	}
	return strings.ReplaceAll(s, "\x00", "")
}

// understand makes hits of a dialogue. A milter that refuses one recipient refuses the message: the client was told already
// that all of them are good.
func (c *milter) understand(d *milterDialogue) (hits []filter.Hit, err error) {
	h := filter.Hit{Code: "MILTER", Text: "message is not accepted", Points: 1}
	if d.end != nil {
		if err := c.refusal(d.end, &h); err != nil {
			return nil, err
		}
		h.Evidence = "at " + d.at + ": " + nameOf(d.end)
	}
	for i := range d.changes {
		a := &d.changes[i]
		if a.Code == gomilter.ActQuarantine && filter.Quarantine.Stronger(h.Action) {
			h.Class, h.Action, h.Text, h.Evidence = c.class, filter.Quarantine, "message is held for a closer look", "quarantine: "+short(a.Reason, 150)
		}
		if c.marked(a) && filter.Reject.Stronger(h.Action) {
			h.Class, h.Action, h.SMTP, h.Enhanced, h.Evidence = c.marks2class(), filter.Reject, 550, "5.7.1", short("marked "+a.HeaderName+": "+a.HeaderValue, 200)
		}
	}
	if h.Action != filter.None {
		hits = append(hits, h)
	}
	if what := wanted(d.changes); what != "" {
		hits = append(hits, filter.Hit{Code: "MILTER-CHANGES", Text: "a milter wants to change the message, which is not done", Evidence: what})
	}
	return hits, nil
}

// marks2class is what a mark means: at least spam, since that is what fields mark.
func (c *milter) marks2class() filter.Class { return max(c.class, filter.Spam) }

// refusal fills in what an answer comes to.
func (c *milter) refusal(a *gomilter.Action, h *filter.Hit) error {
	switch a.Code {
	case gomilter.ActContinue, gomilter.ActAccept:
		return nil
	case gomilter.ActReject, gomilter.ActDiscard: // nothing vanishes here: what is to be thrown away is refused
		h.Class, h.Action, h.SMTP, h.Enhanced = c.class, filter.Reject, 550, "5.7.1"
	case gomilter.ActTempFail:
		h.Class, h.Action, h.SMTP, h.Enhanced, h.Text = filter.Policy, filter.Defer, 451, "4.7.1", "message is not accepted now"
	case gomilter.ActReplyCode:
		return c.reply(a, h)
	default:
		return fmt.Errorf("answer %q is unknown", byte(a.Code))
	}
	return nil
}

// reply takes over a milter's own reply; 421, which would end the session, becomes 451.
func (c *milter) reply(a *gomilter.Action, h *filter.Hit) error {
	code, text := a.SMTPCode, short(a.SMTPText, 200)
	if code < 400 || code > 599 {
		return fmt.Errorf("reply %d refuses nothing", code)
	}
	enhanced, rest, _ := strings.Cut(text, " ")
	if !isEnhanced(enhanced, code/100) {
		enhanced, rest = strconv.Itoa(code/100)+".7.1", text
	}
	if code == 421 {
		code = 451
	}
	h.SMTP, h.Enhanced, h.Class, h.Action = code, enhanced, c.class, filter.Reject
	if code < 500 {
		h.Class, h.Action = filter.Policy, filter.Defer
	}
	if rest != "" {
		h.Text = rest
	}
	return nil
}

// isEnhanced tells whether s is an enhanced status code of that class (RFC 3463 2).
func isEnhanced(s string, class int) bool {
	parts := strings.Split(s, ".")
	if len(parts) != 3 || parts[0] != strconv.Itoa(class) {
		return false
	}
	for _, p := range parts[1:] {
		if n, err := strconv.ParseUint(p, 10, 16); err != nil || n > 999 {
			return false
		}
	}
	return true
}

// marked tells whether a change adds a field that stands for bad mail.
func (c *milter) marked(a *gomilter.ModifyAction) bool {
	switch a.Code {
	case gomilter.ActAddHeader, gomilter.ActInsertHeader, gomilter.ActChangeHeader:
	default:
		return false
	}
	for _, mark := range c.marks {
		name, value, _ := strings.Cut(mark, ":")
		value = strings.TrimSpace(value)
		got := strings.TrimSpace(a.HeaderValue)
		if strings.EqualFold(a.HeaderName, name) && len(got) >= len(value) && strings.EqualFold(got[:len(value)], value) {
			return true
		}
	}
	return false
}

// wanted lists the changes that a milter asked for.
func wanted(changes []gomilter.ModifyAction) string {
	var b bytes.Buffer
	body := 0
	for i := range changes {
		a := &changes[i]
		switch a.Code {
		case gomilter.ActReplBody:
			body += len(a.Body)
			continue
		case gomilter.ActQuarantine:
			continue
		}
		if b.Len() > 300 {
			fmt.Fprintf(&b, "; %d more", len(changes)-i)
			break
		}
		if b.Len() > 0 {
			b.WriteString("; ")
		}
		switch a.Code {
		case gomilter.ActAddRcpt, gomilter.ActDelRcpt:
			b.WriteString(map[gomilter.ModifyActCode]string{gomilter.ActAddRcpt: "add", gomilter.ActDelRcpt: "remove"}[a.Code] + " recipient " + short(a.Rcpt, 80))
		case gomilter.ActChangeFrom:
			b.WriteString("sender " + short(a.From, 80))
		default:
			b.WriteString("field " + short(a.HeaderName, 40) + ": " + short(a.HeaderValue, 80))
		}
	}
	if body > 0 {
		fmt.Fprintf(&b, "; another body of %d bytes", body)
	}
	return strings.TrimPrefix(b.String(), "; ")
}

func nameOf(a *gomilter.Action) string {
	switch a.Code {
	case gomilter.ActReject:
		return "reject"
	case gomilter.ActDiscard:
		return "discard, which is refused instead"
	case gomilter.ActTempFail:
		return "temporary failure"
	case gomilter.ActReplyCode:
		return fmt.Sprintf("%d %s", a.SMTPCode, short(a.SMTPText, 150))
	}
	return "accept"
}
