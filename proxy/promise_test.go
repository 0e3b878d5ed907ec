package proxy

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"sluice/filter/policy"
	"sluice/proxy/relay"
	"sluice/proxy/smtp"
)

const eightBit = "Subject: Gr\xc3\xbc\xc3\x9fe\r\n\r\n\xff\r\n"

// offering is a destination with these extensions; "" is none at all.
func offering(lines ...string) func(*remote) {
	return func(r *remote) { r.ehlo = lines }
}

// utf8Rcpt is an address that needs SMTPUTF8.
const utf8Rcpt = "RCPT TO:<\xc3\xbc@sink.example>"

// TestEachExtensionHeldAndLacked is DEL8 row by row: against a destination that has the extension and one that lacks it,
// what is offered, what is answered to its use, and what goes onward.
func TestEachExtensionHeldAndLacked(t *testing.T) {
	t.Parallel()
	mail, rcpt := "MAIL FROM:<a@client.example>", "RCPT TO:<b@sink.example>"
	for _, c := range []struct {
		name   string
		offer  string // line of the destination; "" for one that lacks it
		shown  string // line that the client sees; "" for none
		say    []string
		want   []string // answers to these
		body   string   // goodMail where empty
		answer string   // to the message; "" where it does not come so far
		onward []string // what the destination hears of the envelope
	}{
		{"8BITMIME held", "8BITMIME", "8BITMIME", []string{mail + " BODY=8BITMIME", rcpt}, []string{"250", "250"}, eightBit, "250 2.0.0 queued", []string{mail + " BODY=8BITMIME", rcpt}},
		{"8BITMIME lacked, 8-bit", "", "", []string{mail + " BODY=8BITMIME", rcpt}, []string{"250", "250"}, eightBit, "554 5.6.3 gw.example: ", []string{mail, rcpt}},
		{"8BITMIME lacked, 7-bit", "", "", []string{mail + " BODY=8BITMIME", rcpt}, []string{"250", "250"}, "", "250 2.0.0 queued", []string{mail, rcpt}},
		{"8BITMIME lacked, 8-bit without a word", "", "", []string{mail, rcpt}, []string{"250", "250"}, eightBit, "250 2.0.0 queued", []string{mail, rcpt}},
		{"SMTPUTF8 held", "SMTPUTF8", "SMTPUTF8", []string{"MAIL FROM:<\xc3\xa9@client.example> SMTPUTF8", utf8Rcpt}, []string{"250", "250"}, eightBit, "250 2.0.0 queued", []string{"MAIL FROM:<\xc3\xa9@client.example> SMTPUTF8", utf8Rcpt}},
		{"SMTPUTF8 lacked", "", "", []string{"MAIL FROM:<\xc3\xa9@client.example> SMTPUTF8"}, []string{"553 5.6.7 gw.example: "}, "", "", nil},
		{"SMTPUTF8 lacked, addresses of ASCII", "", "", []string{mail + " SMTPUTF8"}, []string{"555 5.5.4 gw.example: "}, "", "", nil},
		{"SMTPUTF8 not asked for", "SMTPUTF8", "SMTPUTF8", []string{mail, utf8Rcpt}, []string{"250", "553 5.6.7 gw.example: "}, "", "", nil},
		{"SIZE held", "SIZE 5000", "SIZE 4488", []string{mail + " SIZE=4488", rcpt}, []string{"250", "250"}, "", "250 2.0.0 queued", []string{mail + " SIZE=4488", rcpt}},
		{"SIZE held, too large", "SIZE 5000", "SIZE 4488", []string{mail + " SIZE=4489"}, []string{"552 5.3.4 gw.example: "}, "", "", nil},
		{"SIZE above ours", "SIZE 999999999", "SIZE 20000", []string{mail + " SIZE=20001"}, []string{"552 5.3.4 gw.example: "}, "", "", nil},
		{"SIZE without a bound", "SIZE", "SIZE 20000", []string{mail + " SIZE=1", rcpt}, []string{"250", "250"}, strings.Repeat("x\r\n", 9000), "552 5.3.4 gw.example: ", []string{mail + " SIZE=1", rcpt}},
		{"SIZE lacked", "", "", []string{mail + " SIZE=1"}, []string{"555 5.5.4 gw.example: "}, "", "", nil},
		{"DSN held", "DSN", "DSN", []string{mail + " RET=HDRS ENVID=q+2Bx", rcpt + " NOTIFY=SUCCESS,DELAY ORCPT=rfc822;b@sink.example"}, []string{"250", "250"}, "", "250 2.0.0 queued",
			[]string{mail + " RET=HDRS ENVID=q+2Bx", rcpt + " NOTIFY=SUCCESS,DELAY ORCPT=rfc822;b@sink.example"}},
		{"DSN lacked: RET", "", "", []string{mail + " RET=FULL"}, []string{"555 5.5.4"}, "", "", nil},
		{"DSN lacked: ENVID", "", "", []string{mail + " ENVID=1"}, []string{"555 5.5.4"}, "", "", nil},
		{"DSN lacked: NOTIFY", "", "", []string{mail, rcpt + " NOTIFY=NEVER"}, []string{"250", "555 5.5.4"}, "", "", nil},
		{"DSN lacked: ORCPT", "", "", []string{mail, rcpt + " ORCPT=rfc822;x@y"}, []string{"250", "555 5.5.4"}, "", "", nil},
		{"ENHANCEDSTATUSCODES held", "ENHANCEDSTATUSCODES", "ENHANCEDSTATUSCODES", []string{mail, rcpt}, []string{"250 2.1.0", "250 2.0.0 ok RCPT"}, "", "250 2.0.0 queued", []string{mail, rcpt}},
		{"BINARYMIME without CHUNKING", "BINARYMIME", "", []string{mail + " BODY=BINARYMIME"}, []string{"555 5.5.4"}, "", "", nil},
		{"REQUIRETLS in plain text", "REQUIRETLS", "", []string{mail + " REQUIRETLS"}, []string{"555 5.5.4"}, "", "", nil},
		{"LIMITS held", "LIMITS RCPTMAX=1", "LIMITS RCPTMAX=1", []string{mail, rcpt, rcpt}, []string{"250", "250", "452 4.5.3 gw.example: "}, "", "250 2.0.0 queued", []string{mail, rcpt}},
		{"LIMITS of domains", "LIMITS RCPTDOMAINMAX=1", "LIMITS RCPTMAX=2000 RCPTDOMAINMAX=1", []string{mail, rcpt, "RCPT TO:<c@SINK.example>", "RCPT TO:<c@other.example>"},
			[]string{"250", "250", "250", "452 4.5.3 gw.example: "}, "", "250 2.0.0 queued", []string{mail, rcpt, "RCPT TO:<c@SINK.example>"}},
		{"LIMITS of messages are kept by us", "LIMITS MAILMAX=1", "LIMITS RCPTMAX=2000", []string{mail, rcpt}, []string{"250", "250"}, "", "250 2.0.0 queued", []string{mail, rcpt}},
		{"LIMITS without one", "LIMITS", "", []string{mail, rcpt}, []string{"250", "250"}, "", "250 2.0.0 queued", []string{mail, rcpt}},
		{"PIPELINING is ours", "", "PIPELINING", []string{mail, rcpt}, []string{"250", "250"}, "", "250 2.0.0 queued", []string{mail, rcpt}},
		{"CHUNKING is ours", "", "CHUNKING", []string{mail, rcpt}, []string{"250", "250"}, "", "250 2.0.0 queued", []string{mail, rcpt}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			lines := []string{}
			if c.offer != "" {
				lines = append(lines, c.offer)
			}
			mx := newRemote(t, offering(lines...))
			r := newRig(t, mx.addr(), func(r *rig) { r.policy.MessageSize = 20000 })
			p := r.dial()
			shown := p.lines("EHLO client.example")
			keyword, _, _ := strings.Cut(strings.TrimPrefix(c.offer, "-"), " ")
			for _, l := range shown {
				if k, _, _ := strings.Cut(l, " "); k == keyword && l != c.shown {
					t.Errorf("the client sees %q, want %q", l, c.shown)
				}
			}
			if c.shown != "" && !slices.Contains(shown, c.shown) {
				t.Errorf("the client sees %q, want %q among them", shown, c.shown)
			}
			for i, l := range c.say {
				p.cmd(l, c.want[i])
			}
			if c.answer != "" {
				body := c.body
				if body == "" {
					body = goodMail
				}
				p.cmd("DATA", "354")
				p.cmd(body+".", c.answer)
			}
			p.cmd("QUIT", "221")
			if got := mx.envelopes(); !slices.Equal(got, c.onward) {
				t.Errorf("the destination heard %q, want %q", got, c.onward)
			}
		})
	}
}

