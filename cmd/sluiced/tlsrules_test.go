package main

import (
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"sluice/cmd/internal/api"
	"sluice/cmd/internal/store"
	"sluice/intercept/flow"
	"sluice/proxy"
	"sluice/proxy/distrust"
)

const tlsConfig = `
[tls]
starttls = "terminate"
[[tls.destination]]
prefix = "198.51.100.0/24"
starttls = "pass"
reason = "a partner"
[[tls.destination]]
prefix = "203.0.113.9"
port = 2525
starttls = "strip"
reason = "breaks in TLS"
[[user]]
name = "alice"
prefixes = ["127.0.0.0/8"]
[[user]]
name = "bob"
prefixes = ["192.0.2.8/29"]
starttls = "strip"
starttls_reason = "their appliance"
`

// towards is what becomes of STARTTLS to a destination by its rules.
func towards(g *gateway, target string) string {
	how, why, ok := g.daemon.tlsRules.Towards(netip.MustParseAddrPort(target))
	if !ok {
		return ""
	}
	return how.String() + " " + why
}

// TestTLSRules: the longest prefix wins, with equal ones the one with a port, and with those what was said at run time; a
// restart finds it, a reload keeps it, and each change is in the audit log.
func TestTLSRules(t *testing.T) {
	t.Parallel()
	g := newGateway(t, tlsConfig)
	g.start()
	set := func(r api.TLSRequest, status int, text string) {
		t.Helper()
		r.Reason = "ticket 4711"
		ask(g, "POST", "/v1/starttls", r, status, text)
	}
	check := func(when string, want map[string]string) {
		t.Helper()
		for target, w := range want {
			if got := towards(g, target); got != w {
				t.Errorf("%s, to %s: %q, want %q", when, target, got, w)
			}
		}
	}
	check("as configured", map[string]string{"198.51.100.7:25": "pass a partner", "203.0.113.9:2525": "strip breaks in TLS", "203.0.113.9:25": "", "[2001:db8::7]:25": ""})
	set(api.TLSRequest{Prefix: "198.51.100.7", Policy: "strip"}, 0, "")
	set(api.TLSRequest{Prefix: "198.51.100.7", Port: 25, Policy: "terminate"}, 0, "")
	set(api.TLSRequest{Prefix: "198.51.100.0/24", Policy: "terminate"}, 0, "")
	soon := time.Now().Add(time.Hour)
	set(api.TLSRequest{Prefix: "2001:db8::/32", Policy: "pass", Until: &soon}, 0, "")
	set(api.TLSRequest{User: "alice", Policy: "pass"}, 0, "")
	set(api.TLSRequest{User: "nobody", Policy: "pass"}, http.StatusNotFound, "nobody")
	now := map[string]string{"198.51.100.7:25": "terminate ticket 4711", "198.51.100.7:2525": "strip ticket 4711", "198.51.100.8:25": "terminate ticket 4711", "[2001:db8::7]:25": "pass ticket 4711"}
	check("at run time", now)
	settings := func(name string) string {
		u := get[api.UserDetail](g, "/v1/users/"+name)
		return u.Settings.StartTLS + " " + u.Settings.StartTLSReason
	}
	for name, want := range map[string]string{"alice": "pass ticket 4711", "bob": "strip their appliance"} {
		if got := settings(name); got != want {
			t.Errorf("%s has %q, want %q", name, got, want)
		}
	}
	g.end()
	g.start()
	check("after a restart", now)
	if got := settings("alice"); got != "pass ticket 4711" {
		t.Errorf("after a restart alice has %q", got)
	}
	beaten := 0
	list := get[[]api.TLSRule](g, "/v1/starttls")
	for _, x := range list {
		if x.Beaten {
			beaten++
		}
	}
	if len(list) != 9 || beaten != 1 || list[0].Policy != "terminate" || list[0].User+list[0].Prefix != "" {
		t.Errorf("listed are %+v", list)
	}
	for _, path := range []string{"prefix=198.51.100.7&port=25", "prefix=198.51.100.0/24", "user=alice"} {
		ask(g, "DELETE", "/v1/starttls?"+path, nil, 0, "")
	}
	ask(g, "DELETE", "/v1/starttls?prefix=203.0.113.9&port=2525", nil, http.StatusNotFound, "those of the configuration are removed there")
	check("after some are removed", map[string]string{"198.51.100.7:25": "strip ticket 4711", "198.51.100.8:25": "pass a partner"})
	if got := settings("alice"); got != "terminate " {
		t.Errorf("alice has %q again", got)
	}
	g.configure(strings.ReplaceAll(strings.ReplaceAll(tlsConfig, "a partner", "a good partner"), `starttls = "terminate"`, "starttls = \"strip\"\nstarttls_reason = \"a test\""))
	if err := g.daemon.reload(); err != nil {
		t.Fatal(err)
	}
	check("after a reload", map[string]string{"198.51.100.8:25": "pass a good partner", "[2001:db8::7]:25": "pass ticket 4711"})
	if got := settings("alice"); got != "strip a test" {
		t.Errorf("after a reload alice has %q", got)
	}
	g.configure(strings.ReplaceAll(tlsConfig, `starttls = "terminate"`, `starttls = "strip"`))
	if err := g.daemon.reload(); err == nil || !strings.Contains(err.Error(), "takes encryption") {
		t.Errorf("a reload strips without a reason: %v", err)
	}
	acts, err := g.daemon.store.Acts(100)
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, a := range acts {
		if strings.HasPrefix(a.What, "starttls ") && a.Who != "" {
			n++
		}
	}
	if n != 8 {
		t.Errorf("%d lines about STARTTLS in the audit log: %+v", n, acts)
	}
	g.end()
}

