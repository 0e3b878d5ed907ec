//go:build labtest

package lab

import (
	"context"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestPlannedRestartFiresNoFailMode: while a restart that was announced lasts, everybody waits, also who is to fail open, and
// is then served.
func TestPlannedRestartFiresNoFailMode(t *testing.T) {
	t.Parallel()
	ctx, l := testContext(t), ForTest(t, Options{})
	g := startGatewayWith(t, l, bobOpen)
	up, err := l.Capture(ctx, HostGateway, "up0", "tcp port 25 or ip6")
	if err != nil {
		t.Fatal(err)
	}
	targets := []string{"198.51.100.20:25", "[2001:db8:100::20]:25"}
	if err := g.Sluiced.Stop(ctx); err != nil {
		t.Fatal(err)
	}
	var waiting []<-chan attempt
	for _, host := range []string{"alice", "bob"} {
		for _, to := range targets {
			waiting = append(waiting, wait(ctx, l, host, to))
		}
	}
	// The heartbeat is stale after one second; that nothing follows from it is what is tried.
	if err := sleep(ctx, 3*time.Second); err != nil {
		t.Fatal(err)
	}
	for _, w := range waiting {
		select {
		case a := <-w:
			t.Errorf("during the restart a customer got %+v", a)
		default:
		}
	}
	if err := g.StartSluiced(ctx); err != nil {
		t.Fatal(err)
	}
	back := time.Now()
	for _, w := range waiting {
		if a := <-w; !strings.HasPrefix(a.greeting, "220 gw.example") {
			t.Errorf("who waited for the restart got %+v", a)
		}
	}
	t.Logf("all who waited are greeted %v after the restart", time.Since(back))
	if took := time.Since(back); took > 5*time.Second {
		t.Errorf("who waited was greeted %v after the restart", took)
	}
	packets, err := up.Stop()
	if err != nil {
		t.Fatal(err)
	}
	for _, own := range []string{"192.0.2.10", "2001:db8:1::10", "192.0.2.20", "2001:db8:2::20"} {
		if leaked := packets.Where(From(own), To("25")); len(leaked) != 0 {
			t.Errorf("%d packets left from %s during the restart: %+v", len(leaked), own, leaked[0])
		}
	}
}

// TestHelperHangs: while sluice-intercept stands still, mail goes as ever, and no fail mode fires.
func TestHelperHangs(t *testing.T) {
	t.Parallel()
	ctx, l := testContext(t), ForTest(t, Options{})
	g := startGatewayWith(t, l, bobOpen+"\n[limits]\nmessages_per_hour = 0\nrecipients_per_hour = 0\nconnections_per_second = 0\n")
	if err := freeze(ctx, g.Intercept); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(2500 * time.Millisecond); time.Now().Before(end); { // beyond the age of a stale heartbeat
		for _, host := range []string{"alice", "bob"} {
			for _, to := range []string{"198.51.100.20:25", "[2001:db8:100::20]:25"} {
				served(t, l, host, "", to)
				if a := try(ctx, l, host, to); !strings.HasPrefix(a.greeting, "220 gw.example") {
					t.Errorf("with a hanging helper %s gets %+v", host, a)
				}
			}
		}
	}
	if err := g.Intercept.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	sluice(t, g, "lock", "bob", "--reason", "a test")
	bounded, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	stillLockedAs(bounded, t, l, "bob", "after the helper's return")
}
