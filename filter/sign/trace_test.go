package sign

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"sluice/filter/message"
)

var key = []byte(strings.Repeat("k", KeySize))

func tracer(t testing.TB, key []byte) *Tracer {
	t.Helper()
	tr, err := NewTracer(key)
	if err != nil {
		t.Fatal(err)
	}
	return tr
}

func hop() *Hop {
	return &Hop{
		Flow: 0x1234567890abcdef, N: 300, User: 7, Helo: "mail.alice.example", Client: netip.MustParseAddr("192.0.2.10"), By: "gw.example",
		ESMTP: true, Recipient: "Bob@Sink.example", Time: time.Date(2026, 11, 2, 9, 5, 7, 0, time.FixedZone("", 3600)),
	}
}

// TestLeft: the trace field proves which message a reported one is, and nobody else can make one.
func TestLeft(t *testing.T) {
	t.Parallel()
	tr, h := tracer(t, key), hop()
	header := "Received: from mx.sink.example by box.sink.example id 0123456789abcdefghijklmnop; today\r\n" + string(tr.AppendReceived(nil, h)) + "Subject: x\r\n\r\n"
	proved := 0
	for _, l := range tr.Left([]byte(header), 10) {
		if tr.Proves(l, h.User, strings.ToUpper(h.Recipient)) {
			proved++
			if l.Flow != h.Flow || l.N != h.N || tr.Proves(l, h.User+1, h.Recipient) || tr.Proves(l, h.User, "x@y.example") {
				t.Errorf("%+v is of flow %v, %d, or proves too much", l, h.Flow, h.N)
			}
		}
	}
	if proved != 1 {
		t.Errorf("%d fields prove the message", proved)
	}
	other := tracer(t, []byte(strings.Repeat("x", KeySize)))
	for _, l := range other.Left([]byte(header), 10) {
		if other.Proves(l, h.User, h.Recipient) {
			t.Error("another key proves it")
		}
	}
	if n := len(tr.Left([]byte(strings.Repeat("Received: x id 0123456789abcdefghijklmnop;\r\n", 1000)), 10)); n > 10 {
		t.Errorf("%d fields were looked at", n)
	}
}

func TestFieldIsByTheStandard(t *testing.T) {
	tr := tracer(t, key)
	h := hop()
	want := "Received: from mail.alice.example ([192.0.2.10])\r\n\tby gw.example with ESMTP id " + tr.ID(h) + ";\r\n\tMon, 2 Nov 2026 09:05:07 +0100\r\n"
	if got := string(tr.AppendReceived(nil, h)); got != want {
		t.Errorf("got\n%q, want\n%q", got, want)
	}
	for _, c := range []struct {
		change func(*Hop)
		want   string
	}{
		{func(h *Hop) { h.Client = netip.MustParseAddr("2001:db8::1") }, "from mail.alice.example ([IPv6:2001:db8::1])\r\n"},
		{func(h *Hop) { h.ESMTP = false }, " with SMTP id "},
		{func(h *Hop) { h.TLS = true }, " with ESMTPS id "},
		{func(h *Hop) { h.UTF8 = true }, " with UTF8SMTP id "},
		{func(h *Hop) { h.UTF8, h.TLS = true, true }, " with UTF8SMTPS id "},
		{func(h *Hop) { h.Helo = "[IPv6:2001:db8::1]" }, "from [IPv6:2001:db8::1] ("},
		{func(h *Hop) { h.Helo = "x) by evil (y" }, "from unknown ("},
		{func(h *Hop) { h.Helo = "a\r\nb" }, "from unknown ("},
		{func(h *Hop) { h.Helo = "" }, "from unknown ("},
		{func(h *Hop) { h.Helo = "bücher.example" }, "from unknown ("},
		{func(h *Hop) { h.Helo, h.UTF8 = "bücher.example", true }, "from bücher.example ("},
	} {
		h := hop()
		c.change(h)
		if got := string(tr.AppendReceived(nil, h)); !strings.Contains(got, c.want) || strings.Count(got, "\r\n") != 3 {
			t.Errorf("got\n%q, want %q in it", got, c.want)
		}
	}
}

func TestOriginIsFoundAgain(t *testing.T) {
	tr := tracer(t, key)
	id := tr.ID(hop())
	if f, n, ok := tr.Origin(id); !ok || f != hop().Flow || n != 300 {
		t.Errorf("%s: flow %x, message %d, %v", id, uint64(f), n, ok)
	}
	for _, bad := range []string{"", "short", strings.Repeat("w", idLen), id + "0", strings.ToUpper(id)} {
		if _, _, ok := tr.Origin(bad); ok {
			t.Errorf("%q is taken for an id", bad)
		}
	}
	if f, _, _ := tracer(t, []byte(strings.Repeat("x", KeySize))).Origin(id); f == hop().Flow {
		t.Error("another key reads the id")
	}
	if strings.Contains(id, "alice") || tr.ID(hop()) != id {
		t.Error("the id is not a fixed secret")
	}
}

func TestHops(t *testing.T) {
	tr := tracer(t, key)
	ours := string(tr.AppendReceived(nil, hop()))
	foreign := "Received: from x by y with SMTP id abc;\r\n\tnow\r\n"
	rcpt := []message.Address{"other@sink.example", "bob@sink.example"}
	for _, c := range []struct {
		name, header string
		user         uint32
		rcpts        []message.Address
		n            int
		loop         bool
	}{
		{"none", "Subject: x\r\n\r\n", 7, rcpt, 0, false},
		{"foreign", foreign + "X-Received: no\r\nRECEIVED : from z\r\n\r\n", 7, rcpt, 2, false},
		{"ours again", foreign + ours + foreign + "\r\n", 7, rcpt, 3, true},
		{"to somebody else", ours + "\r\n", 7, rcpt[:1], 1, false},
		{"by another user", ours + "\r\n", 8, rcpt, 1, false},
		{"in the body", "Subject: x\r\n\r\n" + ours, 7, rcpt, 0, false},
		{"folded at the word", strings.Replace(ours, " id ", "\r\n\tid\r\n\t", 1) + "\r\n", 7, rcpt, 1, true},
		{"folded by a relay", strings.Replace(ours, " id ", "\r\n\tfoo id ", 1) + "\r\n", 7, rcpt, 1, true},
	} {
		if n, loop := tr.Hops([]byte(c.header), c.user, c.rcpts, 100); n != c.n || loop != c.loop {
			t.Errorf("%s: %d hops, loop %v; want %d, %v", c.name, n, loop, c.n, c.loop)
		}
	}
}

func TestShortKeyIsRefused(t *testing.T) {
	if _, err := NewTracer(key[1:]); err == nil || !strings.Contains(err.Error(), "31 bytes") {
		t.Errorf("got %v", err)
	}
}

func TestFieldDoesNotAllocate(t *testing.T) {
	tr, h, room := tracer(t, key), hop(), make([]byte, 0, 512)
	if n := testing.AllocsPerRun(100, func() { tr.AppendReceived(room, h) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func FuzzHops(f *testing.F) {
	tr := tracer(f, key)
	f.Add(tr.AppendReceived(nil, hop()))
	f.Add([]byte("Received: a id \r\n id ;\r\n"))
	f.Fuzz(func(t *testing.T, header []byte) {
		if n, loop := tr.Hops(header, 7, []message.Address{"bob@sink.example"}, 100); loop && n == 0 {
			t.Error("a loop without a hop")
		}
	})
}