// lines says a command and gives the lines of its 250 reply but the first.
func (p *peer) lines(cmd string) []string {
	p.t.Helper()
	out := strings.Split(p.cmd(cmd, "250"), "\n")[1:]
	for i := range out {
		out[i] = out[i][4:]
	}
	return out
}

// envelopes are MAIL and RCPT as the destination heard them.
func (r *remote) envelopes() (out []string) {
	for _, s := range r.commands() {
		if s = s[2:]; strings.HasPrefix(s, "MAIL") || strings.HasPrefix(s, "RCPT") {
			out = append(out, s)
		}
	}
	return out
}

// TestUnknownExtensionsAreNotMirrored, and what belongs to them is refused and never sent on.
func TestUnknownExtensionsAreNotMirrored(t *testing.T) {
	t.Parallel()
	strange := []string{
		"XCLIENT NAME ADDR PORT PROTO HELO LOGIN DESTADDR DESTPORT", "XFORWARD NAME ADDR", "ETRN", "TURN", "ATRN", "VERP", "XVERP", "FUTURERELEASE 864000 2030-01-01T00:00:00Z",
		"DELIVERBY 240", "MT-PRIORITY STANAG4406", "BURL imap", "CHECKPOINT", "CONNEG", "CONPERM", "MTRK", "NO-SOLICITING", "SUBMITTER", "EXPN", "VRFY", "HELP", "SEND", "SAML", "SOML",
		"X-EXPS GSSAPI NTLM LOGIN", "X-LINK2STATE", "XEXCH50", "XSHADOW", "RRVS", "UTF8SMTP", "XTEXTPLAIN", "LHLO", "250-TRAP", "=AUTH", "",
	}
	mx := newRemote(t, offering(strange...))
	p := newRig(t, mx.addr()).dial()
	if got, want := p.lines("EHLO client.example"), []string{"PIPELINING", "CHUNKING"}; !slices.Equal(got, want) {
		t.Errorf("offered %q, want %q", got, want)
	}
	for _, param := range []string{"XVERP", "HOLDFOR=60", "HOLDUNTIL=2030-01-01T00:00:00Z", "BY=120;R", "MT-PRIORITY=3", "SOLICIT=x", "SUBMITTER=a@b", "MTRK=x", "TRANSID=<1>", "X=Y"} {
		p.cmd("MAIL FROM:<a@client.example> "+param, "555 5.5.4 gw.example: ")
	}
	p.cmd("MAIL FROM:<a@client.example>", "250")
	p.cmd("RCPT TO:<b@sink.example> RRVS=2030-01-01T00:00:00Z", "555 5.5.4 gw.example: ")
	for _, verb := range []string{"XCLIENT NAME=x", "XFORWARD NAME=x", "ETRN x", "TURN", "LHLO x"} {
		p.cmd(verb, "502 5.5.1 gw.example: ")
	}
	for _, c := range mx.commands() {
		if c != "1 EHLO out.gw.example" {
			t.Errorf("the destination heard %q", c)
		}
	}
}

