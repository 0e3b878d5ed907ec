package main

import (
	"testing"
	"time"

	"sluice/filter"
	"sluice/filter/policy"
	"sluice/proxy"
)

// TestSuggestedLimits: twice the busiest hour and day of what went out, rounded up; bad and refused mail says nothing.
func TestSuggestedLimits(t *testing.T) {
	t.Parallel()
	s := newSuggester()
	begin := time.Date(2027, 1, 1, 8, 0, 0, 0, time.UTC)
	send := func(at time.Time, status proxy.Status, class filter.Class, rcpts int) {
		r := &proxy.Record{Start: at, Status: status, Verdict: filter.Verdict{Class: class}}
		for range rcpts {
			r.To = append(r.To, proxy.Recipient{Code: 250})
		}
		r.To = append(r.To, proxy.Recipient{Code: 550})
		s.add(r)
	}
	for day := range 10 {
		for i := range 3 {
			send(begin.AddDate(0, 0, day).Add(time.Duration(i)*time.Hour), proxy.Delivered, filter.Clean, 2)
		}
	}
	for range 61 { // a newsletter
		send(begin.AddDate(0, 0, 5), proxy.Queued, filter.Clean, 10)
	}
	for range 1000 { // a stolen password
		send(begin, proxy.Refused, filter.Spam, 1)
		send(begin, proxy.Delivered, filter.Spam, 1)
	}
	now := policy.Limits{}
	now.Max[policy.MessagesHour] = 500
	want := map[string][4]int64{"messages_per_hour": {62, 1, 500, 130}, "messages_per_day": {64, 3, 0, 130}, "recipients_per_hour": {612, 2, 0, 1300}, "recipients_per_day": {616, 6, 0, 1300}}
	for _, l := range s.limits(&now) {
		if got := [4]int64{l.Busiest, l.Usual, l.Now, l.Suggested}; got != want[l.Limit] {
			t.Errorf("%s: %v, want %v", l.Limit, got, want[l.Limit])
		}
	}
	if s.messages != 91 || len(s.days[0]) != 10 {
		t.Errorf("%d messages on %d days", s.messages, len(s.days[0]))
	}
	for n, want := range map[int64]int64{1: 1, 99: 99, 100: 100, 101: 110, 1001: 1100} {
		if got := round(n); got != want {
			t.Errorf("%d is rounded to %d, want %d", n, got, want)
		}
	}
}
