//go:build !nettest

package main

import (
	"bytes"
	"context"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sluice/intercept/control"
)

const plainFile = `
[gateway]
name = "gw.example"
[intercept]
customer_interfaces = ["cust*"]
uplinks = ["up0"]
ports = [25, 2525]
default_mode = "reject"
default_fail = "closed"
daemon_user = "65534"
runtime_loosen = ["192.0.2.128/25"]
[delivery]
prefixes = ["203.0.113.16/28"]
[[exempt]]
prefix = "198.51.100.200/32"
reason = "test"
[[user]]
name = "alice"
prefixes = ["192.0.2.0/29", "2001:db8:1::/64"]
mode = "intercept"
fail = "open"
`

func write(t *testing.T, text string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "sluice.toml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func TestSettings(t *testing.T) {
	t.Parallel()
	s, err := load(write(t, plainFile))
	if err != nil {
		t.Fatal(err)
	}
	e := s.engine
	if s.uid != 65534 || e.Default.Mode != control.Reject || e.Default.Fail != control.Closed {
		t.Errorf("%+v %+v", s, e.Default)
	}
	if len(e.Sources) != 2 || e.Sources[1].Prefix != netip.MustParsePrefix("2001:db8:1::/64") ||
		e.Sources[0].Mode != control.Intercept || e.Sources[0].Fail != control.Open {
		t.Errorf("sources %+v", e.Sources)
	}
	if !slices.Equal(e.Loosen, []netip.Prefix{netip.MustParsePrefix("192.0.2.128/25")}) || len(e.Exempt) != 1 || e.Exempt[0].Mode.String() != "pass" {
		t.Errorf("loosen %v exempt %+v", e.Loosen, e.Exempt)
	}
	if !slices.Equal(e.Ports, []uint16{25, 2525}) || len(e.Delivery) != 1 || e.PinDir == "" || e.Mark == 0 {
		t.Errorf("%+v", e)
	}
}

func TestBadCommandLinesAndFiles(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"nonsense"}, 2, `"nonsense" is no command`},
		{[]string{"--no-such-flag"}, 2, "usage"},
		{[]string{"--config", "x", "rest"}, 2, `"rest" is too much`},
		{[]string{"bypass"}, 2, "usage"},
		{[]string{"bypass", "on"}, 2, "--reason"},
		{[]string{"bypass", "on", "--reason", strings.Repeat("x", 201)}, 2, "200"},
		{[]string{"bypass", "on", "--reason", "x", "--for", "0s"}, 2, "until off"},
		{[]string{"bypass", "on", "--reason", "x", "--prefix", "192.0.2.1/24"}, 2, "write 192.0.2.0/24"},
		{[]string{"bypass", "off", "rest"}, 2, "usage"},
		{[]string{"--config", "/nowhere/sluice.toml"}, 78, "/nowhere/sluice.toml"},
		{[]string{"check", "--config", write(t, "[gateway]\nnmae = 1\n")}, 78, "nmae"},
		{[]string{"--config", write(t, strings.Replace(plainFile, `"65534"`, `"no-such-account"`, 1))}, 78, "useradd"},
	} {
		var out, errs bytes.Buffer
		if code := run(context.Background(), tc.args, &out, &errs); code != tc.code || !strings.Contains(errs.String(), tc.want) {
			t.Errorf("%v: %d %q, want %d %q", tc.args, code, errs.String(), tc.code, tc.want)
		}
	}
	var out, errs bytes.Buffer
	if code := run(context.Background(), []string{"version"}, &out, &errs); code != 0 || !strings.HasPrefix(out.String(), "sluice-intercept ") {
		t.Errorf("version: %d %q", code, out.String())
	}
}