// TestPeersThatKnowOnlyHELO on either side, and on both.
func TestPeersThatKnowOnlyHELO(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*remote){
		"the destination has extensions": func(*remote) {},
		"the destination says 500":       func(r *remote) { r.ehlo = nil },
		"the destination says 502":       both(reply("EHLO", "502 5.5.1 no"), reply("HELO", "250 mx")),
		"the destination says 554":       both(reply("EHLO", "554-no\r\n554 no"), reply("HELO", "250 mx")),
	} {
		for _, verb := range []string{"EHLO", "HELO"} {
			t.Run(name+"/"+verb, func(t *testing.T) {
				t.Parallel()
				mx := newRemote(t, change)
				r := newRig(t, mx.addr())
				p := r.dial()
				if got := p.lines(verb + " client.example"); verb == "HELO" && len(got) > 0 {
					t.Errorf("HELO is answered with %q", got)
				}
				p.envelope()
				p.send(goodMail, "250 2.0.0 queued")
				p.envelope()
				p.send(goodMail, "250 2.0.0 queued")
				said, want := mx.commands(), "1 EHLO out.gw.example"
				if strings.Contains(name, "says") {
					want = "1 HELO out.gw.example"
				}
				if !slices.Contains(said, want) || len(mx.messages()) != 2 {
					t.Errorf("the destination heard %q", said)
				}
				if with := map[string]string{"EHLO": "with ESMTP id", "HELO": "with SMTP id"}[verb]; !strings.Contains(mx.messages()[0], with) {
					t.Errorf("the trace field of %q does not say %q", mx.messages()[0], with)
				}
			})
		}
	}
}

