package proxy

import (
	"bytes"
	"context"
	"net/netip"
	"testing"

	"sluice/filter"
	"sluice/filter/message"
	"sluice/proxy/pool"
)

// marked takes a word for a signature.
type marked struct{}

func (marked) Signature(_ context.Context, data []byte) (signed, looked bool) {
	return bytes.Contains(data, []byte("\r\nSigned: well")), !bytes.Contains(data, []byte("\r\nSigned: unknown"))
}

func (marked) Foreign(_ context.Context, m *message.Message) bool {
	return bytes.Contains(m.Data, []byte("\r\nSigned: elsewhere"))
}

// TestSignedMailLeavesFromOurs: where SPF forbids our addresses mail is looked at for signatures; once one is good the next
// leaves from one of ours, and whatever turns out to have none leaves from the customer's own address after all.
func TestSignedMailLeavesFromOurs(t *testing.T) {
	t.Parallel()
	own, managed := netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("127.0.0.9")
	mx := newRemote(t)
	r := newRig(t, mx.addr(), auto(own, pool.Forbidden), func(r *rig) { r.cfg.Signatures = marked{} })
	const good, bad, unknown = "Subject: x\r\nSigned: well\r\n\r\ntext", "Subject: x\r\nSigned: badly\r\n\r\ntext", "Subject: x\r\nSigned: unknown\r\n\r\ntext"
	for i, c := range []struct {
		name, from, text string
		leaves           netip.Addr
		way              pool.Why
	}{
		{"the first: nothing is known", "a@client.example", good, own, pool.NotAllowed},
		{"the second", "a@client.example", good, managed, pool.Signed},
		{"of another domain", "a@other.example", good, own, pool.NotAllowed},
		{"one that cannot be looked at", "a@client.example", unknown, managed, pool.Signed},
		{"one whose signature is broken", "a@client.example", bad, own, pool.NotAllowed},
		{"after that", "a@client.example", good, own, pool.NotAllowed},
		{"and again", "a@CLIENT.example", good, managed, pool.Signed},
	} {
		p := r.hello()
		p.cmd("MAIL FROM:<"+c.from+">", "250")
		p.cmd("RCPT TO:<b@sink.example>", "250")
		p.send(c.text, "250")
		p.cmd("QUIT", "221")
		if rec := r.log.wait(t, i+1)[i]; rec.Source != c.leaves || rec.Way != c.way.String() || rec.Status != Delivered {
			t.Errorf("%s: left from %v (%v), because %q; want %v, %q", c.name, rec.Source, rec.Status, rec.Way, c.leaves, c.way)
		}
	}
	if n := len(mx.messages()); n != 7 {
		t.Errorf("%d messages came, want 7", n)
	}
}

// TestUnsignedMailIsPutOff where the destination takes the recipient from our address and not from the customer's.
func TestUnsignedMailIsPutOff(t *testing.T) {
	t.Parallel()
	mx := newRemote(t, reply("RCPT", "250 ok", "250 ok", "250 ok", "550 5.7.1 not from you"))
	r := newRig(t, mx.addr(), auto(netip.MustParseAddr("127.0.0.1"), pool.Forbidden), func(r *rig) { r.cfg.Signatures = marked{} })
	for n, want := range []string{"250", "250", "451 4.4.2"} {
		text := "Subject: x\r\nSigned: well\r\n\r\nx"
		if n == 2 {
			text = "Subject: x\r\n\r\nx"
		}
		p := r.hello()
		p.envelope()
		p.send(text, want)
		p.cmd("QUIT", "221")
	}
	all := r.log.wait(t, 3)
	if all[1].Way != pool.Signed.String() || all[2].Status != Deferred || len(mx.messages()) != 2 {
		t.Errorf("%+v", all)
	}
}

// TestSignedMailIsKept: of a message that is here as a whole nobody guesses.
func TestSignedMailIsKept(t *testing.T) {
	t.Parallel()
	k, mx := &keeper{}, newRemote(t)
	r := newRig(t, mx.addr(), auto(netip.MustParseAddr("127.0.0.1"), pool.Forbidden), steps(onWord(filter.Data, heldWord)), withKeeper(k, true, false),
		func(r *rig) { r.cfg.Signatures = marked{} })
	p := r.hello()
	p.envelope()
	p.send("Subject: x\r\n\r\nSPAMWORD", "451 4.7.1 gw.example: [HELD]")
	p.envelope()
	p.send("Subject: x\r\nSigned: well\r\n\r\nSPAMWORD", "250 2.0.0 gw.example: kept as 1.2")
	p.cmd("QUIT", "221")
	all := r.log.wait(t, 2)
	if all[0].Note != "could not be kept: "+errOwnWay.Error() || all[1].Status != Queued || all[1].Way != pool.Signed.String() || len(k.messages()) != 1 {
		t.Errorf("%+v", all)
	}
}
