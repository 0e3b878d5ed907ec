package main

import (
	"maps"
	"testing"

	"sluice/cmd/internal/api"
	"sluice/filter"
	"sluice/intercept/flow"
	"sluice/proxy"
)

// TestUnreadIsCounted: what passes encrypted is a figure, by user and together; what was observed in passing is not in it.
func TestUnreadIsCounted(t *testing.T) {
	t.Parallel()
	var f userFigures
	l := countedLog{discard{}, &f}
	for i := range 5 {
		l.Put(&proxy.Record{Status: proxy.NoMessage, In: proxy.TLS{Version: proxy.Opaque}, Unread: proxy.Unread{Out: 100, In: 10}, Flow: of(uint32(i%2 + 1))})
	}
	l.Put(&proxy.Record{Status: proxy.Observed, In: proxy.TLS{Version: proxy.Opaque}})
	l.Put(&proxy.Record{Status: proxy.Delivered, In: proxy.TLS{Version: "TLS1.3"}})
	if got := f.unread.sum(); got != (api.Unread{Flows: 5, BytesOut: 500, BytesIn: 50}) {
		t.Errorf("together %+v", got)
	}
	if got := f.unread.of(1); got == nil || *got != (api.Unread{Flows: 3, BytesOut: 300, BytesIn: 30}) {
		t.Errorf("user 1: %+v", got)
	}
	if f.unread.of(9) != nil {
		t.Error("somebody passed nothing")
	}
	wantCounters(t, &f, map[string]uint64{"unread_bytes_in": 50, "unread_bytes_out": 500, "unread_flows": 5})
}

// TestForwardedIsCounted: forwarded mail is a figure, by user and together; what is not forwarded is in none.
func TestForwardedIsCounted(t *testing.T) {
	t.Parallel()
	var f userFigures
	l := countedLog{discard{}, &f}
	for i, r := range []proxy.Record{
		{Status: proxy.Delivered, Forwarded: true}, {Status: proxy.Refused, Forwarded: true, Verdict: filter.Verdict{Class: filter.Spam}},
		{Status: proxy.Queued, Forwarded: true}, {Status: proxy.Deferred, Forwarded: true}, {Status: proxy.Delivered},
	} {
		r.Flow = of(uint32(i%2 + 1))
		l.Put(&r)
	}
	if got := f.forwarded.of(1); got == nil || *got != (api.Forwarded{Messages: 2, Sent: 2}) {
		t.Errorf("user 1 has %+v", got)
	}
	if got := f.forwarded.of(2); got == nil || *got != (api.Forwarded{Messages: 2, Bad: 1}) {
		t.Errorf("user 2 has %+v", got)
	}
	if got := f.forwarded.of(3); got != nil {
		t.Errorf("a user who forwarded nothing has %+v", got)
	}
	wantCounters(t, &f, map[string]uint64{"forwarded_bad": 1, "forwarded_messages": 4, "forwarded_sent": 2})
}

func TestAttemptsToAuthenticateAreCounted(t *testing.T) {
	t.Parallel()
	var f userFigures
	for i := range uint32(5) {
		x := of(i%2 + 1)
		f.authenticated(&x, i == 0)
	}
	if got := f.auth.of(1); got == nil || *got != (api.Auth{Accepted: 1, Refused: 2}) {
		t.Errorf("user 1 has %+v", got)
	}
	wantCounters(t, &f, map[string]uint64{"auth_accepted": 1, "auth_refused": 4})
}

// TestFiguresAreBounded: whoever is pushed out of the figures is in the sums still.
func TestFiguresAreBounded(t *testing.T) {
	t.Parallel()
	var b byUser[int]
	for i := range uint32(mostCounted + 10) {
		b.count(i, func(n *int) { *n++ })
	}
	if len(b.users) != mostCounted || b.sum() != mostCounted+10 {
		t.Errorf("%d users are remembered, %d counted", len(b.users), b.sum())
	}
}

func of(user uint32) flow.Flow { return flow.Flow{User: flow.User{ID: user}} }

// wantCounters holds the sums against those wanted; all others are nothing.
func wantCounters(t *testing.T, f *userFigures, want map[string]uint64) {
	t.Helper()
	got := map[string]uint64{}
	f.counters(got)
	maps.DeleteFunc(got, func(_ string, n uint64) bool { return n == 0 })
	if !maps.Equal(got, want) {
		t.Errorf("counters are %v, want %v", got, want)
	}
}
