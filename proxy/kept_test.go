package proxy

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"sluice/filter"
	"sluice/filter/policy"
)

// withKeeper lets a rig keep what its users' settings say.
func withKeeper(k *keeper, withheld, deferred bool) func(*rig) {
	return func(r *rig) {
		k.dir = r.t.(*testing.T).TempDir()
		r.cfg.Keeper = k
		r.policy.KeepWithheld, r.policy.KeepDeferred = withheld, deferred
	}
}

var heldWord = filter.Hit{Code: "HELD", Class: filter.Spam, Action: filter.Hold, Text: "it is looked at, try again later"}

// TestWithheldMailIsKept: with the setting the client hears 250 and the destination forgets the envelope; the session goes on.
func TestWithheldMailIsKept(t *testing.T) {
	t.Parallel()
	for name, body := range map[string]string{"small": spamMail, "large": spamMail + "\r\n" + strings.Repeat("seven bytes and more of it\r\n", 100_000)} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k, mx := &keeper{}, newRemote(t)
			r := newRig(t, mx.addr(), steps(onWord(filter.Data, heldWord)), withKeeper(k, true, false))
			p := r.hello()
			p.envelope()
			p.send(body, "250 2.0.0 gw.example: kept as 1.1, it is looked at before it is delivered")
			p.envelope()
			p.send(goodMail, "250 2.0.0 queued")
			p.cmd("QUIT", "221")
			rec := r.log.wait(t, 2)[0]
			if rec.Status != Queued || rec.Verdict.Action != filter.Hold || rec.Source.IsValid() || rec.Size != int64(len(body)+2) || rec.Note != "" {
				t.Errorf("record %+v", rec)
			}
			all := k.messages()
			if len(all) != 1 || !strings.HasSuffix(all[0].text, body+"\r\n") || !strings.HasPrefix(all[0].text, "Received: from ") || !slices.Equal(all[0].to, []string{"b@sink.example"}) ||
				all[0].withheld == nil || all[0].withheld.Action != filter.Hold {
				t.Fatalf("kept %.300v", all)
			}
			said := mx.commands()
			if n := slices.Index(said, "1 RSET"); n < 0 || slices.Index(said, "1 DATA") < n || len(mx.messages()) != 1 {
				t.Errorf("the destination heard %q", said)
			}
		})
	}
}

// TestWithheldMailStaysWithTheClient where it cannot be kept, and the log says why.
func TestWithheldMailStaysWithTheClient(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		k      *keeper
		change func(*rig)
		note   string
	}{
		{"no room", &keeper{full: ErrNoRoom}, nil, "could not be kept: there is no room"},
		{"disk fails", &keeper{fail: errors.New("disk is gone")}, nil, "could not be kept: disk is gone"},
		{"own address", &keeper{}, func(r *rig) {
			r.policy.Delivery = policy.Own
			keeping(0)(r)
		}, "could not be kept: it leaves from the customer's own address"},
		{"no spool", &keeper{}, func(r *rig) { r.cfg.Keeper = nil }, "could not be kept: there is no spool"},
		{"set so", &keeper{}, func(r *rig) { r.policy.KeepWithheld = false }, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			mx := newRemote(t)
			r := newRig(t, mx.addr(), steps(onWord(filter.Data, heldWord)), withKeeper(c.k, true, true), func(r *rig) {
				if c.change != nil {
					c.change(r)
				}
			})
			p := r.hello()
			p.envelope()
			p.send(spamMail, "451 4.7.1 gw.example: [HELD] it is looked at, try again later")
			p.cmd("QUIT", "221")
			if rec := r.log.wait(t, 1)[0]; rec.Status != Withheld || !strings.HasPrefix(rec.Note, c.note) || (c.note == "") != (rec.Note == "") || len(c.k.messages()) != 0 {
				t.Errorf("record %+v", rec)
			}
		})
	}
}

