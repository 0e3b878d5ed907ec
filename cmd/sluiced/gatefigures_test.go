package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"sluice/cmd/internal/api"
	"sluice/cmd/internal/resolver"
	"sluice/filter"
	"sluice/filter/policy"
	"sluice/intercept/flow"
	"sluice/proxy"
	"sluice/proxy/pool"
)

// someSettings are the same for every user.
type someSettings policy.Settings

func (s *someSettings) Settings(uint32) *policy.Settings { return (*policy.Settings)(s) }

// day is a log in the making, a minute older with each record.
type day struct {
	f    *figures
	now  time.Time
	next flow.ID
}

func newDay() *day {
	set := &someSettings{Delivery: policy.Managed, SessionsPerSource: 3, SessionsPerPair: 2, Lock: policy.Lock{SpamCount: 3, SpamShare: 0.2, Window: 10 * time.Minute}}
	same := func(a netip.Addr) netip.Addr { return a }
	return &day{now: time.Date(2027, 1, 31, 12, 0, 0, 0, time.UTC), f: newFigures(set, same, []netip.Addr{netip.MustParseAddr("203.0.113.17")})}
}

// put adds one record of a flow of its own, as change makes it.
func (d *day) put(user string, change func(*proxy.Record)) {
	d.next++
	id := uint32(user[0])
	r := &proxy.Record{
		ID: d.next.String() + ".1", Start: d.now.Add(-time.Duration(d.next) * time.Minute), Duration: time.Second, From: "a@good.example",
		To: []proxy.Recipient{{Address: "b@dest.example", Code: 250}}, Status: proxy.Delivered, Verdict: filter.Verdict{Cause: -1}, Shadow: true,
		Flow: flow.Flow{ID: d.next, Client: netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, byte(id)}), 5000),
			Target: netip.MustParseAddrPort("198.51.100.10:25"), User: flow.User{ID: id, Name: user}},
	}
	r.Flow.Start = r.Start
	if change != nil {
		change(r)
	}
	d.f.add(r)
}

func hit(code string, class filter.Class, would string) func(*proxy.Record) {
	return func(r *proxy.Record) {
		r.Would = would
		r.Verdict = filter.Verdict{Action: filter.Reject, Class: class, Cause: 0, Hits: []filter.Hit{{Code: code, Class: class, Action: filter.Reject}}}
	}
}

// good is a DNS in which only good.example allows everybody.
func (d *day) good() dnsAnswers {
	a := dnsAnswers{spf: map[pool.SPFQuestion]pool.Leave{}, exchangers: map[string]pool.Exchangers{"dest.example": {Addrs: []netip.Addr{netip.MustParseAddr("198.51.100.11")}}}}
	for i := range d.f.mails {
		for _, q := range d.f.mails[i].spfQuestions(d.f.managed) {
			a.spf[q] = pool.Allowed
		}
	}
	return a
}

func (d *day) lines(dns dnsAnswers) (g api.Gate, by map[string]api.GateLine) {
	g = api.Gate{Since: d.now.Add(-24 * time.Hour), Until: d.now, Whole: true}
	d.f.report(&g, dns)
	by = map[string]api.GateLine{}
	for _, l := range g.Lines {
		by[l.Check] = l
	}
	return g, by
}

func TestGateOfGoodMail(t *testing.T) {
	t.Parallel()
	d := newDay()
	d.now = d.now.Add(20 * time.Hour)
	d.next = 20 * 60
	for range 50 {
		d.put("alice", nil)
		d.put("bob", nil)
	}
	g, by := d.lines(d.good())
	if g.Verdict != api.GateOK || g.Users != 2 || g.Flows != 100 || g.Messages != 100 || g.Shadow != 100 || g.Enforced+g.Observed+g.Opaque != 0 {
		t.Errorf("%+v", g)
	}
	for check, l := range by {
		if want := map[bool]string{true: api.GateUnknown, false: api.GateOK}[check == "tls"]; l.Verdict != want || l.Remedy != "" || len(l.Worst) != 0 {
			t.Errorf("%s: %+v", check, l)
		}
	}
}

