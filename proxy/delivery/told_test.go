package delivery

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"sluice/proxy/smtp"
	"sluice/proxy/spool"
	"sluice/proxy/tlspolicy"
)

// TestWhatComesBack: a notice holds the header of a message, or all of it where that was asked for and it is small, and names
// each recipient as his sender did (RFC 3461 4.2, 4.3).
func TestWhatComesBack(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.host("one.example", "127.0.0.2")
	w.serve("127.0.0.2", func(cmd string) string {
		if strings.HasPrefix(cmd, "RCPT") {
			return "550 5.1.1 no such user"
		}
		return ""
	})
	w.host("sender.example", "127.0.0.3")
	back := w.serve("127.0.0.3", nil)
	const header, body = "Subject: hello\r\n", "the text\r\n"
	for n, c := range []struct {
		ret, body, kind string
		full, protected bool
	}{
		{"", body, "text/rfc822-headers", false, false}, {"HDRS", body, "text/rfc822-headers", false, false}, {"FULL", body, "message/rfc822", true, false},
		{"FULL", strings.Repeat(body, mostReturned/len(body)), "text/rfc822-headers", false, false},
		{"FULL", body, "text/rfc822-headers", false, true},
	} {
		env := w.mail("no@one.example")
		env.Ret, env.Rcpts[0].ORcpt, env.RequireTLS = c.ret, "rfc822;list+2Bowner@lists.example", c.protected
		w.send(env, header+"\r\n"+c.body)
		for w.next().Envelope.From != "" {
		}
		got := back.taken()
		if len(got) != n+1 {
			t.Fatalf("%d notices", len(got))
		}
		last := got[n]
		if !strings.Contains(last, "Content-Type: "+c.kind+"\r\n\r\n"+header) || strings.Contains(last, body) != c.full {
			t.Errorf("RET=%s of %d bytes: %q", c.ret, len(c.body), last)
		}
		if !strings.Contains(last, "Original-Recipient: rfc822;list+owner@lists.example\r\nFinal-Recipient: rfc822; no@one.example\r\n") {
			t.Errorf("the recipient's first name is not told: %q", last)
		}
	}
}

// TestEachWayToSelect: what an operator may name selects what it says, and nothing else.
func TestEachWayToSelect(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.stop() // nothing is tried
	w.q.Stop(t.Context())
	one := w.mail("x@one.example")
	two := &spool.Envelope{Message: "m2", User: 8, UserName: "bob", Identity: "shop", From: "b@other.example", Received: w.now(), Campaign: "C2", Rcpts: []spool.Rcpt{{Address: "y@two.example"}}}
	w.send(one, text)
	id := w.send(two, text)[0]
	if err := w.s.Hold(id, "looked at"); err != nil {
		t.Fatal(err)
	}
	held := true
	for name, f := range map[string]Filter{
		"id": {ID: id}, "message": {Message: "m2"}, "user": {User: "bob"}, "identity": {Identity: "SHOP"}, "sender": {Sender: "B@other.example"},
		"sender's domain": {Sender: "other.example"}, "destination": {Domain: "TWO.example"}, "campaign": {Campaign: "C2"}, "held": {Held: &held},
		"owner": {Owner: 8}, "why": {Why: "looked at"}, "two at once": {User: "bob", Domain: "two.example"},
	} {
		es, _, err := w.q.List(f, 0, 10)
		if err != nil || len(es) != 1 || es[0].ID != id {
			t.Errorf("by %s: %+v, %v", name, es, err)
		}
		if n, err := w.q.Hold(f, "looked at"); n != 1 || err != nil {
			t.Errorf("by %s %d are changed, %v", name, n, err)
		}
	}
	if es, _, err := w.q.List(Filter{User: "alice", Domain: "two.example"}, 0, 10); err != nil || len(es) != 0 {
		t.Errorf("what does not fit together selects %+v, %v", es, err)
	}
}

// TestFamilyThatComesFirst: of a host's addresses those of IPv6, or by setting those of IPv4.
func TestFamilyThatComesFirst(t *testing.T) {
	t.Parallel()
	for _, v4 := range []bool{false, true} {
		w := newWorld(t, func(o *Options) { o.IPv4 = v4 })
		a := []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("192.0.2.2"), netip.MustParseAddr("2001:db8::2")}
		w.domains["both.example"] = &tlspolicy.Domain{Name: "both.example", Hosts: []tlspolicy.Host{{MX: tlspolicy.MX{Host: "mx.both.example"}, Answer: tlspolicy.Answer{Addrs: a}, Policy: &tlspolicy.Policy{}}}}
		r, err := w.q.route(t.Context(), w.mail("x@both.example"), "both.example")
		if err != nil {
			t.Fatal(err)
		}
		var got []bool
		for _, way := range r.ways {
			got = append(got, way.target.Addr().Is4())
		}
		if want := []bool{v4, v4, !v4, !v4}; !slices.Equal(got, want) {
			t.Errorf("IPv4 first %v: the ways are IPv4 %v", v4, got)
		}
	}
}

// TestNobodyHearsOfANever: NOTIFY=NEVER is kept, whatever becomes of the message.
func TestNobodyHearsOfANever(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	back, _ := several(t, w)
	env := w.mail("a@no.example", "b@later.example")
	env.Rcpts[0].Notify, env.Rcpts[1].Notify = smtp.NotifyNever, smtp.NotifyNever
	ids := w.send(env, text)
	w.tried(2)
	w.pass(4*time.Hour + time.Minute)
	w.tried(1)
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) { // until it is noted that he need not hear
		d, err := w.s.Get(ids[1])
		if err != nil || time.Now().After(deadline) {
			t.Fatalf("%v, %+v", err, d)
		}
		if d.Delayed && !d.Leased {
			break
		}
	}
	w.pass(5 * 24 * time.Hour)
	w.tried(1)
	w.empty()
	if got := back.taken(); len(got) != 0 {
		t.Errorf("notices: %q", got)
	}
}
