package intercept

import (
	"errors"
	"net/netip"
	"strings"
	"testing"

	"sluice/bpf"
	"sluice/intercept/control"
)

func prefix(s string) netip.Prefix { return netip.MustParsePrefix(s) }

func testConfig() *Config {
	return &Config{
		Default: Source{Mode: control.Intercept, Fail: control.Open},
		Sources: []Source{
			{Prefix: prefix("192.0.2.0/24"), Mode: control.Intercept, Fail: control.Closed},
			{Prefix: prefix("192.0.2.64/26"), Mode: control.Reject, Fail: control.Closed},
			{Prefix: prefix("192.0.2.200/32"), Mode: control.Pass, Fail: control.Open},
			{Prefix: prefix("2001:db8:1::/48"), Mode: control.Drop, Fail: control.Closed},
		},
		Loosen: []netip.Prefix{prefix("198.51.100.0/24")},
	}
}

func TestCeiling(t *testing.T) {
	t.Parallel()
	ce := newCeiling(testConfig())
	for _, tc := range []struct {
		prefix string
		mode   control.Mode
		fail   control.Fail
		ok     bool
	}{
		{"192.0.2.1/32", control.Intercept, control.Closed, true},
		{"192.0.2.1/32", control.Drop, control.Closed, true},
		{"192.0.2.1/32", control.Shadow, control.Closed, false},
		{"192.0.2.1/32", control.Intercept, control.Open, false},
		{"192.0.2.65/32", control.Intercept, control.Closed, false}, // inside the stricter /26
		{"192.0.2.65/32", control.Reject, control.Closed, true},
		{"192.0.2.200/32", control.Pass, control.Open, true},
		{"192.0.2.0/24", control.Pass, control.Open, false},
		{"192.0.0.0/16", control.Pass, control.Open, false},     // wider than any: the default counts
		{"192.0.0.0/16", control.Intercept, control.Open, true}, // longer prefixes keep their own entries
		{"203.0.113.1/32", control.Observe, control.Open, false},
		{"198.51.100.7/32", control.Pass, control.Open, true}, // runtime_loosen
		{"198.51.0.0/16", control.Pass, control.Open, false},
		{"2001:db8:1:2::/64", control.Reject, control.Closed, false},
		{"2001:db8:2::/64", control.Intercept, control.Open, true},
	} {
		s := control.Source{Prefix: prefix(tc.prefix), User: 1, Mode: tc.mode, Fail: tc.fail}
		err := ce.check(s)
		if (err == nil) != tc.ok {
			t.Errorf("%s %v %v: %v", tc.prefix, tc.mode, tc.fail, err)
		}
		var e *control.Error
		if err != nil && (!errors.As(err, &e) || e.Code != control.CodeCeiling || !strings.Contains(e.Text, tc.prefix)) {
			t.Errorf("%s: error %v does not name the prefix", tc.prefix, err)
		}
		if got := ce.clamp(s); ce.check(got) != nil {
			t.Errorf("%s: clamped to %v %v, still too loose", tc.prefix, got.Mode, got.Fail)
		} else if tc.ok && got != s {
			t.Errorf("%s: clamp changed what is allowed", tc.prefix)
		}
	}
}

// TestStrictnessIsAnOrder goes through every pair: what is looser than the base is refused, everything else is not.
func TestStrictnessIsAnOrder(t *testing.T) {
	t.Parallel()
	for base := control.Pass; base <= control.Drop; base++ {
		ce := newCeiling(&Config{Default: Source{Mode: base, Fail: control.Open}})
		for asked := control.Pass; asked <= control.Drop; asked++ {
			err := ce.check(control.Source{Prefix: prefix("192.0.2.0/24"), User: 1, Mode: asked, Fail: control.Open})
			if (err == nil) != (asked >= base) {
				t.Errorf("base %v, asked %v: %v", base, asked, err)
			}
			if kernelMode(asked).String() != asked.String() {
				t.Errorf("%v is %v in the data path", asked, kernelMode(asked))
			}
		}
	}
}

