package proxy

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"sluice/proxy/pool"
	"sluice/proxy/relay"
)

// accustomed sends mails until the proxy foresees from where the next one leaves.
func accustomed(r *rig, mx *remote) {
	for range 2 {
		p := r.hello()
		p.envelope()
		p.send(goodMail, "250")
		p.cmd("QUIT", "221")
		p.closed()
		mx.await(r.t, "QUIT")
	}
}

func TestTheDestinationGreetsWhileTheClientSaysHello(t *testing.T) {
	t.Parallel()
	mx := newRemote(t)
	r := newRig(t, mx.addr())
	accustomed(r, mx)
	p := r.dial()
	mx.await(t, "EHLO out.gw.example") // the client has said nothing yet
	p.cmd("EHLO client.example", "250")
	p.envelope()
	p.send(goodMail, "250")
	p.cmd("QUIT", "221")
	p.closed()
	mx.await(t, "QUIT")
	ehlos := 0
	for _, c := range mx.commands() {
		if strings.Contains(c, " EHLO ") {
			ehlos++
		}
	}
	if ehlos != 3 {
		t.Errorf("three sessions opened %d onward: %q", ehlos, mx.commands())
	}
}

// TestAnEarlySessionThatNobodyNeedsEnds at once: by QUIT where it stood, by a close where EHLO was not answered yet.
func TestAnEarlySessionThatNobodyNeedsEnds(t *testing.T) {
	t.Parallel()
	mx := newRemote(t)
	r := newRig(t, mx.addr())
	accustomed(r, mx)
	p := r.dial()
	mx.await(t, "EHLO")
	p.cmd("EHLO client.example", "250")
	p.cmd("QUIT", "221")
	p.closed()
	mx.await(t, "QUIT", hungUp)
}

func TestAnEarlySessionFromTheWrongAddressIsGivenUp(t *testing.T) {
	t.Parallel()
	mx := newRemote(t)
	two, err := pool.New(pool.Address{IP: netip.MustParseAddr("127.0.0.9"), Helo: "out9.gw.example"},
		pool.Address{IP: netip.MustParseAddr("127.0.0.10"), Helo: "out10.gw.example"})
	must(t, err)
	r := newRig(t, mx.addr(), func(r *rig) { r.cfg.Settings.Pool = two })
	usual, _ := two.Choose(pool.Key{User: 7, Sender: "client.example", Recipient: "sink.example"}, mx.addr().Addr())
	accustomed(r, mx)
	// Find a recipient's domain whose mail leaves from the other address.
	domain := ""
	for _, d := range []string{"a.example", "b.example", "c.example", "d.example", "e.example", "f.example", "g.example", "h.example"} {
		if a, _ := two.Choose(pool.Key{User: 7, Sender: "client.example", Recipient: d}, mx.addr().Addr()); a.IP != usual.IP {
			domain = d
			break
		}
	}
	p := r.dial()
	mx.await(t, "EHLO "+usual.Helo)
	p.cmd("EHLO client.example", "250")
	p.cmd("MAIL FROM:<a@client.example>", "250")
	p.cmd("RCPT TO:<b@"+domain+">", "250")
	p.send(goodMail, "250")
	p.cmd("QUIT", "221")
	p.closed()
	recs := r.log.wait(t, 3)
	if recs[0].Source == recs[2].Source || recs[2].Status != Delivered {
		t.Errorf("the mail left from %v as the others did (status %v), want the address chosen for %s", recs[2].Source, recs[2].Status, domain)
	}
}

func TestADestinationThatDiedIsTheFirstThingTheClientHears(t *testing.T) {
	t.Parallel()
	mx := newRemote(t)
	r := newRig(t, mx.addr())
	accustomed(r, mx)
	must(t, mx.ln.Close())
	// What it can do is known for ten minutes, but the refused connection is seen at EHLO, or at the latest at RCPT.
	p := r.dial()
	p.write("EHLO client.example\r\n")
	if got := p.reply(); strings.HasPrefix(got, "250") {
		p.cmd("MAIL FROM:<a@client.example>", "250")
		p.cmd("RCPT TO:<b@sink.example>", "421 4.4.1")
	} else if !strings.HasPrefix(got, "421 4.4.1") {
		t.Fatalf("EHLO was answered %q, want 421 4.4.1", got)
	}
	p.closed()
}

func TestALockedUsersConnectionReachesNobodyEarly(t *testing.T) {
	t.Parallel()
	mx := newRemote(t)
	r := newRig(t, mx.addr())
	accustomed(r, mx)
	before := len(mx.commands())
	r.locks.lock("T-1")
	p := r.hello()
	p.cmd("QUIT", "221")
	p.closed()
	if after := mx.commands(); len(after) != before {
		t.Errorf("the destination heard %q", after[before:])
	}
}

func TestWaysForesee(t *testing.T) {
	t.Parallel()
	var w ways
	k := way{7, addrPort("192.0.2.25:25")}
	a, b := routeFrom("203.0.113.1"), routeFrom("203.0.113.2")
	var seen []bool
	for _, r := range []string{"a", "a", "b", "a", "a"} {
		if r == "a" {
			w.took(k, a)
		} else {
			w.took(k, b)
		}
		_, ok := w.foresee(k)
		seen = append(seen, ok)
	}
	if want := []bool{true, true, false, false, true}; !slices.Equal(seen, want) {
		t.Errorf("foreseen after each of a a b a a: %v, want %v", seen, want)
	}
	for i := range waysRoom + 100 {
		w.took(way{uint32(i), k.target}, a)
	}
	if len(w.m) > waysRoom {
		t.Errorf("%d ways are remembered, more than %d", len(w.m), waysRoom)
	}
}

func routeFrom(ip string) relay.Route {
	return relay.Route{Source: netip.MustParseAddr(ip), Target: addrPort("192.0.2.25:25")}
}