// TestPromisesThatTheDestinationBreaks: it offered all to the session that was asked, and little to the one that carries
// the mail. Nothing is lost in silence.
func TestPromisesThatTheDestinationBreaks(t *testing.T) {
	t.Parallel()
	full := []string{"PIPELINING", "SIZE 1000000", "8BITMIME", "DSN", "SMTPUTF8", "ENHANCEDSTATUSCODES", "CHUNKING", "BINARYMIME", "LIMITS RCPTMAX=5"}
	mail := "MAIL FROM:<a@client.example>"
	for name, c := range map[string]struct {
		mail, rcpt string // parameters
		body       string
		want       string // to RCPT
		answer     string // to the message, where it comes so far
		heard      string // MAIL, as the destination heard it
	}{
		"nothing asked": {"", "", "", "250", "250", mail},
		"SIZE":          {" SIZE=100", "", "", "250", "250", mail},
		"BODY=7BIT":     {" BODY=7BIT", "", "", "250", "250", mail},
		"7-bit":         {" BODY=8BITMIME SIZE=5", "", "", "250", "250", mail},
		"8-bit":         {" BODY=8BITMIME", "", eightBit, "250", "451 4.6.3 gw.example: ", mail},
		"SMTPUTF8":      {" SMTPUTF8", "", "", "451 4.4.2 gw.example: ", "", ""},
		"binary":        {" BODY=BINARYMIME", "", "", "451 4.4.2 gw.example: ", "", ""},
		"RET":           {" RET=HDRS", "", "", "451 4.4.2 gw.example: ", "", ""},
		"ENVID":         {" ENVID=x", "", "", "451 4.4.2 gw.example: ", "", ""},
		"NOTIFY":        {"", " NOTIFY=NEVER", "", "451 4.4.2 gw.example: ", "", ""},
		"ORCPT":         {"", " ORCPT=rfc822;x@y", "", "451 4.4.2 gw.example: ", "", ""},
	} {
		for _, little := range [][]string{{}, {"PIPELINING"}, nil} {
			t.Run(fmt.Sprintf("%s/%q", name, little), func(t *testing.T) {
				t.Parallel()
				mx := newRemote(t, offering(full...))
				r := newRig(t, mx.addr())
				r.hello().cmd("QUIT", "221")
				mx.await(t, "QUIT")
				mx.change(offering(little...))
				p := r.hello()
				p.cmd(mail+c.mail, "250")
				p.cmd("RCPT TO:<b@sink.example>"+c.rcpt, c.want)
				if c.answer != "" {
					body := c.body
					if body == "" {
						body = goodMail
					}
					p.send(strings.TrimSuffix(body, "\r\n"), c.answer)
				}
				p.cmd("QUIT", "221")
				heard := ""
				for _, s := range mx.envelopes() {
					if strings.HasPrefix(s, "MAIL") {
						heard = s
					}
				}
				if n := len(mx.messages()); heard != c.heard || n != btoi(strings.HasPrefix(c.answer, "250")) {
					t.Errorf("the destination heard %q and %d messages; want %q", heard, n, c.heard)
				}
				// The next client is told the truth.
				p = r.dial()
				for _, l := range p.lines("EHLO client.example") {
					if l != "PIPELINING" && l != "CHUNKING" {
						t.Errorf("still offered: %q", l)
					}
				}
			})
		}
	}
}

// change lets the destination be otherwise from now on.
func (r *remote) change(how ...func(*remote)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, h := range how {
		h(r)
	}
}

