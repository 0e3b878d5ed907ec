package proxy

import (
	"errors"
	"strings"
	"time"

	"sluice/filter/message"
	"sluice/proxy/relay"
	"sluice/proxy/smtp"
)

// sendAsked sends the recipients on their way onward and passes the replies back.
func (s *session) sendAsked() {
	t := &s.tx
	if len(t.asked) == 0 {
		return
	}
	defer func() { t.asked = t.asked[:0] }()
	if s.house != nil {
		s.answerAsked()
		return
	}
	s.rest()
	if t.ticket != "" && !t.admin { // no oracle: whoever is locked learns nothing about recipients
		s.dropRemote()
		s.dropEarly()
		s.srv.cfg.Dialer.Drop(s.flow.User.ID)
		for i := range t.asked {
			s.conn.WriteRaw(s.set.fixed.rcptOK)
			s.accept(i, 250, "noted")
		}
		return
	}
	if t.keeping && s.remote == nil {
		s.noteLater(0)
		return
	}
	told := t.tried
	if t.failed == nil {
		if t.failed = s.relayAsked(); told == 0 {
			s.report() // begins to find out
		}
	}
	t.seen()
	if t.failed == nil {
		return
	}
	if t.keeping { // it left: those it has not answered are kept, too
		t.failed = nil
		s.noteLater(t.tried - told)
		return
	}
	for i := t.tried - told; i < len(t.asked); i++ {
		if s.bye {
			return // one 421 is the last reply
		}
		s.tellFailure(t.failed)
		s.noteRcpt(t.asked[i].Address, t.failed.Code, t.failed.Text)
	}
}

// seen has the checks see those recipients that were accepted, and no others.
func (t *transaction) seen() {
	t.msg.Envelope.To = t.msg.Envelope.To[:0]
	for i := range t.passed {
		t.msg.Envelope.To = append(t.msg.Envelope.To, message.Address(t.passed[i].Address))
	}
}

// relayAsked sends the recipients onward. A session that was used before and turns out dead is replaced unseen, as
// long as the client has heard nothing of this transaction from it.
func (s *session) relayAsked() *relay.Failure {
	t := &s.tx
	onward := (*relay.Session).Recipients
	if s.together() {
		onward = (*relay.Session).Group
	}
	fresh, f := s.reach(time.Time{}, true)
	for f == nil {
		before := t.tried
		if len(t.asked) > 1 {
			s.fed = time.Now()
		}
		err := onward(s.remote, &t.mail, t.asked, s)
		s.used = time.Now()
		if err == nil {
			return nil
		}
		f = asFailure(err)
		s.loseRemote(f)
		if fresh || before != 0 || t.tried != 0 || !replaceable(f) {
			return f
		}
		fresh, f = s.reach(time.Time{}, true)
	}
	return f
}

// replaceable tells whether a failure of a session that was used before may be of that session alone. What a destination has said
// beyond its answers is: nothing of this transaction was sent then. One that does not answer in time is not asked once more, as
// the client waits no longer than that.
func replaceable(f *relay.Failure) bool {
	if errors.Is(f.Err, smtp.ErrUnsolicited) {
		return true
	}
	return f.Enh != (smtp.Enhanced{4, 5, 0}) && !errors.Is(f.Err, smtp.ErrTimeout)
}

// Answer hears the destination's reply to recipient i of those asked.
func (s *session) Answer(i int, r *smtp.Reply) {
	if s.later(i, r) {
		s.heard = firstLine(r.Raw)
		return
	}
	s.pass(r.Raw)
	s.heard = s.last
	s.relayDenied(r)
	text := s.last
	if len(text) > 4 {
		text = text[4:]
	} else {
		text = ""
	}
	s.accept(i, r.Code, text)
	// A destination may take its time for each of many recipients: the client is not left without a word that long.
	if len(s.tx.asked) > 1 && time.Since(s.fed) > time.Second {
		_ = s.conn.Flush() // an error shows again at the next write
		s.fed = time.Now()
	}
}

// accept books the answer to recipient i of those asked.
func (s *session) accept(i, code int, text string) {
	t := &s.tx
	s.noteRcpt(t.asked[i].Address, code, text)
	switch {
	case code/100 == 2:
		t.passed = append(t.passed, t.asked[i])
	case unknownRecipient(code, text):
		t.invalid++
	}
}

func (s *session) noteRcpt(address string, code int, text string) {
	s.tx.tried++
	s.tx.temp = s.tx.temp || code/100 == 4
	if code/100 != 2 {
		if s.tx.refused++; s.tx.refused > mostRefused {
			return
		}
		address = strings.Clone(address) // not the whole command line
	}
	if s.tx.texts += len(text); s.tx.texts > mostTexts {
		text = ""
	}
	s.tx.rec.To = append(s.tx.rec.To, Recipient{Address: address, Code: code, Reply: text})
}
