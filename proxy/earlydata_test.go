package proxy

import (
	"context"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"sluice/filter"
	"sluice/filter/message"
)

// TestSpamAfterEarlyDataLeavesNoMessage: the destination has said 354 and hears no byte of it; the client hears why, its next
// message goes by another connection, and waits for its verdict.
func TestSpamAfterEarlyDataLeavesNoMessage(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*rig){"once": func(*rig) {}, "kept": keeping(wait)} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			mx := newRemote(t)
			r := newRig(t, mx.addr(), steps(spamStep()), change)
			p := r.hello()
			p.together(goodMail, "250 2.0.0 queued")
			p.together(spamMail, "550 5.7.1 gw.example: ")
			mx.await(t, hungUp)
			late := r.dataAfterVerdict(mx)
			p.together(goodMail, "250 2.0.0 queued")
			p.cmd("QUIT", "221")
			if !late.Load() {
				t.Error("DATA did not wait for the verdict of a user who has just sent spam")
			}
			want := []string{"EHLO " + oneMail + "MAIL RCPT DATA ", "EHLO " + oneMail}
			if got := mx.sessions(); len(got) != 2 || got[0] != want[0] || !strings.HasPrefix(got[1], want[1]) {
				t.Errorf("the destination heard %q, want %q", got, want)
			}
			if got := mx.messages(); len(got) != 2 || strings.Contains(strings.Join(got, ""), "SPAMWORD") {
				t.Errorf("%d messages arrived, want the two good ones: %q", len(got), got)
			}
			if rec := r.log.wait(t, 3)[1]; rec.Status != Refused || rec.Source.IsValid() {
				t.Errorf("record %+v", rec)
			}
		})
	}
}

// dataAfterVerdict tells, from now on, whether the last DATA reached the destination only after a verdict.
func (r *rig) dataAfterVerdict(mx *remote) *atomic.Bool {
	late, before := new(atomic.Bool), r.locks.judged.Load()
	mx.mu.Lock()
	mx.before = func(verb string) {
		if verb == "DATA" {
			before++
			late.Store(r.locks.judged.Load() == before)
		}
	}
	mx.mu.Unlock()
	return late
}

// clear is a Standing.
type clear bool

func (c clear) Clear(uint32) bool { return bool(c) }

