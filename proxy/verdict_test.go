package proxy

import (
	"bytes"
	"context"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"sluice/filter"
	"sluice/filter/message"
	"sluice/proxy/smtp"
)

// checkFunc is a check made of a function.
type checkFunc func(ctx context.Context, p filter.Phase, m *message.Message, hits []filter.Hit) []filter.Hit

func (f checkFunc) Check(ctx context.Context, p filter.Phase, m *message.Message, hits []filter.Hit) []filter.Hit {
	return f(ctx, p, m, hits)
}

// spamStep refuses what contains the word.
func spamStep() filter.Step {
	return filter.Step{Name: "word", Phases: []filter.Phase{filter.Data}, Check: checkFunc(
		func(_ context.Context, _ filter.Phase, m *message.Message, hits []filter.Hit) []filter.Hit {
			if bytes.Contains(m.Data, []byte("SPAMWORD")) {
				hits = append(hits, filter.Hit{Code: "WORD", Class: filter.Spam, Action: filter.Reject, Points: 1, Text: "this is spam"})
			}
			return hits
		})}
}

// at refuses at a phase.
func at(ph filter.Phase, h filter.Hit) filter.Step {
	return filter.Step{Name: "at-" + ph.String(), Phases: []filter.Phase{ph}, Check: checkFunc(
		func(_ context.Context, _ filter.Phase, _ *message.Message, hits []filter.Hit) []filter.Hit {
			return append(hits, h)
		})}
}

const spamMail = "Subject: buy\r\n\r\nSPAMWORD\r\n"

// TestLinkNamesTheMessage: without a help page of the operator's own, the link of a whole message's refusal names it, and that
// of a recipient's refusal does not.
func TestLinkNamesTheMessage(t *testing.T) {
	t.Parallel()
	mx := newRemote(t)
	r := newRig(t, mx.addr(), steps(spamStep(), at(filter.Rcpt, filter.Hit{Code: "NO", Action: filter.Reject, Text: "no"})), func(r *rig) {
		r.cfg.Settings.HelpURL, r.cfg.Settings.Page = "", func(code, message string) string { return "https://gw.example/codes/" + code + "?m=" + message }
	})
	p := r.hello()
	p.cmd("MAIL FROM:<a@x.example>", "250 ")
	p.cmd("RCPT TO:<b@y.example>", "550 5.7.1 gw.example: [NO] no; see https://gw.example/codes/NO?m=")
	rig := newRig(t, mx.addr(), steps(spamStep()), func(r *rig) {
		r.cfg.Settings.HelpURL, r.cfg.Settings.Page = "", func(code, message string) string { return "https://gw.example/codes/" + code + "?m=" + message }
	})
	p = rig.hello()
	p.envelope()
	p.send(spamMail, "550 5.7.1 gw.example: [WORD] this is spam; see https://gw.example/codes/WORD?m=")
	rec := rig.log.wait(t, 1)[0]
	if !strings.HasSuffix(rec.Reply, "?m="+rec.ID) || rec.ID == "" {
		t.Errorf("the link in %q does not name message %q", rec.Reply, rec.ID)
	}
}

func TestBadMailIsRefusedWithNameCodeReasonAndLink(t *testing.T) {
	t.Parallel()
	mx := newRemote(t)
	r := newRig(t, mx.addr(), steps(spamStep()))
	p := r.hello()
	p.envelope()
	p.send(spamMail, "550 5.7.1 gw.example: [WORD] this is spam; see https://gw.example/why/WORD")
	p.envelope()
	p.send(goodMail, "250 2.0.0 queued")
	recs := r.log.wait(t, 2)
	if recs[0].Status != Refused || recs[0].Verdict.Decisive() == nil || recs[0].Verdict.Decisive().Check != "word" || recs[0].Source.IsValid() || recs[0].Size == 0 {
		t.Errorf("record %+v", recs[0])
	}
	if got := mx.messages(); len(got) != 1 || strings.Contains(got[0], "SPAMWORD") {
		t.Errorf("the destination got %q", got)
	}
	if said := mx.commands(); slices.Index(said, "1 RSET") < 0 || strings.Count(strings.Join(said, "\n"), "DATA") != 1 {
		t.Errorf("the onward transaction was not reset: %q", said)
	}
	if n := r.locks.judged.Load(); n != 2 {
		t.Errorf("%d verdicts were told to the locks, want 2", n)
	}
}

