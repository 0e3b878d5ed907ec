package proxy

import (
	"net"
	"slices"
	"strings"
	"testing"
	"time"
)

// moment is where a destination misbehaves, as the client sees it.
type moment uint8

const (
	atHello moment = iota
	atRcpt
	atData
	atDot
)

// TestRemoteThatMisbehaves is the table "What the client hears when the remote misbehaves" of the design.
func TestRemoteThatMisbehaves(t *testing.T) {
	t.Parallel()
	flood := strings.TrimSuffix(strings.Repeat("250-"+strings.Repeat("x", 500)+"\r\n", 200), "\r\n") + "\r\n250 end"
	for _, c := range []struct {
		name   string
		remote func(*remote)
		at     moment
		want   string // the client's reply
		closes bool   // and is the session over
		status Status
	}{
		{"greets 4xx", reply("greet", "451 4.3.2 not now"), atHello, "451 4.3.2 not now", true, NoMessage},
		{"greets 5xx in lines", reply("greet", "554-5.7.1 go\r\n554 5.7.1 away"), atHello, "554-5.7.1 go\n554 5.7.1 away", true, NoMessage},
		{"greets 421", reply("greet", "421 4.3.2 closing"), atHello, "421 4.3.2 closing", true, NoMessage},
		{"does not greet", reply("greet", stall), atHello, "421 4.4.1 gw.example: ", true, NoMessage},
		{"closes instead of a greeting", reply("greet", closeNow), atHello, "421 4.4.1 gw.example: ", true, NoMessage},
		{"greets in another language", reply("greet", "+OK POP3 ready"), atHello, "451 4.5.0 gw.example: ", true, NoMessage},
		{"EHLO 4xx", reply("EHLO", "450 4.7.0 later"), atHello, "450 4.7.0 later", true, NoMessage},
		{"EHLO and HELO 5xx", both(reply("EHLO", "550 5.7.1 bad name"), reply("HELO", "550 5.7.1 still bad")), atHello, "550 5.7.1 still bad", true, NoMessage},
		{"greets 3xx", reply("greet", "354 go"), atHello, "451 4.5.0 gw.example: ", true, NoMessage},
		{"greets with more than 64 KiB", reply("greet", strings.ReplaceAll(flood, "250", "220")), atHello, "451 4.5.0 gw.example: ", true, NoMessage},
		{"greets twice", reply("greet", "220 mx\r\n220 mx again"), atHello, "451 4.5.0 gw.example: ", true, NoMessage},
		{"no reply to EHLO", reply("EHLO", stall), atHello, "421 4.4.1 gw.example: ", true, NoMessage},
		{"closes at EHLO", reply("EHLO", closeNow), atHello, "421 4.4.1 gw.example: ", true, NoMessage},
		{"421 to EHLO", reply("EHLO", "421 4.3.2 not now"), atHello, "421 4.3.2 not now", true, NoMessage},
		{"3xx to EHLO", reply("EHLO", "354 go"), atHello, "451 4.5.0 gw.example: ", true, NoMessage},
		{"more than 64 KiB to EHLO", reply("EHLO", flood), atHello, "451 4.5.0 gw.example: ", true, NoMessage},
		{"EHLO 5xx, HELO 421", both(reply("EHLO", "502 5.5.1 what"), reply("HELO", "421-4.3.2 not\r\n421 4.3.2 now")), atHello, "421-4.3.2 not\n421 4.3.2 now", true, NoMessage},

		{"no reply to MAIL", reply("MAIL", stall), atRcpt, "451 4.4.2 gw.example: ", false, Deferred},
		{"no reply to RCPT", reply("RCPT", stall), atRcpt, "451 4.4.2 gw.example: ", false, Deferred},
		{"no reply to DATA", reply("DATA", stall), atDot, "451 4.4.2 gw.example: ", false, Deferred},
		{"no reply to the dot", reply(".", stall), atDot, "451 4.4.2 gw.example: ", false, Ambiguous},
		{"closes at RCPT", reply("RCPT", closeNow), atRcpt, "451 4.4.2 gw.example: ", false, Deferred},
		{"closes at DATA", reply("DATA", closeNow), atDot, "451 4.4.2 gw.example: ", false, Deferred},
		{"closes after the dot", reply(".", closeNow), atDot, "451 4.4.2 gw.example: ", false, Ambiguous},
		{"2xx to DATA", reply("DATA", "250 ok"), atDot, "451 4.5.0 gw.example: ", false, Deferred},
		{"3xx to the dot", reply(".", "354 more"), atDot, "451 4.5.0 gw.example: ", false, Ambiguous},
		{"3xx to MAIL", reply("MAIL", "354 go"), atRcpt, "451 4.5.0 gw.example: ", false, Deferred},
		{"3xx to RCPT", reply("RCPT", "354 go"), atRcpt, "451 4.5.0 gw.example: ", false, Deferred},
		{"a code that is none to RCPT", reply("RCPT", "999 what"), atRcpt, "451 4.5.0 gw.example: ", false, Deferred},
		{"a code that is none to the dot", reply(".", "abc"), atDot, "451 4.5.0 gw.example: ", false, Ambiguous},
		{"codes that differ between lines", reply("RCPT", "250-a\r\n550 b"), atRcpt, "451 4.5.0 gw.example: ", false, Deferred},
		{"more than 64 KiB to RCPT", reply("RCPT", flood), atRcpt, "451 4.5.0 gw.example: ", false, Deferred},
		{"more than 64 KiB to the dot", reply(".", flood), atDot, "451 4.5.0 gw.example: ", false, Ambiguous},
		{"a reply that nobody asked for", reply("RCPT", "250 ok\r\n250 and more"), atDot, "451 4.5.0 gw.example: ", false, Deferred},
		{"421 to MAIL", reply("MAIL", "421 4.7.0 enough"), atRcpt, "421 4.7.0 enough", true, Deferred},
		{"421 to RCPT", reply("RCPT", "421 4.7.0 enough"), atRcpt, "421 4.7.0 enough", true, Deferred},
		{"421 to DATA", reply("DATA", "421 4.7.0 enough"), atDot, "421 4.7.0 enough", true, Deferred},
		{"421 to the dot", reply(".", "421 4.7.0 enough"), atDot, "421 4.7.0 enough", true, Deferred},
		{"421 nobody asked for", reply("RCPT", "250 ok\r\n421 4.3.2 restarting"), atDot, "421 4.3.2 restarting", true, Deferred},
		{"closes at MAIL", reply("MAIL", closeNow), atRcpt, "451 4.4.2 gw.example: ", false, Deferred},
		{"a code that is none to MAIL", reply("MAIL", "600 what"), atRcpt, "451 4.5.0 gw.example: ", false, Deferred},
		{"a code that is none to DATA", reply("DATA", "100 wait"), atDot, "451 4.5.0 gw.example: ", false, Deferred},
		{"another 3xx to DATA", reply("DATA", "334 go"), atDot, "451 4.5.0 gw.example: ", false, Deferred},
		{"more than 64 KiB to DATA", reply("DATA", flood), atDot, "451 4.5.0 gw.example: ", false, Deferred},
		{"answers the dot before it came", reply("DATA", "354 go\r\n250 2.0.0 taken"), atDot, "451 4.5.0 gw.example: ", false, Deferred},
		{"421 in lines to the dot", reply(".", "421-4.7.0 enough\r\n421 4.7.0 of it"), atDot, "421-4.7.0 enough\n421 4.7.0 of it", true, Deferred},
		{"refuses RCPT in lines", reply("RCPT", "550-5.1.1 nobody\r\n550-5.1.1 of that name\r\n550 5.1.1 is here"), atRcpt, "550-5.1.1 nobody\n550-5.1.1 of that name\n550 5.1.1 is here", false, Refused},
		{"defers RCPT without an enhanced code", reply("RCPT", "450 greylisted"), atRcpt, "450 greylisted", false, Deferred},
		{"refuses RCPT by a code alone", reply("RCPT", "553"), atRcpt, "553", false, Refused},
		{"refuses MAIL 5xx", reply("MAIL", "550 5.7.1 not from you"), atRcpt, "550 5.7.1 not from you", false, Refused},
		{"refuses MAIL 4xx", reply("MAIL", "450 4.7.1 greylisted"), atRcpt, "450 4.7.1 greylisted", false, Deferred},
		{"refuses MAIL and closes", both(reply("MAIL", "550 5.7.1 not from you"), reply("RCPT", closeNow)), atRcpt, "550 5.7.1 not from you", false, Refused},
		{"refuses MAIL, then 421", both(reply("MAIL", "550 5.7.1 not from you"), reply("RCPT", "421 4.7.0 enough")), atRcpt, "550 5.7.1 not from you", false, Refused},
		{"refuses DATA", reply("DATA", "554 5.7.0 no"), atDot, "554 5.7.0 no", false, Refused},
		{"refuses the message", reply(".", "554-5.7.0 spam\r\n554 5.7.0 see page"), atDot, "554-5.7.0 spam\n554 5.7.0 see page", false, Refused},
		{"defers the message", reply(".", "452 4.2.2 full"), atDot, "452 4.2.2 full", false, Deferred},
	} {
		for _, how := range []string{"lockstep", "pipelining=false", "together"} {
			t.Run(c.name+"/"+how, func(t *testing.T) {
				t.Parallel()
				mx := newRemote(t, c.remote, func(r *remote) {
					if how == "pipelining=false" {
						r.ehlo = []string{"8BITMIME"}
					}
				})
				r := newRig(t, mx.addr(), func(r *rig) {
					if strings.Contains(c.name, "no reply") || strings.Contains(c.name, "does not greet") {
						impatient(r)
					}
				})
				p := r.dial()
				if how == "together" && c.at > atHello {
					misbehaveTogether(p, c.at, c.want, c.closes)
				} else {
					misbehave(p, c.at, c.want)
				}
				switch {
				case c.closes:
					p.closed()
				case c.at == atRcpt:
					p.cmd("RSET", "250")
				}
				if !c.closes {
					p.cmd("NOOP", "250") // the session is in step
					p.cmd("QUIT", "221")
				}
				if n := len(mx.sessions()); n > 1 && strings.HasPrefix(c.name, "no reply to ") {
					t.Errorf("it was asked in %d sessions, one after the other", n)
				}
				rec := r.log.wait(t, 1)[0]
				last := strings.Split(c.want, "\n")[0]
				if how == "together" && c.at == atRcpt {
					last = "" // DATA was answered, too
				}
				if rec.Status != c.status || !strings.HasPrefix(rec.Reply, last) {
					t.Errorf("record says %v, %q (%s); want %v", rec.Status, rec.Reply, rec.Note, c.status)
				}
			})
		}
	}
}

