//go:build bpftest

package bpf

import (
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
)

func open(t *testing.T, dir string, o Options) *lab {
	t.Helper()
	d, err := Open(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	l := &lab{TB: t, Datapath: d}
	l.must(d.Commit())
	return l
}

func TestMapsOutliveTheLoader(t *testing.T) {
	dir := bpffs(t)
	l := open(t, dir, Options{})
	l.configure(Source{Mode: ModeDrop}, PortRule{Port: 2525})
	s := Source{Prefix: prefix("2001:db8:1:2::/96"), User: 7, Mode: ModeReject, Fail: FailClosed, ReversePath: true, Ifindex: 3, MAC: custMAC, Owner: prefix("2001:db8:1::/48")}
	l.sources(s)
	l.locks(Lock{Prefix: prefix("192.0.2.10/32"), ID: 7, Until: in(time.Hour), Budget: 3, KeepFlows: true})
	l.must(l.ReplaceBypasses([]Bypass{{Until: in(time.Minute)}}))
	l.run(MailIngress, v4.build(), skb{})
	l.must(l.Close())

	l = open(t, dir, Options{MaxHosts: 1000}) // smaller than what stands: the larger one stays
	if r := l.Migrated(); len(r) != 0 || l.Empty("locks") {
		t.Errorf("made anew: %v, want nothing", r)
	}
	got, err := l.Sources()
	l.must(err)
	if len(got) != 1 || fmt.Sprint(got[0]) != fmt.Sprint(s) {
		t.Errorf("sources are %v, want %v", got, s)
	}
	locks, err := l.Datapath.Locks()
	l.must(err)
	if len(locks) != 1 || locks[0].Budget != 3 || !locks[0].KeepFlows || time.Until(locks[0].Until).Round(time.Minute) != time.Hour {
		t.Errorf("locks are %+v", locks)
	}
	if b, err := l.Bypasses(); err != nil || len(b) != 1 || time.Until(b[0].Until).Round(10*time.Second) != time.Minute {
		t.Errorf("bypasses are %v, %v", b, err)
	}
	if c := l.counts(); c["drop"] != 1 {
		t.Errorf("counters are %v", c)
	}
	if l.config.Ports[0] == 0 || l.config.Flags&mailConfigFlagCONFIG_LONG6 == 0 {
		t.Errorf("config is %+v", l.config)
	}
	l.must(l.Close())
	l.must(Remove(dir))
	l.must(Remove(dir))
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Errorf("after Remove there are %v, %v", left, err)
	}
}

func TestReplaceTouchesOnlyWhatChanged(t *testing.T) {
	l := newLab(t, Options{MaxHosts: 4})
	src := func(s string, m Mode) Source { return Source{Prefix: prefix(s), Mode: m} }
	steps := []struct {
		list []Source
		want Change
	}{
		{[]Source{src("192.0.2.1/32", ModePass), src("192.0.2.2/32", ModePass), src("192.0.2.0/24", ModePass)}, Change{Put: 3}},
		{[]Source{src("192.0.2.1/32", ModePass), src("192.0.2.2/32", ModeDrop), src("192.0.2.0/25", ModePass)}, Change{Put: 2, Deleted: 1, Kept: 1}},
		// Old and new together do not fit.
		{[]Source{src("192.0.2.3/32", ModePass), src("192.0.2.4/32", ModePass), src("192.0.2.5/32", ModePass)}, Change{Put: 3, Deleted: 3}},
		{nil, Change{Deleted: 3}},
	}
	for i, s := range steps {
		got, err := l.ReplaceSources(s.list)
		if err != nil || got != s.want {
			t.Errorf("step %d: %+v, %v; want %+v", i, got, err, s.want)
		}
	}
	l.must(l.PutSources(src("192.0.2.1/32", ModePass), src("2001:db8::/120", ModeDrop)))
	l.must(l.DeleteSources(prefix("192.0.2.1/32"), prefix("192.0.2.9/32"), prefix("203.0.113.0/24")))
	if list, err := l.Sources(); err != nil || len(list) != 1 {
		t.Errorf("sources are %v, %v", list, err)
	}
}

func TestBadInputIsRefused(t *testing.T) {
	l := newLab(t, Options{MaxHosts: 2})
	ok := Source{Prefix: prefix("192.0.2.1/32"), Mode: ModePass}
	change := func(f func(*Source)) []Source { s := ok; f(&s); return []Source{s} }
	for want, list := range map[string][]Source{
		"bits beyond the length": change(func(s *Source) { s.Prefix = netip.MustParsePrefix("192.0.2.1/24") }),
		"not valid":              change(func(s *Source) { s.Prefix = netip.Prefix{} }),
		"plain IPv4 or IPv6":     change(func(s *Source) { s.Prefix = netip.MustParsePrefix("::ffff:192.0.2.0/120") }),
		"none that packets":      change(func(s *Source) { s.Mode = ModeNone }),
		"not an Ethernet":        change(func(s *Source) { s.MAC = custMAC[:4] }),
		"given twice":            {ok, ok},
		"3 entries, room for 2":  {ok, {Prefix: prefix("192.0.2.2/32"), Mode: ModePass}, {Prefix: prefix("192.0.2.3/32"), Mode: ModePass}},
	} {
		if _, err := l.ReplaceSources(list); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error is %v, want one with %q", err, want)
		}
	}
	good := Config{InterceptMark: 1, JudgedMark: 2, Default: ok}
	for want, f := range map[string]func(*Config){
		"not the same":      func(c *Config) { c.JudgedMark = 1 },
		"must be one bit":   func(c *Config) { c.InterceptMark = 3 },
		"default":           func(c *Config) { c.Default.Mode = ModeNone },
		"25 is a mail port": func(c *Config) { c.Ports = []PortRule{{Port: 25}} },
		"only pass":         func(c *Config) { c.Ports = []PortRule{{Port: 26, Mode: ModeDrop}} },
		"no more than 8":    func(c *Config) { c.Ports = ports(9) },
	} {
		c := good
		f(&c)
		if err := l.SetConfig(c); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error is %v, want one with %q", err, want)
		}
	}
	if err := l.SetListenerFD(0); err == nil {
		t.Error("a descriptor that is no socket was taken as listener")
	}
	if _, err := Open(t.TempDir(), Options{}); err == nil || !strings.Contains(err.Error(), "bpffs") {
		t.Errorf("Open without a bpffs gives %v", err)
	}
}