func TestRefusalAtEachPhase(t *testing.T) {
	t.Parallel()
	reject := filter.Hit{Code: "NO", Class: filter.Policy, Action: filter.Reject, Text: "no"}
	later := filter.Hit{Code: "SLOW", Class: filter.Policy, Action: filter.Defer, SMTP: 452, Enhanced: "4.7.28", Text: "slow down"}
	const no, slow = "550 5.7.1 gw.example: [NO] no; see https://gw.example/why/NO", "452 4.7.28 gw.example: [SLOW] slow down"
	mx := newRemote(t)

	p := newRig(t, mx.addr(), steps(at(filter.Connect, reject))).connect()
	p.want(no)
	p.closed()

	p = newRig(t, mx.addr(), steps(at(filter.Helo, later))).dial()
	p.cmd("EHLO x", slow)
	p.cmd("MAIL FROM:<a@b.example>", "503")

	r := newRig(t, mx.addr(), steps(at(filter.Mail, reject)))
	p = r.hello()
	p.cmd("MAIL FROM:<a@b.example>", no)
	p.cmd("RCPT TO:<a@b.example>", "503")
	if rec := r.log.wait(t, 1)[0]; rec.Status != Refused || rec.From != "a@b.example" || rec.Verdict.Decisive() == nil {
		t.Errorf("record %+v", rec)
	}

	r = newRig(t, mx.addr(), steps(at(filter.Rcpt, later)))
	p = r.hello()
	p.cmd("MAIL FROM:<a@b.example>", "250")
	p.cmd("RCPT TO:<a@b.example>", slow)
	p.cmd("DATA", "554")
	p.cmd("QUIT", "221")
	if rec := r.log.wait(t, 1)[0]; rec.Status != Deferred || len(rec.To) != 1 || rec.To[0].Code != 452 || rec.Verdict.Decisive() == nil {
		t.Errorf("record %+v", rec)
	}

	p = newRig(t, mx.addr(), steps(at(filter.Data, later))).hello()
	p.envelope()
	p.send(goodMail, slow)
	if n := len(mx.messages()); n != 0 {
		t.Errorf("%d messages arrived", n)
	}
}

// settler counts what it is told.
type settler struct {
	checkFunc
	mail, settled, accepted, lost atomic.Int32
}

func newSettler() *settler {
	s := &settler{}
	s.checkFunc = func(_ context.Context, _ filter.Phase, _ *message.Message, hits []filter.Hit) []filter.Hit {
		s.mail.Add(1)
		return hits
	}
	return s
}

func (s *settler) Settle(_ *message.Message, o filter.Outcome) {
	s.settled.Add(1)
	s.accepted.Add(int32(o.Accepted))
	if o.Lost {
		s.lost.Add(1)
	}
}

func TestEveryTransactionIsSettledOnce(t *testing.T) {
	t.Parallel()
	mx := newRemote(t)
	st := newSettler()
	r := newRig(t, mx.addr(), steps(filter.Step{Name: "count", Phases: []filter.Phase{filter.Mail}, Check: st}, spamStep()))
	p := r.hello()
	p.envelope()
	p.cmd("RCPT TO:<c@sink.example>", "250")
	p.send(goodMail, "250") // 2 accepted
	p.envelope()
	p.send(spamMail, "550")
	p.envelope()
	p.cmd("RSET", "250")
	p.envelope()
	p.cmd("EHLO again.example", "250")
	p.envelope()
	p.cmd("DATA", "354")
	p.cmd("bare \r return\r\n.", "550 5.6.0")
	p.envelope()
	p.nc.Close()
	r.log.wait(t, 6)
	if m, s, a, l := st.mail.Load(), st.settled.Load(), st.accepted.Load(), st.lost.Load(); m != 6 || s != 6 || a != 2 || l != 1 {
		t.Errorf("asked %d, settled %d, accepted %d, lost %d; want 6, 6, 2, 1", m, s, a, l)
	}
}

func TestChecksHaveThirtySecondsAndNoMore(t *testing.T) {
	t.Parallel()
	mx := newRemote(t)
	slow := filter.Step{Name: "slow", Phases: []filter.Phase{filter.Data}, Check: checkFunc(
		func(ctx context.Context, _ filter.Phase, _ *message.Message, hits []filter.Hit) []filter.Hit {
			<-ctx.Done()
			if ctx.Err() != context.DeadlineExceeded {
				return hits
			}
			return append(hits, filter.Hit{Code: "LATE", Class: filter.Policy, Action: filter.Defer, Text: "no opinion in time"})
		})}
	p := newRig(t, mx.addr(), steps(slow), func(r *rig) { r.cfg.Settings.Timeouts.Verdict = 20 * time.Millisecond }).hello()
	p.envelope()
	p.send(goodMail, "451 4.7.1 gw.example: [LATE]")
}