func both(a, b func(*remote)) func(*remote) { return func(r *remote) { a(r); b(r) } }

// misbehave leads the dialogue to the moment at which want is heard.
func misbehave(p *peer, at moment, want string) {
	p.t.Helper()
	if at == atHello {
		p.cmd("EHLO client.example", want)
		return
	}
	p.cmd("EHLO client.example", "250")
	p.cmd("MAIL FROM:<a@client.example>", "250")
	if at == atRcpt {
		p.cmd("RCPT TO:<b@sink.example>", want)
		return
	}
	p.cmd("RCPT TO:<b@sink.example>", "250")
	p.cmd("DATA", "354")
	p.cmd(goodMail+".", want)
}

// misbehaveTogether does the same with DATA in one write with the envelope: what is amiss may be heard in place of 354.
func misbehaveTogether(p *peer, at moment, want string, closes bool) {
	p.t.Helper()
	p.cmd("EHLO client.example", "250")
	p.group()
	p.want("250")
	if at == atRcpt {
		p.want(want)
		if closes {
			return
		}
		if got := p.reply(); got[0] != '4' && got[0] != '5' {
			p.t.Fatalf("DATA without a recipient is answered %q", got)
		}
		return
	}
	p.want("250")
	if got := p.reply(); !strings.HasPrefix(got, "354") {
		if !strings.HasPrefix(got, want) {
			p.t.Fatalf("DATA is answered %q, want %q", got, want)
		}
		return
	}
	p.cmd(goodMail+".", want)
}

