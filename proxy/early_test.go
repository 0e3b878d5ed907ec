package proxy

import (
	"fmt"
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

// twoAddresses is a pool in which the rig's usual mail leaves from another address than user 7's first one.
func twoAddresses(t *testing.T) (p *pool.Pool, first, usual pool.Address) {
	t.Helper()
	to := netip.MustParseAddr("127.0.0.1")
	for n := byte(10); n < 100; n++ {
		other := netip.AddrFrom4([4]byte{127, 0, 0, n})
		p, err := pool.New(pool.Address{IP: netip.MustParseAddr("127.0.0.9"), Helo: "out9.gw.example"}, pool.Address{IP: other, Helo: "out10.gw.example"})
		must(t, err)
		first, _ = p.Default(7, to)
		if usual, _ = p.Choose(pool.Key{User: 7, Sender: "client.example", Recipient: "sink.example"}, to); usual != first {
			return p, first, usual
		}
	}
	t.Fatal("all mail of user 7 leaves from one address")
	return nil, first, usual
}

// usualMail sends one mail in a session of its own and returns the address from which it left.
func usualMail(r *rig, n int) netip.Addr {
	r.t.Helper()
	p := r.hello()
	p.envelope()
	p.send(goodMail, "250")
	p.cmd("QUIT", "221")
	p.closed()
	return r.log.wait(r.t, n)[n-1].Source
}

func TestAnEarlySessionFromTheWrongAddressIsGivenUp(t *testing.T) {
	t.Parallel()
	mx := newRemote(t)
	two, first, usual := twoAddresses(t)
	r := newRig(t, mx.addr(), func(r *rig) { r.cfg.Settings.Pool = two })
	r.hello().cmd("QUIT", "221") // what the destination can do is known from now on, so nothing is opened early
	r.log.wait(t, 1)
	for n := range 2 {
		if from := usualMail(r, n+2); from != usual.IP {
			t.Fatalf("mail %d left from %v, want %v as the pool chooses", n, from, usual.IP)
		}
	}
	// A recipient's domain whose mail leaves from the other address.
	domain := ""
	for n := range 100 {
		domain = fmt.Sprintf("d%d.example", n)
		if a, _ := two.Choose(pool.Key{User: 7, Sender: "client.example", Recipient: domain}, mx.addr().Addr()); a == first {
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
	if rec := r.log.wait(t, 4)[3]; rec.Source != first.IP || rec.Status != Delivered {
		t.Errorf("the mail left from %v (status %v), want %v, chosen for %s", rec.Source, rec.Status, first.IP, domain)
	}
}

// TestTheFirstMailStaysWithTheEarlySession, and the mails of the same domains stay with its address: to other exchangers,
// and after a restart.
func TestTheFirstMailStaysWithTheEarlySession(t *testing.T) {
	t.Parallel()
	two, first, usual := twoAddresses(t)
	mx, other := newRemote(t), newRemote(t)
	var choices pool.Choices
	start := func(to *remote) *rig {
		return newRig(t, to.addr(), func(r *rig) { r.cfg.Settings.Pool, r.cfg.Choices = two, &choices })
	}
	r := start(mx)
	for n := range 2 {
		if from := usualMail(r, n+1); from != first.IP {
			t.Errorf("mail %d left from %v, want %v, where the session stood", n, from, first.IP)
		}
	}
	if got := mx.sessions(); len(got) != 2 || got[0] != "EHLO MAIL RCPT DATA . QUIT " {
		t.Errorf("the destination heard %q, want a session for each mail", got)
	}
	saved := choices.Append(nil)
	choices = pool.Choices{}
	must(t, choices.Restore(saved))
	r = start(other)
	r.hello().cmd("QUIT", "221") // known by now: the address is not given by a session that stands
	r.log.wait(t, 1)
	if from := usualMail(r, 2); from != first.IP {
		t.Errorf("to another exchanger, after a restart, the mail left from %v, want %v", from, first.IP)
	}
	// Other domains are spread as ever.
	p := r.hello()
	seen := map[netip.Addr]bool{}
	for n := range 20 {
		p.cmd("MAIL FROM:<a@client.example>", "250")
		p.cmd(fmt.Sprintf("RCPT TO:<b@d%d.example>", n), "250")
		p.send(goodMail, "250")
		seen[r.log.wait(t, n+3)[n+2].Source] = true
	}
	if !seen[first.IP] || !seen[usual.IP] {
		t.Errorf("20 recipients' domains used the addresses %v", seen)
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
