package proxy

import (
	"context"
	"slices"
	"strings"
	"testing"

	"sluice/filter"
	"sluice/filter/message"
)

// TestTheThirdOutcome: what the filter neither lets go nor refuses reaches no destination and stays with the client,
// whatever a check calls it and whatever it takes the mail for.
func TestTheThirdOutcome(t *testing.T) {
	t.Parallel()
	for _, action := range []filter.Action{filter.HighRisk, filter.Delay, filter.Hold, filter.Quarantine} {
		for _, class := range []filter.Class{filter.Clean, filter.Policy, filter.Spam} {
			t.Run(action.String()+"/"+class.String(), func(t *testing.T) {
				t.Parallel()
				hit := filter.Hit{Code: "HELD", Class: class, Action: action, Text: "it is looked at, try again later"}
				mx := newRemote(t)
				r := newRig(t, mx.addr(), steps(onWord(filter.Data, hit)))
				p := r.hello()
				p.envelope()
				p.send(spamMail, "451 4.7.1 gw.example: [HELD] it is looked at, try again later; see https://gw.example/why/HELD")
				p.envelope()
				p.send(goodMail, "250 2.0.0 queued") // the session is in step, the destination has forgotten the first
				p.cmd("QUIT", "221")
				all := r.log.wait(t, 2)
				if rec := all[0]; rec.Status != Withheld || rec.Verdict.Action != action || rec.Verdict.Class != class || rec.Verdict.Decisive() == nil || rec.Source.IsValid() || rec.Remote != "250 2.0.0 ok RCPT" {
					t.Errorf("record %+v", rec)
				}
				said := mx.commands()
				if n := slices.Index(said, "1 RSET"); n < 0 || len(mx.messages()) != 1 || strings.Contains(mx.messages()[0], "SPAMWORD") || slices.Index(said, "1 DATA") < n {
					t.Errorf("the destination heard %q", said)
				}
			})
		}
	}
}

// onWord is a step that gives the hit at a phase, at the end of data only for messages that hold the word.
func onWord(p filter.Phase, h filter.Hit) filter.Step {
	return filter.Step{Name: "word", Phases: []filter.Phase{p}, Check: checkFunc(func(_ context.Context, _ filter.Phase, m *message.Message, hits []filter.Hit) []filter.Hit {
		if p == filter.Data && !strings.Contains(string(m.Data), "SPAMWORD") {
			return hits
		}
		return append(hits, h)
	})}
}

// TestWithheldBeforeTheData is put off like anything that may not go on yet.
func TestWithheldBeforeTheData(t *testing.T) {
	t.Parallel()
	mx := newRemote(t)
	hit := filter.Hit{Code: "HELD", Action: filter.Hold, Text: "later", SMTP: 550, Enhanced: "5.7.1"}
	r := newRig(t, mx.addr(), steps(onWord(filter.Rcpt, hit)))
	p := r.hello()
	p.cmd("MAIL FROM:<a@client.example>", "250")
	p.cmd("RCPT TO:<b@sink.example>", "451 4.7.1 gw.example: [HELD] later")
	p.cmd("DATA", "554")
	p.cmd("QUIT", "221")
	if rec := r.log.wait(t, 1)[0]; rec.Status != Deferred || rec.To[0].Code != 451 {
		t.Errorf("record %+v", rec)
	}
	r = newRig(t, mx.addr(), steps(onWord(filter.Mail, hit)))
	r.hello().cmd("MAIL FROM:<a@client.example>", "451 4.7.1 gw.example: [HELD] later")
	if rec := r.log.wait(t, 1)[0]; rec.Status != Withheld {
		t.Errorf("record %+v", rec)
	}
}

// TestWithheldMailOfALockedUser has the lock's answer: it is not bad for certain, and the client shall know the ticket.
func TestWithheldMailOfALockedUser(t *testing.T) {
	t.Parallel()
	mx := newRemote(t)
	r := newRig(t, mx.addr(), steps(onWord(filter.Data, filter.Hit{Code: "HELD", Class: filter.Spam, Action: filter.Quarantine, Text: "held"})))
	r.locks.lock("T-7")
	p := r.hello()
	p.envelope()
	p.send(spamMail, "451 4.7.1 gw.example: [LOCKED] sending is locked, ticket T-7")
	if rec := r.log.wait(t, 1)[0]; rec.Status != Deferred || rec.Ticket != "T-7" || rec.Verdict.Action != filter.Quarantine {
		t.Errorf("record %+v", rec)
	}
}

// TestWithheldWouldBe: in shadow the log tells what would have been said.
func TestWithheldWouldBe(t *testing.T) {
	t.Parallel()
	set := &resolved{}
	v := filter.Judge([]filter.Hit{{Code: "HELD", Class: filter.Spam, Action: filter.Hold, SMTP: 554, Text: "held"}})
	if a := refusal(set, &v, ""); a.code != 451 || a.enh.String() != "4.7.1" {
		t.Errorf("a withheld mail is answered %+v", a)
	}
}

// TestARecipientOfAnotherPolicyComesInAMessageOfItsOwn (DEL1): a check says 452 4.5.3, and the client splits.
func TestARecipientOfAnotherPolicyComesInAMessageOfItsOwn(t *testing.T) {
	t.Parallel()
	mx := newRemote(t)
	apart := filter.Hit{Code: "APART", Class: filter.Policy, Action: filter.Defer, SMTP: 452, Enhanced: "4.5.3", Text: "send to this recipient apart"}
	step := filter.Step{Name: "apart", Phases: []filter.Phase{filter.Rcpt}, Check: checkFunc(func(_ context.Context, _ filter.Phase, m *message.Message, hits []filter.Hit) []filter.Hit {
		if len(m.Envelope.To) > 0 && m.Envelope.To[0].Domain() != m.Rcpt.Domain() {
			return append(hits, apart)
		}
		return hits
	})}
	r := newRig(t, mx.addr(), steps(step))
	p := r.hello()
	p.write("MAIL FROM:<a@client.example>\r\nRCPT TO:<b@one.example>\r\nRCPT TO:<c@two.example>\r\nRCPT TO:<d@one.example>\r\n")
	for _, want := range []string{"250", "250", "452 4.5.3 gw.example: [APART] send to this recipient apart", "250"} {
		p.want(want)
	}
	p.send(goodMail, "250")
	p.cmd("MAIL FROM:<a@client.example>", "250")
	p.cmd("RCPT TO:<c@two.example>", "250")
	p.send(goodMail, "250")
	if got, want := mx.envelopes(), []string{
		"MAIL FROM:<a@client.example>", "RCPT TO:<b@one.example>", "RCPT TO:<d@one.example>", "MAIL FROM:<a@client.example>", "RCPT TO:<c@two.example>",
	}; !slices.Equal(got, want) {
		t.Errorf("the destination heard %q, want %q", got, want)
	}
}
