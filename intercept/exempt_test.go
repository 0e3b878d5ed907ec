package intercept

import (
	"errors"
	"strings"
	"testing"
	"time"

	"sluice/intercept/control"
)

func TestExemptionsUnderTheCeiling(t *testing.T) {
	t.Parallel()
	now := time.Now()
	c := testConfig()
	c.MayExempt = append(c.MayExempt, prefix("203.0.113.0/24"))
	c.Exempt = []control.Exemption{
		{Prefix: prefix("198.51.100.0/24"), Mode: control.Pass},
		{Prefix: prefix("198.51.100.128/25"), Mode: control.Reject},
		{Prefix: prefix("198.51.100.128/25"), Port: 2525, Mode: control.Observe},
		{Prefix: prefix("2001:db8::/32"), Mode: control.Pass, Until: now.Add(-time.Second)},
		{Prefix: prefix("2001:db8:25::/48"), Port: 25, Mode: control.Pass},
	}
	ce := newCeiling(c)
	for _, tc := range []struct {
		x  control.Exemption
		ok bool
	}{
		{control.Exemption{Prefix: prefix("192.0.2.1/32"), Mode: control.Pass}, false},
		{control.Exemption{Prefix: prefix("192.0.2.1/32"), Mode: control.Shadow}, false},
		{control.Exemption{Prefix: prefix("192.0.2.1/32"), Mode: control.Intercept}, false}, // a source is in mode drop
		{control.Exemption{Prefix: prefix("0.0.0.0/0"), Mode: control.Reject}, false},
		{control.Exemption{Prefix: prefix("0.0.0.0/0"), Mode: control.Drop}, true},
		{control.Exemption{Prefix: prefix("203.0.113.9/32"), Mode: control.Pass}, true}, // runtime_exempt
		{control.Exemption{Prefix: prefix("203.0.0.0/16"), Mode: control.Pass}, false},
		{control.Exemption{Prefix: prefix("198.51.100.9/32"), Mode: control.Pass}, true}, // as configured
		{control.Exemption{Prefix: prefix("198.51.100.200/32"), Mode: control.Intercept}, false},
		{control.Exemption{Prefix: prefix("198.51.100.200/32"), Port: 2525, Mode: control.Observe}, true},
		{control.Exemption{Prefix: prefix("198.51.100.200/32"), Mode: control.Reject}, true},
		{control.Exemption{Prefix: prefix("2001:db8::1/128"), Mode: control.Pass}, false}, // what it stood on is over
		{control.Exemption{Prefix: prefix("2001:db8:25::1/128"), Port: 25, Mode: control.Pass}, true},
		{control.Exemption{Prefix: prefix("2001:db8:25::1/128"), Mode: control.Pass}, false}, // nothing is said of other ports
		{control.Exemption{Prefix: prefix("2001:db8:25::1/128"), Mode: control.Drop}, true},
	} {
		err := ce.CheckExemption(tc.x, now)
		if (err == nil) != tc.ok {
			t.Errorf("%v port %d %v: %v", tc.x.Prefix, tc.x.Port, tc.x.Mode, err)
		}
		var e *control.Error
		if err != nil && (!errors.As(err, &e) || e.Code != control.CodeCeiling || !strings.Contains(e.Text, "intercept.runtime_exempt") || !strings.Contains(e.Text, tc.x.Prefix.String())) {
			t.Errorf("the refusal does not name prefix and key: %v", err)
		}
	}
}

// TestExemptionsWhereNoSourceIsStricter: an exemption as strict as the strictest source loosens nothing.
func TestExemptionsWhereNoSourceIsStricter(t *testing.T) {
	t.Parallel()
	c := testConfig()
	c.Default.Mode = control.Observe
	for i := range c.Sources {
		c.Sources[i].Mode = min(c.Sources[i].Mode, control.Intercept)
	}
	ce := newCeiling(c)
	for mode, ok := range map[control.Mode]bool{control.Shadow: false, control.Intercept: true, control.Reject: true} {
		if err := ce.CheckExemption(control.Exemption{Prefix: prefix("192.0.2.1/32"), Mode: mode}, time.Now()); (err == nil) != ok {
			t.Errorf("%v: %v", mode, err)
		}
	}
}

// TestExemptionsEndWithWhatTheyStandOn: what root allows for a while the proxy cannot have for longer.
func TestExemptionsEndWithWhatTheyStandOn(t *testing.T) {
	t.Parallel()
	now := time.Now()
	soon, later := now.Add(time.Minute), now.Add(time.Hour)
	c := testConfig()
	c.Exempt = []control.Exemption{
		{Prefix: prefix("198.51.100.0/24"), Mode: control.Pass, Until: soon},
		{Prefix: prefix("203.0.113.0/24"), Mode: control.Pass, Until: soon},
		{Prefix: prefix("203.0.0.0/16"), Mode: control.Pass, Until: later},
	}
	runtime := []control.Exemption{
		{Prefix: prefix("198.51.100.9/32"), Mode: control.Observe},
		{Prefix: prefix("198.51.100.10/32"), Mode: control.Drop},
		{Prefix: prefix("198.51.100.11/32"), Mode: control.Pass, Until: now.Add(time.Second)},
		{Prefix: prefix("203.0.113.9/32"), Mode: control.Pass},
	}
	joined, refused := newCeiling(c).Exemptions(runtime, now)
	if refused != nil {
		t.Fatal(refused)
	}
	want := map[string]time.Time{"198.51.100.9/32": soon, "198.51.100.10/32": {}, "198.51.100.11/32": now.Add(time.Second), "203.0.113.9/32": later}
	for _, x := range joined.List() {
		if until, ok := want[x.Prefix.String()]; ok && !x.Until.Equal(until) {
			t.Errorf("%v ends at %v instead of %v", x.Prefix, x.Until, until)
		}
		delete(want, x.Prefix.String())
	}
	if len(want) != 0 {
		t.Errorf("not in force: %v", want)
	}
}

func TestExemptionsOnDisk(t *testing.T) {
	t.Parallel()
	dir, now := t.TempDir(), time.Now()
	if list, err := loadExemptions(dir, now); err != nil || list != nil {
		t.Fatalf("an empty folder: %v %v", list, err)
	}
	want := []control.Exemption{
		{Prefix: prefix("192.0.2.0/24"), Port: 25, Mode: control.Pass, Until: now.Add(time.Hour)},
		{Prefix: prefix("2001:db8::/32"), Mode: control.Drop},
		{Prefix: prefix("192.0.2.1/32"), Mode: control.Drop, Until: now.Add(-time.Hour)},
	}
	if err := saveExemptions(dir, want); err != nil {
		t.Fatal(err)
	}
	got, err := loadExemptions(dir, now)
	if err != nil || len(got) != 2 || got[0].Prefix != want[0].Prefix || got[0].Port != 25 || got[1].Mode != control.Drop {
		t.Errorf("%v %v", got, err)
	}
}
