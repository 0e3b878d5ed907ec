package proxy

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"sluice/filter"
	"sluice/filter/message"
	"sluice/proxy/cert"
	"sluice/proxy/relay"
)

// shadowDialer connects without the customer's address, which the loopback does not have.
type shadowDialer struct{ asked atomic.Pointer[netip.Addr] }

func (d *shadowDialer) DialOwn(ctx context.Context, src netip.Addr, dst netip.AddrPort) (net.Conn, error) {
	d.asked.Store(&src)
	var nd net.Dialer
	return nd.DialContext(ctx, "tcp", dst.String())
}

// spam refuses what has the word in it.
type spam struct{}

func (spam) Check(_ context.Context, _ filter.Phase, m *message.Message, hits []filter.Hit) []filter.Hit {
	if bytes.Contains(m.Data, []byte("SPAM")) {
		hits = append(hits, filter.Hit{Code: "SPAM", Class: filter.Spam, Action: filter.Reject, Text: "this is spam"})
	}
	return hits
}

// shadows is a server whose flows are all in shadow.
type shadows struct {
	*rig
	at net.Listener
}

func newShadow(t *testing.T, target netip.AddrPort, own *shadowDialer) *shadows {
	r := newRig(t, target, steps(filter.Step{Name: "spam", Phases: []filter.Phase{filter.Data}, Check: spam{}}), func(r *rig) {
		r.cfg.Dialer = relay.NewDialer(relay.Options{Own: own})
		r.locks.onSpam = true
	})
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	t.Cleanup(func() { ln.Close() })
	go func() {
		for {
			nc, err := ln.Accept()
			if err != nil {
				return
			}
			go r.srv.ServeShadow(context.Background(), nc, r.flow(nc.RemoteAddr().(*net.TCPAddr).AddrPort()))
		}
	}()
	return &shadows{r, ln}
}

func (s *shadows) connect() *peer {
	s.t.Helper()
	nc, err := net.Dial("tcp", s.at.Addr().String())
	must(s.t, err)
	s.t.Cleanup(func() { nc.Close() })
	must(s.t, nc.SetDeadline(time.Now().Add(2*wait)))
	return &peer{t: s.t, nc: nc, br: bufio.NewReader(nc)}
}

// converse says the lines, each after the reply to the one before, and returns all that the other side said.
func converse(t *testing.T, addr string, lines ...string) string {
	t.Helper()
	nc, err := net.Dial("tcp", addr)
	must(t, err)
	defer nc.Close()
	must(t, nc.SetDeadline(time.Now().Add(wait)))
	var all strings.Builder
	p := &peer{t: t, nc: nc, br: bufio.NewReader(io.TeeReader(nc, &all))}
	p.reply()
	for _, l := range lines {
		p.write(l)
		p.reply()
	}
	_, err = io.Copy(io.Discard, p.br)
	must(t, err)
	return all.String()
}

func TestShadowChangesNothing(t *testing.T) {
	t.Parallel()
	dialogue := []string{
		"ehlo client.example\r\n", "MAIL FROM:<a@client.example> SIZE=100\r\n", "RCPT TO:<b@sink.example>\r\n", "DATA\r\n", "Subject: SPAM\r\n\r\n..dots\nbare\r\n.\r\n",
		"XNONSENSE  twice  \r\n", "MAIL FROM:<a@client.example>\r\n", "RCPT TO:<b@sink.example>\r\n", "DATA\r\n", goodMail + ".\r\n", "QUIT\r\n",
	}
	odd := reply(".", "250 2.0.0 first", "451 4.3.0 second")
	direct := newRemote(t, odd)
	want := converse(t, direct.addr().String(), dialogue...)
	x, own := newRemote(t, odd), &shadowDialer{}
	r := newShadow(t, x.addr(), own)
	if got := converse(t, r.at.Addr().String(), dialogue...); got != want {
		t.Errorf("the client heard\n%s\ninstead of\n%s", got, want)
	}
	if got, want := strings.Join(x.commands(), "\n"), strings.Join(direct.commands(), "\n"); got != want {
		t.Errorf("the destination heard\n%s\ninstead of\n%s", got, want)
	}
	if got, want := x.messages(), direct.messages(); len(got) != 2 || got[0] != want[0] || got[1] != want[1] {
		t.Errorf("the destination got %q instead of %q", got, want)
	}
	if a := own.asked.Load(); a == nil || !a.IsLoopback() {
		t.Errorf("connected from %v", a)
	}
	all := r.log.wait(t, 2)
	if m := all[0]; !m.Shadow || m.Status != Delivered || !strings.Contains(m.Would, "550 5.7.1 gw.example: [SPAM] this is spam") || m.Reply != "250 2.0.0 first" ||
		m.From != "a@client.example" || len(m.To) != 1 || m.To[0].Address != "b@sink.example" || m.Verdict.Class != filter.Spam || m.Helo != "client.example" {
		t.Errorf("first %+v", m)
	}
	if m := all[1]; !m.Shadow || m.Status != Deferred || m.Would != "" || m.Size != int64(len(goodMail)) {
		t.Errorf("second %+v", m)
	}
	if n := r.locks.judged.Load(); n != 0 {
		t.Errorf("the locks heard of %d messages", n)
	}
}

