package proxy

import (
	"net/netip"
	"strings"
	"testing"

	"sluice/filter"
	"sluice/proxy/pool"
)

// pooled gives the rig a usual pool and, with risk, one for risky mail.
func pooled(risk bool) func(*rig) {
	return func(r *rig) {
		defs := []pool.Definition{{Name: pool.Primary, Addresses: []pool.Address{{IP: netip.MustParseAddr("127.0.0.9"), Helo: "out.gw.example"}}}}
		if risk {
			defs = append(defs, pool.Definition{Name: "risky", Class: pool.Risk, Addresses: []pool.Address{{IP: netip.MustParseAddr("127.0.0.8"), Helo: "risky.gw.example"}}})
		}
		set, err := pool.NewSet(defs, nil)
		must(r.t, err)
		r.cfg.Settings.Pools, r.cfg.Settings.Pool = set, set.Primary()
	}
}

var riskyHit = filter.Hit{Code: "UNSURE", Action: filter.HighRisk, Text: "message has much of spam; try it again later"}

// TestRiskyMailLeavesApart: it is given to the destination in a new session from the pool for it, and the user's next good
// mail leaves from where it always does.
func TestRiskyMailLeavesApart(t *testing.T) {
	t.Parallel()
	mx := newRemote(t)
	r := newRig(t, mx.addr(), steps(onWord(filter.Data, riskyHit)), pooled(true))
	p := r.hello()
	for _, mail := range []string{goodMail, spamMail, goodMail} {
		p.envelope()
		p.send(mail, "250 2.0.0 queued")
	}
	p.cmd("QUIT", "221")
	for i, rec := range r.log.wait(t, 3) {
		from, way := "127.0.0.9", ""
		if i == 1 {
			from, way = "127.0.0.8", "pool of risky mail"
		}
		if rec.Status != Delivered || rec.Source.String() != from || rec.Way != way {
			t.Errorf("mail %d: %v from %v, %q", i, rec.Status, rec.Source, rec.Way)
		}
	}
	mails, helos := mx.messages(), 0
	mx.mu.Lock()
	for _, s := range mx.said {
		if strings.HasSuffix(s, "EHLO risky.gw.example") {
			helos++
		}
	}
	mx.mu.Unlock()
	if len(mails) != 3 || !strings.Contains(mails[1], "SPAMWORD") || helos != 1 {
		t.Errorf("the destination got %d messages, %d sessions from the pool of risky mail", len(mails), helos)
	}
}

// TestRiskyMailThatCannot: who is refused there after 250 was said costs 451 and no message leaves; without such a pool it
// is put off.
func TestRiskyMailThatCannot(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		rcpt   []string
		risk   bool
		want   string
		status Status
	}{
		"refused apart": {[]string{"250 2.1.5 ok", "550 5.7.1 not from you"}, true, "451 4.4.2 gw.example: the destination answers otherwise", Deferred},
		"put off apart": {[]string{"250 2.1.5 ok", "451 4.7.1 greylisted"}, true, "451 4.4.2 gw.example: the destination answers otherwise", Deferred},
		"no such pool":  {[]string{"250 2.1.5 ok"}, false, "451 4.7.1 gw.example: [UNSURE]", Withheld},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			mx := newRemote(t, reply("RCPT", c.rcpt...))
			r := newRig(t, mx.addr(), steps(onWord(filter.Data, riskyHit)), pooled(c.risk))
			p := r.hello()
			p.envelope()
			p.send(spamMail, c.want)
			p.cmd("QUIT", "221")
			if rec := r.log.wait(t, 1)[0]; rec.Status != c.status {
				t.Errorf("it is %v", rec.Status)
			}
			if got := mx.messages(); len(got) != 0 {
				t.Errorf("the destination got %q", got)
			}
		})
	}
}

// TestTaggedMailGoesOn with the fields that the filter asks for, behind ours and before its own; mail that is refused for
// another reason is refused.
func TestTaggedMailGoesOn(t *testing.T) {
	t.Parallel()
	mx := newRemote(t)
	tag := filter.Hit{Code: "SPAM", Class: filter.Spam, Tag: "X-Spam-Flag: YES\r\n", Text: "it looks like spam"}
	r := newRig(t, mx.addr(), steps(onWord(filter.Data, tag)))
	p := r.hello()
	p.envelope()
	p.send(spamMail, "250 2.0.0 queued")
	p.envelope()
	p.send(goodMail, "250 2.0.0 queued")
	p.cmd("QUIT", "221")
	all := mx.messages()
	if len(all) != 2 || !strings.HasPrefix(all[0], "Received: ") || !strings.Contains(all[0], "\r\nX-Spam-Flag: YES\r\n"+spamMail[:10]) || strings.Contains(all[1], "X-Spam") {
		t.Errorf("the destination got %q", all)
	}
	if rec := r.log.wait(t, 2)[0]; rec.Status != Delivered || rec.Verdict.Class != filter.Spam || rec.Verdict.Refused() {
		t.Errorf("the record is %v, %+v", rec.Status, rec.Verdict)
	}
}

// TestDiscardedMailGoesNowhere, and its sender hears 250.
func TestDiscardedMailGoesNowhere(t *testing.T) {
	t.Parallel()
	mx := newRemote(t)
	r := newRig(t, mx.addr(), steps(onWord(filter.Data, filter.Hit{Code: "SPAM", Class: filter.Spam, Action: filter.Discard, Text: "it looks like spam"})))
	p := r.hello()
	p.envelope()
	p.send(spamMail, "250 2.0.0 gw.example: taken")
	p.envelope()
	p.send(goodMail, "250 2.0.0 queued")
	p.cmd("QUIT", "221")
	all := r.log.wait(t, 2)
	if all[0].Status != Discarded || all[0].Source.IsValid() || all[0].Verdict.Class != filter.Spam || all[1].Status != Delivered {
		t.Errorf("records: %v from %v, %v", all[0].Status, all[0].Source, all[1].Status)
	}
	if got := mx.messages(); len(got) != 1 || strings.Contains(got[0], "SPAMWORD") {
		t.Errorf("the destination got %q", got)
	}
}