// TestAuthenticatedMailIsNotKept: nobody could log in at its destination later.
func TestAuthenticatedMailIsNotKept(t *testing.T) {
	t.Parallel()
	k, mx := &keeper{}, newRemote(t, reply("AUTH", "235 2.7.0 welcome"), func(r *remote) { r.ehlo = []string{"AUTH PLAIN", "PIPELINING"} })
	r := newRig(t, mx.addr(), steps(onWord(filter.Data, heldWord)), withKeeper(k, true, true), keeping(0))
	p := r.hello()
	p.cmd("AUTH PLAIN AGEAYg==", "235")
	p.envelope()
	p.send(spamMail, "451 4.7.1 gw.example: [HELD]")
	if rec := r.log.wait(t, 1)[0]; rec.Status != Withheld || !strings.Contains(rec.Note, "authenticated") || len(k.messages()) != 0 {
		t.Errorf("record %+v", rec)
	}
}

// TestDeferredMailIsKept: what a destination puts off in the end is tried again from here, where the setting says so; what it
// refuses for good is not, and neither is what it may have taken.
func TestDeferredMailIsKept(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		keep   bool
		change func(*remote)
		want   string
		kept   int
		status Status
	}{
		{"4xx at the dot", true, reply(".", "451 4.7.1 come again"), "250 2.0.0 gw.example: kept as 1.1, the destination put it off", 1, Queued},
		{"4xx to DATA", true, reply("DATA", "450 4.2.0 not now"), "250 2.0.0 gw.example: kept", 1, Queued},
		{"gone before DATA", true, reply("DATA", closeNow), "250 2.0.0 gw.example: kept", 1, Queued},
		{"421 at DATA", true, reply("DATA", "421 4.3.2 restarting"), "250 2.0.0 gw.example: kept", 1, Queued},
		{"5xx at the dot", true, reply(".", "550 5.7.1 never"), "550 5.7.1 never", 0, Refused},
		{"gone after the dot", true, reply(".", closeNow), "451 4.4.2", 0, Ambiguous},
		{"handed back", false, reply(".", "451 4.7.1 come again"), "451 4.7.1 come again", 0, Deferred},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			k, mx := &keeper{}, newRemote(t, c.change)
			r := newRig(t, mx.addr(), withKeeper(k, false, c.keep))
			p := r.hello()
			p.envelope()
			p.send(goodMail, c.want)
			p.cmd("QUIT", "221")
			if rec := r.log.wait(t, 1)[0]; rec.Status != c.status || len(k.messages()) != c.kept || c.kept > 0 && k.messages()[0].withheld != nil {
				t.Errorf("kept %+v, record %+v", k.messages(), rec)
			}
		})
	}
}

// TestGreylistedRecipientsAreKept: from the first recipient on that is put off, the message is kept for all that are not
// refused; where one was taken before, the client hears of the others, and splits.
func TestGreylistedRecipientsAreKept(t *testing.T) {
	t.Parallel()
	k := &keeper{}
	mx := newRemote(t, reply("RCPT", "450 4.7.1 greylisted", "550 5.1.1 nobody", "250 2.1.5 ok", "250 2.1.5 ok", "450 4.7.1 greylisted"))
	r := newRig(t, mx.addr(), withKeeper(k, false, true))
	p := r.hello()
	p.write("MAIL FROM:<a@client.example>\r\nRCPT TO:<b@sink.example>\r\nRCPT TO:<no@sink.example>\r\nRCPT TO:<c@sink.example>\r\n")
	for _, want := range []string{"250 2.1.0", "250 2.1.5 gw.example", "550 5.1.1 nobody", "250 2.1.5 gw.example"} {
		p.want(want)
	}
	p.send(goodMail, "250 2.0.0 gw.example: kept")
	p.cmd("MAIL FROM:<a@client.example>", "250")
	p.cmd("RCPT TO:<d@sink.example>", "250 2.1.5 ok")
	p.cmd("RCPT TO:<e@sink.example>", "450 4.7.1 greylisted")
	p.send(goodMail, "250 2.0.0 queued")
	all := r.log.wait(t, 2)
	if got := k.messages(); len(got) != 1 || !slices.Equal(got[0].to, []string{"b@sink.example", "c@sink.example"}) || len(mx.messages()) != 1 {
		t.Errorf("kept %+v, the destination has %q", got, mx.messages())
	}
	if all[0].Status != Queued || all[1].Status != Delivered || all[0].Remote != "250 2.1.5 ok" {
		t.Errorf("records %+v and %+v", all[0], all[1])
	}
}