// TestOnlyTheLastEHLOCounts: before TLS a destination may say what it likes.
func TestOnlyTheLastEHLOCounts(t *testing.T) {
	t.Parallel()
	plain, secret := []string{"STARTTLS", "DSN", "SIZE 10", "LIMITS RCPTMAX=1", "AUTH PLAIN"}, []string{"8BITMIME", "STARTTLS", "SIZE 5000"}
	mx := newRemote(t, remoteTLS(t), offering(plain...))
	mx.before = func(verb string) {
		if verb == "STARTTLS" {
			mx.change(offering(secret...))
		}
	}
	r := newRig(t, mx.addr(), withTLS)
	p := r.dial()
	want := []string{"8BITMIME", "CHUNKING", "PIPELINING", "SIZE 4488", "STARTTLS"}
	for _, secure := range []bool{false, true} {
		got := p.lines("EHLO client.example")
		slices.Sort(got)
		if !slices.Equal(got, want) {
			t.Errorf("secure %v: offered %q, want %q", secure, got, want)
		}
		if !secure {
			p.startTLS()
			want = want[:4]
		}
	}
}

// TestREQUIRETLS is offered where it can be kept, and then kept (RFC 8689).
func TestREQUIRETLS(t *testing.T) {
	t.Parallel()
	caps := relay.Caps{ESMTP: true, Encrypted: true, Verified: true, Extensions: smtp.Extensions{Set: smtp.ExtRequireTLS | smtp.Ext8BitMIME}}
	s := &session{srv: &Server{}, set: &resolved{Settings: Settings{MaxSize: 1000}}, user: &policy.Settings{}}
	for _, c := range []struct {
		secure bool
		change func(*relay.Caps)
		want   bool
	}{
		{true, func(*relay.Caps) {}, true},
		{false, func(*relay.Caps) {}, false},
		{true, func(c *relay.Caps) { c.Verified = false }, false},
		{true, func(c *relay.Caps) { c.Set = smtp.Ext8BitMIME }, false},
	} {
		now := caps
		c.change(&now)
		s.secure.Store(c.secure)
		s.promise(&now)
		if got := s.offer.Has(smtp.ExtRequireTLS); got != c.want {
			t.Errorf("client under TLS %v, destination %+v: offered %v", c.secure, now, got)
		}
	}
}

// TestMailMaxAndDomainsOfASession: the destination's bounds of one session are kept by opening another.
func TestMailMaxAndDomainsOfASession(t *testing.T) {
	t.Parallel()
	for line, want := range map[string][]string{
		"LIMITS MAILMAX=2":       {"EHLO " + oneMail + oneMail + "QUIT ", "EHLO " + oneMail},
		"LIMITS RCPTDOMAINMAX=1": {"EHLO " + oneMail + "QUIT ", "EHLO " + oneMail + "QUIT ", "EHLO " + oneMail},
		"DSN":                    {"EHLO " + oneMail + oneMail + oneMail},
	} {
		mx := newRemote(t, offering(line))
		r := newRig(t, mx.addr(), keeping(wait))
		for i := range 3 {
			p := r.hello()
			p.cmd("MAIL FROM:<a@client.example>", "250")
			p.cmd(fmt.Sprintf("RCPT TO:<b@d%d.example>", i), "250")
			p.send(goodMail, "250")
			p.cmd("QUIT", "221")
			p.nc.Close()
			r.quiet()
		}
		if got := mx.sessions(); !slices.Equal(got, want) {
			t.Errorf("%s: the destination heard %q, want %q", line, got, want)
		}
	}
}

// TestMAILWithAUTHAfterAUTH: who authenticated may say for whom (RFC 4954 5).
func TestMAILWithAUTHAfterAUTH(t *testing.T) {
	t.Parallel()
	mx := newRemote(t, submission("PLAIN", reply("AUTH", "235 2.7.0 ok"))...)
	r := newRig(t, mx.addr(), keeping(0))
	p := r.hello()
	p.cmd("MAIL FROM:<a@client.example> AUTH=<>", "250")
	p.cmd("RSET", "250")
	p.cmd("AUTH PLAIN AHVzZXIAcGFzcw==", "235")
	p.cmd("MAIL FROM:<a@client.example> AUTH=a@client.example", "250")
	p.cmd("RCPT TO:<b@sink.example>", "250")
	p.send(goodMail, "250")
	if got := mx.envelopes(); len(got) != 2 || got[0] != "MAIL FROM:<a@client.example> AUTH=a@client.example" {
		t.Errorf("the destination heard %q", got)
	}
}
