//go:build labtest

package lab

import (
	"context"
	"encoding/binary"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestMillion loads a list of prefixes, each with a user of its own, and changes single ones: twenty thousand of them, or
// as many as SLUICE_PREFIXES says.
func TestMillion(t *testing.T) {
	t.Parallel()
	ctx := testContext(t)
	l := ForTest(t, Options{})
	g := startGatewayWith(t, l, looseConfig)
	n := 20_000
	if _, err := fmt.Sscan(os.Getenv("SLUICE_PREFIXES"), &n); err == nil {
		t.Logf("%d prefixes", n)
	}
	list := filepath.Join(g.Dir, "customers.csv")
	writeList(t, list, n)
	took := func(what string, args ...string) time.Duration {
		t.Helper()
		began := time.Now()
		out, err := g.Sluice(ctx, args...)
		if err != nil || out.Code != 0 {
			t.Fatalf("%s: %v, exit %d: %s", what, err, out.Code, out.Stderr)
		}
		d := time.Since(began)
		t.Logf("%s: %v: %s", what, d.Round(time.Millisecond), strings.TrimSpace(out.Stdout))
		return d
	}
	whole := took("import", "users", "import", "--replace", list)
	memory(t, g)
	took("import again", "users", "import", "--replace", list)
	var st struct{ Helper struct{ Sources int } }
	if err := sluiceJSON(ctx, g, &st, "status"); err != nil || st.Helper.Sources < n {
		t.Errorf("the kernel has %d sources, %v", st.Helper.Sources, err)
	}

	// One prefix of many costs no more than one of few.
	alone := time.Hour
	for i := range 5 {
		p := fmt.Sprintf("198.18.0.%d", 2*i+1)
		alone = min(alone, took("one mode", "mode", "set", p, "reject", "--reason", "x"))
		alone = min(alone, took("one mode back", "mode", "remove", p))
		took("one user", "users", "add", fmt.Sprintf("late%d", i), fmt.Sprintf("203.0.113.%d", 200+i))
	}
	if n > 500_000 && alone > whole/20 {
		t.Errorf("one change takes %v, all of them %v", alone, whole)
	}
	took("a mode around many", "mode", "set", "198.18.0.0/15", "reject", "--reason", "x")
	took("and back", "mode", "remove", "198.18.0.0/15")
	var m struct{ Mode, User string }
	if err := sluiceJSON(ctx, g, &m, "mode", "show", "198.18.0.1"); err != nil || m.Mode != "intercept" || m.User != "c1" {
		t.Errorf("%+v %v", m, err)
	}
	served(t, l, "alice", "", sink4)
	for what, again := range map[string]func(context.Context) error{"sluice-intercept": g.RestartIntercept, "sluiced": g.RestartSluiced} {
		began := time.Now()
		if err := again(ctx); err != nil {
			t.Fatal(err)
		}
		t.Logf("restart of %s: %v", what, time.Since(began).Round(time.Millisecond))
		served(t, l, "alice", "", sink6)
	}
	memory(t, g)
}

// writeList writes n single addresses and /64s.
func writeList(t *testing.T, name string, n int) {
	t.Helper()
	var b strings.Builder
	v4 := binary.BigEndian.Uint32([]byte{198, 18, 0, 0})
	for i := range n {
		if i < n/4 && i < 1<<17 {
			var a [4]byte
			binary.BigEndian.PutUint32(a[:], v4+uint32(i))
			fmt.Fprintf(&b, "%v,c%d\n", netip.AddrFrom4(a), i)
			continue
		}
		fmt.Fprintf(&b, "2001:db8:%x:%x::/64,c%d\n", 0x8000+i>>16, i&0xffff, i)
	}
	if err := os.WriteFile(name, []byte(b.String()), 0o644); err != nil {
		t.Fatal(err)
	}
}

// memory logs what both programs hold.
func memory(t *testing.T, g *Gateway) {
	t.Helper()
	for name, p := range map[string]*Process{"sluiced": g.Sluiced, "sluice-intercept": g.Intercept} {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.Pid()))
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(b)) {
			if strings.HasPrefix(line, "VmRSS") || strings.HasPrefix(line, "VmHWM") {
				t.Log(name, strings.Join(strings.Fields(line), " "))
			}
		}
	}
}