func TestUnreachableRemoteIsToldAtOnce(t *testing.T) {
	t.Parallel()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	nobody := ln.Addr().(*net.TCPAddr).AddrPort()
	ln.Close()
	r := newRig(t, nobody)
	p := r.dial()
	p.cmd("EHLO client.example", "421 4.4.1 gw.example: the destination 127.0.0.1 refused the connection")
	p.closed()
	p = r.dial()
	p.cmd("HELO client.example", "421 4.4.1")
	p.closed()
}

func TestRemoteKnownButDeadAtTheFirstRecipient(t *testing.T) {
	t.Parallel()
	mx := newRemote(t)
	r := newRig(t, mx.addr())
	r.hello().cmd("QUIT", "221")
	mx.ln.Close()
	p := r.hello()
	p.cmd("MAIL FROM:<a@client.example>", "250")
	p.write("RCPT TO:<b@sink.example>\r\nRCPT TO:<c@sink.example>\r\n")
	p.want("421 4.4.1")
	p.closed()
}

func TestRefusedMAILAnswersEachRecipient(t *testing.T) {
	t.Parallel()
	mx := newRemote(t, reply("MAIL", "550 5.7.1 no", "250 ok"))
	p := newRig(t, mx.addr()).hello()
	p.cmd("MAIL FROM:<a@client.example>", "250")
	p.write("RCPT TO:<b@sink.example>\r\nRCPT TO:<c@sink.example>\r\n")
	p.want("550 5.7.1 no")
	p.want("550 5.7.1 no")
	p.cmd("RCPT TO:<d@sink.example>", "550 5.7.1 no")
	p.cmd("DATA", "554 5.5.1")
	p.cmd("RSET", "250")
	p.envelope()
	p.send(goodMail, "250")
	if n := len(mx.messages()); n != 1 {
		t.Errorf("%d messages arrived, want 1", n)
	}
}

