//go:build labtest

package lab

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// fakePrograms is a folder with programs in the place of the gateway's: they
// tell what they may do, report ready, and stay.
func fakePrograms(t *testing.T) string {
	dir := t.TempDir()
	for _, p := range programs {
		text := "#!/bin/sh\necho \"uid $(id -u) on $(hostname)\"\ngrep Cap /proc/self/status\ngrep ' bpf ' /proc/mounts\nls /sys/class/net\necho ready\nexec sleep 600\n"
		if err := writeProgram(filepath.Join(dir, p), strings.NewReader(text)); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestGatewayProgramsRunWithTheirRights(t *testing.T) {
	t.Parallel()
	ctx, l := testContext(t), ForTest(t, Options{})
	g, err := l.StartGateway(ctx, GatewayOptions{Binaries: fakePrograms(t), Extra: "# the end\n"})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		p    *Process
		want []string
	}{
		{g.Sluiced, []string{"uid 65534 on gw.example", "CapEff:\t0000000000000000", "CapPrm:\t0000000000000000", "cust3", "up0"}},
		{g.Intercept, []string{"uid 0 on gw.example", g.Dir + "/bpf bpf", "cust0"}},
	} {
		log, err := os.ReadFile(c.p.LogPath())
		if err != nil {
			t.Fatal(err)
		}
		for _, w := range c.want {
			if !strings.Contains(string(log), w) {
				t.Errorf("%q is not in %s", w, log)
			}
		}
	}
	old := g.Sluiced.Pid()
	if err := g.RestartSluiced(ctx); err != nil {
		t.Fatal(err)
	}
	if g.Sluiced.Pid() == old {
		t.Error("the restart left the old process")
	}
	if err := g.Intercept.Kill(); err != nil {
		t.Fatal(err)
	}
	if g.Intercept.Err() == nil {
		t.Error("a killed process ended well")
	}
	text, err := os.ReadFile(g.Config)
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range []string{`prefixes = ["203.0.113.16/28", "2001:db8:203:1::/64"]`, `prefixes = ["192.0.2.66/32", "2001:db8:66::66/128"]`, "# the end"} {
		if !strings.Contains(string(text), w) {
			t.Errorf("%q is not in the configuration:\n%s", w, text)
		}
	}
}
