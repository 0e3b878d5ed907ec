package main

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"sluice/cmd/internal/api"
	"sluice/filter"
	"sluice/filter/limit"
	"sluice/intercept/control"
	"sluice/intercept/flow"
	"sluice/proxy"
)

func TestObservedRecords(t *testing.T) {
	t.Parallel()
	at := time.Unix(1700000000, 0)
	o := &control.Observed{
		Client: netip.MustParseAddrPort("192.0.2.10:40000"), Target: netip.MustParseAddrPort("198.51.100.25:25"), Start: at, End: at.Add(3 * time.Second), Helo: "c.example", Last: "220 go", Opaque: true,
		Messages: []control.ObservedMessage{
			{Start: at, End: at.Add(time.Second), From: "a@b.example", To: []control.ObservedRecipient{{Address: "c@d.example", Code: 250, Reply: "ok"}, {Address: "e@f.example", Code: 550, Reply: "no"}}, Code: 250, Reply: "queued", Whole: true},
			{Start: at, End: at, From: "g@h.example", Code: 530, Reply: "log in"},
			{Start: at, End: at, From: "i@j.example"},
			{Start: at, End: at, From: "k@l.example", To: []control.ObservedRecipient{{Address: "c@d.example", Code: 250, Reply: "ok"}}, Code: 250, Reply: "ok", Torn: true},
		},
	}
	f := flow.Flow{ID: 36, Client: o.Client, Target: o.Target, User: flow.User{ID: 7, Name: "alice"}}
	var got []*proxy.Record
	var counts observations
	for i := range o.Messages {
		h := overheard(o, &o.Messages[i])
		w := proxy.Would{Verdict: filter.Verdict{Cause: -1}}
		if i == 1 {
			w.Code, w.Reply = "RATE-MSG", "451 too many"
		}
		counts.message(7, &o.Messages[i], &w)
		got = append(got, observedMessage(f, fmt.Sprintf("%s.%d", f.ID, i+1), o, &o.Messages[i], h, &w))
		if want := []proxy.Status{proxy.Delivered, proxy.Refused, proxy.Lost, proxy.Lost}[i]; h.Status != want {
			t.Errorf("message %d ended as %v, want %v", i, h.Status, want)
		}
	}
	got = append(got, observedFlow(f, o))
	if none := observedFlow(f, &control.Observed{Before: 1}); none != nil {
		t.Errorf("a flow whose messages were read has a line of its own: %+v", none)
	}
	want := []struct{ id, from, remote, note, in string }{
		{"10.1", "a@b.example", "250 queued", "judged by its beginning", ""},
		{"10.2", "g@h.example", "530 log in", "no message was sent", ""},
		{"10.3", "i@j.example", "", "the answer was not seen", ""},
		{"10.4", "k@l.example", "", "parts were lost or unreadable: what became of it is not known", ""},
		{"10", "", "220 go", "STARTTLS: what followed is not known", proxy.Opaque},
	}
	if len(got) != len(want) {
		t.Fatalf("%d records, want %d", len(got), len(want))
	}
	for i, w := range want {
		g := got[i]
		if g.ID != w.id || g.From != w.from || g.Remote != w.remote || g.Note != w.note || g.In.Version != w.in || g.Status != proxy.Observed || g.Source != o.Client.Addr() {
			t.Errorf("record %d is %+v, want %+v", i, *g, w)
		}
		class := "unjudged"
		if w.in == proxy.Opaque {
			class = proxy.Opaque
		}
		if m := message(g); m.Class != class || m.Status != "observed" {
			t.Errorf("record %d is shown as %s of class %s, want observed, %s", i, m.Status, m.Class, class)
		}
	}
	if len(got[0].To) != 2 || got[0].To[1].Code != 550 || got[0].Duration != time.Second {
		t.Errorf("the message is %+v", *got[0])
	}

	counts.flow(7, o)
	counts.flow(7, &control.Observed{Lossy: true})
	counts.locked(7)
	counts.locked(8)
	c, locks := counts.of(7)
	if c.Flows != 2 || c.Messages != 4 || c.Accepted != 1 || c.Recipients != 3 || c.RefusedRecipients != 1 || c.Opaque != 1 || c.OpaqueShare != 0.5 || c.Unread != 1 || c.WouldRefuse["RATE-MSG"] != 1 || locks != 1 {
		t.Errorf("counts are %+v", c)
	}
	if c, locks := counts.of(8); c != nil || locks != 1 {
		t.Errorf("a user whom nobody observed has counts %+v, %d locks", c, locks)
	}
}

