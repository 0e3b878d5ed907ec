package main

import (
	"context"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sluice/intercept/control"
)

func TestCommandLine(t *testing.T) {
	t.Parallel()
	const minimal = "[gateway]\nname = \"gw.example\"\n[intercept]\ncustomer_interfaces = [\"cust*\"]\nuplinks = [\"up0\"]\ndaemon_user = \"65534\"\n"
	file := func(text string) string {
		p := filepath.Join(t.TempDir(), "sluice.toml")
		if err := os.WriteFile(p, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return p
	}
	for _, c := range []struct {
		args []string
		exit int
		want string
	}{
		{[]string{"version"}, 0, "sluice-observe "},
		{[]string{"--help"}, 0, "usage:"},
		{[]string{"--limit", "100"}, 2, "512 to 16384"},
		{[]string{"--limit", "20000"}, 2, "512 to 16384"},
		{[]string{"extra"}, 2, `"extra" is no command`},
		{[]string{"--config", "/nonexistent/sluice.toml"}, exitConfig, "/nonexistent/sluice.toml"},
		{[]string{"--config", file(strings.Replace(minimal, "[intercept]", "[observe]\nsource = \"ring\"\n[intercept]\npath = \"nftables\"", 1))}, exitConfig, "set it to auto"},
		{[]string{"--config", file(strings.Replace(minimal, "65534", "no-such-account", 1))}, exitConfig, "useradd --system no-such-account"},
	} {
		var out strings.Builder
		if exit := run(t.Context(), c.args, &out, &out); exit != c.exit || !strings.Contains(out.String(), c.want) {
			t.Errorf("%q: exit %d, %q; want %d, %q", c.args, exit, out.String(), c.exit, c.want)
		}
	}
}

func TestRootIsNoAccountToDropTo(t *testing.T) {
	t.Parallel()
	if err := drop(0, 0); err == nil || !strings.Contains(err.Error(), "root") {
		t.Errorf("dropping to root: %v", err)
	}
}

// TestReporterWaitsForSluiced: what is told before sluiced is there comes once it is; what is too much is counted.
func TestReporterWaitsForSluiced(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "observe.sock")
	r := newReporter(path, slog.New(slog.NewTextHandler(io.Discard, nil)))
	r.tell(9, control.ObservedLoss{Flows: 2})
	const more = 10
	for i := range waiting + 1 + more { // one is in its hands
		r.put(&control.Observed{Client: netip.AddrPortFrom(netip.MustParseAddr("192.0.2.1"), uint16(i))})
		if i == 0 {
			for len(r.records) > 0 { // until it is
				time.Sleep(time.Millisecond)
			}
		}
	}
	if n := r.lost.Load(); n != more {
		t.Errorf("%d records are counted as lost, want %d", n, more)
	}
	l, err := control.Listen(path, os.Getgid())
	if err != nil {
		t.Fatal(err)
	}
	reports := make(chan control.ObservedReport, waiting+1)
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() {
		served <- control.ServeObserved(ctx, l, func(control.Peer) bool { return true }, t.Logf, func(r control.ObservedReport) {
			if r.Observed != nil {
				reports <- r
			}
		})
	}()
	for i := range waiting + 1 {
		select {
		case got := <-reports:
			if int(got.Observed.Client.Port()) != i || got.Seen != 9 || got.Loss.Flows != 2 || got.Loss.Records != more {
				t.Fatalf("report %d is %+v of %v", i, got, got.Observed.Client)
			}
		case <-time.After(20 * time.Second):
			t.Fatalf("only %d records came", i)
		}
	}
	r.close()
	cancel()
	if err := <-served; err != nil {
		t.Error(err)
	}
}

// TestReporterSpeaksAtOnce: who asks for the observer right behind its start is told that it is there, also where sluiced came later.
func TestReporterSpeaksAtOnce(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "observe.sock")
	log := make(firstLine, 1)
	r := newReporter(path, slog.New(slog.NewTextHandler(log, nil)))
	defer r.close()
	<-log // it has found nobody
	l, err := control.Listen(path, os.Getgid())
	if err != nil {
		t.Fatal(err)
	}
	reports := make(chan control.ObservedReport, 1)
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() {
		served <- control.ServeObserved(ctx, l, func(control.Peer) bool { return true }, t.Logf, func(r control.ObservedReport) {
			select {
			case reports <- r:
			default:
			}
		})
	}()
	select {
	case <-reports:
	case <-time.After(countersEvery - time.Second):
		t.Error("no report came")
	}
	cancel()
	if err := <-served; err != nil {
		t.Error(err)
	}
}

// firstLine hears that something was written.
type firstLine chan struct{}

func (f firstLine) Write(b []byte) (int, error) {
	select {
	case f <- struct{}{}:
	default:
	}
	return len(b), nil
}