// TestWhoseDataGoesEarly: that of users of whom nothing is known but good, towards destinations that can hear it.
func TestWhoseDataGoesEarly(t *testing.T) {
	t.Parallel()
	plain := func(p *peer, _ *remote) { p.together(goodMail, "250") }
	awaited := func(p *peer, mx *remote) { // the client has its 354 from us, maybe before the destination hears DATA
		p.envelope()
		p.cmd("DATA", "354")
		mx.await(p.t, "DATA")
		p.cmd(goodMail+".", "250")
	}
	for name, c := range map[string]struct {
		change func(*rig)
		remote func(*remote)
		send   func(*peer, *remote)
		early  bool
	}{
		"a good user":             {send: plain, early: true},
		"a clear user":            {change: func(r *rig) { r.cfg.Standing = clear(true) }, send: plain, early: true},
		"a user on probation":     {change: func(r *rig) { r.cfg.Standing = clear(false) }, send: plain},
		"never":                   {change: func(r *rig) { r.cfg.Settings.EarlyData = EarlyNever }, send: plain},
		"what is put off is kept": {change: func(r *rig) { r.policy.KeepDeferred = true }, send: plain},
		"no PIPELINING":           {remote: func(r *remote) { r.ehlo = r.ehlo[1:] }, send: plain},
		"lockstep":                {send: func(p *peer, _ *remote) { p.envelope(); p.send(goodMail, "250") }},
		"lockstep, always":        {change: func(r *rig) { r.cfg.Settings.EarlyData = EarlyAlways }, send: awaited, early: true},
		"no PIPELINING, always":   {change: func(r *rig) { r.cfg.Settings.EarlyData = EarlyAlways }, remote: func(r *remote) { r.ehlo = r.ehlo[1:] }, send: awaited, early: true},
		"many recipients": {early: true, send: func(p *peer, _ *remote) {
			p.write("MAIL FROM:<a@client.example>\r\n" + strings.Repeat("RCPT TO:<b@sink.example>\r\n", 2*batch+3) + "DATA\r\n")
			for range 2*batch + 4 {
				p.want("250")
			}
			p.want("354")
			p.cmd(goodMail+".", "250")
		}},
		"one of ours refused at the end": {send: func(p *peer, _ *remote) {
			p.write("MAIL FROM:<a@client.example>\r\nRCPT TO:<b@sink.example>\r\nRCPT TO:<bad\r\nDATA\r\n")
			for _, want := range []string{"250", "250", "501", "354"} {
				p.want(want)
			}
			p.cmd(goodMail+".", "250")
		}},
		"a large message, as announced": {send: func(p *peer, _ *remote) {
			p.write("MAIL FROM:<a@client.example> SIZE=900000\r\nRCPT TO:<b@sink.example>\r\nDATA\r\n")
			for _, want := range []string{"250", "250", "354"} {
				p.want(want)
			}
			p.cmd(goodMail+".", "250")
		}, change: func(r *rig) { r.cfg.Settings.BodyMemory = 100000 }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			change := []func(*rig){}
			if c.change != nil {
				change = append(change, c.change)
			}
			mx := newRemote(t, func(r *remote) {
				if c.remote != nil {
					c.remote(r)
				}
			})
			r := newRig(t, mx.addr(), change...)
			late := r.dataAfterVerdict(mx)
			p := r.hello()
			for range 2 { // also in a session that was used
				c.send(p, mx)
				if late.Load() == c.early {
					t.Errorf("DATA waits for the verdict: %v, want %v", late.Load(), !c.early)
				}
			}
			p.cmd("QUIT", "221")
			if got := mx.sessions(); len(got) != 1 || len(mx.messages()) != 2 {
				t.Errorf("%d messages in %q", len(mx.messages()), got)
			}
		})
	}
}

// TestSlowUploadAfterEarlyData: the destination is not kept waiting; it hears of the message again once that is here, and must
// say what it said before.
func TestSlowUploadAfterEarlyData(t *testing.T) {
	t.Parallel()
	for _, choice := range []EarlyData{EarlyAuto, EarlyAlways} {
		for _, c := range []struct{ name, again, want string }{
			{"and accepts again", "250 again", "250 2.0.0 queued"},
			{"and refuses then", "550 5.1.1 gone", "451 4.4.2 gw.example: "},
		} {
			t.Run(c.name, func(t *testing.T) {
				t.Parallel()
				mx := newRemote(t, reply("RCPT", "250 ok", c.again))
				r := newRig(t, mx.addr(), func(r *rig) { r.cfg.Settings.EarlyData = choice })
				r.srv.mostWait = 50 * time.Millisecond
				p := r.hello()
				if choice == EarlyAlways {
					p.envelope()
					p.cmd("DATA", "354")
				} else {
					p.group()
					for _, want := range []string{"250", "250", "354"} {
						p.want(want)
					}
				}
				p.write(goodMail)
				mx.await(t, hungUp)
				p.cmd(".", c.want)
				p.cmd("QUIT", "221")
				if got := mx.sessions(); len(got) != 2 || got[0] != "EHLO MAIL RCPT DATA " || len(mx.messages()) != btoi(c.want[0] == '2') {
					t.Errorf("%d messages in %q", len(mx.messages()), got)
				}
				if !r.srv.doubts.about(7, time.Now()) {
					t.Error("the next slow message would end as this did")
				}
			})
		}
	}
}

