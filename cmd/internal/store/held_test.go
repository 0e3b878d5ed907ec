package store

import (
	"net/netip"
	"reflect"
	"testing"
	"time"

	"sluice/proxy/quarantine"
)

func TestHeldMessages(t *testing.T) {
	t.Parallel()
	path := temp(t)
	s := open(t, path)
	at := time.Date(2027, 1, 2, 3, 4, 5, 0, time.UTC)
	a := quarantine.Entry{ID: "qa", At: at, User: 7, UserName: "alice", Client: netip.MustParseAddr("192.0.2.7"), From: "a@x.example", To: []string{"b@sink.example"}, Size: 12, Code: "SPAM", Group: 1 << 63,
		Print: "f1", Tries: 1, Last: at, KeyID: "k1", Key: []byte{1, 2, 3}}
	b := a
	b.ID, b.At, b.UserName, b.Print, b.Group = "qb", at.Add(time.Hour), "bob", "f2", 5
	if err := s.Held().PutHeld(a, b); err != nil {
		t.Fatal(err)
	}
	a.Tries, a.State = 9, quarantine.Releasing
	if err := s.Held().PutHeld(a); err != nil {
		t.Fatal(err)
	}
	if some, err := s.Samples().FindHeld(quarantine.Query{}); err != nil || len(some) != 0 {
		t.Errorf("samples are %+v, %v", some, err)
	}
	shut(t, s)
	s = open(t, path)
	all, err := s.Held().FindHeld(quarantine.Query{})
	if err != nil || len(all) != 2 || all[0].ID != "qb" || !reflect.DeepEqual(all[1], a) {
		t.Fatalf("%+v, %v", all, err)
	}
	for i, q := range []quarantine.Query{{ID: "qa"}, {Print: "f1"}, {User: "alice"}, {Group: 1 << 63}, {Before: at.Add(time.Minute)}, {Rcpt: "sink.example", User: "alice"}, {Most: 1, User: "alice"}} {
		if some, err := s.Held().FindHeld(q); err != nil || len(some) != 1 || some[0].ID != "qa" {
			t.Errorf("query %d: %+v, %v", i, some, err)
		}
	}
	if err := s.Held().RemoveHeld("qa", "none"); err != nil {
		t.Fatal(err)
	}
	if some, err := s.Held().FindHeld(quarantine.Query{Most: 5}); err != nil || len(some) != 1 || some[0].ID != "qb" {
		t.Errorf("%+v, %v", some, err)
	}
	shut(t, s)
}