// TestTLSRuleEnds: a rule whose time is over has no effect, whether or not it was removed yet, and then is gone.
func TestTLSRuleEnds(t *testing.T) {
	t.Parallel()
	g := newGateway(t, tlsConfig)
	g.start()
	d := g.daemon
	over := store.Rule{Prefix: netip.MustParsePrefix("198.51.100.7/32"), Mode: "strip", Reason: "x", By: "root", Since: time.Now(), Until: time.Now().Add(-time.Second)}
	if err := d.store.PutTLSRule(over, store.Act{Who: "root", What: "starttls set"}); err != nil {
		t.Fatal(err)
	}
	d.tlsRules.change(func(all []store.Rule) []store.Rule { return append(all, over) })
	if got := towards(g, "198.51.100.7:25"); got != "pass a partner" {
		t.Errorf("after its end: %q", got)
	}
	waitFor(t, func() bool { made, _ := d.tlsRules.list(); return len(made) == 0 })
	if all, err := d.store.TLSRules(); err != nil || len(all) != 0 {
		t.Errorf("left in the store: %+v %v", all, err)
	}
	g.end()
}

// TestFullTLSRulesCanBeChanged: where there are as many rules as may be, one more is refused, and those there can be said anew.
func TestFullTLSRulesCanBeChanged(t *testing.T) {
	t.Parallel()
	g := newGateway(t, tlsConfig)
	g.start()
	g.daemon.tlsRules.change(func(all []store.Rule) []store.Rule {
		for i := range mostTLSRules {
			all = append(all, store.Rule{Prefix: netip.PrefixFrom(netip.AddrFrom4([4]byte{198, 18, byte(i >> 8), byte(i)}), 32), Mode: "pass", Reason: "x", By: "root"})
		}
		return all
	})
	ask(g, "POST", "/v1/starttls", api.TLSRequest{Prefix: "198.51.100.7", Policy: "pass", Reason: "one more"}, http.StatusConflict, "1000 rules")
	ask(g, "POST", "/v1/starttls", api.TLSRequest{Prefix: "198.18.0.7", Policy: "terminate", Reason: "anew"}, 0, "")
	if got := towards(g, "198.18.0.7:25"); got != "terminate anew" {
		t.Errorf("said anew: %q", got)
	}
	g.end()
}