// TestGateLines has a case for each line, in each verdict.
func TestGateLines(t *testing.T) {
	t.Parallel()
	virus := hit("EICAR", filter.Virus, "550 5.7.1 virus")
	spam := hit("GTUBE", filter.Spam, "550 5.7.1 spam")
	rule := hit("RATE-MSG", filter.Policy, "451 4.7.1 too many")
	for _, tt := range []struct {
		name, check, verdict, text, worst string
		n                                 int // of cases among 100 good messages
		change                            func(*proxy.Record)
		dns                               func(*dnsAnswers)
	}{
		{"none", "refusals", api.GateOK, "nothing would be refused", "", 0, nil, nil},
		{"bad mail is to be refused", "refusals", api.GateLook, "40 of 140 messages (29 %)", "[{mallory 40 GTUBE 40}]", 40, spam, nil},
		{"few by a rule", "refusals", api.GateLook, "RATE-MSG 4", "[{mallory 4 RATE-MSG 4}]", 4, rule, nil},
		{"many by a rule", "refusals", api.GateStop, "RATE-MSG 20", "[{mallory 20 RATE-MSG 20}]", 20, rule, nil},
		{"too few", "locks", api.GateOK, "nobody", "", 2, spam, nil},
		{"spammer", "locks", api.GateLook, "of 3 users 1 were locked, or would be", "[{mallory 3 bad messages}]", 5, spam, nil},
		{"locked", "locks", api.GateLook, "of 3 users 1 ", "[{mallory 1 lock}]", 1, hit("LOCKED", filter.Policy, "451 4.7.1 [LOCKED] locked"), nil},
		{"virus", "locks", api.GateLook, "of 3 users 1 ", "[{mallory 1 bad messages}]", 1, virus, nil},
		{"loses SPF", "spf", api.GateStop, "1 sender domain (9.1 % of the messages)", "[{mallory 10 shop.example 10}]", 10, func(r *proxy.Record) { r.From = "x@Shop.example" },
			func(a *dnsAnswers) {
				a.spf[pool.SPFQuestion{Domain: "shop.example", From: netip.MustParseAddr("203.0.113.17")}] = pool.Forbidden
			}},
		{"fails from everywhere", "spf", api.GateOK, "no sender domain loses", "", 10, func(r *proxy.Record) { r.From = "x@shop.example" },
			func(a *dnsAnswers) {
				a.spf[pool.SPFQuestion{Domain: "shop.example", From: netip.MustParseAddr("203.0.113.17")}] = pool.Forbidden
				a.spf[pool.SPFQuestion{Domain: "shop.example", From: netip.AddrFrom4([4]byte{192, 0, 2, 'm'})}] = pool.Forbidden
			}},
		{"bounce asks the name", "spf", api.GateLook, "mail.shop.example 2", "[{mallory 2 mail.shop.example 2}]", 2, func(r *proxy.Record) { r.From, r.Helo = "", "mail.shop.example" },
			func(a *dnsAnswers) {
				a.spf[pool.SPFQuestion{Domain: "mail.shop.example", From: netip.MustParseAddr("203.0.113.17")}] = pool.Forbidden
			}},
		{"DNS silent", "spf", api.GateLook, "has not answered yet for 20 messages", "", 20, func(r *proxy.Record) { r.From = "x@slow.example" },
			func(a *dnsAnswers) {
				delete(a.spf, pool.SPFQuestion{Domain: "slow.example", From: netip.MustParseAddr("203.0.113.17")})
			}},
		{"smart host", "relay", api.GateStop, "1 destination (17 % of the messages)", "[{mallory 20 203.0.113.200 20}]", 20,
			func(r *proxy.Record) { r.Flow.Target = netip.MustParseAddrPort("203.0.113.200:25") }, func(a *dnsAnswers) {
				a.exchangers["dest.example"] = pool.Exchangers{Addrs: []netip.Addr{netip.MustParseAddr("198.51.100.11"), netip.MustParseAddr("2001:db8::1")}}
			}},
		{"DNS silent about MX", "relay", api.GateLook, "has not answered yet for 20", "", 20, func(r *proxy.Record) { r.To[0].Address = "x@slow.example" }, nil},
		{"opaque, few", "opaque", api.GateOK, "10 of 110 watched connections (9.1 %)", "[{mallory 10 }]", 10, opaqueFlow, nil},
		{"opaque, most", "opaque", api.GateLook, "60 %", "[{mallory 150 }]", 150, opaqueFlow, nil},
		{"passed unread", "opaque", api.GateOK, "10 connections passed unread", "", 10, func(r *proxy.Record) { opaqueFlow(r); r.Shadow = false }, nil},
		{"refuses our certificate", "tls", api.GateStop, "5 connections of 5", "[{mallory 5 198.51.100.10 5}]", 5, func(r *proxy.Record) {
			r.ID, r.Shadow, r.Obstacle, r.Status = r.Flow.ID.String(), false, proxy.NoHandshake, proxy.NoMessage
		}, nil},
		{"takes our certificate", "tls", api.GateOK, "no client", "", 5, func(r *proxy.Record) { r.Shadow = false }, nil},
		{"421", "caps", api.GateStop, "0 connections waited for the greeting, 0 would have, 5 got 421", "[{mallory 5 192.0.2.109 5}]", 5,
			func(r *proxy.Record) { r.Shadow, r.Obstacle = false, proxy.AtCap }, nil},
		{"waited", "caps", api.GateLook, "5 connections waited", "[{mallory 5 192.0.2.109 5}]", 5, func(r *proxy.Record) { r.Shadow, r.Waited = false, time.Second }, nil},
		{"would wait for the pair", "caps", api.GateLook, "1 would have", "[{mallory 1 192.0.2.109 1}]", 3, func(r *proxy.Record) { r.Duration = time.Hour }, nil},
		{"sends one after the other", "caps", api.GateOK, "no source", "", 50, nil, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			d := newDay()
			for range tt.n {
				d.put("mallory", tt.change)
			}
			for range 50 {
				d.put("alice", nil)
				d.put("bob", nil)
			}
			dns := d.good()
			if tt.dns != nil {
				tt.dns(&dns)
			}
			g, by := d.lines(dns)
			l := by[tt.check]
			worst := ""
			if l.Worst != nil {
				worst = fmt.Sprint(l.Worst)
			}
			if l.Verdict != tt.verdict || !strings.Contains(l.Text, tt.text) || !strings.HasPrefix(worst, strings.TrimSuffix(tt.worst, "]")) || worst == "" != (tt.worst == "") {
				t.Errorf("%+v, worst %s", l, worst)
			}
			if worse(g.Verdict, l.Verdict) != g.Verdict {
				t.Errorf("the gate says %s, its line %s", g.Verdict, l.Verdict)
			}
			if (l.Verdict == api.GateLook || l.Verdict == api.GateStop) && l.Remedy == "" {
				t.Error("no remedy")
			}
		})
	}
}

