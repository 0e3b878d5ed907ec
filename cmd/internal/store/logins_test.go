package store

import (
	"errors"
	"net/netip"
	"testing"
	"time"

	"sluice/filter/policy"
)

// TestLogins are kept over a restart and replaced by name; each change leaves a line in the audit log.
func TestLogins(t *testing.T) {
	t.Parallel()
	path := temp(t)
	s := open(t, path)
	u, err := s.AddUser(policy.Listed{Name: "alice", Prefixes: []netip.Prefix{pfx("192.0.2.0/24")}})
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now().UTC().Truncate(time.Microsecond)
	act := Act{Who: "root", What: "login add", Subject: "customer.example"}
	first := Login{Name: "customer.example", User: u.ID, Hash: "one", Created: now, Changed: now}
	own := Login{Name: "a@customer.example", User: u.ID, Own: "mail.customer.example:465", OwnImplicit: true, Created: now, Changed: now}
	second := first
	second.Hash, second.Created, second.Changed = "two", now.Add(time.Hour), now.Add(time.Hour)
	for _, l := range []Login{first, own, second} {
		if err := s.PutLogin(l, act); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.PutLogin(Login{Name: "nobody.example", User: u.ID + 1}, act); err == nil {
		t.Error("a login of nobody is stored")
	}
	shut(t, s)
	s = open(t, path)
	defer shut(t, s)
	second.Created = now
	if all, err := s.Logins(); err != nil || len(all) != 2 || all[0] != own || all[1] != second {
		t.Errorf("%+v, %v", all, err)
	}
	if err := s.RemoveLogin("a@customer.example", act); err != nil {
		t.Error(err)
	}
	if err := s.RemoveLogin("a@customer.example", act); !errors.Is(err, ErrNoLogin) {
		t.Errorf("removed twice: %v", err)
	}
	if acts, err := s.Acts(10); err != nil || len(acts) != 4 {
		t.Errorf("%d lines in the audit log, %v", len(acts), err)
	}
}
