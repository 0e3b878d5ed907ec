package proxy

import (
	"slices"
	"strings"
	"testing"

	"sluice/intercept/flow"
)

func TestGoodMailArrivesUnchangedBelowOneTraceField(t *testing.T) {
	t.Parallel()
	for name, body := range map[string]string{
		"plain":  goodMail,
		"dots":   "Subject: dots\r\n\r\n..\r\n...two\r\n..\tx\r\n",
		"8bit":   "Subject: 8\r\n\r\n\xff\xfe gr\xc3\xbc\xc3\x9fe\r\n",
		"empty":  "",
		"big":    "Subject: big\r\n\r\n" + strings.Repeat(strings.Repeat("x", 998)+"\r\n", 3000),
		"bigdot": "Subject: big\r\n\r\n" + strings.Repeat("..leading dot "+strings.Repeat("y", 200)+"\r\n", 9000),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			mx := newRemote(t, func(r *remote) { r.ehlo[1] = "SIZE 10000000" })
			r := newRig(t, mx.addr())
			p := r.hello()
			p.envelope()
			p.cmd("DATA", "354")
			p.cmd(body+".", "250 2.0.0 queued as X1")
			p.cmd("QUIT", "221")
			p.closed()
			rec := r.log.wait(t, 1)[0]
			got := mx.messages()
			if len(got) != 1 {
				t.Fatalf("%d messages arrived, want 1", len(got))
			}
			head, rest, ok := strings.Cut(got[0], " id ")
			if want := "Received: from client.example ([127.0.0.1])\r\n\tby gw.example with ESMTP"; !ok || head != want {
				t.Errorf("trace field begins %q, want %q", head, want)
			}
			id, rest, _ := strings.Cut(rest, ";")
			_, rest, _ = strings.Cut(rest, "\r\n\t")
			_, rest, _ = strings.Cut(rest, "\r\n")
			if rest != body {
				t.Errorf("%d bytes arrived, want the %d that were sent", len(rest), len(body))
			}
			if f, n, ok := r.cfg.Tracer.Origin(id); !ok || f != 1 || n != 1 {
				t.Errorf("the id %q names flow %v, message %d, %v; want 1, 1", id, f, n, ok)
			}
			if rec.Status != Delivered || rec.ID != "1.1" || rec.Source.String() != "127.0.0.9" || len(rec.To) != 1 || rec.To[0].Code != 250 ||
				rec.Remote != "250 2.0.0 queued as X1" || rec.Reply != rec.Remote || rec.Helo != "client.example" {
				t.Errorf("record %+v", rec)
			}
		})
	}
}

func TestEnvelopeGoesOnwardAsItCame(t *testing.T) {
	t.Parallel()
	mx := newRemote(t)
	r := newRig(t, mx.addr())
	p := r.hello()
	p.cmd("MAIL FROM:<> SIZE=100 BODY=8BITMIME RET=HDRS ENVID=x1", "250 2.1.0 gw.example: ")
	p.cmd(`RCPT TO:<"q u"@Sink.Example> NOTIFY=NEVER ORCPT=rfc822;x@y`, "250 2.0.0 ok RCPT")
	p.send(goodMail, "250")
	want := []string{"1 EHLO out.gw.example", "1 MAIL FROM:<> SIZE=100 BODY=8BITMIME RET=HDRS ENVID=x1", `1 RCPT TO:<"q u"@Sink.Example> NOTIFY=NEVER ORCPT=rfc822;x@y`, "1 DATA", "1 ."}
	if got := mx.commands(); !slices.Equal(got, want) {
		t.Errorf("the destination heard\n%q, want\n%q", got, want)
	}
}

func TestEHLOShowsWhatBothCanDo(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ remote, want []string }{
		"intersection": {[]string{"SIZE 1000", "8BITMIME", "X-ODD", "CHUNKING", "AUTH PLAIN", "DSN", "LIMITS RCPTMAX=5"}, []string{"PIPELINING", "SIZE 1000", "8BITMIME", "DSN", "CHUNKING", "AUTH PLAIN", "LIMITS RCPTMAX=5"}},
		"binary":       {[]string{"BINARYMIME", "CHUNKING"}, []string{"PIPELINING", "CHUNKING", "BINARYMIME"}},
		"half binary":  {[]string{"BINARYMIME"}, []string{"PIPELINING", "CHUNKING"}},
		"our limit":    {[]string{"SIZE 999999999999"}, []string{"PIPELINING", "SIZE 52428800", "CHUNKING"}},
		"nothing":      {[]string{}, []string{"PIPELINING", "CHUNKING"}},
		"HELO only":    {nil, []string{"PIPELINING", "CHUNKING"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			mx := newRemote(t, func(r *remote) { r.ehlo = c.remote })
			p := newRig(t, mx.addr()).dial()
			got := strings.Split(p.cmd("EHLO client.example", "250-gw.example greets client.example"), "\n")[1:]
			for i := range got {
				got[i] = got[i][4:]
			}
			slices.Sort(got)
			slices.Sort(c.want)
			if !slices.Equal(got, c.want) {
				t.Errorf("offered %q, want %q", got, c.want)
			}
			p.envelope()
			p.send(goodMail, "250")
		})
	}
}