// TestDestinationThatTiresOfWaiting after its 354 is replaced unseen.
func TestDestinationThatTiresOfWaiting(t *testing.T) {
	t.Parallel()
	mx := newRemote(t, reply("DATA", "354 go", "354 go"))
	gone := make(chan struct{})
	slow := filter.Step{Name: "slow", Phases: []filter.Phase{filter.Data}, Check: checkFunc(func(_ context.Context, _ filter.Phase, _ *message.Message, hits []filter.Hit) []filter.Hit {
		<-gone
		<-time.After(2 * surely) // what it takes to be looked at
		return hits
	})}
	r := newRig(t, mx.addr(), steps(slow))
	p := r.hello()
	p.group()
	for _, want := range []string{"250", "250", "354"} {
		p.want(want)
	}
	p.write(goodMail + ".\r\n")
	mx.hangUp()
	close(gone)
	p.want("250 2.0.0 queued")
	if got := mx.sessions(); len(got) != 2 || len(mx.messages()) != 1 {
		t.Errorf("%d messages in %q", len(mx.messages()), got)
	}
}

// TestClientThatLeavesAfterEarlyData leaves nothing at the destination.
func TestClientThatLeavesAfterEarlyData(t *testing.T) {
	t.Parallel()
	mx := newRemote(t)
	r := newRig(t, mx.addr(), keeping(wait))
	p := r.hello()
	p.group()
	for _, want := range []string{"250", "250", "354"} {
		p.want(want)
	}
	p.write("Subject: half\r\n")
	p.nc.Close()
	mx.await(t, hungUp)
	if rec := r.log.wait(t, 1)[0]; rec.Status != Lost || len(mx.messages()) != 0 {
		t.Errorf("status %v, %d messages; want lost and nothing sent", rec.Status, len(mx.messages()))
	}
	r.mail("250")
	if got := mx.sessions(); len(got) != 2 || got[0] != "EHLO MAIL RCPT DATA " {
		t.Errorf("the destination heard %q", got)
	}
}

// TestNobodyAcceptedAndDataAsked: the destination may refuse DATA, whose words are passed on, or want a message of nobody.
func TestNobodyAcceptedAndDataAsked(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, data, want string
		sessions         int
	}{
		{"refused", "503 5.5.1 RCPT first, says mx", "503 5.5.1 RCPT first, says mx", 1},
		{"wanted all the same", "354 go", "554 5.5.1 gw.example: no valid recipients", 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			mx := newRemote(t, reply("RCPT", "550 5.1.1 nobody", "250 ok"), reply("DATA", c.data, "354 go"))
			p := newRig(t, mx.addr()).hello()
			p.group()
			for _, want := range []string{"250", "550 5.1.1 nobody", c.want} {
				p.want(want)
			}
			p.cmd("DATA", "554 5.5.1 gw.example: no valid recipients")
			p.cmd("RCPT TO:<c@sink.example>", "250") // the transaction is still open
			p.send(goodMail, "250")
			if got := mx.sessions(); len(got) != c.sessions || len(mx.messages()) != 1 {
				t.Errorf("%d messages in %q", len(mx.messages()), got)
			}
		})
	}
}

// TestSomeAcceptedTogetherWithData hears each recipient's own reply, and the message goes to the rest.
func TestSomeAcceptedTogetherWithData(t *testing.T) {
	t.Parallel()
	mx := newRemote(t, reply("RCPT", "250 one", "550 5.1.1 two", "451 4.3.0 three"))
	r := newRig(t, mx.addr())
	p := r.hello()
	p.write("MAIL FROM:<a@client.example>\r\nRCPT TO:<1@s.example>\r\nRCPT TO:<2@s.example>\r\nRCPT TO:<3@s.example>\r\nDATA\r\n")
	for _, want := range []string{"250", "250 one", "550 5.1.1 two", "451 4.3.0 three", "354 go"} {
		p.want(want)
	}
	p.cmd(goodMail+".", "250 2.0.0 queued")
	if rec := r.log.wait(t, 1)[0]; rec.Status != Delivered || len(rec.To) != 3 {
		t.Errorf("record %+v", rec)
	}
}

