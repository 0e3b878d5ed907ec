package distrust

import (
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"sluice/intercept/flow"
)

// memory is a store that can fail.
type memory struct {
	mu    sync.Mutex
	all   map[Pair]Entry
	fails error
	turns int
}

func (m *memory) Refusals() (list []Entry, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, e := range m.all {
		list = append(list, e)
	}
	return list, m.fails
}

func (m *memory) PutRefusals(put []Entry, gone []Pair) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.turns++; m.fails != nil {
		return m.fails
	}
	for _, e := range put {
		m.all[e.Pair] = e
	}
	for _, p := range gone {
		delete(m.all, p)
	}
	return nil
}

// owners publish what they are set to.
type owners map[netip.AddrPort]string

func (o owners) Demands(t netip.AddrPort) string { return o[t] }

type rig struct {
	*Ledger
	t      *testing.T
	store  *memory
	owners owners
	now    time.Time
	events []string
}

func newRig(t *testing.T) *rig {
	r := &rig{t: t, store: &memory{all: map[Pair]Entry{}}, owners: owners{}, now: time.Date(2027, 1, 31, 12, 0, 0, 0, time.UTC)}
	r.restart()
	return r
}

// restart makes the ledger anew from its store.
func (r *rig) restart() {
	r.t.Helper()
	var err error
	r.Ledger, err = New(Options{Store: r.store, Published: r.owners, Now: func() time.Time { return r.now },
		Events: func(e Event) {
			r.events = append(r.events, fmt.Sprint(e.Kind, " ", e.Entry.Source, " ", e.Entry.Target))
		}})
	if err != nil {
		r.t.Fatal(err)
	}
}

func flowFrom(source, target string) *flow.Flow {
	return &flow.Flow{Client: netip.AddrPortFrom(netip.MustParseAddr(source), 40000), Target: netip.MustParseAddrPort(target), User: flow.User{ID: 7, Name: "alice"}}
}

const (
	src  = "192.0.2.10"
	dst  = "198.51.100.20:25"
	dst2 = "198.51.100.21:25"
)

// learn has a client refuse by an alert.
func (r *rig) learn(source, target string) *flow.Flow {
	f := flowFrom(source, target)
	r.Refused(f, Alert, "remote error: tls: unknown certificate authority")
	return f
}

// save writes, and wants no error.
func (r *rig) save() {
	r.t.Helper()
	if err := r.Save(); err != nil {
		r.t.Fatal(err)
	}
}

func TestWhatIsLearnt(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		signs []Way
		gap   time.Duration
		trust int // after so many signs the client sends mail under the certificate
		want  bool
	}{
		"an alert":                    {signs: []Way{Alert}, want: true},
		"a close in the handshake":    {signs: []Way{Shake}},
		"two":                         {signs: []Way{Shake, Shake}},
		"three":                       {signs: []Way{Shake, Shake, Shake}, want: true},
		"three that left":             {signs: []Way{Left, Left, Left}, want: true},
		"mixed":                       {signs: []Way{Left, Shake, Left}, want: true},
		"three, a day between":        {signs: []Way{Shake, Shake, Shake}, gap: 25 * time.Hour},
		"three, with mail between":    {signs: []Way{Shake, Shake, Shake}, trust: 2},
		"an alert, and mail after it": {signs: []Way{Alert}, trust: 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r, f := newRig(t), flowFrom(src, dst)
			for i, w := range tc.signs {
				r.Refused(f, w, "text")
				if r.now = r.now.Add(tc.gap); i+1 == tc.trust {
					r.Trusted(f)
				}
			}
			list := r.List()
			if (len(list) == 1) != tc.want {
				t.Fatalf("learnt %+v", list)
			}
			if tc.want && (list[0].User != "alice" || list[0].Source.String() != src+"/32" || list[0].Text != "text" || list[0].Alerts+list[0].Shakes+list[0].Lefts != len(tc.signs)) {
				t.Errorf("the entry says %+v", list[0])
			}
			if r.MayPass(f) != "" {
				t.Error("it passes without anybody's leave")
			}
			r.save()
			if n := len(r.store.all); n != len(list) {
				t.Errorf("%d entries are on disk, %d are learnt", n, len(list))
			}
		})
	}
}

// TestAnAbortBuysNothing: whatever a client does, its STARTTLS passes only where the destination's owner or a person wants
// that, only to that destination, and only from there.
func TestAnAbortBuysNothing(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	f := r.learn(src, dst)
	if _, ok := r.Pass(f); ok || r.MayPass(f) != "" {
		t.Error("an abort bought a tunnel")
	}
	r.owners[f.Target] = "TLSA"
	if r.MayPass(f) == "" {
		t.Error("the destination publishes TLSA, and the client must not take our certificate")
	}
	for _, other := range []*flow.Flow{flowFrom(src, dst2), flowFrom("192.0.2.11", dst), flowFrom(src, "198.51.100.20:2525")} {
		if r.MayPass(other) != "" {
			t.Errorf("%v to %v passes, too", other.Client, other.Target)
		}
	}
	if _, ok := r.Pass(flowFrom(src, dst2)); ok {
		t.Error("another destination's connection is booked")
	}
	if want := "granted 192.0.2.10/32 " + dst; r.events[len(r.events)-1] != want {
		t.Errorf("events: %q", r.events)
	}
	if g := r.List()[0].Grant; g.By != "" || !strings.Contains(g.Why, "TLSA") || g.Until.Sub(r.now) != GrantTime {
		t.Errorf("the grant is %+v", g)
	}
}

