//go:build bpftest

package bpf

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
)

// other makes a spec of another version out of ours: a field before all others in locks and sources, one less in
// exemptions, larger tables, another order of counters, and a map that this version does not have.
func other(t *testing.T) (*ebpf.CollectionSpec, *shape) {
	t.Helper()
	spec, err := loadMail()
	if err != nil {
		t.Fatal(err)
	}
	u32 := &btf.Int{Name: "unsigned int", Size: 4}
	widen := func(name string, by uint32) {
		m := spec.Maps[name]
		s := btf.Copy(btf.UnderlyingType(m.Value)).(*btf.Struct)
		for i := range s.Members {
			s.Members[i].Offset += btf.Bits(8 * by)
		}
		s.Members = append([]btf.Member{{Name: "since", Type: u32}}, s.Members...)
		s.Size += by
		m.Value, m.ValueSize = s, m.ValueSize+by
	}
	widen("locks", 8)
	widen("source_hosts", 4)
	widen("source_nets", 4)
	spec.Maps["source_hosts"].MaxEntries *= 2
	spec.Maps["novelty"] = &ebpf.MapSpec{Name: "novelty", Type: ebpf.Hash, KeySize: 4, ValueSize: 4, MaxEntries: 1, Key: u32, Value: u32}
	is, err := shapeOf(spec)
	if err != nil {
		t.Fatal(err)
	}
	labels := slices.Clone(reasons[:])
	slices.Reverse(labels)
	c := is.Maps["counters"]
	c.Labels = labels
	is.Maps["counters"] = c
	return spec, is
}

// downgrade turns the youngest set in dir into one that the other version made.
func downgrade(t *testing.T, dir string, layout uint32) {
	t.Helper()
	last, err := lastSet(dir)
	if err != nil || last == "" {
		t.Fatal(last, err)
	}
	was, err := readShape(last)
	if err != nil {
		t.Fatal(err)
	}
	spec, is := other(t)
	is.Layout = layout
	set := filepath.Join(dir, setPrefix+"7")
	if err := os.Mkdir(set, 0o700); err != nil {
		t.Fatal(err)
	}
	for name, ms := range spec.Maps {
		if isSection(name) {
			continue
		}
		if ms.Type == ebpf.SockMap || name == "heartbeat" {
			if err := pinTwice(filepath.Join(last, name), filepath.Join(set, name)); err != nil {
				t.Fatal(err)
			}
			continue
		}
		m, err := ebpf.NewMap(ms)
		if err != nil {
			t.Fatal(err)
		}
		if old, ok := was.Maps[name]; ok {
			from, err := ebpf.LoadPinnedMap(filepath.Join(last, name), nil)
			if err != nil {
				t.Fatal(err)
			}
			done, err := carry(from, m, old, is.Maps[name])
			if err != nil || done != (name != "host_cells") { // which is filled with the next list of sources
				t.Fatal(name, done, err)
			}
			from.Close()
		}
		if err := m.Pin(filepath.Join(set, name)); err != nil {
			t.Fatal(err)
		}
		m.Close()
	}
	if err := is.pin(set); err != nil {
		t.Fatal(err)
	}
}

func TestMapsOfAnotherVersionAreCarriedOver(t *testing.T) {
	for _, layout := range []uint32{uint32(mailNumberLAYOUT), uint32(mailNumberLAYOUT) + 1} {
		t.Run(fmt.Sprint("layout ", layout), func(t *testing.T) {
			dir := bpffs(t)
			l := open(t, dir, Options{})
			l.configure(Source{Mode: ModeDrop}, PortRule{Port: 2525})
			s := Source{Prefix: prefix("192.0.2.10/32"), User: 7, Mode: ModeIntercept, Fail: FailClosed, Ifindex: 3, MAC: custMAC}
			var many []Source
			for i := range 2*batchSize + 7 {
				many = append(many, Source{Prefix: prefix(fmt.Sprintf("198.18.%d.%d/32", i>>8, i&255)), User: uint32(i + 1), Mode: ModePass})
			}
			l.sources(append(many, s, Source{Prefix: prefix("2001:db8:1::/96"), User: 8, Mode: ModeReject})...)
			l.locks(Lock{Prefix: prefix("192.0.2.0/28"), ID: 7, Until: in(time.Hour), Budget: 3, KeepFlows: true})
			l.must(l.ReplaceBypasses([]Bypass{{Until: in(time.Minute)}, {Prefix: prefix("203.0.113.0/24"), Until: BypassForGood}}))
			_, err := l.ReplaceExemptions([]Exemption{{Prefix: prefix("198.51.100.0/24"), Port: 25, Mode: ModePass, Until: in(time.Hour)}})
			l.must(err)
			l.beat(300*time.Millisecond, 0)
			l.listener()
			for range 2 {
				l.run(MailIngress, v4.build(), skb{})
			}
			before, users := l.counts(), l.users()
			l.must(l.Close())

			downgrade(t, dir, layout)
			l = open(t, dir, Options{})
			want := []string{"locks", "source_hosts", "source_nets"}
			if got := l.Migrated(); layout == uint32(mailNumberLAYOUT) && !contains(got, want...) || layout != uint32(mailNumberLAYOUT) && !contains(got, "exempt", "config", "locks") {
				t.Errorf("made anew: %v", got)
			}
			for _, name := range append(want, "listeners", "heartbeat", "config", "bypass_nets", "exempt") {
				if l.Empty(name) {
					t.Errorf("%s is empty", name)
				}
			}
			if l.config.Layout != mailNumberLAYOUT || l.config.Ports[0] == 0 {
				t.Errorf("config is %+v", l.config)
			}
			got, err := l.Sources()
			l.must(err)
			if len(got) != len(many)+2 || !slices.ContainsFunc(got, func(x Source) bool { return fmt.Sprint(x) == fmt.Sprint(s) }) {
				t.Errorf("%d sources, want %d with %v", len(got), len(many)+2, s)
			}
			locks, err := l.Datapath.Locks()
			l.must(err)
			if len(locks) != 1 || locks[0].Budget != 3 || !locks[0].KeepFlows || time.Until(locks[0].Until).Round(time.Minute) != time.Hour {
				t.Errorf("locks are %+v", locks)
			}
			if b, err := l.Bypasses(); err != nil || len(b) != 2 {
				t.Errorf("bypasses are %v, %v", b, err)
			}
			if after := l.counts(); fmt.Sprint(after) != fmt.Sprint(before) {
				t.Errorf("counters are %v, want %v", after, before)
			}
			if after := l.users(); fmt.Sprint(after) != fmt.Sprint(users) {
				t.Errorf("users' counters are %v, want %v", after, users)
			}
			if h, err := l.Heartbeat(); err != nil || !h.Beaten || h.Age > time.Minute {
				t.Errorf("heartbeat is %+v, %v", h, err)
			}
			if has, err := l.HasListener(); err != nil || !has {
				t.Errorf("slot filled: %v, %v", has, err)
			}
			l.must(l.Retire())
			if all, err := sets(dir); err != nil || len(all) != 1 {
				t.Errorf("sets are %v, %v", all, err)
			}
			l.must(l.Close())
			l = open(t, dir, Options{})
			if got := l.Migrated(); len(got) != 0 {
				t.Errorf("made anew once more: %v", got)
			}
			l.must(l.Close())
			l.must(Remove(dir))
			if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
				t.Errorf("after Remove there are %v, %v", left, err)
			}
		})
	}
}

