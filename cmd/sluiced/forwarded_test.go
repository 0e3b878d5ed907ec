package main

import (
	"fmt"
	"testing"

	"sluice/cmd/internal/api"
	"sluice/filter"
	"sluice/intercept/flow"
	"sluice/proxy"
)

// TestForwardedIsCounted: forwarded mail is a figure, by user and together; what is not forwarded is in none.
func TestForwardedIsCounted(t *testing.T) {
	t.Parallel()
	var f forwarded
	l := forwardedLog{discard{}, &f}
	for i, r := range []proxy.Record{
		{Status: proxy.Delivered, Forwarded: true}, {Status: proxy.Refused, Forwarded: true, Verdict: filter.Verdict{Class: filter.Spam}},
		{Status: proxy.Queued, Forwarded: true}, {Status: proxy.Deferred, Forwarded: true}, {Status: proxy.Delivered},
	} {
		r.Flow = flow.Flow{User: flow.User{ID: uint32(i%2 + 1)}}
		l.Put(&r)
	}
	if got := f.of(1); got == nil || *got != (api.Forwarded{Messages: 2, Sent: 2}) {
		t.Errorf("user 1 has %+v", got)
	}
	if got := f.of(2); got == nil || *got != (api.Forwarded{Messages: 2, Bad: 1}) {
		t.Errorf("user 2 has %+v", got)
	}
	if got := f.of(3); got != nil {
		t.Errorf("a user who forwarded nothing has %+v", got)
	}
	c := map[string]uint64{}
	if f.counters(c); fmt.Sprint(c) != "map[forwarded_bad:1 forwarded_messages:4 forwarded_sent:2]" {
		t.Errorf("counters are %v", c)
	}
	for i := range guardUsers + 10 {
		f.add(&proxy.Record{Flow: flow.Flow{User: flow.User{ID: uint32(i + 10)}}})
	}
	if len(f.users) > guardUsers {
		t.Errorf("%d users are remembered", len(f.users))
	}
}
