package main

import (
	"net/netip"
	"testing"
	"time"

	"sluice/cmd/internal/inflight"
	"sluice/intercept/flow"
	"sluice/proxy"
)

func TestWhatAKilledProcessLeftIsListed(t *testing.T) {
	t.Parallel()
	alice := flow.User{ID: 7, Name: "alice", Prefix: netip.MustParsePrefix("192.0.2.0/24")}
	table, err := flow.NewTable([]flow.User{alice})
	if err != nil {
		t.Fatal(err)
	}
	sent := time.Unix(1e9, 0)
	e := &inflight.Entry{ID: flow.ID(12345).String() + ".2", User: "alice", Client: netip.MustParseAddrPort("192.0.2.1:40000"),
		Target: netip.MustParseAddrPort("198.51.100.20:25"), From: "a@a.example", To: "b@b.example", Rcpts: 3, Size: 9, Sent: sent}
	r := ambiguous(e, &roster{table: table})
	if r.Status != proxy.Ambiguous || r.ID != e.ID || r.Flow.ID != 12345 || r.Flow.User != alice || r.To[0].Address != "b@b.example" || !r.Start.Equal(sent) || r.Verdict.Decisive() != nil {
		t.Errorf("it became %+v", r)
	}
	m := message(r)
	if m.Status != "ambiguous" || m.Note == "" || m.Code != "" {
		t.Errorf("the API shows %+v", m)
	}
}

func TestTallyCountsByStatus(t *testing.T) {
	t.Parallel()
	var next records
	c := &tally{next: &next}
	for _, s := range []proxy.Status{proxy.Delivered, proxy.Refused, proxy.Refused} {
		c.Put(&proxy.Record{Status: s})
	}
	m := c.byStatus()
	if m["delivered"] != 1 || m["refused"] != 2 || m["lost"] != 0 || len(next) != 3 {
		t.Errorf("counted %v, handed on %d", m, len(next))
	}
}

// records keeps records.
type records []*proxy.Record

func (k *records) Put(r *proxy.Record) { *k = append(*k, r) }
