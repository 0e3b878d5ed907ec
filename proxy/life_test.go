package proxy

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"sluice/filter/policy"
	"sluice/proxy/cert"
	"sluice/proxy/relay"
)

// remoteTLS lets a destination encrypt.
func remoteTLS(t testing.TB) func(*remote) {
	c, err := cert.New(cert.Options{Name: "mx.sink.example"})
	must(t, err)
	return func(r *remote) {
		r.tls = c.Config()
		r.ehlo = append(r.ehlo, "STARTTLS")
	}
}

func TestBothLegsAreEncrypted(t *testing.T) {
	t.Parallel()
	mx := newRemote(t, remoteTLS(t))
	r := newRig(t, mx.addr(), withTLS)
	for _, how := range []string{"cold", "warm"} {
		p := r.dial()
		if got := p.cmd("EHLO client.example", "250"); !strings.Contains(got, "STARTTLS") {
			t.Fatalf("%s: STARTTLS is not offered: %q", how, got)
		}
		p.cmd("STARTTLS now", "501")
		p.startTLS()
		p.cmd("MAIL FROM:<a@client.example>", "503") // forgotten with the plain text
		if got := p.cmd("EHLO client.example", "250"); strings.Contains(got, "STARTTLS") {
			t.Errorf("%s: STARTTLS is offered within TLS: %q", how, got)
		}
		p.cmd("STARTTLS", "503")
		p.envelope()
		p.send(goodMail, "250")
		p.cmd("QUIT", "221")
		p.closed()
	}
	for _, rec := range r.log.wait(t, 2) {
		if rec.In.Version != "TLS1.3" || rec.Out.Version != "TLS1.3" || rec.In.Cipher == "" {
			t.Errorf("record says in %+v, out %+v", rec.In, rec.Out)
		}
	}
	if got := mx.messages()[0]; !strings.Contains(got, " with ESMTPS id ") {
		t.Errorf("trace field of an encrypted leg: %q", got)
	}
}

func TestPlainClientIsEncryptedOnward(t *testing.T) {
	t.Parallel()
	mx := newRemote(t, remoteTLS(t), reply("MAIL", "250 ok"))
	r := newRig(t, mx.addr())
	p := r.dial()
	if got := p.cmd("EHLO client.example", "250"); strings.Contains(got, "STARTTLS") {
		t.Errorf("STARTTLS is offered without a certificate: %q", got)
	}
	p.cmd("STARTTLS", "502")
	p.envelope()
	p.send(goodMail, "250")
	if rec := r.log.wait(t, 1)[0]; rec.Out.Version == "" || rec.In.Version != "" {
		t.Errorf("record says in %+v, out %+v", rec.In, rec.Out)
	}
}

func TestOnwardHandshakeThatFails(t *testing.T) {
	t.Parallel()
	mx := newRemote(t, remoteTLS(t))
	broken := mx.tls.Clone()
	broken.GetCertificate = nil // no certificate: every handshake fails
	mx.tls = broken
	r := newRig(t, mx.addr(), withTLS)
	for range 2 {
		p := r.dial()
		if got := p.cmd("EHLO client.example", "250"); strings.Contains(got, "STARTTLS") {
			t.Errorf("STARTTLS is offered though the onward handshake fails: %q", got)
		}
		p.envelope()
		p.send(goodMail, "250")
		p.cmd("QUIT", "221")
	}
	n := 0
	for _, c := range mx.commands() {
		if strings.HasSuffix(c, "STARTTLS") {
			n++
		}
	}
	if n != 2 { // once as usual, once with little in it
		t.Errorf("the handshake was tried %d times, want twice and remembered: %q", n, mx.commands())
	}
}

func TestEncryptedClientIsNeverRelayedInPlainText(t *testing.T) {
	t.Parallel()
	mx := newRemote(t, remoteTLS(t))
	r := newRig(t, mx.addr(), withTLS)
	r.hello().cmd("QUIT", "221")
	mx.await(t, "QUIT")
	mx.ehlo = []string{"PIPELINING"}
	p := r.hello() // from what is remembered
	p.startTLS()
	p.cmd("EHLO client.example", "250")
	p.cmd("MAIL FROM:<a@client.example>", "250")
	p.cmd("RCPT TO:<b@sink.example>", "451 4.7.5 gw.example: ")
	p.cmd("DATA", "451 4.7.5")
	p.cmd("QUIT", "221")
	if n := len(mx.messages()); n != 0 {
		t.Errorf("%d messages arrived", n)
	}
}