func TestCapabilitiesAreRememberedAndTheConnectionIsMadeLater(t *testing.T) {
	t.Parallel()
	mx := newRemote(t)
	r := newRig(t, mx.addr())
	r.hello().cmd("QUIT", "221")
	mx.await(t, "QUIT")
	p := r.hello()
	if n := len(mx.commands()); n != 2 {
		t.Errorf("%d commands reached the destination before a recipient, want EHLO and QUIT of the first session: %q", n, mx.commands())
	}
	p.envelope()
	p.send(goodMail, "250")
}

func TestEachRecipientHearsItsOwnReply(t *testing.T) {
	t.Parallel()
	for _, pipelining := range []bool{true, false} {
		mx := newRemote(t, reply("RCPT", "250 2.1.5 one", "550-5.1.1 two\r\n550 5.1.1 lines", "451 4.3.0 three", "250 2.1.5 four"), func(r *remote) {
			if !pipelining {
				r.ehlo = r.ehlo[1:]
			}
		})
		r := newRig(t, mx.addr())
		p := r.hello()
		p.write("MAIL FROM:<a@client.example>\r\nRCPT TO:<1@s.example>\r\nRCPT TO:<2@s.example>\r\nRCPT TO:<bad\r\nRCPT TO:<3@s.example>\r\nRCPT TO:<4@s.example>\r\nDATA\r\n")
		for _, want := range []string{"250 2.1.0", "250 2.1.5 one", "550-5.1.1 two\n550 5.1.1 lines", "501 5.1.3 gw.example: ", "451 4.3.0 three", "250 2.1.5 four", "354"} {
			p.want(want)
		}
		p.cmd(goodMail+".", "250 2.0.0 queued")
		rec := r.log.wait(t, 1)[0]
		codes := []int{}
		for _, to := range rec.To {
			codes = append(codes, to.Code)
		}
		if !slices.Equal(codes, []int{250, 550, 451, 250}) || rec.Status != Delivered {
			t.Errorf("pipelining %v: record has %v and %v", pipelining, codes, rec.Status)
		}
		if got := mx.commands()[1:]; !slices.Equal(got, []string{"1 MAIL FROM:<a@client.example>", "1 RCPT TO:<1@s.example>", "1 RCPT TO:<2@s.example>", "1 RCPT TO:<3@s.example>", "1 RCPT TO:<4@s.example>", "1 DATA", "1 ."}) {
			t.Errorf("pipelining %v: the destination heard %q", pipelining, got)
		}
	}
}

func TestRefusedRecipientsNeverEndTheSession(t *testing.T) {
	t.Parallel()
	refusals := make([]string, 500, 501)
	for i := range refusals {
		refusals[i] = "550 5.1.1 nobody"
	}
	mx := newRemote(t, reply("RCPT", append(refusals, "250 ok")...))
	p := newRig(t, mx.addr()).hello()
	p.cmd("MAIL FROM:<a@client.example>", "250")
	for range 500 {
		p.cmd("RCPT TO:<x@sink.example>", "550 5.1.1 nobody")
	}
	p.cmd("RCPT TO:<b@sink.example>", "250")
	p.send(goodMail, "250")
}

func TestTwoMessagesUseOneOnwardSession(t *testing.T) {
	t.Parallel()
	mx := newRemote(t)
	r := newRig(t, mx.addr())
	p := r.hello()
	for range 3 {
		p.envelope()
		p.send(goodMail, "250")
	}
	p.envelope()
	p.cmd("RSET", "250 2.0.0 gw.example")
	p.envelope()
	p.send(goodMail, "250")
	said := mx.commands()
	if !strings.HasPrefix(said[len(said)-1], "1 ") || len(mx.messages()) != 4 {
		t.Errorf("%d messages, last command %q; want 4 in one session", len(mx.messages()), said[len(said)-1])
	}
	if n := slices.Index(said, "1 RSET"); n < 0 || !strings.HasPrefix(said[n+1], "1 MAIL") {
		t.Errorf("RSET is not sent before the next MAIL: %q", said)
	}
	if st := r.log.wait(t, 5)[3]; st.Status != Lost || st.ID != "1.4" {
		t.Errorf("the transaction that was reset is %v %v", st.ID, st.Status)
	}
}