func TestTooLargeMail(t *testing.T) {
	t.Parallel()
	mx := newRemote(t)
	r := newRig(t, mx.addr(), func(r *rig) { r.policy.MessageSize, r.cfg.Settings.MaxSize = 1000, 100_000 })
	p := r.hello()
	p.cmd("MAIL FROM:<a@client.example> SIZE=1001", "552 5.3.4 gw.example: ")
	p.envelope()
	p.send(strings.Repeat("x", 1200), "552 5.3.4")
	p.envelope()
	p.send(goodMail, "250")
	if recs := r.log.wait(t, 2); recs[0].Status != Refused || len(mx.messages()) != 1 {
		t.Errorf("record %+v, %d messages arrived", recs[0], len(mx.messages()))
	}

	// One that never ends is cut off with the same words, not with a 421 that would bring it again.
	p.envelope()
	p.cmd("DATA", "354")
	line := strings.Repeat(strings.Repeat("x", 78)+"\r\n", 1000)
	for range leastDiscard/len(line) + 2 {
		if _, err := p.nc.Write([]byte(line)); err != nil {
			break
		}
	}
	p.want("552 5.3.4")
	p.closed()
	if recs := r.log.wait(t, 3); recs[2].Status != Refused || len(mx.messages()) != 1 {
		t.Errorf("record %+v, %d messages arrived", recs[2], len(mx.messages()))
	}
}

func TestLoopsAreStopped(t *testing.T) {
	t.Parallel()
	mx := newRemote(t)
	r := newRig(t, mx.addr(), func(r *rig) { r.cfg.Settings.MaxHops = 5 })
	p := r.hello()
	p.envelope()
	p.send(goodMail, "250")
	again := strings.ReplaceAll(mx.messages()[0], "\r\n.", "\r\n..")
	p.envelope()
	p.send(strings.TrimSuffix(again, "\r\n"), "554 5.4.6 gw.example: [LOOP] ")

	// The same mail on to somebody else is a forward, not a loop.
	p.cmd("MAIL FROM:<a@client.example>", "250")
	p.cmd("RCPT TO:<other@sink.example>", "250")
	p.send(strings.TrimSuffix(again, "\r\n"), "250")

	p.envelope()
	p.send(strings.Repeat("Received: from a by b; now\r\n", 5)+"\r\nx", "250")
	p.envelope()
	p.send(strings.Repeat("received: from a\r\n\tby b; now\r\n", 6)+"\r\nx", "554 5.4.6")
	if rec := r.log.wait(t, 2)[1]; rec.Status != Refused || rec.Verdict.Class.Bad() {
		t.Errorf("a loop is %v, class %v; want refused by policy", rec.Status, rec.Verdict.Class)
	}
}

func TestLockedUserHearsNothingOfRecipientsAndGetsTheTicket(t *testing.T) {
	t.Parallel()
	mx := newRemote(t, reply("RCPT", "550 5.1.1 nobody"))
	r := newRig(t, mx.addr(), steps(spamStep()))
	r.locks.lock("K7")
	p := r.hello()
	p.cmd("MAIL FROM:<a@client.example>", "250 2.1.0 gw.example: ")
	p.cmd("RCPT TO:<b@sink.example>", "250 2.1.5 gw.example: ")
	p.send(goodMail, "451 4.7.1 gw.example: [LOCKED] sending is locked, ticket K7, contact abuse@gw.example; see https://gw.example/why/LOCKED")
	p.envelope()
	p.send(spamMail, "550 5.7.1 gw.example: [WORD]")
	if n := mx.commands(); len(n) != 0 {
		t.Errorf("the destination of a locked user heard %q", n)
	}
	recs := r.log.wait(t, 2)
	if recs[0].Status != Deferred || recs[0].Ticket != "K7" || recs[1].Status != Refused {
		t.Errorf("records %+v %+v", recs[0], recs[1])
	}
}

func TestLockLiftedWithinATransactionLosesNothing(t *testing.T) {
	t.Parallel()
	mx := newRemote(t)
	r := newRig(t, mx.addr())
	r.locks.lock("K8")
	p := r.hello()
	p.envelope()
	r.locks.unlock()
	p.send(goodMail, "451 4.7.1 gw.example: [LOCKED] sending is locked, ticket K8")
	if n := len(mx.messages()); n != 0 {
		t.Errorf("%d messages arrived without an envelope", n)
	}
}

func TestLockedUserMayWriteToTheAdministrator(t *testing.T) {
	t.Parallel()
	mx := newRemote(t)
	r := newRig(t, mx.addr(), steps(spamStep()))
	r.locks.lock("K9")
	p := r.hello()
	admin := func() {
		p.cmd("MAIL FROM:<a@client.example>", "250")
		p.cmd("RCPT TO:<Postmaster@GW.example>", "250")
	}
	admin()
	p.cmd("RCPT TO:<b@sink.example>", "452 4.5.3 gw.example: ")
	p.send(goodMail, "250 2.0.0 queued")
	admin()
	p.send(spamMail, "550")
	p.envelope()
	p.cmd("RCPT TO:<postmaster@gw.example>", "452 4.5.3")
	p.send(goodMail, "451 4.7.1")
	for range adminPerHour - 2 {
		admin()
		p.send(goodMail, "250")
	}
	admin()
	p.send(goodMail, "451 4.7.1")
	if n := len(mx.messages()); n != adminPerHour-1 {
		t.Errorf("%d messages arrived, want %d", n, adminPerHour-1)
	}
}