// TestWhatEnforcementWouldHaveDone judges what was observed by the limits, the senders' syntax, and the locks, counts apart
// from what is enforced, and locks nobody.
func TestWhatEnforcementWouldHaveDone(t *testing.T) {
	t.Parallel()
	g := newGateway(t, `
[limits]
messages_per_hour = 4
[lock]
automatic = true
spam_count = 2
[[user]]
name = "seen"
prefixes = ["127.0.0.1/32"]
mode = "observe"
`)
	g.start()
	defer g.end()
	at := time.Now()
	report := func(port uint16, from, body string) {
		g.daemon.observed(control.ObservedReport{Seen: 1, Observed: &control.Observed{ID: uint64(port), More: true, Start: at,
			Client: netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), port), Target: netip.MustParseAddrPort("198.51.100.25:25"),
			Messages: []control.ObservedMessage{{Start: at, End: at, From: from, To: []control.ObservedRecipient{{Address: "c@d.example", Code: 250, Reply: "ok"}},
				Code: 250, Reply: "queued", Whole: true, Body: []byte(body), Size: int64(len(body))}}}})
	}
	const gtube = "Subject: x\r\n\r\nXJS*C4JDBQADN1.NSBN3*2IDNEN*GTUBE-STANDARD-ANTI-UBE-TEST-EMAIL*C.34X\r\n"
	for i, m := range []struct{ from, body, class, would string }{
		{"a@seen.example", "Subject: x\r\n\r\nhello\r\n", "clean", ""},
		{"no mailbox", "Subject: x\r\n\r\nhello\r\n", "policy", "553 5.1.7 gw.example: [SENDER-SYNTAX]"},
		{"a@seen.example", gtube, "spam", "550 5.7.1 gw.example: [GTUBE]"},
		{"a@seen.example", "1" + gtube + "other\r\n", "spam", "550 5.7.1 gw.example: [GTUBE]"},
		{"a@seen.example", "Subject: x\r\n\r\nhello\r\n", "clean", "451 4.7.1 gw.example: [LOCKED] sending is locked; see"},
		{"a@seen.example", "Subject: x\r\n\r\nhello\r\n", "policy", "451 4.7.1 gw.example: [RATE-MSG]"},
	} {
		port := uint16(2000 + i)
		report(port, m.from, m.body)
		got := g.logged(fmt.Sprintf("status=observed&id=%s.1", flow.ID(port)), 1)[0]
		if got.Class != m.class || !strings.HasPrefix(got.Would, m.would) || (got.Would == "") != (m.would == "") || got.Size != int64(len(m.body)) {
			t.Errorf("message %d is logged as %s, would %q, %d bytes; want %s, %q", i, got.Class, got.Would, got.Size, m.class, m.would)
		}
	}
	g.daemon.observed(control.ObservedReport{Seen: 1, Observed: &control.Observed{ID: 9, Opaque: true, Client: netip.MustParseAddrPort("127.0.0.1:9"), Target: netip.MustParseAddrPort("198.51.100.25:25")}})

	r := get[api.ObserveReport](g, "/v1/observed")
	if !r.Observer.Wanted || !r.Observer.Present || len(r.Users) != 1 {
		t.Fatalf("the report is %+v", r)
	}
	u := r.Users[0]
	if u.User != "seen" || u.Flows != 1 || u.OpaqueShare != 1 || u.Messages != 6 || u.WouldLocks != 1 || u.WouldRefused() != 5 || u.WouldRefuse["GTUBE"] != 2 || u.WouldRefuse["LOCKED"] != 1 {
		t.Errorf("the user's line is %+v", u)
	}
	if st := get[api.Status](g, "/v1/status"); st.Locks != 0 || !st.Observer.Present {
		t.Errorf("nobody is to be locked: %d are; the observer is %+v", st.Locks, st.Observer)
	}
	id := g.flowFrom("127.0.0.1").User.ID
	for _, what := range []limit.Quantity{limit.Messages, limit.Recipients} {
		if booked, reserved := g.daemon.counts.counts.Count(limit.Key{User: id, What: what, Window: time.Hour}); booked != 0 || reserved != 0 {
			t.Errorf("what was observed counts against what is enforced: %d booked, %d reserved", booked, reserved)
		}
	}
}
