package main

import (
	"net/netip"
	"testing"
	"time"

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
		},
	}
	got := observedRecords(flow.Flow{ID: 36, Client: o.Client, Target: o.Target, User: flow.User{ID: 7, Name: "alice"}}, o)
	want := []struct{ id, from, remote, note, in string }{
		{"10.1", "a@b.example", "250 queued", "", ""},
		{"10.2", "g@h.example", "530 log in", "no message was sent", ""},
		{"10.3", "i@j.example", "", "the answer was not seen", ""},
		{"10", "", "220 go", "STARTTLS: what followed is not known", opaque},
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
		if w.in == opaque {
			class = opaque
		}
		if m := message(g); m.Class != class || m.Status != "observed" {
			t.Errorf("record %d is shown as %s of class %s, want observed, %s", i, m.Status, m.Class, class)
		}
	}
	if len(got[0].To) != 2 || got[0].To[1].Code != 550 || got[0].Duration != time.Second {
		t.Errorf("the message is %+v", *got[0])
	}

	var counts observations
	counts.add(7, o)
	counts.add(7, &control.Observed{})
	c := counts.of(7)
	if c.Flows != 2 || c.Messages != 3 || c.Accepted != 1 || c.Recipients != 2 || c.RefusedRecipients != 1 || c.Opaque != 1 || c.OpaqueShare != 0.5 {
		t.Errorf("counts are %+v", c)
	}
	if counts.of(8) != nil {
		t.Error("a user whom nobody observed has counts")
	}
}
