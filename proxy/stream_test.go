package proxy

import (
	"context"
	"strings"
	"testing"
	"time"

	"sluice/filter"
	"sluice/filter/message"
	"sluice/proxy/cert"
)

// streams has messages go onward while they come, from 64 KiB on.
func streams(r *rig) { r.cfg.Settings.Stream, r.cfg.Settings.BodyMemory = 64<<10, 256<<10 }

// firstHalf and secondHalf are a message of 200 KB, dots and all.
var (
	firstHalf  = "From: a@client.example\r\nTo: b@sink.example\r\nSubject: large\r\n\r\n" + strings.Repeat(strings.Repeat("first half ", 6)+"\r\n.dot\r\n..two\r\n", 1200)
	secondHalf = strings.Repeat(strings.Repeat("second half ", 6)+"\r\n", 1300)
)

// stuffed is a text as it stands on the wire.
func stuffed(s string) string { return strings.ReplaceAll(s, "\r\n.", "\r\n..") }

// begin sends an envelope and what stands before the second half.
func (p *peer) begin() {
	p.t.Helper()
	p.envelope()
	p.cmd("DATA", "354")
	p.write(stuffed(firstHalf))
}

// text is a message that a destination got, behind the trace field that was added.
func text(t *testing.T, mail string) string {
	t.Helper()
	_, rest, ok := strings.Cut(mail, "\r\nFrom: ")
	if !ok || !strings.HasPrefix(mail, "Received: ") {
		t.Fatalf("no trace field: %.200q", mail)
	}
	return "From: " + rest
}

// TestLargeMessageLeavesWhileItComes: the destination has its beginning before the client has sent its end, and at the end the
// same bytes as without that, whatever the client and the destination speak.
func TestLargeMessageLeavesWhileItComes(t *testing.T) {
	t.Parallel()
	lockstep := func(p *peer, _ *remote) { p.begin() }
	chunk := func(p *peer, mx *remote) {
		p.envelope()
		p.write(bdat(firstHalf[:70_000], false) + bdat(firstHalf[70_000:], false))
		p.want("250")
		p.want("250")
		mx.has(p.t, len(firstHalf)) // not only what fills a buffer
	}
	dot := func(p *peer) { p.write(stuffed(secondHalf) + ".\r\n") }
	last := func(p *peer) { p.write(bdat(secondHalf, true)) }
	for name, c := range map[string]struct {
		change  func(*rig)
		remote  func(*remote)
		begin   func(*peer, *remote)
		end     func(*peer)
		session string // what the destination heard; "" for the usual
	}{
		"in memory":                  {begin: lockstep, end: dot},
		"in a file":                  {change: func(r *rig) { r.cfg.Settings.BodyMemory = 16 << 10 }, begin: lockstep, end: dot},
		"all bodies' memory is full": {change: func(r *rig) { r.cfg.Settings.BodiesMemory = 1 }, begin: lockstep, end: dot},
		"in chunks":                  {begin: chunk, end: last},
		"DATA had gone with the recipients": {end: dot, begin: func(p *peer, _ *remote) {
			p.group()
			for _, want := range []string{"250", "250", "354"} {
				p.want(want)
			}
			p.write(stuffed(firstHalf))
		}},
		"DATA had gone ahead": {change: func(r *rig) { r.cfg.Settings.EarlyData = EarlyAlways }, begin: lockstep, end: dot},
		"no PIPELINING":       {remote: func(r *remote) { r.ehlo = r.ehlo[1:] }, begin: lockstep, end: dot},
		"HELO only":           {remote: func(r *remote) { r.ehlo = nil }, begin: lockstep, end: dot, session: "EHLO HELO " + oneMail},
		"onward TLS": {begin: lockstep, end: dot, session: "EHLO STARTTLS EHLO " + oneMail, remote: func(r *remote) {
			certs, err := cert.New(cert.Options{Name: "mx.sink.example"})
			if err != nil {
				panic(err)
			}
			r.tls, r.ehlo = certs.Config(), append(r.ehlo, "STARTTLS")
		}},
		"TLS of the client": {change: withTLS, remote: func(r *remote) {
			certs, err := cert.New(cert.Options{Name: "mx.sink.example"})
			if err != nil {
				panic(err)
			}
			r.tls, r.ehlo = certs.Config(), append(r.ehlo, "STARTTLS")
		}, begin: func(p *peer, _ *remote) {
			p.startTLS()
			p.cmd("EHLO client.example", "250")
			p.begin()
		}, end: dot, session: "EHLO STARTTLS EHLO " + oneMail},
		"bare line feeds": {begin: func(p *peer, _ *remote) {
			p.envelope()
			p.cmd("DATA", "354")
			p.write(strings.ReplaceAll(stuffed(firstHalf), "\r\n", "\n"))
		}, end: dot},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			mx := newRemote(t, func(r *remote) {
				if c.remote != nil {
					c.remote(r)
				}
			})
			r := newRig(t, mx.addr(), streams, func(r *rig) {
				if c.change != nil {
					c.change(r)
				}
			})
			p := r.hello()
			c.begin(p, mx)
			mx.has(t, 60_000)
			if n := len(mx.messages()); n != 0 || r.locks.judged.Load() != 0 {
				t.Fatalf("%d messages before the end", n)
			}
			c.end(p)
			p.want("250 2.0.0 queued as X1")
			p.envelope()
			p.send(goodMail, "250") // the same sessions go on
			p.cmd("QUIT", "221")
			want := c.session
			if want == "" {
				want = "EHLO " + oneMail
			}
			if got := mx.sessions(); len(got) != 1 || !strings.HasPrefix(got[0], want+oneMail) {
				t.Errorf("the destination heard %q", got)
			}
			all := mx.messages()
			if got := text(t, all[0]); got != stuffed(firstHalf+secondHalf) {
				t.Errorf("%d bytes arrived, want %d", len(got), len(stuffed(firstHalf+secondHalf)))
			}
			rec := r.log.wait(t, 2)[0]
			if rec.Status != Delivered || rec.Size != int64(len(firstHalf+secondHalf)) || rec.Note != "" || !rec.Source.IsValid() {
				t.Errorf("%v of %d bytes from %v: %q", rec.Status, rec.Size, rec.Source, rec.Note)
			}
			if r.srv.doubts.about(7, time.Now()) {
				t.Error("its sender is doubted")
			}
		})
	}
}