func TestCommandsOutOfOrder(t *testing.T) {
	t.Parallel()
	mx := newRemote(t, reply("RCPT", "550 5.1.1 no"))
	p := newRig(t, mx.addr()).dial()
	p.cmd("MAIL FROM:<a@b.example>", "503 5.5.1 gw.example: say EHLO")
	p.cmd("RCPT TO:<a@b.example>", "503")
	p.cmd("EHLO client.example", "250")
	p.cmd("DATA", "503 5.5.1 gw.example: say MAIL")
	p.cmd("MAIL FROM:<a@b.example> BODY=BINARYMIME", "555 5.5.4")
	p.cmd("MAIL FROM:<a@b.example> X=Y", "555 5.5.4")
	p.cmd("MAIL FROM:<a@b.example> SIZE=99999999", "552 5.3.4")
	p.cmd("MAIL FROM:<a@b.example>", "250")
	p.cmd("MAIL FROM:<a@b.example>", "503 5.5.1 gw.example: a transaction")
	p.cmd("DATA", "503 5.5.1 gw.example: say RCPT")
	p.cmd("RCPT TO:<b@b.example>", "550 5.1.1 no")
	p.cmd("DATA", "554 5.5.1")
	p.cmd("VRFY x", "252")
	p.cmd("EXPN x", "252")
	p.cmd("HELP", "214")
	p.cmd("ETRN x", "502")
	p.cmd("XCLIENT x", "502")
	p.cmd("TURN", "502")
	p.cmd("WHAT", "500")
	p.write("NONSENSE\r\n")
	p.want("500 5.5.1 gw.example: command not known")
	p.want("421 4.7.0 gw.example: too many errors")
	p.closed()
	for _, c := range mx.commands() {
		for _, never := range []string{"VRFY", "EXPN", "HELP", "ETRN", "XCLIENT", "TURN", "WHAT", "DATA"} {
			if strings.Contains(c, never) {
				t.Errorf("%q reached the destination", c)
			}
		}
	}
}

func TestWhoMayNotSend(t *testing.T) {
	t.Parallel()
	mx := newRemote(t)
	r := newRig(t, mx.addr(), func(r *rig) { r.policy = nil })
	p := r.connect()
	p.want("554 5.7.1 gw.example: ")
	p.closed()
	if rec := r.log.wait(t, 1)[0]; rec.Status != NoMessage || rec.Reply == "" {
		t.Errorf("record %+v", rec)
	}
	for name, change := range map[string]func(*rig){
		"target is a delivery address": func(r *rig) { r.target = addrPort("127.0.0.9:25") },
		"target is the gateway":        func(r *rig) { r.cfg.Settings.Local = isLoopback },
	} {
		p := newRig(t, mx.addr(), change).connect()
		if got := p.reply(); !strings.HasPrefix(got, "554 5.4.6 gw.example: ") {
			t.Errorf("%s: %q", name, got)
		}
		p.closed()
	}
	if n := len(mx.commands()); n != 0 {
		t.Errorf("%d commands reached the destination", n)
	}
}

func TestFlowsAreSeenWhileTheyLast(t *testing.T) {
	t.Parallel()
	mx := newRemote(t)
	r := newRig(t, mx.addr())
	p := r.hello()
	p.cmd("MAIL FROM:<a@client.example>", "250")
	fl := r.srv.Flows()
	if len(fl) != 1 || fl[0].State != "envelope" || fl[0].Messages != 1 || fl[0].Helo != "client.example" || fl[0].Flow.ID != flow.ID(1) {
		t.Fatalf("flows %+v", fl)
	}
	if n, left := r.srv.Open(7), r.srv.Cut(7); n != 1 || left != 0 {
		t.Errorf("%d sessions open, %d left by the cut, want 1 and none", n, left)
	}
	p.closed()
	if rec := r.log.wait(t, 1)[0]; rec.Status != Lost {
		t.Errorf("status %v, want lost", rec.Status)
	}
}
