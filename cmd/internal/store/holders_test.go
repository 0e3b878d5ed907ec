package store

import (
	"errors"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sluice/filter/policy"
)

// holder is who held an address at a moment, "" for nobody.
func holder(t *testing.T, s *Store, a string, at time.Time) string {
	t.Helper()
	all, err := s.Holdings(netip.MustParseAddr(a))
	if err != nil {
		t.Fatal(err)
	}
	for i := range all {
		if all[i].At(at) {
			return all[i].Holder
		}
	}
	return ""
}

// TestHoldersAreNotedByThemselves: whoever gets and loses a prefix, by whatever way, stands in its history.
func TestHoldersAreNotedByThemselves(t *testing.T) {
	t.Parallel()
	s := open(t, filepath.Join(t.TempDir(), "x.db"))
	defer shut(t, s)
	before := time.Now().Add(-time.Hour)
	must := func(_ any, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	tick := func() time.Time { // history is kept to the millisecond
		time.Sleep(5 * time.Millisecond)
		now := time.Now()
		time.Sleep(5 * time.Millisecond)
		return now
	}
	for range 3 { // read again and again, it changes no hands
		must(s.EnsureConfigured([]policy.Listed{listed("house", "192.0.2.0/24")}))
	}
	must(s.AddUser(listed("alice", "192.0.2.7/32", "2001:db8:7::/64")))
	alices := tick()
	must(s.RemoveUser("alice"))
	nobodys := tick()
	must(s.AddUser(listed("bob", "192.0.2.7/32")))
	bobs := tick()
	for _, c := range []struct {
		a    string
		at   time.Time
		want string
	}{
		{"192.0.2.7", before, ""}, {"192.0.2.7", alices, "alice"}, {"192.0.2.7", nobodys, "house"}, {"192.0.2.7", bobs, "bob"},
		{"::ffff:192.0.2.7", bobs, "bob"}, {"192.0.2.8", bobs, "house"}, {"2001:db8:7::1:2", alices, "alice"}, {"2001:db8:7::1:2", bobs, ""}, {"198.51.100.1", bobs, ""},
	} {
		if got := holder(t, s, c.a, c.at); got != c.want {
			t.Errorf("%s at %v was held by %q, want %q", c.a, c.at.Format(time.StampMicro), got, c.want)
		}
	}
	if all, err := s.Holdings(netip.MustParseAddr("192.0.2.8")); err != nil || len(all) != 1 || !all[0].Until.IsZero() || all[0].By != "" {
		t.Errorf("the history of a prefix of the configuration is %+v, %v", all, err)
	}
}

// TestHoldersAreTold: what the provider's records say comes before what was noted, and contradicts itself nowhere.
func TestHoldersAreTold(t *testing.T) {
	t.Parallel()
	s := open(t, filepath.Join(t.TempDir(), "x.db"))
	defer shut(t, s)
	if _, err := s.AddUser(listed("alice", "192.0.2.7/32")); err != nil {
		t.Fatal(err)
	}
	day := func(n int) time.Time { return time.Date(2026, 3, n, 0, 0, 0, 0, time.UTC) }
	tell := func(holder string, from, until int) (Holding, error) {
		h := Holding{Prefix: netip.MustParsePrefix("192.0.2.7/32"), Holder: holder, By: "root"}
		if from > 0 {
			h.Since = day(from)
		}
		if until > 0 {
			h.Until = day(until)
		}
		return s.TellHolding(h, Act{Who: "root", What: "holder told"})
	}
	first, err := tell("old customer 17", 1, 10)
	if err != nil || first.ID == 0 {
		t.Fatal(first, err)
	}
	if _, err := tell("carol", 10, 20); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ from, until int }{{5, 7}, {9, 11}, {0, 2}, {15, 0}, {0, 0}} {
		if _, err := tell("mallory", c.from, c.until); err == nil || !strings.Contains(err.Error(), "held it within that time") {
			t.Errorf("from %d until %d: %v", c.from, c.until, err)
		}
	}
	for n, want := range map[int]string{1: "old customer 17", 9: "old customer 17", 10: "carol", 25: ""} {
		if got := holder(t, s, "192.0.2.7", day(n)); got != want {
			t.Errorf("on day %d it was held by %q, want %q", n, got, want)
		}
	}
	if got := holder(t, s, "192.0.2.7", time.Now().Add(time.Minute)); got != "alice" {
		t.Errorf("it is held by %q", got)
	}
	if h, err := s.ForgetHolding(first.ID, Act{Who: "root", What: "holder forgotten"}); err != nil || h.Holder != "old customer 17" {
		t.Errorf("forgotten: %+v, %v", h, err)
	}
	if _, err := s.ForgetHolding(first.ID, Act{}); !errors.Is(err, ErrNoHolding) {
		t.Errorf("forgotten again: %v", err)
	}
	noted, err := s.Holdings(netip.MustParseAddr("192.0.2.7"))
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range noted {
		if h.By == "" {
			if _, err := s.ForgetHolding(h.ID, Act{}); !errors.Is(err, ErrNoHolding) {
				t.Errorf("what was noted by itself is forgotten: %v", err)
			}
		}
	}
}
