//go:build labtest

package lab

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

// startGateway starts Sluice with the lab's usual configuration and what extra adds. SLUICE_BIN names built programs;
// without it they are built here.
func startGateway(t *testing.T, l *Lab, extra string) *Gateway {
	t.Helper()
	return startGatewayWith(t, l, GatewayConfig+"\n"+extra)
}

// startGatewayWith is startGateway with a configuration template of the test's own.
func startGatewayWith(t *testing.T, l *Lab, config string) *Gateway {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	g, err := l.StartGateway(ctx, GatewayOptions{Config: config, Binaries: os.Getenv("SLUICE_BIN")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
		defer cancel()
		if err := g.Stop(ctx); err != nil {
			t.Error("stop the gateway: ", err)
		}
	})
	return g
}

// onEachPath runs a test by every way on which packets come to the proxy.
func onEachPath(t *testing.T, test func(t *testing.T, path string)) {
	onPaths(t, test, "tcx", "clsact", "nftables")
}

// onPaths runs a test by some of them.
func onPaths(t *testing.T, test func(t *testing.T, path string), paths ...string) {
	t.Parallel()
	for _, path := range paths {
		t.Run(path, func(t *testing.T) {
			t.Parallel()
			test(t, path)
		})
	}
}

// by is a configuration with one of these ways.
func by(path, config string) string {
	return strings.Replace(config, "[intercept]\n", fmt.Sprintf("[intercept]\npath = %q\n", path), 1)
}

// sluiceJSON runs a command of the operator's and reads what it prints for programs.
func sluiceJSON(ctx context.Context, g *Gateway, v any, args ...string) error {
	out, err := g.Sluice(ctx, append(args, "--json")...)
	if err != nil {
		return err
	}
	if out.Code != 0 {
		return fmt.Errorf("sluice %v: exit %d: %s", args, out.Code, out.Stderr)
	}
	if err := json.Unmarshal([]byte(out.Stdout), v); err != nil {
		return fmt.Errorf("sluice %v: %w: %.300s", args, err, out.Stdout)
	}
	return nil
}

// sluice runs a command of the operator's that has to succeed.
func sluice(t *testing.T, g *Gateway, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	out, err := g.Sluice(ctx, args...)
	if err != nil || out.Code != 0 {
		t.Fatalf("sluice %v: %v, exit %d: %s", args, err, out.Code, out.Stderr)
	}
	return out.Stdout
}
