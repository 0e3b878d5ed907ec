package proxy

import (
	"net/netip"
	"strings"
	"testing"

	"sluice/filter"
	"sluice/proxy/pool"
)

const (
	usualSource = "127.0.0.9"
	asideSource = "127.0.0.7"
)

// passesOn gives the rig a usual pool and one for forwarded mail.
func passesOn(r *rig) {
	set, err := pool.NewSet([]pool.Definition{
		{Name: pool.Primary, Addresses: []pool.Address{{IP: netip.MustParseAddr(usualSource), Helo: "out.gw.example"}}},
		{Name: "risky", Class: pool.Risk, Addresses: []pool.Address{{IP: netip.MustParseAddr("127.0.0.8"), Helo: "risky.gw.example"}}},
		{Name: "passed", Class: pool.Forwarded, Addresses: []pool.Address{{IP: netip.MustParseAddr(asideSource), Helo: "fwd.gw.example"}}},
	}, nil)
	must(r.t, err)
	r.cfg.Settings.Pools, r.cfg.Settings.Pool, r.cfg.Signatures = set, set.Primary(), marked{}
}

// asideCase is one mail, with the address it leaves from.
type asideCase struct{ name, from, text, want, way string }

const asideWay = "pool of forwarded mail"

var asideCases = []asideCase{
	{"his own", "a@client.example", goodMail, usualSource, ""},
	{"by a forwarder's field", "a@client.example", "Delivered-To: x@client.example\r\n" + goodMail, asideSource, asideWay},
	{"his own, behind it", "a@client.example", goodMail, usualSource, ""},
	{"by its sender", "SRS0=HHH=TT=b.example=y@client.example", goodMail, asideSource, asideWay},
	{"signed elsewhere", "y@b.example", "Signed: elsewhere\r\n" + strings.Replace(goodMail, "Subject", "Signed: elsewhere\r\nSubject", 1), asideSource, asideWay},
	{"risky, too", "SRS0=HHH=TT=b.example=y@client.example", "Delivered-To: x@client.example\r\n" + spamMail, "127.0.0.8", "pool of risky mail"},
	{"his own at last", "a@client.example", goodMail, usualSource, ""},
}

// TestForwardedMailLeavesApart: it leaves through the pool for it, from MAIL on where its sender tells, else in a new session;
// what else its user sends does not.
func TestForwardedMailLeavesApart(t *testing.T) {
	t.Parallel()
	mx := newRemote(t)
	r := newRig(t, mx.addr(), steps(onWord(filter.Data, riskyHit)), passesOn)
	p := r.hello()
	for _, c := range asideCases {
		p.cmd("MAIL FROM:<"+c.from+">", "250")
		p.cmd("RCPT TO:<b@sink.example>", "250")
		p.send(c.text, "250 2.0.0 queued")
	}
	p.cmd("QUIT", "221")
	for i, rec := range r.log.wait(t, len(asideCases)) {
		c := &asideCases[i]
		if rec.Status != Delivered || rec.Source.String() != c.want || rec.Way != c.way || rec.Forwarded != (c.want != usualSource) {
			t.Errorf("%s: %v from %v, %q, forwarded %v; want %s, %q", c.name, rec.Status, rec.Source, rec.Way, rec.Forwarded, c.want, c.way)
		}
	}
	if n := len(mx.messages()); n != len(asideCases) {
		t.Errorf("%d messages came", n)
	}
}

// TestForwardedMailWithoutAWayOfItsOwn: without a pool for it, or where that has no address for the destination, it leaves as
// other mail; a recipient who is refused where it would leave from costs 451, and nothing is delivered.
func TestForwardedMailWithoutAWayOfItsOwn(t *testing.T) {
	t.Parallel()
	const forwarded = "Delivered-To: x@client.example\r\n" + goodMail
	other := func(r *rig) {
		set, err := pool.NewSet([]pool.Definition{
			{Name: pool.Primary, Addresses: []pool.Address{{IP: netip.MustParseAddr(usualSource), Helo: "out.gw.example"}}},
			{Name: "passed", Class: pool.Forwarded, Addresses: []pool.Address{{IP: netip.MustParseAddr("2001:db8::7"), Helo: "fwd.gw.example"}}},
		}, nil)
		must(r.t, err)
		r.cfg.Settings.Pools, r.cfg.Settings.Pool = set, set.Primary()
	}
	for name, c := range map[string]struct {
		pools  func(*rig)
		from   string
		rcpt   []string
		want   string
		source string
	}{
		"no pool":                   {pooled(false), "a@client.example", []string{"250 ok"}, "250", usualSource},
		"another family":            {other, "a@client.example", []string{"250 ok"}, "250", usualSource},
		"another family, from MAIL": {other, "SRS0=HHH=TT=b.example=y@client.example", []string{"250 ok"}, "250", usualSource},
		"refused apart":             {passesOn, "a@client.example", []string{"250 ok", "550 5.7.1 not from you"}, "451 4.4.2 gw.example: the destination answers otherwise", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			mx := newRemote(t, reply("RCPT", c.rcpt...))
			r := newRig(t, mx.addr(), c.pools)
			p := r.hello()
			p.cmd("MAIL FROM:<"+c.from+">", "250")
			p.cmd("RCPT TO:<b@sink.example>", "250")
			p.send(forwarded, c.want)
			p.cmd("QUIT", "221")
			rec := r.log.wait(t, 1)[0]
			if c.source == "" {
				if rec.Status != Deferred || len(mx.messages()) != 0 {
					t.Errorf("%v, %d messages came", rec.Status, len(mx.messages()))
				}
				return
			}
			if rec.Status != Delivered || rec.Source.String() != c.source || rec.Way != "" || !rec.Forwarded {
				t.Errorf("%v from %v, %q, forwarded %v", rec.Status, rec.Source, rec.Way, rec.Forwarded)
			}
		})
	}
}