// TestBadAtTheEnd: the destination had the beginning and gets no end, and the client hears to the letter what it hears where
// nothing goes ahead. What this user sends next waits.
func TestBadAtTheEnd(t *testing.T) {
	t.Parallel()
	tagged := filter.Hit{Code: "SPAM", Class: filter.Spam, Tag: "X-Spam-Flag: YES\r\n"}
	for name, c := range map[string]struct {
		hit      filter.Hit
		change   func(*rig)
		want     string
		status   Status
		messages int // that arrive all the same, in a session of their own
	}{
		"spam":      {hit: filter.Hit{Code: "WORD", Class: filter.Spam, Action: filter.Reject, Text: "this is spam"}, want: "550 5.7.1 gw.example: [WORD]", status: Refused},
		"a limit":   {hit: filter.Hit{Code: "RATE-BYTES", Class: filter.Policy, Action: filter.Defer, Text: "later"}, want: "451 4.7.1 gw.example: [RATE-BYTES]", status: Deferred},
		"withheld":  {hit: heldWord, want: "451 4.7.1 gw.example: [HELD]", status: Withheld},
		"kept":      {hit: heldWord, change: withKeeper(&keeper{}, true, false), want: "250 2.0.0 gw.example: kept as 1.1", status: Queued},
		"apart":     {hit: riskyHit, change: pooled(true), want: "250 2.0.0 queued", status: Delivered, messages: 1},
		"discarded": {hit: filter.Hit{Code: "SPAM", Class: filter.Spam, Action: filter.Discard, Text: "spam"}, want: "250 2.0.0 gw.example: taken", status: Discarded},
		"tagged":    {hit: tagged, want: "250 2.0.0 queued", status: Delivered, messages: 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			said := map[bool]string{}
			for _, ahead := range []bool{true, false} {
				mx := newRemote(t)
				r := newRig(t, mx.addr(), steps(onWord(filter.Data, c.hit)), func(r *rig) {
					if c.change != nil {
						c.change(r)
					}
					if ahead {
						streams(r)
					}
				})
				p := r.hello()
				p.begin()
				if ahead {
					mx.has(t, 60_000)
				}
				said[ahead] = p.cmd("SPAMWORD\r\n.", c.want)
				if ahead {
					mx.await(t, hungUp)
				}
				rec := r.log.wait(t, 1)[0]
				if rec.Status != c.status || len(mx.messages()) != c.messages || c.messages == 1 && !strings.Contains(mx.messages()[0], "SPAMWORD") {
					t.Errorf("%v, %d messages arrived", rec.Status, len(mx.messages()))
				}
				if !ahead {
					continue
				}
				if mx.mu.Lock(); mx.resets != 1 {
					t.Errorf("%d resets", mx.resets)
				}
				mx.mu.Unlock()
				late := r.dataAfterVerdict(mx)
				p.begin()
				p.cmd(".", "250 2.0.0 queued")
				if !late.Load() {
					t.Error("the next one did not wait")
				}
			}
			if said[true] != said[false] {
				t.Errorf("the client hears %q, else %q", said[true], said[false])
			}
		})
	}
}