func ports(n uint16) (list []PortRule) {
	for i := range n {
		list = append(list, PortRule{Port: 2000 + i})
	}
	return list
}

func TestCountersHaveNames(t *testing.T) {
	seen := map[string]bool{}
	for i, name := range reasons {
		if name == "" || seen[name] {
			t.Errorf("reason %d is called %q", i, name)
		}
		seen[name] = true
	}
	for name, r := range map[string]mailReason{"established": mailReasonREASON_ESTABLISHED, "lock_cut": mailReasonREASON_LOCK_CUT, "nested_vlan": mailReasonREASON_NESTED_VLAN, "user_full": mailReasonREASON_USER_FULL} {
		if reasons[r] != name {
			t.Errorf("reason %d is called %q, want %q", r, reasons[r], name)
		}
	}
}

func TestUserCounters(t *testing.T) {
	l := newLab(t, Options{MaxUsers: 1, Slots: 1})
	l.reset()
	l.sources(Source{Prefix: prefix("192.0.2.10/32"), User: 7, Mode: ModeReject}, Source{Prefix: prefix("2001:db8:1::/64"), User: 8, Mode: ModePass})
	l.run(MailIngress, v4.build(), skb{})
	l.run(MailIngress, v4.build(), skb{})
	l.run(MailIngress, v6.build(), skb{})
	got, err := l.UserCounters()
	l.must(err)
	if want := (UserCounters{SYN: 2, Rejected: 2}); len(got) != 1 || got[7] != want {
		t.Errorf("counters are %+v, want %+v of user 7", got, want)
	}
	if n := l.counts()["user_full"]; n == 0 {
		t.Error("the user who found no room was not counted")
	}
	l.must(l.ForgetUsers(7, 9))
	if got, err = l.UserCounters(); err != nil || len(got) != 0 {
		t.Errorf("counters are %+v, %v after ForgetUsers", got, err)
	}
}

func TestListenerSlot(t *testing.T) {
	l := newLab(t, Options{})
	has := func(want bool) {
		t.Helper()
		if got, err := l.HasListener(); err != nil || got != want {
			t.Errorf("slot filled: %v, %v; want %v", got, err, want)
		}
	}
	has(false)
	l.must(l.ClearListener())
	l.listener()
	has(true)
	l.must(l.ClearListener())
	has(false)
	l.beat(2*time.Second, 5*time.Second)
	h, err := l.Heartbeat()
	l.must(err)
	if !h.Beaten || h.Age.Round(time.Second) != 2*time.Second || h.Restarting.Round(time.Second) != 5*time.Second {
		t.Errorf("heartbeat is %+v", h)
	}
}

// TestReplacingNeverOpens watches one address while the rules above it change places between the tables.
func TestReplacingNeverOpens(t *testing.T) {
	l := newLab(t, Options{})
	l.configure(Source{Mode: ModePass})
	strict := func(p string) Source { return Source{Prefix: prefix(p), User: 7, Mode: ModeDrop, Fail: FailClosed} }
	loose := func(p string) Source { return Source{Prefix: prefix(p), User: 8, Mode: ModePass} }
	var filler []Source
	for i := range 20_000 {
		filler = append(filler, loose(fmt.Sprintf("10.%d.%d.0/24", i>>8, i&255)))
	}
	states := [][]Source{
		{strict("192.0.2.0/24")},
		append([]Source{strict("192.0.2.10/32")}, filler...),
		append([]Source{strict("192.0.2.0/28"), loose("192.0.0.0/16")}, filler...),
		{strict("192.0.0.0/8")},
		append([]Source{loose("192.0.0.0/15"), strict("192.0.2.8/29")}, filler[:9_000]...),
	}
	l.sources(states[0]...)
	packet := readdress(v4.build(), gwMAC, l.address(0))
	stop, done := make(chan struct{}), make(chan int)
	go func() {
		open := 0
		for {
			select {
			case <-stop:
				done <- open
				return
			default:
			}
			ret, err := l.Program(MailIngress).Run(&ebpf.RunOptions{Data: packet})
			if err != nil || ret != shot {
				open++
			}
		}
	}()
	for i := range 15 {
		l.sources(states[i%len(states)]...)
	}
	close(stop)
	if n := <-done; n > 0 {
		t.Errorf("%d packets of a source that is dropped in every state got through", n)
	}
}
