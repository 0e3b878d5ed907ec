package main

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"sluice/filter"
	mail "sluice/filter/message"
	"sluice/intercept/flow"
)

// TestSamplesAreBounded: of each user the last ones are remembered, of a long message its beginning, of all users so many
// bytes; good mail not at all.
func TestSamplesAreBounded(t *testing.T) {
	t.Parallel()
	s := newSamples(nil)
	bad := filter.Judge([]filter.Hit{{Check: "learned", Code: "SPAM", Class: filter.Spam, Action: filter.Reject}})
	good := filter.Judge(nil)
	send := func(user uint32, id string, size int, v *filter.Verdict) {
		f := &flow.Flow{User: flow.User{ID: user, Name: fmt.Sprint("user", user)}, Client: netip.MustParseAddrPort("192.0.2.7:1")}
		s.note(&mail.Message{ID: id, Flow: f, Envelope: mail.Envelope{From: "a@x.example", To: []mail.Address{"b@y.example"}}, Data: []byte(strings.Repeat("x", size)), DataSize: int64(size)}, v)
	}
	send(1, "good", 10, &good)
	if s.of("good") != nil {
		t.Error("good mail is remembered")
	}
	for i := range sampleEach + 5 {
		send(1, fmt.Sprint("m", i), 10, &bad)
	}
	if s.of("m4") != nil || s.of("m5") == nil || s.all.Len() != sampleEach || len(s.users[1]) != sampleEach {
		t.Errorf("%d of one user are remembered", s.all.Len())
	}
	send(2, "long", sampleSize+1, &bad)
	if one := s.of("long"); one == nil || !one.cut || len(one.text) != sampleSize || one.to[0] != "b@y.example" {
		t.Errorf("a long message is %+v", one)
	}
	if s.of("m9").cut {
		t.Error("a short message is cut")
	}
	for i := range 2 * sampleBytes / sampleSize {
		send(uint32(10+i), fmt.Sprint("n", i), sampleSize, &bad)
	}
	if s.bytes > sampleBytes || s.of("m24") != nil || s.of("long") != nil || len(s.users) != s.all.Len() || len(s.ids) != s.all.Len() {
		t.Errorf("%d bytes of %d messages are remembered", s.bytes, s.all.Len())
	}
}
