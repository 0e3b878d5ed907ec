package proxy

import (
	"strconv"
	"strings"
	"time"

	"sluice/filter"
	"sluice/filter/message"
	"sluice/intercept/flow"
	"sluice/proxy/pool"
	"sluice/proxy/relay"
	"sluice/proxy/smtp"
	"sluice/proxy/tlspolicy"
)

// batch is how many recipients go onward in one write at most: their replies, even of 512 bytes, then fit into the
// socket buffers while we still write.
const batch = 64

// Bounds of one transaction, for memory's sake. RFC 5321 4.5.3.1.8 asks for 100 recipients.
const (
	mostRcpts   = 2000     // that are accepted
	mostRefused = 100      // in the record, of those that are not; of the rest it has the number
	mostTried   = 10_000   // RCPT commands, after which the session ends
	mostTexts   = 64 << 10 // bytes of replies to recipients in the record
)

// transaction is what lies between MAIL and its end.
type transaction struct {
	open   bool
	start  time.Time
	ended  time.Time // the end of its data
	mail   smtp.Mail
	msg    message.Message
	rec    *Record
	ticket string // of the lock on the user; "" is none
	late   bool   // whose message it is came to light at its end
	admin  bool   // a locked user's mail to the administrator: it goes on
	failed *relay.Failure
	// The destination put the first recipient off, and what it takes of the others counts for nothing: the message is kept.
	keeping bool
	risk    bool              // the mail leaves through the pool of risky mail alone
	aside   bool              // the mail leaves through the pool of forwarded mail
	tag     string            // header fields that the filter adds where the mail goes on
	terms   *tlspolicy.Policy // what the onward leg must be

	reported *relay.Session // whose leg the record tells of

	asked   []smtp.Rcpt // recipients of this batch, on their way
	passed  []smtp.Rcpt // recipients that were accepted
	tried   int         // RCPT commands that were answered
	refused int         // of them, those not accepted
	invalid int         // of them, those that the destination does not know
	heard   int         // RCPT commands in all
	temp    bool        // one of them with 4xx
	texts   int         // bytes of their replies in the record
	way     pool.Decision
	decided bool     // way is set
	counted int      // RCPT commands that went on their way to the destination
	domains []string // of their recipients, where the destination bounds their number
}

// outcome is the status of a transaction that ends before its data.
func (t *transaction) outcome() Status {
	switch {
	case t.tried == 0 || len(t.passed) > 0:
		return Lost
	case t.temp:
		return Deferred
	}
	return Refused
}

// mail begins a transaction: it is answered by us and goes onward with the first recipient.
func (s *session) mail(cmd *smtp.Command) {
	switch {
	case s.helo == "":
		s.say(sayHelloFirst)
		return
	case s.tx.open:
		s.say(nestedMail)
		return
	}
	mail, err := smtp.ParseMail(string(cmd.Arg))
	if err == nil {
		err = s.checkMail(&mail)
	}
	if err != nil {
		s.sayError(err)
		return
	}
	if s.house != nil && s.houseMail(&mail) {
		return
	}
	s.dropBlind()
	s.begin(&mail)
	s.trusted()
	if s.unclaimed() {
		s.conn.WriteRaw(s.set.fixed.senderOK)
		return
	}
	v := s.ask(filter.Mail, &s.tx.msg)
	if v.Refused() {
		s.say(refusal(s.set, &v, ""))
		s.tx.open = false
		s.tx.rec.Verdict = v
		s.log(&ending{status: statusOf(&v)})
		return
	}
	s.tx.ticket, _ = s.srv.cfg.Locks.Locked(s.flow.User.ID)
	s.conn.WriteRaw(s.set.fixed.senderOK)
}

// begin fills the transaction in place.
func (s *session) begin(mail *smtp.Mail) {
	n := int(s.sent.Add(1))
	if u := s.srv.cfg.Policy.Settings(s.flow.User.ID); u != nil {
		s.user = u
	}
	t := &s.tx
	now := time.Now()
	s.stageAt.Store(now.UnixNano())
	asked, passed, to := t.asked[:0], t.passed[:0], t.msg.Envelope.To[:0]
	*t = transaction{} // and not of a literal with all of it, which would be made elsewhere and copied
	t.open, t.start, t.mail, t.asked, t.passed = true, now, *mail, asked, passed
	m := &t.msg
	m.ID, m.Flow, m.Helo, m.Login, m.TLS = transactionID(s.flow.ID, n), s.flow, s.helo, s.who.Login, s.secure.Load()
	m.HandedIn, m.Received = s.house != nil, now
	e := &m.Envelope
	e.From, e.FromSize, e.To = message.Address(mail.Address), max(mail.Size, 0), to
	e.SMTPUTF8, e.Body8Bit = mail.UTF8, mail.Body == smtp.Body8BitMIME
	m.Forwarded = e.From.Rewritten()
	r := new(roomyRecord)
	r.ID, r.Flow, r.Start, r.Helo, r.From, r.To = m.ID, *s.flow, now, s.helo, mail.Address, r.first[:0]
	t.rec = &r.Record
	if s.house == nil {
		t.aside = t.msg.Forwarded && s.hasAside()
		s.expectSender()
	}
}

