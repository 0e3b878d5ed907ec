package tlspolicy

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"
)

func (r *rig) find(t *testing.T, domain string) *Domain {
	t.Helper()
	d, err := r.Domain(context.Background(), domain)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestDANEAsTheDNSAllows(t *testing.T) {
	t.Parallel()
	leaf := newCA()
	good, pkix := record(3, 1, 1, leaf), record(1, 1, 1, leaf)
	const domain, mx, addr = "a.example", "mx.a.example", "192.0.2.25"
	for _, c := range []struct {
		name  string
		zone  func(z *zone)
		level Level
		names string
		err   string // of the host
	}{
		{"secure all the way", func(z *zone) { z.domain(domain, mx, addr, true); z.tlsa(mx, true, good) }, DANE, "mx.a.example a.example", ""},
		{"nothing published", func(z *zone) { z.domain(domain, mx, addr, true) }, May, "", ""},
		{"the list of exchangers is not secure", func(z *zone) {
			z.domain(domain, mx, addr, true)
			z.set(domain, MXs, Answer{MX: []MX{{mx, 10}}})
			z.tlsa(mx, true, good)
		}, May, "", ""},
		{"the addresses are not secure: the records are not even asked for", func(z *zone) {
			z.domain(domain, mx, addr, true)
			z.set(mx, Addresses, Answer{Addrs: []netip.Addr{netip.MustParseAddr(addr)}})
			z.fail[zoneKey{"_25._tcp." + mx, Records}] = true
		}, May, "", ""},
		{"the records are not secure", func(z *zone) { z.domain(domain, mx, addr, true); z.tlsa(mx, false, good) }, May, "", ""},
		{"the records are forged", func(z *zone) {
			z.domain(domain, mx, addr, true)
			z.fail[zoneKey{"_25._tcp." + mx, Records}] = true
		}, May, "", "TLSA records of mx.a.example"},
		{"the addresses are forged", func(z *zone) {
			z.domain(domain, mx, addr, true)
			z.fail[zoneKey{mx, Addresses}] = true
		}, May, "", "addresses of mx.a.example"},
		{"none can be used", func(z *zone) { z.domain(domain, mx, addr, true); z.tlsa(mx, true, pkix) }, Encrypt, "", ""},
		{"one of two can be used", func(z *zone) { z.domain(domain, mx, addr, true); z.tlsa(mx, true, pkix, good) }, DANE, "mx.a.example a.example", ""},
		{"no exchanger but the domain itself", func(z *zone) {
			z.set(domain, Addresses, Answer{Secure: true, Addrs: []netip.Addr{netip.MustParseAddr(addr)}})
			z.tlsa(domain, true, good)
		}, DANE, "a.example", ""},
		{"an alias, secure to its end", func(z *zone) {
			z.domain(domain, mx, addr, true)
			z.set(mx, Addresses, Answer{Secure: true, Name: "host.b.example", Addrs: []netip.Addr{netip.MustParseAddr(addr)}})
			z.tlsa("host.b.example", true, good)
		}, DANE, "host.b.example mx.a.example a.example", ""},
		{"an alias, secure, with records at its own name only", func(z *zone) {
			z.domain(domain, mx, addr, true)
			z.set(mx, Addresses, Answer{Secure: true, Name: "host.b.example", Addrs: []netip.Addr{netip.MustParseAddr(addr)}})
			z.tlsa(mx, true, good)
		}, DANE, "mx.a.example a.example", ""},
		{"an alias that leads out of what is secure", func(z *zone) {
			z.domain(domain, mx, addr, true)
			z.set(mx, Addresses, Answer{Name: "host.b.example", Addrs: []netip.Addr{netip.MustParseAddr(addr)}})
			z.set(mx, Aliases, Answer{Secure: true, Name: "host.b.example"})
			z.tlsa("host.b.example", true, record(3, 1, 1, newCA()))
			z.tlsa(mx, true, good)
		}, DANE, "mx.a.example a.example", ""},
		{"an alias that is not secure", func(z *zone) {
			z.domain(domain, mx, addr, true)
			z.set(mx, Addresses, Answer{Name: "host.b.example", Addrs: []netip.Addr{netip.MustParseAddr(addr)}})
			z.set(mx, Aliases, Answer{Name: "host.b.example"})
			z.tlsa(mx, true, good)
		}, May, "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			c.zone(r.zone)
			d := r.find(t, domain)
			if len(d.Hosts) != 1 {
				t.Fatalf("%d hosts", len(d.Hosts))
			}
			h := d.Hosts[0]
			told(t, "the host", h.Err, c.err)
			if c.err != "" {
				return
			}
			if h.Policy.Level != c.level || strings.Join(h.Policy.Names, " ") != c.names || h.Policy.SNI == "" || h.Policy.Why == "" {
				t.Errorf("%v for %q (%s), want %v for %q", h.Policy.Level, h.Policy.Names, h.Policy.Why, c.level, c.names)
			}
			if c.level == DANE && h.Policy.Check(state(leaf), nil, at) != nil {
				t.Error("the right certificate does not do")
			}
		})
	}
}