func TestNothingSmuggledBehindSTARTTLSIsObeyed(t *testing.T) {
	t.Parallel()
	mx := newRemote(t, remoteTLS(t))
	r := newRig(t, mx.addr(), withTLS)
	p := r.hello()
	p.write("STARTTLS\r\nMAIL FROM:<evil@client.example>\r\n")
	p.want("220 2.0.0 gw.example: ")
	p.handshake()
	p.cmd("RCPT TO:<b@sink.example>", "503")
	p.cmd("EHLO client.example", "250")
	p.cmd("RCPT TO:<b@sink.example>", "503")
	p.cmd("QUIT", "221")
	if rec := r.log.wait(t, 1)[0]; !strings.Contains(rec.Note, "bytes behind STARTTLS") {
		t.Errorf("the log says %q", rec.Note)
	}
}

func TestClientThatAbortsTheHandshakeIsLogged(t *testing.T) {
	t.Parallel()
	mx := newRemote(t, remoteTLS(t))
	r := newRig(t, mx.addr(), withTLS)
	p := r.hello()
	p.cmd("STARTTLS", "220")
	p.write("this is no handshake\r\n\r\n\r\n")
	if rec := r.log.wait(t, 1)[0]; rec.Status != NoMessage || !strings.Contains(rec.Note, "TLS handshake") {
		t.Errorf("record %+v", rec)
	}
}

func TestShutdownFinishesTransactionsAndEndsTheRest(t *testing.T) {
	t.Parallel()
	mx := newRemote(t)
	r := newRig(t, mx.addr())
	idler, busy, helo := r.hello(), r.hello(), r.dial()
	busy.envelope()
	done := make(chan error, 1)
	go func() { done <- r.srv.Shutdown(context.Background()) }()
	idler.want("421 4.3.2 gw.example: ")
	idler.closed()
	helo.want("421 4.3.2")
	helo.closed()
	late := r.connect()
	late.want("421 4.3.2")
	late.closed()
	busy.send(goodMail, "250 2.0.0 queued")
	busy.want("421 4.3.2")
	busy.closed()
	select {
	case err := <-done:
		if err != nil {
			t.Errorf("shutdown: %v", err)
		}
	case <-time.After(wait):
		t.Fatal("shutdown does not end")
	}
	if n := len(mx.messages()); n != 1 {
		t.Errorf("%d messages arrived, want the one that was under way", n)
	}
}

func TestShutdownCutsWhatDoesNotEnd(t *testing.T) {
	t.Parallel()
	mx := newRemote(t)
	r := newRig(t, mx.addr())
	p := r.hello()
	p.envelope()
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := r.srv.Shutdown(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("shutdown: %v", err)
	}
	p.closed()
}

// fakeGate lets n in; the others wait.
type fakeGate struct {
	room   chan struct{}
	inside atomic.Int32
}

