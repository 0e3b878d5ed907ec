package api

import (
	"net/netip"
	"strings"
	"testing"
	"time"
)

func TestWhere(t *testing.T) {
	t.Parallel()
	m := &Message{ID: "a.1", Time: time.Date(2026, 11, 22, 8, 0, 0, 0, time.UTC), User: "alice", Client: netip.MustParseAddrPort("192.0.2.7:4000"), Size: 5000, Shadow: true,
		To:   []Recipient{{Address: "bob@sink.example", Code: 250, Reply: "2.1.5 ok"}, {Address: "no@sink.example", Code: 550, Reply: "5.1.1 Unknown"}},
		Hits: []Hit{{Check: "content", Code: "GTUBE", Points: 7.5}}, Reply: "250 2.0.0 a=b"}
	for text, want := range map[string]bool{
		"user=ALICE": true, "user = alice": true, "user!=alice": false, "user!=bob": true, "size>4999": true, "size>5000": false, "size>=5000": true, "size<1e4": true, "size<=4999": false,
		"to~bob@": true, "to=250": true, "to=carol@sink.example": false, "to!=carol@sink.example": true, "to!=550": false, "hits~gtube": true, "hits>7": true, "hits>8": false,
		"reply~a=b": true, "reply=250 2.0.0 A=B": true, "client~192.0.2.7": true, "time~2026-11-22t08": true, "shadow=true": true, "note=": true, "note~": true, "helo!=": false, "user>5": false,
	} {
		w, err := ParseWhere(text)
		if err != nil {
			t.Errorf("%q: %v", text, err)
		} else if got := w.Match(m); got != want {
			t.Errorf("%q fits: %t", text, got)
		}
	}
	for text, want := range map[string]string{"": "no member", "nobody=x": "there are ", "size": "no member", "size>many": "no number", "=x": "no member"} {
		if _, err := ParseWhere(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
	if w, err := ParseWhere("hits=x"); err != nil || w.Match(&Message{}) {
		t.Errorf("no hits are a hit: %v", err)
	}
}
