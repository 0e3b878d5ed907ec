package main

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sluice/cmd/internal/config"
	"sluice/filter/policy"
	"sluice/proxy"
	"sluice/proxy/tlspolicy"
)

// dnsOf answers a few names.
type dnsOf map[string]tlspolicy.Answer

func (d dnsOf) Look(_ context.Context, name string, k tlspolicy.Kind) (tlspolicy.Answer, error) {
	a, ok := d[name]
	if !ok {
		return a, errors.New("SERVFAIL")
	}
	a.Name, a.TTL = name, time.Hour
	if k == tlspolicy.Texts {
		return tlspolicy.Answer{Name: name}, nil
	}
	return a, nil
}

func TestRulesOfTheOnwardLeg(t *testing.T) {
	t.Parallel()
	cfg, err := config.Parse("t.toml", []byte(`[gateway]
name = "gw.example"
[intercept]
customer_interfaces = ["c0"]
uplinks = ["u0"]
[[delivery.protect]]
prefix = "198.51.100.0/24"
level = "required"
reason = "net"
[[delivery.protect]]
prefix = "198.51.100.7"
level = "verified"
names = ["MX.a.example"]
reason = "address"
[[delivery.protect]]
domain = "bank.example"
level = "verified"
reason = "domain"
[[delivery.protect]]
domain = ".bank.example"
level = "none"
reason = "below"
[[delivery.protect]]
host = "mx.nowhere.invalid"
level = "required"
reason = "host"
[dns]
servers = ["127.0.0.1"]
`))
	if err != nil {
		t.Fatal(err)
	}
	warned := ""
	o, err := newOnward(cfg, stsFile(filepath.Join(t.TempDir(), "sts.json")), func(err error) { warned = err.Error() })
	if err != nil || !strings.Contains(warned, "mx.nowhere.invalid") {
		t.Fatalf("%v; a host that is not found is told: %q", err, warned)
	}
	r := o.rules.Load()
	r.servers.Store(&serverRules{netip.MustParseAddr("203.0.113.5"): &r.hosts[0]})
	for _, c := range []struct{ server, domain, want string }{
		{"198.51.100.9", "any.example", "required net"},
		{"::ffff:198.51.100.9", "any.example", "required net"},
		{"198.51.100.7", "any.example", "verified address"},
		{"198.51.100.7", "Bank.Example.", "verified domain"},
		{"198.51.100.7", "a.b.bank.example", "none below"},
		{"198.51.100.9", "notbank.example", "required net"},
		{"203.0.113.5", "any.example", "required host"},
		{"203.0.113.5", "bank.example", "verified domain"},
		{"203.0.113.6", "any.example", ""},
	} {
		p, err := o.Terms(t.Context(), &policy.Settings{}, netip.AddrPortFrom(netip.MustParseAddr(c.server), 25), c.domain)
		got := ""
		if p != nil {
			got = p.Level.String() + " " + p.Why
		}
		if err != nil || got != c.want {
			t.Errorf("%s at %s: %q, %v; want %q", c.domain, c.server, got, err, c.want)
		}
	}
	if got := r.domains["bank.example"].Names; strings.Join(got, " ") != "bank.example .bank.example" || r.nets[0].policy.Names[0] != "mx.a.example" {
		t.Errorf("names %q, %q", got, r.nets[0].policy.Names)
	}
	if o.configure(&cfg.Delivery) == nil || len(*o.rules.Load().servers.Load()) != 1 {
		t.Error("a reload forgets the addresses of a host that cannot be looked up")
	}
	o.silent = true
	if _, known := o.Judge("bank.example", netip.MustParseAddr("198.51.100.9"), &tlspolicy.Leg{}); known {
		t.Error("a report where none is wanted")
	}
	cfg.Delivery.TLSRoots = "/nonexistent"
	if _, err := newOnward(cfg, nil, nil); err == nil || !strings.Contains(err.Error(), "tls_roots") {
		t.Errorf("authorities that cannot be read: %v", err)
	}
	cfg.Delivery.TLSRoots = filepath.Join(t.TempDir(), "empty")
	if os.WriteFile(cfg.Delivery.TLSRoots, nil, 0o600) != nil {
		t.Fatal("no file")
	}
	if _, err := newOnward(cfg, nil, nil); err == nil || !strings.Contains(err.Error(), "holds no certificate") {
		t.Errorf("no authorities: %v", err)
	}
}

