package store

import (
	"errors"
	"net/netip"
	"testing"
	"time"
)

// TestRules are kept over a restart, replaced by prefix, and removed; each change leaves a line in the audit log.
func TestRules(t *testing.T) {
	t.Parallel()
	path := temp(t)
	s := open(t, path)
	now := time.Now().UTC().Truncate(time.Microsecond)
	rule := Rule{Prefix: pfx("192.0.2.0/24"), Mode: "canary", Percent: 5, Reason: "r", By: "root", Since: now, Until: now.Add(time.Hour)}
	act := Act{Who: "root", What: "mode set", Subject: "192.0.2.0/24"}
	if err := s.ChangeModes([]Rule{rule, {Prefix: pfx("2001:db8::/32"), Mode: "drop", Since: now}}, nil, act); err != nil {
		t.Fatal(err)
	}
	rule.Percent = 25
	if err := s.ChangeModes([]Rule{rule}, []netip.Prefix{pfx("2001:db8::/32"), pfx("203.0.113.0/24")}, act); err != nil {
		t.Fatal(err)
	}
	for _, port := range []uint16{0, 25} {
		if err := s.PutExemption(Rule{Prefix: pfx("198.51.100.7/32"), Port: port, Mode: "pass", Since: now}, act); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.RemoveExemption(pfx("198.51.100.7/32"), 25, act); err != nil {
		t.Fatal(err)
	}
	if err := s.RemoveExemption(pfx("198.51.100.7/32"), 25, act); !errors.Is(err, ErrNoRule) {
		t.Errorf("removed twice: %v", err)
	}
	if err := s.SetFact("fail", "closed", act); err != nil {
		t.Fatal(err)
	}
	shut(t, s)
	s = open(t, path)
	defer shut(t, s)
	if modes, err := s.Modes(); err != nil || len(modes) != 1 || modes[0] != rule {
		t.Errorf("%+v %v, want %+v", modes, err, rule)
	}
	if xs, err := s.Exemptions(); err != nil || len(xs) != 1 || xs[0].Port != 0 || xs[0].Mode != "pass" || !xs[0].Until.IsZero() {
		t.Errorf("%+v %v", xs, err)
	}
	if v, err := s.Fact("fail"); err != nil || v != "closed" {
		t.Errorf("%q %v", v, err)
	}
	if v, err := s.Fact("nothing"); err != nil || v != "" {
		t.Errorf("%q %v", v, err)
	}
	if acts, err := s.Acts(10); err != nil || len(acts) != 6 {
		t.Errorf("%d lines in the audit log, %v", len(acts), err)
	}
}