func TestClientHearsWhatIsReadyWhileARemoteTakesItsTime(t *testing.T) {
	t.Parallel()
	mx := newRemote(t)
	release := make(chan struct{})
	n := 0
	mx.before = func(verb string) {
		if verb != "RCPT" {
			return
		}
		switch n++; n {
		case 2:
			time.Sleep(1100 * time.Millisecond) // the destination's time: the subject of the test
		case 3:
			<-release
		}
	}
	p := newRig(t, mx.addr()).hello()
	p.write("MAIL FROM:<a@client.example>\r\nRCPT TO:<1@s.example>\r\nRCPT TO:<2@s.example>\r\nRCPT TO:<3@s.example>\r\n")
	p.want("250")
	p.want("250")
	p.want("250") // before the third is answered
	close(release)
	p.want("250")
}

func TestUsedSessionThatDiedIsReplacedUnseen(t *testing.T) {
	t.Parallel()
	for name, second := range map[string]string{"closed": closeNow, "421": "421 4.4.2 idle too long"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			mx := newRemote(t, reply("MAIL", "250 first", second, "250 third"))
			r := newRig(t, mx.addr())
			p := r.hello()
			p.envelope()
			p.send(goodMail, "250")
			p.envelope()
			p.send(goodMail, "250")
			if n := len(mx.messages()); n != 2 {
				t.Errorf("%d messages arrived, want 2", n)
			}
			if said := mx.commands(); !slices.Contains(said, "2 DATA") {
				t.Errorf("no second session: %q", said)
			}
		})
	}
}