func pinTwice(from, to string) error {
	m, err := ebpf.LoadPinnedMap(from, nil)
	if err != nil {
		return err
	}
	defer m.Close()
	c, err := m.Clone()
	if err != nil {
		return err
	}
	defer c.Close()
	return c.Pin(to)
}

func contains(list []string, names ...string) bool {
	for _, n := range names {
		if !slices.Contains(list, n) {
			return false
		}
	}
	return true
}

func (l *lab) users() map[uint32]UserCounters {
	l.Helper()
	all, err := l.UserCounters()
	l.must(err)
	return all
}

// TestCrashWhileMapsAreMadeAnew: until a set is declared whole, the one before is in force.
func TestCrashWhileMapsAreMadeAnew(t *testing.T) {
	dir := bpffs(t)
	l := open(t, dir, Options{})
	l.locks(Lock{Prefix: prefix("192.0.2.10/32"), ID: 7, Budget: 3})
	l.must(l.Close())
	for range 2 {
		d, err := Open(dir, Options{MaxHosts: 300_000})
		l.must(err)
		if d.Empty("locks") || d.Empty("source_hosts") || !slices.Equal(d.Migrated(), []string{"source_hosts"}) {
			t.Errorf("made anew: %v", d.Migrated())
		}
		if all, err := sets(dir); err != nil || len(all) != 2 {
			t.Errorf("sets are %v, %v", all, err)
		}
		l.must(d.Close()) // as a crash before Commit
	}
	if _, err := OpenBypass(dir); err == nil || !strings.Contains(err.Error(), "interrupted") {
		t.Errorf("a bypass beside two sets: %v", err)
	}
	l = open(t, dir, Options{MaxHosts: 300_000})
	l.must(l.Close()) // as a crash before Retire
	l = open(t, dir, Options{MaxHosts: 300_000})
	if locks, err := l.Datapath.Locks(); err != nil || len(locks) != 1 || len(l.Migrated()) != 0 {
		t.Errorf("locks are %v, %v; made anew: %v", locks, err, l.Migrated())
	}
	l.must(l.Retire())
	if all, err := sets(dir); err != nil || len(all) != 1 {
		t.Errorf("sets are %v, %v", all, err)
	}
}

// TestStrangeMaps: what cannot be read begins empty, and says so.
func TestStrangeMaps(t *testing.T) {
	dir := bpffs(t)
	l := open(t, dir, Options{})
	l.locks(Lock{Prefix: prefix("192.0.2.10/32"), ID: 7, Budget: 3})
	l.must(l.Close())
	last, err := lastSet(dir)
	l.must(err)
	path := filepath.Join(last, "exempt")
	l.must(os.Remove(path))
	m, err := ebpf.NewMap(&ebpf.MapSpec{Name: "exempt", Type: ebpf.LPMTrie, KeySize: 8, ValueSize: 4, MaxEntries: 10, Flags: 1})
	l.must(err)
	defer m.Close()
	l.must(m.Pin(path))
	l.must(os.Remove(filepath.Join(last, "runtime")))
	l = open(t, dir, Options{})
	if !l.Empty("exempt") || !l.Empty("runtime") || l.Empty("locks") {
		t.Errorf("made anew: %v; empty: %v", l.Migrated(), l.empty)
	}
	l.must(l.Retire())

	// A description from the future.
	is, err := shapeOf(must(loadMail()))
	l.must(err)
	is.Format++
	last, err = lastSet(dir)
	l.must(err)
	l.must(os.Remove(filepath.Join(last, shapeName)))
	l.must(is.pin(last))
	l.must(l.Close())
	l = open(t, dir, Options{})
	if !l.Empty("locks") || !l.Empty("heartbeat") || !l.Empty("listeners") {
		t.Errorf("taken from a set that cannot be read: %v", l.Migrated())
	}
	if locks, err := l.Datapath.Locks(); err != nil || len(locks) != 0 {
		t.Errorf("locks are %v, %v", locks, err)
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}