func TestUsersSettingOfTheOnwardLeg(t *testing.T) {
	t.Parallel()
	server := netip.MustParseAddr("192.0.2.25")
	f, err := tlspolicy.NewFinder(tlspolicy.Options{DNS: dnsOf{
		"a.example":          {MX: []tlspolicy.MX{{Host: "mx2.a.example", Preference: 20}, {Host: "mx1.a.example", Preference: 10}}},
		"mx1.a.example":      {Addrs: []netip.Addr{netip.MustParseAddr("192.0.2.24")}},
		"mx2.a.example":      {Addrs: []netip.Addr{server}},
		"null.example":       {MX: []tlspolicy.MX{{}}},
		"_mta-sts.a.example": {}, "_mta-sts.null.example": {},
	}})
	if err != nil {
		t.Fatal(err)
	}
	o := &onward{finder: f, verified: map[verifiedKey]*verifiedTerms{}}
	o.rules.Store(&onwardRules{})
	terms := func(s policy.OnwardTLS, domain string) (*tlspolicy.Policy, error) {
		return o.Terms(t.Context(), &policy.Settings{Onward: s}, netip.AddrPortFrom(server, 25), domain)
	}
	if p, err := terms(policy.Opportunistic, "b.example"); p != nil || err != nil {
		t.Errorf("opportunistic: %+v, %v", p, err)
	}
	if p, err := terms(policy.RequireTLS, "b.example"); p != required || err != nil {
		t.Errorf("required: %+v, %v", p, err)
	}
	p, err := terms(policy.VerifyTLS, "A.example")
	if err != nil || p.Level != tlspolicy.Verify || strings.Join(p.Names, " ") != "mx1.a.example mx2.a.example" || p.SNI != "mx2.a.example" {
		t.Errorf("verified: %+v, %v", p, err)
	}
	if again, _ := terms(policy.VerifyTLS, "a.example"); again != p {
		t.Error("the same terms are another policy")
	}
	if p, err := terms(policy.VerifyTLS, ""); p != required || err != nil {
		t.Errorf("verified, before a recipient is known: %+v, %v", p, err)
	}
	if p, err := terms(policy.VerifyTLS, "null.example"); err != nil || p.Bar == "" {
		t.Errorf("a domain without mail: %+v, %v", p, err)
	}
	if _, err := terms(policy.VerifyTLS, "b.example"); err == nil {
		t.Error("what could not be asked passes for an answer")
	}
}

func TestPoliciesOnDisk(t *testing.T) {
	t.Parallel()
	f := stsFile(filepath.Join(t.TempDir(), "mta-sts.json"))
	if all, err := f.Load(); err != nil || len(all) != 0 {
		t.Errorf("without a file: %v, %v", all, err)
	}
	want := tlspolicy.Kept{Domain: "a.example", ID: "1", Mode: tlspolicy.ModeEnforce, MX: []string{"*.a.example"}, Fetched: time.Now().UTC().Round(0), Until: time.Now().UTC().Add(time.Hour).Round(0)}
	if err := f.Save([]tlspolicy.Kept{want}); err != nil {
		t.Fatal(err)
	}
	all, err := f.Load()
	if err != nil || len(all) != 1 || all[0].Domain != want.Domain || all[0].MX[0] != want.MX[0] || !all[0].Until.Equal(want.Until) {
		t.Errorf("%+v, %v", all, err)
	}
	if os.WriteFile(string(f), []byte("{"), 0o600) != nil {
		t.Fatal("no file")
	}
	if _, err := f.Load(); err == nil {
		t.Error("a damaged file is not told")
	}
}

func TestWhatDomainsAskForIsCounted(t *testing.T) {
	t.Parallel()
	var c askedCounts
	for _, asks := range []tlspolicy.Report{{Policy: "dane", Result: "ok"}, {Policy: "dane", Result: "no match"}, {Policy: "mta-sts enforce", Result: "ok"},
		{Policy: "mta-sts testing", Result: "expired"}, {Policy: "unknown", Result: "SERVFAIL"}, {Policy: "none"}, {}} {
		c.note(&proxy.Record{Asks: asks})
	}
	if c.dane.ok.Load() != 1 || c.dane.failed.Load() != 1 || c.enforce.ok.Load() != 1 || c.testing.failed.Load() != 1 || c.unknown.Load() != 1 || c.enforce.failed.Load() != 0 {
		t.Errorf("%+v", &c)
	}
}