// TestDestinationThatLeavesAfterItPutOff: the message is kept all the same.
func TestDestinationThatLeavesAfterItPutOff(t *testing.T) {
	t.Parallel()
	k, mx := &keeper{}, newRemote(t, reply("RCPT", "450 4.7.1 greylisted", closeNow, "450 4.7.1 greylisted"))
	r := newRig(t, mx.addr(), withKeeper(k, false, true))
	p := r.hello()
	p.envelope()
	p.cmd("RCPT TO:<c@sink.example>", "250 2.1.5 gw.example")
	p.cmd("RCPT TO:<d@sink.example>", "250 2.1.5 gw.example")
	k.mu.Lock()
	k.fail = errors.New("disk is gone")
	k.mu.Unlock()
	p.send(goodMail, "451 4.3.0 gw.example: the message could not be kept")
	k.mu.Lock()
	k.fail = nil
	k.mu.Unlock()
	p.envelope()
	p.send(goodMail, "250 2.0.0 gw.example: kept")
	all := r.log.wait(t, 2)
	if got := k.messages(); all[0].Status != Deferred || all[1].Status != Queued || len(got) != 1 || len(got[0].to) != 1 {
		t.Errorf("kept %+v, records %+v, %+v", got, all[0], all[1])
	}
}

// TestOnlyWhatCanBeDeliveredLaterIsKept: what goes to somebody who is no exchanger of the domain stays with the client, with
// the destination's own answer, and a recipient of another kind comes in a message of his own.
func TestOnlyWhatCanBeDeliveredLaterIsKept(t *testing.T) {
	t.Parallel()
	k, mx := &keeper{}, newRemote(t, reply("RCPT", "450 4.7.1 greylisted", "450 4.7.1 greylisted", "250 2.1.5 ok", "450 4.7.2 put off"))
	r := newRig(t, mx.addr(), steps(onWord(filter.Data, heldWord)), withKeeper(k, true, true))
	p := r.hello()
	p.cmd("MAIL FROM:<a@client.example>", "250")
	p.cmd("RCPT TO:<x@elsewhere.example>", "450 4.7.1 greylisted")
	p.cmd("RSET", "250")
	p.cmd("MAIL FROM:<a@client.example>", "250")
	p.cmd("RCPT TO:<b@sink.example>", "250 2.1.5 gw.example")
	p.cmd("RCPT TO:<x@elsewhere.example>", "452 4.5.3 gw.example: send to this recipient in another message")
	p.cmd("RCPT TO:<x@elsewhere.example>", "450 4.7.2 put off")
	p.send(goodMail, "250 2.0.0 gw.example: kept")
	if got := k.messages(); len(got) != 1 || !slices.Equal(got[0].to, []string{"b@sink.example"}) {
		t.Errorf("kept %+v", got)
	}
	mx.mu.Lock()
	mx.on["RCPT"] = nil
	mx.mu.Unlock()
	p.cmd("MAIL FROM:<a@client.example>", "250")
	p.cmd("RCPT TO:<x@elsewhere.example>", "250")
	p.send(spamMail, "451 4.7.1 gw.example: [HELD]")
	if rec := r.log.wait(t, 3)[2]; rec.Status != Withheld || !strings.Contains(rec.Note, "no mail exchanger of elsewhere.example") {
		t.Errorf("record %+v", rec)
	}
}