func TestShadowOfEncryption(t *testing.T) {
	t.Parallel()
	c, err := cert.New(cert.Options{Name: "mx.sink.example"})
	must(t, err)
	x := newRemote(t, func(r *remote) { r.tls = c.Config(); r.ehlo = append(r.ehlo, "STARTTLS") })
	r := newShadow(t, x.addr(), &shadowDialer{})
	p := r.connect()
	p.want("220 mx.sink.example")
	p.cmd("EHLO client.example", "250")
	if st := p.startTLS(); !strings.Contains(st.PeerCertificates[0].Subject.String()+strings.Join(st.PeerCertificates[0].DNSNames, ","), "mx.sink.example") {
		t.Errorf("the client sees the certificate of %v", st.PeerCertificates[0].DNSNames)
	}
	p.cmd("EHLO client.example", "250")
	p.envelope()
	p.send("SPAM", "250")
	p.cmd("QUIT", "250")
	p.closed()
	if m := r.log.wait(t, 1)[0]; m.Status != NoMessage || !strings.Contains(m.Note, "encrypted") || m.In.Version != Opaque || !m.Shadow {
		t.Errorf("%+v", m)
	}
}

func TestShadowPassesEndsOn(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		remote func(*remote)
		leave  bool
		status Status
	}{
		"the destination leaves at the dot": {remote: reply(".", closeNow), status: Ambiguous},
		"the client leaves in the body":     {remote: func(*remote) {}, leave: true, status: Lost},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newShadow(t, newRemote(t, tc.remote).addr(), &shadowDialer{})
			p := r.connect()
			p.want("220 mx")
			p.cmd("EHLO client.example", "250")
			p.envelope()
			p.cmd("DATA", "354")
			p.write("half")
			if !tc.leave {
				p.write("\r\n.\r\n")
				p.closed()
			} else {
				p.nc.Close()
			}
			if m := r.log.wait(t, 1)[0]; m.Status != tc.status || !m.Shadow {
				t.Errorf("%v: %+v", m.Status, m)
			}
		})
	}
}

func TestShadowOfADeadDestination(t *testing.T) {
	t.Parallel()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	dead := ln.Addr().(*net.TCPAddr).AddrPort()
	must(t, ln.Close())
	r := newShadow(t, dead, &shadowDialer{})
	nc, err := net.Dial("tcp", r.at.Addr().String())
	if err == nil {
		defer nc.Close()
		must(t, nc.SetDeadline(time.Now().Add(wait)))
		_, err = nc.Read(make([]byte, 1))
	}
	if !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the client sees %v", err)
	}
	if m := r.log.wait(t, 1)[0]; m.Status != NoMessage || !strings.Contains(m.Note, "refused the connection") {
		t.Errorf("%+v", m)
	}
}

func TestShadowWhileStopping(t *testing.T) {
	t.Parallel()
	x := newRemote(t)
	r := newShadow(t, x.addr(), &shadowDialer{})
	idler, busy := r.connect(), r.connect()
	for _, p := range []*peer{idler, busy} {
		p.want("220 mx")
		p.cmd("EHLO client.example", "250")
	}
	busy.envelope()
	done := make(chan error, 1)
	go func() { done <- r.srv.Shutdown(context.Background()) }()
	idler.closed()
	busy.send(goodMail, "250")
	busy.closed()
	must(t, <-done)
	if got := x.messages(); len(got) != 1 {
		t.Errorf("%d messages arrived", len(got))
	}
}
