package tlspolicy

import (
	"net/netip"
	"testing"
	"time"
)

// report waits for a judgement.
func (r *rig) report1(t *testing.T, domain, server string, leg Leg) Report {
	t.Helper()
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(time.Millisecond) {
		if rep, ok := r.Judge(domain, netip.MustParseAddr(server), &leg); ok {
			return rep
		}
	}
	t.Fatal("no judgement")
	return Report{}
}

func TestReports(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	right := r.ca.issue(issued{names: []string{"mx.dane.example", "mx.sts.example", "mx.test.example", "mx.none.example"}})
	self := (*authority)(nil).issue(issued{names: []string{"mx.dane.example"}})
	r.zone.domain("dane.example", "mx.dane.example", "192.0.2.1", true)
	r.zone.tlsa("mx.dane.example", true, record(3, 1, 1, self))
	for _, c := range []struct{ name, mode, addr string }{{"sts.example", "enforce", "192.0.2.2"}, {"test.example", "testing", "192.0.2.3"}} {
		r.zone.domain(c.name, "mx."+c.name, c.addr, false)
		r.policy(c.name, "1", sts(c.mode, "86400", "mx."+c.name))
	}
	r.zone.domain("none.example", "mx.none.example", "192.0.2.4", false)
	r.zone.fail[zoneKey{"bogus.example", MXs}] = true
	good, bad, plain := NewLeg(state(right)), NewLeg(state(self)), NewLeg(nil)
	for _, c := range []struct {
		domain, server string
		leg            Leg
		want           Report
		verdict        string
	}{
		{"dane.example", "192.0.2.1", bad, Report{"the certificate is self-signed", "dane", "ok"}, "ok"},
		{"dane.example", "192.0.2.1", good, Report{"trusted for mx.dane.example", "dane", "no TLSA record matches the certificate"}, "failed"},
		{"dane.example", "192.0.2.1", plain, Report{"", "dane", "the connection is not encrypted"}, "failed"},
		{"dane.example", "192.0.2.99", good, Report{"trusted", "none", ""}, ""},
		{"sts.example", "192.0.2.2", good, Report{"trusted for mx.sts.example", "mta-sts enforce", "ok"}, "ok"},
		{"sts.example", "::ffff:192.0.2.2", bad, Report{"the certificate is self-signed", "mta-sts enforce", "the certificate is self-signed"}, "failed"},
		{"test.example", "192.0.2.3", plain, Report{"", "mta-sts testing", "the connection is not encrypted"}, "failed"},
		{"none.example", "192.0.2.4", good, Report{"trusted for mx.none.example", "none", ""}, ""},
		{"bogus.example", "192.0.2.4", good, Report{"trusted", "unknown", "could not ask for the mail exchangers of bogus.example: SERVFAIL"}, "unknown"},
	} {
		got := r.report1(t, c.domain, c.server, c.leg)
		if got != c.want || got.Verdict() != c.verdict {
			t.Errorf("%s at %s: %+v %q, want %+v %q", c.domain, c.server, got, got.Verdict(), c.want, c.verdict)
		}
	}
	if n := r.zone.times("dane.example", MXs); n != 1 {
		t.Errorf("the DNS was asked %d times", n)
	}
	if _, ok := r.Judge("[192.0.2.1]", netip.MustParseAddr("192.0.2.1"), &good); ok {
		t.Error("an address literal has a judgement")
	}
	if p, sure := r.PolicyAt(netip.MustParseAddr("192.0.2.1")); p.ServerName() != "mx.dane.example" || p.Level != DANE || !sure {
		t.Errorf("policy %+v, %v", p, sure)
	}
	if p, sure := r.PolicyAt(netip.MustParseAddr("192.0.2.4")); p.ServerName() != "mx.none.example" || sure {
		t.Errorf("policy %+v, %v", p, sure)
	}
}