// roomyRecord has room for the one recipient that most mails have.
type roomyRecord struct {
	Record
	first [1]Recipient
}

func transactionID(id flow.ID, n int) string {
	var room [32]byte
	return string(strconv.AppendInt(append(strconv.AppendUint(room[:0], uint64(id), flow.Base), '.'), int64(n), 10))
}

// rcpt takes this recipient and all that the client has pipelined behind it, so that they go onward in one write.
func (s *session) rcpt(cmd *smtp.Command) {
	for {
		if s.yield(); s.gone {
			return
		}
		s.rcptOne(cmd)
		if s.bye || s.manner.worn() || len(s.tx.asked) >= batch || !s.conn.LineBuffered() {
			break
		}
		s.next, s.nextErr = s.conn.ReadCommand()
		if s.nextErr != nil || s.next.Verb != smtp.RCPT {
			s.ahead = true
			break
		}
		cmd = &s.next
	}
	s.sendAsked()
}

// rcptOne checks one recipient and puts it on its way, or answers it.
func (s *session) rcptOne(cmd *smtp.Command) {
	t := &s.tx
	refuse := func(a answer) {
		s.sendAsked() // replies keep the order of the commands
		if !s.bye {
			s.say(a)
		}
	}
	if !t.open {
		if s.helo == "" {
			refuse(sayHelloFirst)
		} else {
			refuse(sayMailFirst)
		}
		return
	}
	if s.parts {
		refuse(inChunks)
		return
	}
	r, err := smtp.ParseRcpt(string(cmd.Arg))
	switch {
	case err != nil:
	case r.NonASCII && !t.mail.UTF8:
		err = smtp.ErrNeedsUTF8
	default:
		err = s.offer.CheckRcpt(&r)
	}
	if err != nil {
		if code, enh, text, ok := smtp.ReplyFor(err); ok {
			refuse(answer{code, enh, text})
		}
		return
	}
	if s.house != nil && s.houseRcpt(&r, refuse) {
		return
	}
	if t.heard++; t.heard > mostTried {
		s.sendAsked()
		if !s.bye {
			s.leave(endlessRcpts)
		}
		return
	}
	if len(t.passed)+len(t.asked) >= mostRcpts {
		refuse(tooManyRcpts)
		return
	}
	if s.offer.Has(smtp.ExtLimits) && s.crowdedOut(r.Domain) {
		refuse(tooManyRcpts)
		return
	}
	if t.ticket != "" && !s.lockedRcpt(&r, refuse) {
		return
	}
	if !s.agree(&r, refuse) {
		return
	}
	if v := s.askRcpt(r.Address); v.Refused() {
		a := refusal(s.set, &v, "")
		refuse(a)
		s.noteRcpt(r.Address, a.code, s.set.Name+": "+a.text)
		if len(t.rec.Verdict.Hits) == 0 {
			t.rec.Verdict = v
		}
		return
	}
	// A check of the next recipient sees this one as accepted, though the destination has not answered: with a bound on
	// recipients the doubt is on the strict side.
	t.msg.Envelope.To = append(t.msg.Envelope.To, message.Address(r.Address))
	t.asked = append(t.asked, r)
	if s.offer.Has(smtp.ExtLimits) {
		t.count(r.Domain)
	}
}

// askRcpt asks the filter about a recipient. Whose message it is may show only in the message: then it is asked later.
func (s *session) askRcpt(address string) (v filter.Verdict) {
	if s.unclaimed() {
		return filter.Verdict{Cause: -1}
	}
	s.tx.msg.Rcpt = message.Address(address)
	v = s.ask(filter.Rcpt, &s.tx.msg)
	s.tx.msg.Rcpt = ""
	return v
}

// lockedRcpt decides about a recipient of a locked user: only mail for the administrator goes on, and not mixed with
// other mail (LCK3).
func (s *session) lockedRcpt(r *smtp.Rcpt, refuse func(answer)) bool {
	t := &s.tx
	admin := s.set.Admin != "" && strings.EqualFold(r.Address, s.set.Admin)
	if t.tried == 0 && len(t.asked) == 0 {
		t.admin = admin && s.srv.admin.take(s.flow.User.ID, t.start)
		return true
	}
	if t.admin != admin && (t.admin || s.set.Admin != "" && admin) {
		refuse(splitAdmin)
		return false
	}
	return true
}