func TestMergeLaysRuntimeOverConfiguration(t *testing.T) {
	t.Parallel()
	ce := newCeiling(testConfig())
	runtime := map[netip.Prefix]control.Source{
		prefix("192.0.2.0/24"): {Prefix: prefix("192.0.2.0/24"), User: 5, Mode: control.Intercept, Fail: control.Closed},
		prefix("192.0.2.9/32"): {Prefix: prefix("192.0.2.9/32"), User: 6, Mode: control.Pass, Fail: control.Open}, // from before a stricter reload
	}
	got := make(map[netip.Prefix]bpf.Source)
	for _, s := range ce.merge(runtime) {
		got[s.Prefix] = s
	}
	if len(got) != 5 {
		t.Fatalf("%d entries: %v", len(got), got)
	}
	if s := got[prefix("192.0.2.0/24")]; s.User != 5 || s.Mode != bpf.ModeIntercept || s.Fail != bpf.FailClosed {
		t.Errorf("%+v", s)
	}
	if s := got[prefix("192.0.2.9/32")]; s.User != 6 || s.Mode != bpf.ModeIntercept || s.Fail != bpf.FailClosed {
		t.Errorf("not tightened: %+v", s)
	}
	if s := got[prefix("192.0.2.200/32")]; s.User != 0 || s.Mode != bpf.ModePass {
		t.Errorf("%+v", s)
	}
	back := runtimeSources(ce.merge(runtime))
	if len(back) != 2 || back[0].User == 0 || back[0].Fail != control.Closed {
		t.Errorf("read back: %+v", back)
	}
}

func TestConfigValidate(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		change func(*Config)
		want   string
	}{
		"pattern": {func(c *Config) { c.Uplinks = []string{"up["} }, "up["},
		"empty":   {func(c *Config) { c.Customers = []string{""} }, "pattern"},
		"twice":   {func(c *Config) { c.Sources = append(c.Sources, c.Sources[0]) }, "192.0.2.0/24"},
		"default": {func(c *Config) { c.Default = Source{} }, "unknown sources"},
	} {
		c := testConfig()
		tc.change(c)
		if err := c.Validate(); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := testConfig().Validate(); err != nil {
		t.Error(err)
	}
}

func BenchmarkMergeAMillion(b *testing.B) {
	ce := newCeiling(testConfig())
	runtime := make(map[netip.Prefix]control.Source)
	for i := range 1 << 20 {
		a := netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})
		p := netip.PrefixFrom(a, 32)
		runtime[p] = control.Source{Prefix: p, User: 1, Mode: control.Intercept, Fail: control.Closed}
	}
	for b.Loop() {
		if len(ce.merge(runtime)) < 1<<20 {
			b.Fatal("lost")
		}
	}
}

// The rate of connections is root's to say, whatever the proxy calls a source.
func TestRateIsTheConfigurations(t *testing.T) {
	t.Parallel()
	c := testConfig()
	c.Default.PerSecond, c.Sources[0].PerSecond = 100, 7
	ce := newCeiling(c)
	got := map[netip.Prefix]uint16{}
	runtime := map[netip.Prefix]control.Source{}
	for _, p := range []string{"192.0.2.0/24", "192.0.2.1/32", "203.0.113.9/32"} {
		runtime[prefix(p)] = control.Source{Prefix: prefix(p), User: 3, Mode: control.Intercept, Fail: control.Closed}
	}
	for _, s := range ce.merge(runtime) {
		got[s.Prefix] = s.PerSecond
	}
	for p, want := range map[string]uint16{"192.0.2.0/24": 7, "192.0.2.1/32": 7, "203.0.113.9/32": 100, "192.0.2.64/26": 0} {
		if got[prefix(p)] != want {
			t.Errorf("%s has a rate of %d, want %d", p, got[prefix(p)], want)
		}
	}
}