func (g *fakeGate) Enter(ctx context.Context, _, _ netip.Addr, _, _ int) (func(), error) {
	select {
	case <-g.room:
		g.inside.Add(1)
		return func() { g.inside.Add(-1); g.room <- struct{}{} }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func TestExcessSessionsWaitForTheirGreeting(t *testing.T) {
	t.Parallel()
	mx := newRemote(t)
	g := &fakeGate{room: make(chan struct{}, 1)}
	g.room <- struct{}{}
	r := newRig(t, mx.addr(), func(r *rig) { r.cfg.Gate = g })
	a := r.dial()
	b := r.connect()
	a.cmd("QUIT", "221")
	a.closed()
	b.want("220") // its turn
	b.cmd("QUIT", "221")
	b.closed()

	r = newRig(t, mx.addr(), func(r *rig) { r.cfg.Gate = &fakeGate{}; r.cfg.Settings.Timeouts.Gate = 20 * time.Millisecond })
	c := r.connect()
	c.want("421 4.7.0 gw.example: Too many concurrent SMTP connections")
	c.closed()
	if m := r.log.wait(t, 1)[0]; m.Obstacle != AtCap || m.Waited < 20*time.Millisecond {
		t.Errorf("logged with obstacle %q after %v, want cap", m.Obstacle, m.Waited)
	}
}

func TestClientThatRefusesTheCertificateIsLogged(t *testing.T) {
	t.Parallel()
	mx := newRemote(t, remoteTLS(t))
	r := newRig(t, mx.addr(), withTLS)
	p := r.hello()
	p.cmd("STARTTLS", "220")
	if err := tls.Client(p.nc, &tls.Config{ServerName: "mx.example"}).Handshake(); err == nil {
		t.Fatal("a self-made certificate was believed")
	}
	p.nc.Close()
	if m := r.log.wait(t, 1)[0]; m.Obstacle != NoHandshake || m.Status != NoMessage || !strings.Contains(m.Note, "TLS handshake with the client failed") {
		t.Errorf("logged as %+v", m)
	}
}

func TestAfter221TheClientMayCloseFirst(t *testing.T) {
	t.Parallel()
	mx := newRemote(t)
	r := newRig(t, mx.addr(), func(r *rig) { r.cfg.Settings.Timeouts.Bye = wait })
	p := r.hello()
	p.cmd("QUIT", "221 2.0.0 gw.example: ")
	must(t, p.nc.SetReadDeadline(time.Now().Add(50*time.Millisecond)))
	if _, err := p.br.ReadByte(); !isTimeout(err) {
		t.Fatalf("the proxy closed first: %v", err)
	}
	p.nc.Close()
	r.log.wait(t, 1)
}

func isTimeout(err error) bool {
	var ne net.Error
	return errors.As(err, &ne) && ne.Timeout()
}

func TestSilentClientIsLetGo(t *testing.T) {
	t.Parallel()
	mx := newRemote(t)
	r := newRig(t, mx.addr(), func(r *rig) { r.cfg.Settings.Timeouts.Command = 2 * time.Second })
	p := r.hello()
	p.want("421 4.4.2 gw.example: ")
	p.closed()

	r = newRig(t, mx.addr(), func(r *rig) { r.cfg.Settings.Timeouts.Block = time.Second })
	p = r.hello()
	p.envelope()
	p.cmd("DATA", "354")
	p.write("Subject: and then nothing\r\n")
	p.want("421 4.4.2 gw.example: ")
	p.closed()
	if rec := r.log.wait(t, 1)[0]; rec.Status != Lost || len(mx.messages()) != 0 {
		t.Errorf("status %v, %d messages", rec.Status, len(mx.messages()))
	}
}

// ownDialer connects as the helper would.
type ownDialer struct{ src chan string }

func (d ownDialer) DialOwn(ctx context.Context, src netip.Addr, dst netip.AddrPort) (net.Conn, error) {
	d.src <- src.String()
	var nd net.Dialer
	return nd.DialContext(ctx, "tcp", dst.String())
}

func TestOwnDeliveryUsesTheCustomersAddressAndName(t *testing.T) {
	t.Parallel()
	mx := newRemote(t)
	d := ownDialer{src: make(chan string, 10)}
	r := newRig(t, mx.addr(), func(r *rig) {
		r.policy.Delivery = policy.Own
		r.cfg.Dialer = relay.NewDialer(relay.Options{Own: d})
	})
	p := r.hello()
	p.envelope()
	p.send(goodMail, "250")
	if src := <-d.src; src != "127.0.0.1" {
		t.Errorf("left from %s, want the customer's 127.0.0.1", src)
	}
	if said := mx.commands()[0]; said != "1 EHLO client.example" {
		t.Errorf("the destination heard %q, want the customer's name", said)
	}
	if rec := r.log.wait(t, 1)[0]; rec.Source.String() != "127.0.0.1" {
		t.Errorf("record says source %v", rec.Source)
	}
}

func TestFamilyWithoutDeliveryAddressesIsDeliveredFromTheCustomers(t *testing.T) {
	t.Parallel()
	ln, err := net.Listen("tcp", "[::1]:0")
	if err != nil {
		t.Fatalf("this host has no IPv6 loopback: %v", err)
	}
	defer ln.Close()
	d := ownDialer{src: make(chan string, 1)}
	r := newRig(t, ln.Addr().(*net.TCPAddr).AddrPort(), func(r *rig) { r.cfg.Dialer = relay.NewDialer(relay.Options{Own: d}) })
	p := r.dial()
	p.write("EHLO client.example\r\n")
	if src := <-d.src; src != "127.0.0.1" {
		t.Errorf("left from %s, want the customer's address", src)
	}
}

func TestSettingsAreReplacedWhileSessionsRun(t *testing.T) {
	t.Parallel()
	mx := newRemote(t)
	r := newRig(t, mx.addr())
	p := r.hello()
	bad := r.cfg.Settings
	bad.Name = "two words"
	if err := r.srv.Configure(bad); err == nil || !strings.Contains(err.Error(), "two words") {
		t.Errorf("a bad name is taken: %v", err)
	}
	p.cmd("NOOP", "250 2.0.0 gw.example")
	good := r.cfg.Settings
	good.Name = "new.example"
	must(t, r.srv.Configure(good))
	p.cmd("NOOP", "250 2.0.0 gw.example") // was read before the change: the session waited with the old settings
	p.cmd("NOOP", "250 2.0.0 new.example")
}

// journal is an Inflight that remembers.
type journal struct {
	sent, answered atomic.Int32
	id             atomic.Pointer[string]
}

func (j *journal) Sent(r *Record) int { id := r.ID; j.id.Store(&id); return int(j.sent.Add(1)) }
func (j *journal) Answered(slot int)  { j.answered.Store(int32(slot)) }

func TestMessagesInFlightAreRemembered(t *testing.T) {
	t.Parallel()
	j := &journal{}
	mx := newRemote(t)
	seen := make(chan int32, 1)
	mx.before = func(verb string) {
		if verb == "QUIT" {
			seen <- j.answered.Load()
		}
	}
	r := newRig(t, mx.addr(), func(r *rig) { r.cfg.Inflight = j }, steps(spamStep()))
	p := r.hello()
	p.envelope()
	p.send(spamMail, "550")
	p.envelope()
	p.send(goodMail, "250")
	p.cmd("QUIT", "221")
	if got := <-seen; j.sent.Load() != 1 || got != 1 || *j.id.Load() != "1.2" {
		t.Errorf("sent %d, answered slot %d, id %q; want 1, 1, 1.2", j.sent.Load(), got, *j.id.Load())
	}
}

func TestShutdownDoesNotWaitLongForClientsToClose(t *testing.T) {
	t.Parallel()
	mx := newRemote(t)
	r := newRig(t, mx.addr(), func(r *rig) { r.cfg.Settings.Timeouts.Bye = wait })
	quit, idle := r.dial(), r.dial()
	quit.cmd("QUIT", "221")
	begin := time.Now()
	must(t, r.srv.Shutdown(context.Background()))
	if d := time.Since(begin); d > wait/2 {
		t.Errorf("the end took %v, because of clients that do not close", d)
	}
	idle.want("421 4.3.2")
}

func TestRepliesOfADestinationDoNotFillTheLog(t *testing.T) {
	t.Parallel()
	mx := newRemote(t, reply("RCPT", "550 5.1.1 "+strings.Repeat("x", 3000)))
	r := newRig(t, mx.addr())
	p := r.hello()
	p.cmd("MAIL FROM:<a@client.example>", "250")
	const n = 500
	for range n {
		p.write("RCPT TO:<b@sink.example>\r\n")
	}
	for range n {
		if got := p.want("550 5.1.1 xxx"); len(got) < 3000 {
			t.Fatalf("the client heard %d bytes, want the whole reply", len(got))
		}
	}
	p.cmd("QUIT", "221")
	rec, size := r.log.wait(t, 1)[0], 0
	for _, to := range rec.To {
		size += len(to.Reply)
	}
	if len(rec.To) != mostRefused || size > mostTexts || len(rec.To[0].Reply) < 400 {
		t.Errorf("%d recipients with %d bytes of replies, the first of %d", len(rec.To), size, len(rec.To[0].Reply))
	}
}

// sentOnly tells when a message is about to leave.
type sentOnly struct{ sent chan struct{} }

func (j sentOnly) Sent(*Record) int { close(j.sent); return 0 }
func (sentOnly) Answered(int)       {}

func TestClientThatLeavesWhileTheDestinationThinksIsAmbiguous(t *testing.T) {
	t.Parallel()
	mx := newRemote(t, func(r *remote) { r.hold = make(chan struct{}) })
	j := sentOnly{make(chan struct{})}
	r := newRig(t, mx.addr(), func(r *rig) { r.cfg.Inflight = j })
	r.srv.longWait = 0
	p := r.hello()
	p.envelope()
	p.cmd("DATA", "354")
	p.write(goodMail + ".\r\n")
	<-j.sent
	p.nc.Close() // with a FIN only: our answer can still be written
	<-time.After(2 * longWait)
	close(mx.hold)
	rec := r.log.wait(t, 1)[0]
	if rec.Status != Ambiguous || len(mx.messages()) != 1 {
		t.Errorf("record says %v (%s), the destination has %d messages", rec.Status, rec.Note, len(mx.messages()))
	}
}