func TestDomainsThatCannotBeLookedUp(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.zone.domain("a.example", "mx.a.example", "192.0.2.25", true)
	r.zone.fail[zoneKey{"a.example", MXs}] = true
	for range 3 {
		if _, err := r.Domain(context.Background(), "a.example"); err == nil || !strings.Contains(err.Error(), "mail exchangers of a.example") {
			t.Fatalf("got %v", err)
		}
	}
	if n := r.zone.times("a.example", MXs); n != 1 {
		t.Errorf("asked %d times within its patience", n)
	}
	delete(r.zone.fail, zoneKey{"a.example", MXs})
	r.clock.pass(afterError + time.Second)
	r.find(t, "A.Example.")
	for _, name := range []string{"", "no host", "[192.0.2.1]", "a..example", strings.Repeat("a.", 130) + "example"} {
		if _, err := r.Domain(context.Background(), name); err == nil {
			t.Errorf("%q was looked up", name)
		}
	}
	r.zone.set("null.example", MXs, Answer{Secure: true, MX: []MX{{"", 0}}})
	if d := r.find(t, "null.example"); !d.Null || len(d.Hosts) != 0 {
		t.Errorf("a domain without mail: %+v", d)
	}
	r.zone.set("odd.example", MXs, Answer{MX: []MX{{"", 0}, {"mx.odd.example", 10}}})
	if d := r.find(t, "odd.example"); d.Null || len(d.Hosts) != 1 || d.Hosts[0].Host != "mx.odd.example" {
		t.Errorf("no host beside a host: %+v", d)
	}
	r.zone.domain("xn--bcher-kva.example", "mx.a.example", "192.0.2.25", true)
	if d := r.find(t, "Bücher.example"); d.Name != "xn--bcher-kva.example" || len(d.Hosts) != 1 {
		t.Errorf("a name that is not ASCII: %+v", d)
	}
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := r.Domain(ended, "slow.example"); !errors.Is(err, context.Canceled) {
		t.Errorf("waited on: %v", err)
	}
}

