package proxy

import (
	"context"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"sluice/filter"
	"sluice/filter/message"
	"sluice/filter/policy"
	"sluice/filter/sign"
	"sluice/proxy/pool"
	"sluice/proxy/smtp"
)

// fakeSigner signs mail of its author client.example, by a key that may be lost.
type fakeSigner struct {
	lost  bool
	asked atomic.Int32
}

func (f *fakeSigner) As(_ context.Context, _ *policy.Settings, _ string, body *smtp.Body) (as sign.As, author bool, why string) {
	f.asked.Add(1)
	if !strings.Contains(string(body.Header()), "From: a@client.example") {
		return as, false, "it is of somebody else"
	}
	return sign.As{Domain: "client.example", Selector: "s1"}, true, ""
}

func (f *fakeSigner) Expected(_ *policy.Settings, _ string, from message.Address) bool {
	return from.Domain() == "client.example"
}

func (f *fakeSigner) Signatures(dst []byte, _ sign.As, _ *smtp.Body, _ time.Time) ([]byte, string, string) {
	if f.lost {
		return dst, "", "its key is lost"
	}
	return append(dst, "DKIM-Signature: v=1; b=x\r\n"...), "s1", ""
}

// signing has a rig's users' mail signed.
func signing(f *fakeSigner, how policy.DKIM) func(*rig) {
	return func(r *rig) {
		r.cfg.Signer = f
		r.policy.Signing.DKIM = how
	}
}

const ownMail, othersMail = "From: a@client.example\r\nSubject: x\r\n\r\ntext", "From: b@other.example\r\nSubject: x\r\n\r\ntext"

// TestMailIsSigned on top of the trace field, where its user's settings want that and somebody can; else it goes on as it is.
func TestMailIsSigned(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, mail, log, top string
		how                  policy.DKIM
		lost                 bool
	}{
		{"signed", ownMail, "client.example (s1)", "DKIM-Signature: v=1; b=x\r\nReceived: from ", policy.DKIMUnsigned, false},
		{"somebody else's", othersMail, "no: it is of somebody else", "Received: from ", policy.DKIMAlways, false},
		{"a lost key", ownMail, "no: its key is lost", "Received: from ", policy.DKIMAlways, true},
		{"off", ownMail, "", "Received: from ", policy.DKIMOff, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			f, mx := &fakeSigner{lost: c.lost}, newRemote(t)
			r := newRig(t, mx.addr(), signing(f, c.how))
			p := r.hello()
			for range 2 {
				p.envelope()
				p.send(c.mail, "250 2.0.0 queued")
			}
			p.cmd("QUIT", "221")
			for i, rec := range r.log.wait(t, 2) {
				if rec.Status != Delivered || rec.Signed != c.log {
					t.Errorf("record %+v", rec)
				}
				if got := mx.messages()[i]; !strings.HasPrefix(got, c.top) || !strings.HasSuffix(strings.TrimSuffix(got, "\r\n"), c.mail) || strings.Count(got, "DKIM") != strings.Count(c.top, "DKIM") {
					t.Errorf("what arrived: %q", got)
				}
			}
			if n := f.asked.Load(); c.how == policy.DKIMOff && n != 0 || c.how != policy.DKIMOff && n != 2 {
				t.Errorf("asked %d times about two messages", n)
			}
		})
	}
}

// TestKeptMailIsSignedLater: the queue knows in whose name, and there is no field yet.
func TestKeptMailIsSignedLater(t *testing.T) {
	t.Parallel()
	k, mx := &keeper{}, newRemote(t)
	r := newRig(t, mx.addr(), steps(onWord(filter.Data, heldWord)), withKeeper(k, true, false), signing(&fakeSigner{}, policy.DKIMUnsigned))
	p := r.hello()
	p.envelope()
	p.send(ownMail+" SPAMWORD", "250 2.0.0 gw.example: kept as 1.1")
	p.envelope()
	p.send(othersMail+" SPAMWORD", "250 2.0.0 gw.example: kept as 1.2")
	all, recs := k.messages(), r.log.wait(t, 2)
	if len(all) != 2 || all[0].as != (sign.As{Domain: "client.example", Selector: "s1"}) || all[1].as != (sign.As{}) || strings.Contains(all[0].text, "DKIM") {
		t.Errorf("kept: %+v", all)
	}
	if recs[0].Signed != "" || recs[1].Signed != "no: it is of somebody else" {
		t.Errorf("records %+v", recs)
	}
}

// TestSignedHereLeavesFromOurs (DIP9): where SPF forbids our addresses, mail that will be signed here leaves from one from the first on;
// what turns out to be somebody else's leaves from the customer's own address.
func TestSignedHereLeavesFromOurs(t *testing.T) {
	t.Parallel()
	own, managed := netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("127.0.0.9")
	mx := newRemote(t)
	r := newRig(t, mx.addr(), auto(own, pool.Forbidden), signing(&fakeSigner{}, policy.DKIMUnsigned), func(r *rig) { r.cfg.Signatures = marked{} })
	for i, c := range []struct {
		from, mail string
		leaves     netip.Addr
		way        pool.Why
	}{
		{"a@client.example", ownMail, managed, pool.Signed}, {"a@client.example", othersMail, own, pool.NotAllowed},
		{"a@client.example", ownMail, managed, pool.Signed}, {"b@other.example", ownMail, own, pool.NotAllowed},
	} {
		p := r.hello()
		p.cmd("MAIL FROM:<"+c.from+">", "250")
		p.cmd("RCPT TO:<b@sink.example>", "250")
		p.send(c.mail, "250")
		p.cmd("QUIT", "221")
		if rec := r.log.wait(t, i+1)[i]; rec.Source != c.leaves || rec.Way != c.way.String() || rec.Status != Delivered || strings.HasPrefix(rec.Signed, "no:") != (c.mail == othersMail) {
			t.Errorf("%d: left from %v because %q, signed %q; want %v", i, rec.Source, rec.Way, rec.Signed, c.leaves)
		}
	}
}

// TestSignedMailIsNotStreamed: its signature, which stands before it, is over the whole of it.
func TestSignedMailIsNotStreamed(t *testing.T) {
	t.Parallel()
	mx := newRemote(t)
	r := newRig(t, mx.addr(), streams, signing(&fakeSigner{}, policy.DKIMUnsigned))
	p := r.hello()
	p.envelope()
	p.send(ownMail+strings.Repeat("\r\na line of a large message", 30_000), "250 2.0.0 queued")
	p.cmd("QUIT", "221")
	if rec := r.log.wait(t, 1)[0]; rec.Signed != "client.example (s1)" || rec.Status != Delivered {
		t.Errorf("record %+v", rec)
	}
	if got := mx.messages(); len(got) != 1 || !strings.HasPrefix(got[0], "DKIM-Signature: ") {
		t.Errorf("%d messages arrived: %.200q", len(got), got)
	}
}
