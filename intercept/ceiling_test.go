package intercept

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"

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
		err := ce.Check(s)
		if (err == nil) != tc.ok {
			t.Errorf("%s %v %v: %v", tc.prefix, tc.mode, tc.fail, err)
		}
		var e *control.Error
		if err != nil && (!errors.As(err, &e) || e.Code != control.CodeCeiling || !strings.Contains(e.Text, tc.prefix)) {
			t.Errorf("%s: error %v does not name the prefix", tc.prefix, err)
		}
		runtime := new(rules)
		runtime.Put(s.Prefix, s)
		base, got := ce.Over(s.Prefix), ce.entry(s.Prefix, runtime)
		free := slices.ContainsFunc(testConfig().Loosen, func(p netip.Prefix) bool { return p.Bits() <= s.Prefix.Bits() && p.Contains(s.Prefix.Addr()) })
		if !free && (got.Mode < kernelMode(base.Mode) || got.Fail < kernelFail(base.Fail)) {
			t.Errorf("%s: the kernel has %v %v, which is too loose", tc.prefix, got.Mode, got.Fail)
		} else if tc.ok && (got.Mode != kernelMode(tc.mode) || got.Fail != kernelFail(tc.fail)) {
			t.Errorf("%s: what is allowed became %v %v", tc.prefix, got.Mode, got.Fail)
		}
	}
}

// TestStrictnessIsAnOrder goes through every pair: what is looser than the base is refused, everything else is not.
func TestStrictnessIsAnOrder(t *testing.T) {
	t.Parallel()
	for base := control.Pass; base <= control.Drop; base++ {
		ce := newCeiling(&Config{Default: Source{Mode: base, Fail: control.Open}})
		for asked := control.Pass; asked <= control.Drop; asked++ {
			err := ce.Check(control.Source{Prefix: prefix("192.0.2.0/24"), User: 1, Mode: asked, Fail: control.Open})
			if (err == nil) != (asked >= base) {
				t.Errorf("base %v, asked %v: %v", base, asked, err)
			}
			if asked != control.Canary && kernelMode(asked).String() != asked.String() {
				t.Errorf("%v is %v in the data path", asked, kernelMode(asked))
			}
		}
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

func BenchmarkTableOfAMillion(b *testing.B) {
	ce := newCeiling(testConfig())
	runtime := new(rules)
	for i := range 1 << 20 {
		a := netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})
		p := netip.PrefixFrom(a, 32)
		runtime.Put(p, control.Source{Prefix: p, User: 1, Mode: control.Intercept, Fail: control.Closed})
	}
	for b.Loop() {
		if len(ce.table(runtime)) < 1<<20 {
			b.Fatal("lost")
		}
	}
}