func opaqueFlow(r *proxy.Record) {
	r.ID, r.Status, r.In.Version = r.Flow.ID.String(), proxy.NoMessage, proxy.Opaque
}

func TestGateOfNothing(t *testing.T) {
	t.Parallel()
	d := newDay()
	if g, by := d.lines(dnsAnswers{}); g.Verdict != api.GateLook || !strings.Contains(by["traffic"].Text, "nothing was seen") {
		t.Errorf("%+v", g)
	}
	d.put("alice", nil)
	if _, by := d.lines(d.good()); by["traffic"].Verdict != api.GateLook || !strings.Contains(by["traffic"].Text, "within the last ") || strings.Contains(by["traffic"].Text, "0s") {
		t.Errorf("a minute passed for a day: %+v", by["traffic"])
	}
}

// fewNames is a DNS with two domains; others do not exist.
type fewNames struct{}

func (fewNames) LookupTXT(_ context.Context, name string) ([]string, error) {
	if name == "customer.example." {
		return []string{"v=spf1 ip4:127.0.0.1 -all"}, nil
	}
	return nil, &net.DNSError{IsNotFound: true}
}
func (fewNames) LookupMX(_ context.Context, name string) ([]*net.MX, error) {
	if name == "broken.example." {
		return nil, errors.New("no answer")
	}
	return []*net.MX{{Host: "mx." + name}}, nil
}
func (fewNames) LookupIPAddr(_ context.Context, name string) ([]net.IPAddr, error) {
	return []net.IPAddr{{IP: net.ParseIP("127.0.0.1")}}, nil
}
func (fewNames) LookupAddr(context.Context, string) ([]string, error) {
	return nil, &net.DNSError{IsNotFound: true}
}

func TestGateReadsTheLog(t *testing.T) {
	t.Parallel()
	g := newGateway(t, user)
	g.before = func(d *daemon) { d.authority = newAuthority(resolver.New(resolver.Options{Backend: fewNames{}})) }
	g.start()
	defer g.end()
	c := g.dial()
	c.say("EHLO client.customer.example", "250")
	for _, to := range []string{"bob@mx.example", "bob@broken.example"} {
		if answer := c.mail(to, ham); !strings.HasPrefix(answer, "250") {
			t.Fatalf("answered %q", answer)
		}
	}
	c.mail("bob@mx.example", fmt.Sprintf(gtube, 1))
	g.logged("", 3)
	for _, path := range []string{"/v1/gate", "/v1/gate?user=alice", "/v1/gate?user=127.0.0.1", "/v1/gate?prefix=127.0.0.0/8"} {
		got := get[api.Gate](g, path)
		by := map[string]api.GateLine{}
		for _, l := range got.Lines {
			by[l.Check] = l
		}
		if got.Users != 1 || got.Flows != 1 || got.Messages != 3 || got.Enforced != 1 || by["refusals"].Count != 1 || by["refusals"].Worst[0].Detail != "GTUBE 1" {
			t.Errorf("%s: %+v", path, got)
		}
		if s := by["spf"]; s.Count != 3 || s.Worst[0].User != "alice" || s.Verdict != api.GateLook {
			t.Errorf("%s: customer.example allows 127.0.0.1 and not 127.0.0.2, but: %+v", path, s)
		}
		if r := by["relay"]; r.Count != 0 || r.Unknown != 1 || r.Verdict != api.GateLook {
			t.Errorf("%s: %+v", path, r)
		}
	}
	for _, path := range []string{"/v1/gate?prefix=192.0.2.0/24", "/v1/gate?since=" + time.Now().Add(time.Hour).UTC().Format(time.RFC3339)} {
		if got := get[api.Gate](g, path); got.Flows != 0 || got.Verdict != api.GateLook {
			t.Errorf("%s: %+v", path, got)
		}
	}
	var p *api.Problem
	if err := g.api.Do(context.Background(), "GET", "/v1/gate?user=nobody", nil, nil); !errors.As(err, &p) || p.Code != "no-such-user" {
		t.Errorf("an unknown user: %v", err)
	}
}
