package proxy

import (
	"net"
	"strings"
	"testing"

	"sluice/filter/policy"
)

// mirroring lets the gateway greet as the destination does.
func mirroring(r *rig) { r.cfg.Settings.Mirror = true }

func TestTheDestinationIsMirrored(t *testing.T) {
	t.Parallel()
	mx := newRemote(t, func(r *remote) { r.greet = "220-mx.sink.example ESMTP Postfix\r\n220 no unsolicited mail" })
	r := newRig(t, mx.addr(), mirroring)
	for range 2 { // asked, and remembered
		p := r.connect()
		p.want("220 mx.sink.example ESMTP Postfix")
		if got := p.cmd("EHLO client.example", "250-mx.sink.example greets client.example\n"); strings.Contains(got, "gw.example") {
			t.Errorf("EHLO is answered %q", got)
		}
		p.cmd("HELO client.example", "250 mx.sink.example")
		p.cmd("WHAT", "500 5.5.1 gw.example: ") // what is ours says so all the same
		p.envelope()
		p.send(goodMail, "250 2.0.0 queued")
		p.cmd("QUIT", "221 2.0.0 gw.example: ")
	}
	if n := len(mx.messages()); n != 2 {
		t.Errorf("%d messages arrived", n)
	}
}

func TestTheMirrorOfADestinationThatRefuses(t *testing.T) {
	t.Parallel()
	mx := newRemote(t, reply("greet", "554-5.7.1 go\r\n554 5.7.1 away"))
	p := newRig(t, mx.addr(), mirroring).connect()
	p.want("554-5.7.1 go\n554 5.7.1 away")
	p.closed()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	nobody := ln.Addr().(*net.TCPAddr).AddrPort()
	ln.Close()
	r := newRig(t, nobody, mirroring)
	p = r.connect()
	p.want("421 4.4.1 gw.example: ")
	p.closed()
	if rec := r.log.wait(t, 1)[0]; rec.Status != NoMessage {
		t.Errorf("record %+v", rec)
	}
}

// TestWhereTheMirrorIsBlind the greeting is our own, and nobody is asked for its sake.
func TestWhereTheMirrorIsBlind(t *testing.T) {
	t.Parallel()
	mx := newRemote(t)
	r := newRig(t, mx.addr(), mirroring)
	r.locks.lock("T1")
	p := r.connect()
	p.want("220 gw.example ESMTP Sluice")
	p.cmd("EHLO client.example", "250-gw.example greets")
	p.cmd("QUIT", "221")
	if said := mx.commands(); len(said) != 0 {
		t.Errorf("a locked user's connection reached the destination: %q", said)
	}
	r = newRig(t, mx.addr(), mirroring, keeping(0), func(r *rig) { r.policy.Delivery = policy.Own })
	p = r.connect()
	p.want("220 gw.example ESMTP Sluice")
	p.cmd("EHLO client.example", "250-mx.sink.example greets client.example")
	p.cmd("QUIT", "221")
	p = r.connect()
	p.want("220 mx.sink.example ESMTP")
}

// TestAStrangersNamesStayHarmless: what a destination calls itself can neither break a line nor grow one.
func TestAStrangersNamesStayHarmless(t *testing.T) {
	t.Parallel()
	mx := newRemote(t, func(r *remote) { r.greet = "220 mx\x1b[2J\x07 " + strings.Repeat("x", 2000) },
		reply("EHLO", "250-"+strings.Repeat("n", 2000)+" hello\r\n250 DSN"))
	p := newRig(t, mx.addr(), mirroring).connect()
	if got := p.reply(); strings.ContainsAny(got, "\x1b\x07") || len(got) > 500 || !strings.HasPrefix(got, "220 mx [2J  x") {
		t.Errorf("greeting %q", got)
	}
	if got := p.cmd("EHLO client.example", "250-nnn"); len(strings.Split(got, "\n")[0]) > 500 {
		t.Errorf("EHLO is answered %q", got)
	}
}
