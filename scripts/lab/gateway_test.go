//go:build labtest

package lab

import (
	"context"
	"os"
	"testing"
	"time"
)

// startGateway starts Sluice with the lab's usual configuration and what extra adds. SLUICE_BIN names built programs;
// without it they are built here.
func startGateway(t *testing.T, l *Lab, extra string) *Gateway {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	g, err := l.StartGateway(ctx, GatewayOptions{Extra: extra, Binaries: os.Getenv("SLUICE_BIN")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		if err := g.Stop(ctx); err != nil {
			t.Error("stop the gateway: ", err)
		}
	})
	return g
}