func TestChecksCannotTurnARefusalIntoSomethingElse(t *testing.T) {
	t.Parallel()
	set := &resolved{}
	for _, c := range []struct {
		h    filter.Hit
		want answer
	}{
		{filter.Hit{Action: filter.Reject, SMTP: 250, Enhanced: "2.0.0"}, answer{550, smtp.Enhanced{5, 7, 1}, ""}},
		{filter.Hit{Action: filter.Defer, SMTP: 999}, answer{451, smtp.Enhanced{4, 7, 1}, ""}},
		{filter.Hit{Action: filter.Reject, SMTP: 452, Enhanced: "5.1.1"}, answer{452, smtp.Enhanced{4, 7, 1}, ""}},
		{filter.Hit{Action: filter.Reject, SMTP: 503, Enhanced: "5.5.1"}, answer{550, smtp.Enhanced{5, 5, 1}, ""}},
		{filter.Hit{Action: filter.Hold, SMTP: 550, Enhanced: "5.7.1"}, answer{451, smtp.Enhanced{4, 7, 1}, ""}},
		{filter.Hit{Action: filter.Reject, SMTP: 554, Enhanced: "5.4.6"}, answer{554, smtp.Enhanced{5, 4, 6}, ""}},
	} {
		v := filter.Judge([]filter.Hit{c.h})
		if got := refusal(set, &v, ""); got != c.want {
			t.Errorf("%+v is answered %+v, want %+v", c.h, got, c.want)
		}
	}
}

func TestChecksSeeMailForWhichThereWasNoMemory(t *testing.T) {
	t.Parallel()
	mx := newRemote(t)
	r := newRig(t, mx.addr(), steps(spamStep()), func(r *rig) { r.cfg.Settings.BodiesMemory, r.cfg.Settings.BodyMemory = 1, 4096 })
	p := r.hello()
	p.envelope()
	p.send(spamMail, "550 5.7.1 gw.example: [WORD]")
	p.envelope()
	p.send("Subject: x\r\n\r\n"+strings.Repeat("long\r\n", 30<<10)+"SPAMWORD", "550 5.7.1 gw.example: [WORD]")
	p.envelope()
	p.send(goodMail, "250")
	if got := mx.messages(); len(got) != 1 || !strings.Contains(got[0], goodMail) {
		t.Errorf("the destination got %q", got)
	}
}

func TestDestinationThatRefusesRSETIsReplacedUnseen(t *testing.T) {
	t.Parallel()
	mx := newRemote(t, reply("RSET", "500 what?"))
	p := newRig(t, mx.addr(), steps(spamStep())).hello()
	p.envelope()
	p.send(spamMail, "550")
	p.envelope()
	p.send(goodMail, "250")
	if got := mx.messages(); len(got) != 1 {
		t.Errorf("the destination got %q", got)
	}
}

// TestWhatIsSaidHidesNoRefusal: a recipient's refusal is in the record of a message that went to others, with what was said of that.
func TestWhatIsSaidHidesNoRefusal(t *testing.T) {
	t.Parallel()
	refuse := filter.Step{Name: "one", Phases: []filter.Phase{filter.Rcpt}, Check: checkFunc(func(_ context.Context, _ filter.Phase, m *message.Message, hits []filter.Hit) []filter.Hit {
		if m.Rcpt == "no@sink.example" {
			hits = append(hits, filter.Hit{Code: "NO", Class: filter.Policy, Action: filter.Reject, Text: "no"})
		}
		return hits
	})}
	r := newRig(t, newRemote(t).addr(), steps(refuse, at(filter.Data, filter.Hit{Code: "SAID", Text: "an opinion"})))
	p := r.hello()
	p.cmd("MAIL FROM:<a@client.example>", "250")
	p.cmd("RCPT TO:<no@sink.example>", "550")
	p.cmd("RCPT TO:<yes@sink.example>", "250")
	p.cmd("DATA", "354")
	p.cmd("Subject: x\r\n\r\nhello\r\n.", "250")
	p.cmd("QUIT", "221")
	v := &r.log.wait(t, 1)[0].Verdict
	if d := v.Decisive(); d == nil || d.Code != "NO" || len(v.Hits) != 2 || v.Hits[1].Code != "SAID" || v.Class != filter.Policy {
		t.Errorf("the record has %+v", v)
	}
}