// TestWhatMayNotGoAhead: an objection to the beginning, however small, and whatever may yet change the message or its way.
func TestWhatMayNotGoAhead(t *testing.T) {
	t.Parallel()
	hit := func(h filter.Hit) func(*rig) { return steps(at(filter.Part, h)) }
	for name, c := range map[string]struct {
		change func(*rig)
		mail   string // parameters of MAIL
		header string
		remote func(*remote)
	}{
		"off":                           {change: func(r *rig) { r.cfg.Settings.Stream = 0 }},
		"smaller than that":             {change: func(r *rig) { r.cfg.Settings.Stream = 1 << 20 }},
		"small, as announced":           {mail: " SIZE=1000"},
		"refused":                       {change: hit(filter.Hit{Action: filter.Reject})},
		"to be looked at":               {change: hit(filter.Hit{Action: filter.Hold})},
		"bad, and let pass":             {change: hit(filter.Hit{Class: filter.Spam})},
		"unsure, and let pass":          {change: hit(filter.Hit{Score: 0.5})},
		"to be tagged":                  {change: hit(filter.Hit{Tag: "X-A: b\r\n"})},
		"a user on probation":           {change: func(r *rig) { r.cfg.Standing = clear(false) }},
		"what is put off is kept":       {change: func(r *rig) { r.policy.KeepDeferred = true }},
		"the sender tells by a field":   {change: func(r *rig) { r.cfg.Settings.Pipeline = filter.NewPipeline(filter.Step{Name: "id", Check: telling{}}) }},
		"passed on, with a pool for it": {change: passesOn, header: "Delivered-To: x@client.example\r\n"},
		"a header without an end":       {header: strings.Repeat("X-Long: "+strings.Repeat("y", 900)+"\r\n", 400)},
		"8-bit, to who takes 7": {mail: " BODY=8BITMIME", remote: func(r *remote) {
			r.on["EHLO"] = []string{"250-mx\r\n250-PIPELINING\r\n250 8BITMIME", "250-mx\r\n250 PIPELINING"}
		}},
		"a loop":                         {header: strings.Repeat("Received: from x by y; date\r\n", 101)},
		"something is in his quarantine": {change: func(r *rig) { r.cfg.Quarantine = hasSome{} }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			mx := newRemote(t, func(r *remote) {
				if c.remote != nil {
					c.remote(r)
				}
			})
			r := newRig(t, mx.addr(), streams, func(r *rig) {
				if c.change != nil {
					c.change(r)
				}
			})
			if c.remote != nil {
				r.hello().cmd("QUIT", "221") // what it said first is known
			}
			late := r.dataAfterVerdict(mx)
			p := r.hello()
			p.cmd("MAIL FROM:<a@client.example>"+c.mail, "250")
			p.cmd("RCPT TO:<b@sink.example>", "250")
			p.cmd("DATA", "354")
			p.write(c.header + stuffed(firstHalf))
			reply := p.cmd(".", "")
			if mx.mu.Lock(); mx.resets != 0 {
				t.Error("it had begun")
			}
			mx.mu.Unlock()
			if loop := name == "a loop"; loop != (reply[0] == '5') || !loop && (!late.Load() || len(mx.messages()) != 1) {
				t.Errorf("%q; DATA waited for the verdict: %t", reply, late.Load())
			}
		})
	}
}

// telling finds an identity in a field that is not to go on.
type telling struct{}

func (telling) Check(_ context.Context, _ filter.Phase, _ *message.Message, hits []filter.Hit) []filter.Hit {
	return hits
}

func (telling) Identify(filter.Phase, *message.Message) (identity, told string) { return "bob", "To" }

// hasSome is a quarantine that has something of everybody, and of this message knows nothing.
type hasSome struct{ Quarantine }

func (hasSome) Has(uint32) bool              { return true }
func (hasSome) Known(*Kept) (Custody, error) { return Custody{}, nil }