func TestRemoteThatLeavesDuringASlowUpload(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, again string // reply to RCPT on the second session
		want        string
	}{
		{"and accepts again", "250 again", "250 2.0.0 queued"},
		{"and refuses then", "550 5.1.1 gone", "451 4.4.2 gw.example: "},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			mx := newRemote(t, reply("RCPT", "250 ok", "250 ok", c.again), reply("NOOP", closeNow))
			r := newRig(t, mx.addr(), func(r *rig) { r.cfg.Settings.Timeouts.Noop = 50 * time.Millisecond })
			p := r.hello()
			p.cmd("MAIL FROM:<a@client.example>", "250")
			p.write("RCPT TO:<b@sink.example>\r\nRCPT TO:<c@sink.example>\r\n")
			p.want("250")
			p.want("250")
			p.cmd("DATA", "354")
			p.write(goodMail)
			mx.await(t, "NOOP")
			p.cmd(".", c.want)
			p.cmd("QUIT", "221")
			if n := len(mx.messages()); n != btoi(c.want[0] == '2') {
				t.Errorf("%d messages arrived", n)
			}
		})
	}
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

func TestSlowUploadKeepsThePatienceOfTheRemote(t *testing.T) {
	t.Parallel()
	mx := newRemote(t)
	r := newRig(t, mx.addr(), func(r *rig) { r.cfg.Settings.Timeouts.Noop = 40 * time.Millisecond })
	p := r.hello()
	p.envelope()
	p.cmd("DATA", "354")
	p.write("Subject: slow\r\n")
	mx.await(t, "NOOP")
	p.write("\r\n")
	mx.await(t, "NOOP")
	p.cmd(".", "250")
	if said := mx.commands(); strings.HasPrefix(said[len(said)-1], "2") {
		t.Errorf("a second session was opened: %q", said)
	}
}

func TestClientThatLeavesBeforeTheDotGetsNothingDelivered(t *testing.T) {
	t.Parallel()
	mx := newRemote(t)
	var p *peer
	left := make(chan struct{})
	mx.before = func(verb string) {
		if verb == "DATA" {
			p.reset()
			close(left)
		}
	}
	r := newRig(t, mx.addr())
	p = r.hello()
	p.envelope()
	p.cmd("DATA", "354")
	p.write(goodMail + ".\r\n")
	<-left
	rec := r.log.wait(t, 1)[0]
	if rec.Status != Lost || rec.Source.IsValid() || len(mx.messages()) != 0 {
		t.Errorf("status %v, source %v, %d messages; want lost and nothing sent", rec.Status, rec.Source, len(mx.messages()))
	}
}

// reset leaves without reading what is still to come.
func (p *peer) reset() {
	must(p.t, p.nc.(*net.TCPConn).SetLinger(0))
	must(p.t, p.nc.Close())
}

func TestClientThatLeavesWhileALargeMessageIsOnItsWay(t *testing.T) {
	t.Parallel()
	mx := newRemote(t, func(r *remote) { r.hold = make(chan struct{}); r.ehlo = []string{"PIPELINING"} })
	r := newRig(t, mx.addr())
	p := r.hello()
	p.envelope()
	p.cmd("DATA", "354")
	line := strings.Repeat("x", 998) + "\r\n"
	p.write(strings.Repeat(line, 24000) + ".\r\n") // more than the kernel's buffers hold
	mx.await(t, "DATA")
	p.reset()
	close(mx.hold)
	rec := r.log.wait(t, 1)[0]
	if rec.Status != Lost || rec.Source.IsValid() || len(mx.messages()) != 0 {
		t.Errorf("status %v, source %v, %d messages; want lost and no dot", rec.Status, rec.Source, len(mx.messages()))
	}
}

func TestClientThatLeavesInTheMiddle(t *testing.T) {
	t.Parallel()
	mx := newRemote(t)
	r := newRig(t, mx.addr())
	p := r.hello()
	p.envelope()
	p.cmd("DATA", "354")
	p.write("Subject: half\r\n")
	p.nc.Close()
	rec := r.log.wait(t, 1)[0]
	if rec.Status != Lost || len(mx.messages()) != 0 {
		t.Errorf("status %v, %d messages; want lost and nothing sent", rec.Status, len(mx.messages()))
	}
}