// TestJudgingCostsTheMailNothing: what is known is told without memory of its own.
func TestJudgingCostsTheMailNothing(t *testing.T) {
	r := newRig(t)
	r.zone.domain("a.example", "mx.a.example", "192.0.2.1", true)
	leg, server := NewLeg(state(r.ca.issue(issued{names: []string{"mx.a.example"}}))), netip.MustParseAddr("192.0.2.1")
	r.report1(t, "a.example", "192.0.2.1", leg)
	if n := testing.AllocsPerRun(100, func() { r.Judge("a.example", server, &leg) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkJudge(b *testing.B) {
	z := newZone()
	z.domain("a.example", "mx.a.example", "192.0.2.1", true)
	f := must(NewFinder(Options{DNS: z, Fetch: &files{}}))
	leg, server := NewLeg(nil), netip.MustParseAddr("192.0.2.1")
	for known := false; !known; _, known = f.Judge("a.example", server, &leg) {
		time.Sleep(time.Millisecond)
	}
	for b.Loop() {
		f.Judge("a.example", server, &leg)
	}
}

func TestNobodyTakesAServersNameAway(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.zone.domain("dane.example", "mx.dane.example", "192.0.2.1", true)
	r.zone.domain("vain.example", "mx.vain.example", "192.0.2.1", false)
	r.zone.domain("plain.example", "mx.plain.example", "192.0.2.2", false)
	r.zone.domain("vain2.example", "mx.vain2.example", "192.0.2.2", false)
	r.zone.set("guest.example", MXs, Answer{MX: []MX{{Host: "mx.dane.example", Preference: 10}}})
	for _, d := range []string{"vain.example", "dane.example", "vain.example", "guest.example", "plain.example", "vain2.example"} {
		r.find(t, d)
	}
	if _, sure := r.PolicyAt(netip.MustParseAddr("192.0.2.1")); !sure {
		t.Error("a domain that is not signed takes away what vouches for the server's name")
	}
	for a, want := range map[string]string{"192.0.2.1": "mx.dane.example", "192.0.2.2": "mx.plain.example"} {
		if p, _ := r.PolicyAt(netip.MustParseAddr(a)); p.ServerName() != want {
			t.Errorf("%s is %q, want %q", a, p.ServerName(), want)
		}
	}
	r.clock.pass(longest + time.Minute)
	if p, _ := r.PolicyAt(netip.MustParseAddr("192.0.2.1")); p != nil {
		t.Errorf("%+v is remembered for ever", p)
	}
}

func TestWhoseCertificateMayBeInsistedOn(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	right := r.ca.issue(issued{names: []string{"mx.sts.example"}})
	strict := func(a string) string { // asked anew, when all is found out
		t.Helper()
		at := netip.AddrPortFrom(netip.MustParseAddr(a), 25)
		r.Demands(at)
		r.idle(t)
		return r.Demands(at)
	}
	r.zone.set("192.0.2.1", Pointers, Answer{Names: []string{"mx.dane.example."}})
	r.zone.domain("dane.example", "mx.dane.example", "192.0.2.1", true)
	r.zone.tlsa("mx.dane.example", true, record(3, 1, 1, right))
	if strict("192.0.2.1") == "" || strict("::ffff:192.0.2.1") == "" {
		t.Error("a server whose name has TLSA records")
	}
	// Its name is somebody else's, who does not know it.
	r.zone.set("192.0.2.9", Pointers, Answer{Names: []string{"mx.dane.example"}})
	if why := strict("192.0.2.9"); why != "" {
		t.Errorf("a borrowed name: %s", why)
	}
	// A domain points at a server whose certificate is not its own: what it publishes says nothing of the server.
	r.zone.domain("sts.example", "mx.sts.example", "192.0.2.2", false)
	r.policy("sts.example", "1", sts("enforce", "86400", "mx.sts.example"))
	r.report1(t, "sts.example", "192.0.2.2", NewLeg(state(newCA())))
	if why := strict("192.0.2.2"); why != "" {
		t.Errorf("anybody's domain opens a way: %s", why)
	}
	r.report1(t, "sts.example", "192.0.2.2", NewLeg(state(right)))
	if strict("192.0.2.2") == "" {
		t.Error("a server that meets an enforced policy")
	}
	n := r.zone.times("192.0.2.9", Pointers)
	if strict("192.0.2.9"); r.zone.times("192.0.2.9", Pointers) != n {
		t.Error("asked again though it is known")
	}
	r.zone.fail[zoneKey{"192.0.2.3", Pointers}] = true
	if why := strict("192.0.2.3"); why != "" {
		t.Errorf("no answer passes for an answer: %s", why)
	}
	r.clock.pass(afterError + time.Second)
	r.zone.mu.Lock()
	delete(r.zone.fail, zoneKey{"192.0.2.3", Pointers})
	r.zone.mu.Unlock()
	r.zone.set("192.0.2.3", Pointers, Answer{Names: []string{"mx3.dane.example"}})
	r.zone.set("mx3.dane.example", Addresses, Answer{Secure: true, Addrs: []netip.Addr{netip.MustParseAddr("192.0.2.3")}})
	r.zone.tlsa("mx3.dane.example", true, record(3, 1, 1, right))
	if strict("192.0.2.3") == "" {
		t.Error("not asked again after there was no answer")
	}
}

// idle waits until nothing is looked up in the background.
func (r *rig) idle(t *testing.T) {
	t.Helper()
	for range atOnce {
		select {
		case r.slots <- struct{}{}:
		case <-time.After(time.Minute):
			t.Fatal("it does not end")
		}
	}
	for range atOnce {
		<-r.slots
	}
}