// TestRefusalsByCommand: what was learnt is shown, allowed and forgotten, over a restart; who did it is in the audit log.
func TestRefusalsByCommand(t *testing.T) {
	t.Parallel()
	g := newGateway(t, tlsConfig)
	g.start()
	f := flow.Flow{Client: netip.MustParseAddrPort("127.0.0.9:40000"), Target: netip.MustParseAddrPort("203.0.113.20:25"), User: flow.User{ID: 1, Name: "alice"}}
	g.daemon.distrust.Refused(&f, distrust.Alert, "remote error: tls: bad certificate")
	list := get[[]api.Refusal](g, "/v1/refusals")
	if len(list) != 1 || list[0].Source != "127.0.0.9" || list[0].Alerts != 1 || list[0].Allowed || list[0].User != "alice" || list[0].Connections != distrust.Connections {
		t.Fatalf("learnt: %+v", list)
	}
	if g.daemon.distrust.MayPass(&f) != "" {
		t.Error("it passes for nothing")
	}
	waitFor(t, func() bool { all, err := g.daemon.store.Refusals(); return err == nil && len(all) == 1 })
	ask(g, "POST", "/v1/refusals", api.RefusalRequest{Source: "127.0.0.9", Target: "203.0.113.20", Reason: "ticket 4711"}, 0, "")
	if g.daemon.distrust.MayPass(&f) == "" {
		t.Error("allowed, it does not pass")
	}
	g.end()
	g.start()
	if list = get[[]api.Refusal](g, "/v1/refusals"); len(list) != 1 || !list[0].Allowed || list[0].By == "" || list[0].Why != "ticket 4711" || list[0].Until == nil {
		t.Errorf("after a restart: %+v", list)
	}
	ask(g, "DELETE", "/v1/refusals?source=127.0.0.9&target=203.0.113.20", nil, 0, "")
	ask(g, "DELETE", "/v1/refusals?source=127.0.0.9&target=203.0.113.20", nil, http.StatusNotFound, "nothing is known")
	if g.daemon.distrust.MayPass(&f) != "" || len(get[[]api.Refusal](g, "/v1/refusals")) != 0 {
		t.Error("forgotten, it still passes")
	}
	g.end()
	if log := g.log.String(); !strings.Contains(log, "refuses the gateway's certificate") || !strings.Contains(log, "passes UNREAD") {
		t.Errorf("the journal says\n%s", log)
	}
}

// TestStrangersDoNotFillTheJournal: of many refusals some are told in each minute, and once that there are more.
func TestStrangersDoNotFillTheJournal(t *testing.T) {
	t.Parallel()
	var b toldBudget
	now, told, last := time.Unix(6000, 0), 0, 0
	for range 2 {
		for range 10 * toldPerMinute {
			ok, end := b.take(now)
			if ok {
				told++
			}
			if end {
				last++
			}
		}
		now = now.Add(time.Minute)
	}
	if told != 2*toldPerMinute || last != 2 {
		t.Errorf("%d are told, %d times that there are more", told, last)
	}
}

// TestDoctorOfTheClientLeg: what takes encryption from clients, and who refuses the certificate, is told with the remedy.
func TestDoctorOfTheClientLeg(t *testing.T) {
	t.Parallel()
	if fs := legFindings([]api.TLSRule{{Policy: "terminate"}, {User: "x", Policy: "terminate"}, {Prefix: "y", Policy: "strip", Beaten: true}}, nil); len(fs) != 0 {
		t.Errorf("of a usual gateway: %+v", fs)
	}
	fs := legFindings([]api.TLSRule{{Policy: "strip"}, {User: "alice", Policy: "pass"}, {Prefix: "198.51.100.0/24", Policy: "strip"}}, []api.Refusal{{}, {Allowed: true}, {}})
	var said []string
	for _, f := range fs {
		if (f.State == api.OK) != (f.Remedy == "") {
			t.Errorf("%+v", f)
		}
		said = append(said, f.State+" "+f.Text)
	}
	want := []string{"warn withheld from clients, whose mail anybody on the way can read: all others, to 198.51.100.0/24",
		"ok left to client and destination, unread: alice", "warn 2 pairs of source and destination refuse the gateway's certificate, and 1 more pass unread"}
	if !slices.Equal(said, want) {
		t.Errorf("said %q, want %q", said, want)
	}
	if got := fewOf(make([]string, mostNamed+3)); !strings.HasSuffix(got, "and 3 more") {
		t.Errorf("of many: %q", got)
	}
}

type discard struct{}

func (discard) Put(*proxy.Record) {}