// TestDestinationLeavesInTheMidst: one that says why is heard behind the client's dot; one that says nothing gets the message
// anew, in another session.
func TestDestinationLeavesInTheMidst(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		remote   []func(*remote)
		want     string
		status   Status
		sessions int
		messages int
	}{
		"with a refusal":      {[]func(*remote){midway("552 5.2.2 the box is full")}, "552 5.2.2 the box is full", Refused, 2, 1},
		"with a deferral":     {[]func(*remote){midway("452 4.3.1 no room")}, "452 4.3.1 no room", Deferred, 2, 1},
		"with 421":            {[]func(*remote){midway("421 4.3.2 stopping")}, "421 4.3.2 stopping", Deferred, 1, 0},
		"without a word":      {[]func(*remote){midway(closeNow)}, "250 2.0.0 queued", Delivered, 2, 2},
		"and refuses then":    {[]func(*remote){midway(closeNow), reply("RCPT", "250 ok", "550 5.1.1 gone")}, "451 4.4.2 gw.example: ", Deferred, 2, 0},
		"DATA is refused":     {[]func(*remote){reply("DATA", "554 5.7.0 no", "354 go")}, "554 5.7.0 no", Refused, 1, 1},
		"DATA is put off":     {[]func(*remote){reply("DATA", "450 4.7.1 greylisted", "354 go")}, "450 4.7.1 greylisted", Deferred, 1, 1},
		"at DATA":             {[]func(*remote){reply("DATA", closeNow, "354 go")}, "250 2.0.0 queued", Delivered, 2, 2},
		"refused at its end":  {[]func(*remote){reply(".", "554 5.6.0 not this", "250 ok")}, "554 5.6.0 not this", Refused, 1, 2},
		"gone behind its end": {[]func(*remote){reply(".", closeNow, "250 ok")}, "451 4.4.2 gw.example: ", Ambiguous, 2, 2},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			mx := newRemote(t, c.remote...)
			r := newRig(t, mx.addr(), streams)
			p := r.hello()
			p.begin()
			p.write(stuffed(secondHalf))
			if mx.midway != nil {
				mx.await(t, hasLeft)
			}
			p.cmd(".", c.want)
			if rec := r.log.wait(t, 1)[0]; rec.Status != c.status || (rec.Status == Refused) != (rec.Reply[0] == '5') {
				t.Errorf("%v, %q", rec.Status, rec.Reply)
			}
			if c.messages > 0 && !strings.HasPrefix(name, "and") && c.want[:3] != "421" {
				p.envelope()
				p.send(goodMail, "250")
				p.cmd("QUIT", "221")
			}
			got := mx.messages()
			if s := mx.sessions(); len(s) != c.sessions || len(got) != c.messages {
				t.Errorf("%d messages in %q", len(got), s)
			}
			if c.want[:3] == "250" && text(t, got[0]) != stuffed(firstHalf+secondHalf) {
				t.Errorf("%d bytes arrived", len(got[0]))
			}
		})
	}
}

// midway has the destination say something in the midst of its first message, and close.
func midway(say string) func(*remote) {
	said := false
	return func(r *remote) {
		r.midway = func(n int) string {
			if n < 70_000 || said {
				return ""
			}
			said = true
			return say
		}
	}
}

// TestClientLeavesInTheMidst: nothing stays at the destination.
func TestClientLeavesInTheMidst(t *testing.T) {
	t.Parallel()
	for name, leave := range map[string]func(*peer){
		"closed": func(p *peer) { p.nc.Close() },
		"a message that may not be": func(p *peer) {
			p.write("a\x00b\r\n")
			p.cmd(".", "550 5.6.0")
		},
		"chunks that end": func(p *peer) { p.cmd("RSET", "250") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			mx := newRemote(t)
			r := newRig(t, mx.addr(), streams)
			p := r.hello()
			if name == "chunks that end" {
				p.envelope()
				p.write(bdat(firstHalf, false))
				p.want("250")
			} else {
				p.begin()
			}
			mx.has(t, 60_000)
			leave(p)
			mx.await(t, hungUp)
			rec := r.log.wait(t, 1)[0]
			if rec.Status == Delivered || rec.Source.IsValid() || !strings.Contains(rec.Note, begunInVain) || len(mx.messages()) != 0 {
				t.Errorf("%v from %v, %q; %d messages", rec.Status, rec.Source, rec.Note, len(mx.messages()))
			}
			if mx.mu.Lock(); mx.resets != 1 {
				t.Errorf("%d resets", mx.resets)
			}
			mx.mu.Unlock()
		})
	}
}