// TestStanding: who is locked or was, for bad mail, has no grant but from a person.
func TestStanding(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	good := false
	r.o.Standing = func(user uint32) bool { return good && user == 7 }
	f := r.learn(src, dst)
	r.owners[f.Target] = "TLSA"
	if r.MayPass(f) != "" || r.List()[0].Grant != (Grant{}) {
		t.Error("granted to whom bad mail has locked")
	}
	if good = true; r.MayPass(f) == "" {
		t.Error("not granted to whom nothing is said against")
	}
	good = false
	if _, ok := r.Pass(f); ok || r.MayPass(f) != "" {
		t.Error("a grant outlives the standing of its user")
	}
	if _, err := r.Allow(pairOf(f), Grant{By: "carol"}, "alice"); err != nil || r.MayPass(f) == "" {
		t.Errorf("a person's grant is not in force: %v", err)
	}
}

// TestTunnelIsBounded: 30 connections and 50 MB in any hour, of a source to all its destinations together.
func TestTunnelIsBounded(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a, b := r.learn(src, dst), r.learn(src, dst2)
	r.owners[a.Target], r.owners[b.Target] = "TLSA", "MTA-STS"
	begun := 0
	for i := range 100 {
		f := a
		if i%2 == 1 {
			f = b
		}
		if r.MayPass(f) == "" {
			continue
		}
		if _, ok := r.Pass(f); ok {
			begun++
		}
		r.now = r.now.Add(10 * time.Second)
	}
	if begun != Connections {
		t.Errorf("%d connections in %v", begun, 100*10*time.Second)
	}
	if c, _ := r.Left(SourceOf(a.Client.Addr())); c != 0 {
		t.Errorf("%d are left", c)
	}
	r.now = r.now.Add(window + slotTime)
	spend, ok := r.Pass(b)
	if !ok {
		t.Fatal("after an hour there is none")
	}
	passed := 0
	for passed <= 2*Bytes && spend(32<<10) {
		passed += 32 << 10
	}
	if passed > Bytes || passed < Bytes-64<<10 {
		t.Errorf("%d bytes passed", passed)
	}
	if r.MayPass(a) != "" || spend(32<<10) {
		t.Error("there is room after the last byte")
	}
	n := 0
	for _, e := range r.events {
		if strings.HasPrefix(e, "spent ") {
			n++
		}
	}
	if n != 2 { // of connections, then of bytes
		t.Errorf("somebody heard %d times that nothing is left: %q", n, r.events)
	}
}

// TestSourceOfIPv6IsItsNetwork: the addresses of one /64 are one source.
func TestSourceOfIPv6IsItsNetwork(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	f := r.learn("2001:db8:1::10", "[2001:db8:100::20]:25")
	r.owners[f.Target] = "TLSA"
	other := flowFrom("2001:db8:1::dead:beef", "[2001:db8:100::20]:25")
	for range Connections {
		if _, ok := r.Pass(other); !ok && r.MayPass(other) != "" {
			if _, ok = r.Pass(other); !ok {
				t.Fatal("a neighbour in the same /64 is somebody else")
			}
		}
	}
	if _, ok := r.Pass(f); ok {
		t.Error("the /64 has more than one source's share")
	}
}

// TestGrantEnds: by its time, by mail under our certificate, or by a person; connections end with it.
func TestGrantEnds(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(*rig, *flow.Flow){
		"time":     func(r *rig, _ *flow.Flow) { r.now = r.now.Add(GrantTime) },
		"trust":    func(r *rig, f *flow.Flow) { r.Trusted(f) },
		"a person": func(r *rig, f *flow.Flow) { _, err := r.Forget(pairOf(f)); r.must(err) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			f := r.learn(src, dst)
			r.owners[f.Target] = "TLSA"
			if r.MayPass(f) == "" {
				t.Fatal("no grant")
			}
			spend, ok := r.Pass(f)
			if !ok || !spend(1) {
				t.Fatal("nothing to spend")
			}
			r.save()
			end(r, f)
			if spend(1) {
				t.Error("the connection goes on")
			}
			r.save()
			if r.MayPass(f) != "" || len(r.List()) != 0 || len(r.store.all) != 0 {
				t.Errorf("left: %+v on disk %+v", r.List(), r.store.all)
			}
		})
	}
}

func (r *rig) must(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
}
