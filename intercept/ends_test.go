package intercept

import (
	"log/slog"
	"net"
	"net/netip"
	"testing"
	"time"

	"sluice/bpf"
	"sluice/intercept/control"
)

// fakeData is a data path of which only the source table is asked.
type fakeData struct {
	datapath
	*fakeTable
}

func (f fakeData) PutSources(list ...bpf.Source) error { return f.fakeTable.PutSources(list...) }
func (f fakeData) DeleteSources(list ...netip.Prefix) error {
	return f.fakeTable.DeleteSources(list...)
}
func (f fakeData) ReplaceSources(list []bpf.Source) (bpf.Change, error) {
	return f.fakeTable.ReplaceSources(list)
}

// TestModesEndWhateverTheCeiling: a mode ends when its time is over, also beside a source whose fail mode root has since made
// stricter.
func TestModesEndWhateverTheCeiling(t *testing.T) {
	t.Parallel()
	log := slog.New(slog.DiscardHandler)
	table := &fakeTable{entries: map[netip.Prefix]bpf.Source{}}
	e := &Engine{log: log, ceiling: newCeiling(testConfig()), runtime: new(runtimeSet), data: fakeData{fakeTable: table}, journal: &journal{dir: t.TempDir(), log: log}}
	e.ceiling.names = &e.names
	past := time.Now().Add(-time.Second)
	stricter, loose := prefix("192.0.2.1/32"), prefix("198.51.100.9/32")
	for _, s := range []control.Source{
		{Prefix: stricter, User: 7, Mode: control.Intercept, Fail: control.Open, Until: past}, // root says closed by now
		{Prefix: loose, Mode: control.Pass, Until: past},
	} {
		e.runtime.put(s)
		table.entries[s.Prefix] = e.ceiling.entry(s.Prefix, &e.runtime.rules)
	}
	if err := e.endModes(time.Now()); err != nil {
		t.Fatal(err)
	}
	if s, ok := e.runtime.Get(loose); ok || table.entries[loose].Mode != 0 {
		t.Errorf("a mode whose time is over goes on: %+v, in the kernel %+v", s, table.entries[loose])
	}
	if s, _ := e.runtime.Get(stricter); s.Mode != 0 || s.User != 7 || table.entries[stricter].Fail != bpf.FailClosed {
		t.Errorf("of the other is left %+v, in the kernel %+v", s, table.entries[stricter])
	}
}

// TestBindHoldsInside: a longer prefix that only the proxy knows stays bound; one that root names does not.
func TestBindHoldsInside(t *testing.T) {
	t.Parallel()
	c := testConfig()
	mac := net.HardwareAddr{2, 0, 0, 0, 0, 1}
	c.Binds = []Bind{{Prefix: prefix("192.0.2.0/24"), MAC: mac}}
	ce := newCeiling(c)
	ce.names = new(names)
	runtime := new(rules)
	runtime.Put(prefix("192.0.2.5/32"), control.Source{Prefix: prefix("192.0.2.5/32"), User: 9, Fail: control.Closed})
	for p, bound := range map[string]bool{"192.0.2.0/24": true, "192.0.2.5/32": true, "192.0.2.200/32": false} {
		if k := ce.entry(prefix(p), runtime); (k.MAC != nil) != bound {
			t.Errorf("%s: bound to %v", p, k.MAC)
		}
	}
}