func TestMTASTSAndDANETogether(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	right := r.ca.issue(issued{names: []string{"mx1.a.example"}})
	other := r.ca.issue(issued{names: []string{"other.example"}})
	r.policy("a.example", "1", sts("enforce", "86400", "mx1.a.example", "mx3.a.example"))
	var mxs []MX
	for i, h := range []string{"mx1.a.example", "mx2.a.example", "mx3.a.example"} {
		mxs = append(mxs, MX{h, uint16(10 * (3 - i))})
		r.zone.set(h, Addresses, Answer{Secure: true, Addrs: []netip.Addr{netip.MustParseAddr("192.0.2.25")}})
	}
	r.zone.set("a.example", MXs, Answer{Secure: true, MX: mxs})
	r.zone.tlsa("mx3.a.example", true, record(3, 1, 1, right))
	d := r.find(t, "a.example")
	if d.Hosts[0].Host != "mx3.a.example" || d.Hosts[2].Host != "mx1.a.example" {
		t.Fatalf("not by preference: %v", d.Hosts)
	}
	dane, unlisted, listed := d.Hosts[0].Policy, d.Hosts[1].Policy, d.Hosts[2].Policy
	if dane.Level != DANE || unlisted.Level != Verify || listed.Level != Verify || listed.Source != MTASTS {
		t.Fatalf("%v, %v, %v", dane, unlisted, listed)
	}
	told(t, "DANE failed, MTA-STS does not mend it (RFC 8461 2)", dane.Check(state(other), r.ca.pool(), at), "no TLSA record")
	told(t, "listed", listed.Check(state(right), r.ca.pool(), at), "")
	told(t, "listed, wrong certificate", listed.Check(state(other), r.ca.pool(), at), "is for other.example")
	told(t, "not listed", unlisted.Check(state(right), r.ca.pool(), at), "does not list mx2.a.example")
	told(t, "plain", listed.Check(nil, r.ca.pool(), at), "not encrypted")

	r.policy("t.example", "1", sts("testing", "86400", "*.other.example"))
	r.zone.domain("t.example", "mx.t.example", "192.0.2.26", false)
	h := r.find(t, "t.example").Hosts[0]
	if h.Policy.Level != May || h.Wish == nil || h.Wish.Check(state(right), r.ca.pool(), at) == nil {
		t.Errorf("testing: %+v, wish %+v", h.Policy, h.Wish)
	}
	r.policy("n.example", "1", sts("none", "86400"))
	r.zone.domain("n.example", "mx.n.example", "192.0.2.27", false)
	if h := r.find(t, "n.example").Hosts[0]; h.Policy.Level != May || h.Wish != nil {
		t.Errorf("none: %+v, wish %+v", h.Policy, h.Wish)
	}
}

func TestPolicyIsKeptWhileItsSuccessorCannotBeHad(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	const day = 24 * time.Hour
	mode := func() Mode {
		t.Helper()
		r.clock.pass(longest + time.Second) // what was found out is asked again
		d := r.find(t, "a.example")
		if d.STS == nil {
			return ""
		}
		return d.STS.Mode
	}
	r.zone.domain("a.example", "mx.a.example", "192.0.2.25", false)
	if mode() != "" || r.files.fetched != 0 {
		t.Fatalf("without a record: fetched %d times", r.files.fetched)
	}
	r.policy("a.example", "1", sts("enforce", "864000", "mx.a.example")) // ten days
	for range 2 {
		if mode() != ModeEnforce || r.files.fetched != 1 {
			t.Fatalf("fetched %d times, want once", r.files.fetched)
		}
	}
	r.zone.fail[zoneKey{"_mta-sts.a.example", Texts}] = true
	if mode() != ModeEnforce {
		t.Error("a resolver that fails lifts the policy")
	}
	delete(r.zone.fail, zoneKey{"_mta-sts.a.example", Texts})
	r.zone.set("_mta-sts.a.example", Texts, Answer{})
	if mode() != ModeEnforce {
		t.Error("a record that is gone lifts the policy (RFC 8461 5.1)")
	}
	r.policy("a.example", "2", "nonsense")
	if mode() != ModeEnforce || r.find(t, "a.example").STSWhy == "" {
		t.Error("a successor that cannot be read lifts the policy, or is not told")
	}
	n := r.files.fetched
	r.clock.pass(-longest)
	if mode(); r.files.fetched != n {
		t.Error("a policy that cannot be had is asked for at once again")
	}
	r.policy("a.example", "3", sts("testing", "864000", "mx.a.example"))
	r.clock.pass(mostRefetch)
	if mode() != ModeTesting {
		t.Error("a new policy is not taken")
	}
	n = r.files.fetched
	r.clock.pass(6 * day)
	r.Refresh(context.Background())
	if r.files.fetched != n+1 {
		t.Errorf("after half of its time it was fetched %d times", r.files.fetched-n)
	}
	r.zone.fail[zoneKey{"_mta-sts.a.example", Texts}] = true
	r.clock.pass(9 * day)
	if mode() != ModeTesting {
		t.Error("gone before its time")
	}
	r.clock.pass(day)
	if mode() != "" {
		t.Error("there after its time")
	}
}