// TestDataThatIsRefusedAhead is answered at once in the destination's words, and both sessions go on.
func TestDataThatIsRefusedAhead(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		reply  string
		status Status
	}{{"554-5.7.0 no\r\n554 5.7.0 really", Refused}, {"451 4.3.0 later", Deferred}} {
		for _, choice := range []EarlyData{EarlyAuto, EarlyAlways} {
			mx := newRemote(t, reply("DATA", c.reply, "354 go"))
			r := newRig(t, mx.addr(), func(r *rig) { r.cfg.Settings.EarlyData = choice })
			p := r.hello()
			if choice == EarlyAlways { // the client has its 354 from us
				p.envelope()
				p.cmd("DATA", "354")
				p.cmd(goodMail+".", strings.ReplaceAll(c.reply, "\r", ""))
			} else {
				p.group()
				for _, want := range []string{"250", "250", strings.ReplaceAll(c.reply, "\r", "")} {
					p.want(want)
				}
			}
			p.together(goodMail, "250")
			if rec := r.log.wait(t, 1)[0]; rec.Status != c.status || !strings.HasPrefix(c.reply, rec.Remote) || !rec.Source.IsValid() {
				t.Errorf("record %+v", rec)
			}
			if got, want := mx.sessions(), []string{"EHLO MAIL RCPT DATA RSET " + oneMail}; !slices.Equal(got, want) {
				t.Errorf("the destination heard %q, want %q", got, want)
			}
		}
	}
}

// TestOtherEndsAfterEarlyData: what is neither let go nor refused leaves no word in the session that waits for it.
func TestOtherEndsAfterEarlyData(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name     string
		hit      filter.Hit
		change   func(*rig)
		want     string
		messages int // at the destination, a good one behind it included
		sessions int
	}{
		{"withheld", heldWord, func(*rig) {}, "451 4.7.1 gw.example: [HELD]", 1, 2},
		{"withheld and kept", heldWord, withKeeper(&keeper{}, true, false), "250 2.0.0 gw.example: kept as 1.1", 1, 2},
		{"sent apart", riskyHit, pooled(true), "250 2.0.0 queued", 2, 3},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			mx := newRemote(t)
			r := newRig(t, mx.addr(), steps(onWord(filter.Data, c.hit)), c.change)
			p := r.hello()
			p.together(spamMail, c.want)
			mx.await(t, hungUp)
			p.together(goodMail, "250 2.0.0 queued")
			p.cmd("QUIT", "221")
			got := mx.sessions()
			if len(got) != c.sessions || len(mx.messages()) != c.messages || got[0] != "EHLO MAIL RCPT DATA " {
				t.Errorf("%d messages in %q", len(mx.messages()), got)
			}
		})
	}
}

// TestLockBetweenEarlyDataAndVerdict: what began before it ends without a message.
func TestLockBetweenEarlyDataAndVerdict(t *testing.T) {
	t.Parallel()
	mx := newRemote(t)
	r := newRig(t, mx.addr())
	p := r.hello()
	p.group()
	for _, want := range []string{"250", "250", "354"} {
		p.want(want)
	}
	r.locks.lock("T-9")
	p.cmd(goodMail+".", "451 4.7.1 gw.example: [LOCKED]")
	mx.await(t, hungUp)
	if n := len(mx.messages()); n != 0 || slices.Contains(mx.commands(), "1 QUIT") {
		t.Errorf("%d messages arrived; the destination heard %q", n, mx.commands())
	}
}

// TestDoubts are about one user, and pass.
func TestDoubts(t *testing.T) {
	t.Parallel()
	var d doubts
	now := time.Now()
	if d.about(1, now) {
		t.Error("a user is doubted from the start")
	}
	d.raise(1, now)
	if !d.about(1, now.Add(doubtTime)) || d.about(2, now) {
		t.Error("the doubt is not about him, or about another")
	}
	if d.about(1, now.Add(doubtTime+time.Second)) || d.some.Load() {
		t.Error("the doubt does not pass")
	}
	for u := range uint32(doubtRoom + 10) {
		d.raise(u, now)
	}
	if len(d.m) != doubtRoom || !d.about(doubtRoom+9, now) {
		t.Errorf("%d users are remembered, want %d and the last among them", len(d.m), doubtRoom)
	}
}
