package store

import (
	"errors"
	"net/netip"
	"testing"
	"time"

	"sluice/filter/policy"
	"sluice/proxy/distrust"
)

// TestTLSRules are kept over a restart beside exemptions, and one is not taken for the other.
func TestTLSRules(t *testing.T) {
	t.Parallel()
	path := temp(t)
	s := open(t, path)
	now := time.Now().UTC().Truncate(time.Microsecond)
	act := Act{Who: "root", What: "starttls set", Subject: "x"}
	rule := Rule{Prefix: pfx("198.51.100.7/32"), Port: 25, Mode: "strip", Reason: "r", By: "root", Since: now, Until: now.Add(time.Hour)}
	for _, r := range []Rule{rule, {Prefix: pfx("2001:db8::/32"), Mode: "pass", Since: now}} {
		if err := s.PutTLSRule(r, act); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.RemoveTLSRule(pfx("2001:db8::/32"), 0, act); err != nil {
		t.Fatal(err)
	}
	if err := s.RemoveTLSRule(pfx("2001:db8::/32"), 0, act); !errors.Is(err, ErrNoRule) {
		t.Errorf("removed twice: %v", err)
	}
	how, why := policy.Pass, "contract 12"
	if _, err := s.SetStartTLS(7, &how, &why, act); err != nil {
		t.Fatal(err)
	}
	n := 5
	if err := s.SetOverrides(8, policy.Overrides{MessagesPerHour: &n}); err != nil {
		t.Fatal(err)
	}
	if o, err := s.SetStartTLS(8, &how, &why, act); err != nil || o.MessagesPerHour == nil || *o.StartTLS != policy.Pass {
		t.Errorf("%+v %v", o, err)
	}
	if o, err := s.SetStartTLS(7, nil, nil, act); err != nil || o != (policy.Overrides{}) {
		t.Errorf("%+v %v", o, err)
	}
	shut(t, s)
	s = open(t, path)
	defer shut(t, s)
	if all, err := s.TLSRules(); err != nil || len(all) != 1 || all[0] != rule {
		t.Errorf("%+v %v, want %+v", all, err, rule)
	}
	if xs, err := s.Exemptions(); err != nil || len(xs) != 0 {
		t.Errorf("%+v %v", xs, err)
	}
	if all, err := s.Overrides(); err != nil || len(all) != 1 || *all[8].StartTLS != policy.Pass || *all[8].StartTLSWhy != why || *all[8].MessagesPerHour != n {
		t.Errorf("%+v %v", all, err)
	}
	if acts, err := s.Acts(10); err != nil || len(acts) != 6 {
		t.Errorf("%d lines in the audit log, %v", len(acts), err)
	}
}

// TestRefusals are kept over a restart, and removed.
func TestRefusals(t *testing.T) {
	t.Parallel()
	path := temp(t)
	s := open(t, path)
	now := time.Now().UTC()
	pair := distrust.Pair{Source: pfx("2001:db8:1::/64"), Target: netip.MustParseAddrPort("[2001:db8:100::20]:25")}
	one := distrust.Entry{Pair: pair, User: "alice", Alerts: 1, Text: "bad", First: now, Last: now, Learnt: now, Grant: distrust.Grant{Since: now, Until: now.Add(time.Hour), By: "root", Why: "x"}}
	other := distrust.Entry{Pair: distrust.Pair{Source: pfx("192.0.2.7/32"), Target: pair.Target}, Learnt: now}
	if err := s.PutRefusals([]distrust.Entry{one, other}, nil); err != nil {
		t.Fatal(err)
	}
	one.Alerts = 2
	if err := s.PutRefusals([]distrust.Entry{one}, []distrust.Pair{other.Pair}); err != nil {
		t.Fatal(err)
	}
	shut(t, s)
	s = open(t, path)
	defer shut(t, s)
	if all, err := s.Refusals(); err != nil || len(all) != 1 || all[0] != one {
		t.Errorf("%+v %v, want %+v", all, err, one)
	}
}

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