// disk is a store in memory.
type disk struct {
	all []Kept
	err error
	n   int
}

func (d *disk) Load() ([]Kept, error) { return d.all, d.err }
func (d *disk) Save(all []Kept) error {
	d.n++
	if d.err == nil {
		d.all = slices.Clone(all)
	}
	return d.err
}

func TestPoliciesSurviveARestart(t *testing.T) {
	t.Parallel()
	r, store := newRig(t), &disk{}
	r.o.Store = store
	if r.Save() != nil || store.n != 0 {
		t.Error("nothing changed, and it was written")
	}
	r.zone.domain("a.example", "mx.a.example", "192.0.2.25", false)
	r.policy("a.example", "1", sts("enforce", "864000", "mx.a.example"))
	r.find(t, "a.example")
	store.err = errors.New("disk full")
	if r.Save() == nil {
		t.Error("a failure is not told")
	}
	store.err = nil
	if r.Save() != nil || len(store.all) != 1 || r.Save() != nil || store.n != 2 {
		t.Fatalf("saved %d times: %v", store.n, store.all)
	}
	store.all = append(store.all, Kept{Domain: "old.example", Mode: ModeEnforce, Until: at.Add(-time.Hour)}, Kept{Domain: "no host", Until: at.Add(time.Hour)},
		Kept{Domain: "far.example", Until: at.Add(2 * mostAge)})
	r.files.set("a.example", "gone")
	f, err := NewFinder(Options{DNS: r.zone, Fetch: r.files, Now: r.clock.now, Store: store})
	if err != nil || len(f.book.kept) != 1 {
		t.Fatalf("%v, restored %v", err, f.book.kept)
	}
	if d, err := f.Domain(context.Background(), "a.example"); err != nil || d.STS == nil || d.STS.Mode != ModeEnforce {
		t.Errorf("after the restart: %+v, %v", d, err)
	}
	f, err = NewFinder(Options{DNS: r.zone, Fetch: r.files, Store: &disk{err: errors.New("unreadable")}})
	if err == nil || f == nil {
		t.Error("a store that cannot be read is not told, or stops everything")
	}
}

func TestProofThatAServerIsTheDomains(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	server := netip.MustParseAddr("192.0.2.1")
	for _, c := range []struct {
		domain string
		secure bool
		tlsa   bool
		sts    string
		want   string
	}{
		{"dane.example", true, true, "", "dane dane"},
		{"both.example", true, true, "enforce", "dane dane"},
		{"signed.example", true, false, "", "verified dnssec"},
		{"sts.example", false, false, "enforce", "verified mta-sts"},
		{"testing.example", false, false, "testing", ""},
		{"nothing.example", false, false, "", ""},
	} {
		r.zone.domain(c.domain, "mx."+c.domain, server.String(), c.secure)
		if c.tlsa {
			r.zone.tlsa("mx."+c.domain, true, record(3, 1, 1, r.ca))
		}
		if c.sts != "" {
			r.policy(c.domain, "1", sts(c.sts, "86400", "mx."+c.domain))
		}
		p, err := r.Proof(context.Background(), c.domain, server)
		got := ""
		if p != nil {
			got = p.Level.String() + " " + p.Source.String()
		}
		if err != nil || got != c.want || p.Sure() != (c.want != "") {
			t.Errorf("%s: %q, %v; want %q", c.domain, got, err, c.want)
		}
		if p, err := r.Proof(context.Background(), c.domain, netip.MustParseAddr("192.0.2.2")); p != nil || err != nil {
			t.Errorf("%s by another's server: %+v, %v", c.domain, p, err)
		}
	}
	r.zone.domain("forged.example", "mx.forged.example", server.String(), true)
	r.zone.fail[zoneKey{"mx.forged.example", Addresses}] = true
	if p, err := r.Proof(context.Background(), "forged.example", server); p != nil || err == nil {
		t.Errorf("a forged answer proves %+v, %v", p, err)
	}
}
