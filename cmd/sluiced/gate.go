package main

import (
	"context"
	"net/netip"

	"sluice/filter/limit"
)

// gate bounds sessions; of the destination only the address counts.
type gate struct{ sessions *limit.Sessions }

func (g gate) Enter(ctx context.Context, src, dst netip.Addr, perSource, perPair int) (func(), error) {
	return g.sessions.Enter(ctx, src, netip.AddrPortFrom(dst, 25), perSource, perPair)
}
