package intercept

import (
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"

	"sluice/intercept/control"
)

// free gives addresses of loopback at which nobody listens.
func free(t *testing.T, hosts ...string) (out []netip.AddrPort) {
	t.Helper()
	for _, h := range hosts {
		l, err := net.Listen("tcp", net.JoinHostPort(h, "0"))
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		out = append(out, l.Addr().(*net.TCPAddr).AddrPort())
	}
	return out
}

func reaches(a netip.AddrPort) bool {
	c, err := net.Dial("tcp", a.String())
	if err == nil {
		c.Close()
	}
	return err == nil
}

func TestHousesAreOpenedAndClosed(t *testing.T) {
	t.Parallel()
	at := free(t, "127.0.0.1", "::1", "127.0.0.5")
	var h houses
	defer h.close()
	if err := h.open(at[:2]); err != nil {
		t.Fatal(err)
	}
	if ls := h.listeners(); len(ls) != 2 || ls[0].Name != "smarthost "+at[0].String() || !reaches(at[0]) || !reaches(at[1]) || reaches(at[2]) {
		t.Errorf("%+v", ls)
	}
	if err := h.open(at[1:]); err != nil {
		t.Fatal(err)
	}
	if reaches(at[0]) || !reaches(at[1]) || !reaches(at[2]) {
		t.Error("the change of the list was not followed")
	}
	if err := h.open([]netip.AddrPort{at[1], netip.MustParseAddrPort("192.0.2.7:2525")}); err != nil {
		t.Errorf("an address that comes later: %v", err)
	}
	taken, err := net.Listen("tcp", at[2].String())
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	if err := h.open(at[1:]); err == nil || !strings.Contains(err.Error(), at[2].String()) || !reaches(at[1]) {
		t.Errorf("a port that is taken: %v", err)
	}
}

// TestHousesAreHandedBack: what a proxy held while the helper was away is taken again, if it is what its name says.
func TestHousesAreHandedBack(t *testing.T) {
	t.Parallel()
	at := free(t, "127.0.0.1", "127.0.0.1", "::1")
	var before, after houses
	if err := before.open(at); err != nil {
		t.Fatal(err)
	}
	held := map[string]*os.File{}
	for _, l := range before.listeners() {
		held[l.Name] = l.File
	}
	defer after.close()
	if err := after.open(at); err == nil {
		t.Error("opened beside a proxy that holds them")
	}
	name := control.HouseName
	for _, tc := range []struct {
		name string
		file netip.AddrPort
		want []netip.AddrPort
		bad  bool
	}{
		{name(at[0]), at[0], at, false},
		{name(at[0]), at[1], at, false}, // there already: closed
		{name(at[2]), at[2], at[:1], false},
		{"smarthost nowhere", at[2], at, true},
	} {
		f := held[name(tc.file)]
		if tc.name == name(at[0]) && tc.file == at[1] || tc.name == "smarthost nowhere" || len(tc.want) == 1 {
			c, err := copyOf(f)
			if err != nil {
				t.Fatal(err)
			}
			f = c
		}
		if err := after.adopt(tc.name, f, tc.want); (err != nil) != tc.bad {
			t.Errorf("%s: %v", tc.name, err)
		}
	}
	c, err := copyOf(held[name(at[1])])
	if err != nil {
		t.Fatal(err)
	}
	if err := after.adopt(name(at[2]), c, at); err == nil || !strings.Contains(err.Error(), "it is bound to") {
		t.Errorf("another socket than its name says: %v", err)
	}
	if ls := after.listeners(); len(ls) != 1 || ls[0].Name != name(at[0]) {
		t.Errorf("%+v", ls)
	}
	held[name(at[1])].Close()
	held[name(at[2])].Close()
}

func copyOf(f *os.File) (*os.File, error) {
	l, err := net.FileListener(f)
	if err != nil {
		return nil, err
	}
	defer l.Close()
	return l.(*net.TCPListener).File()
}
