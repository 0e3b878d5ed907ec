package main

import (
	"context"
	"net/netip"

	"sluice/filter/limit"
	"sluice/intercept/flow"
)

// gate bounds sessions; of the destination only the address counts.
type gate struct {
	sessions *limit.Sessions
	sources  flow.Attributor
	moved    func(src, dst netip.Addr, n int) // hears of each session that began (1) or ended (-1)
}

func (g gate) Enter(ctx context.Context, src, dst netip.Addr, perSource, perPair int) (func(), error) {
	from := g.source(src)
	release, err := g.sessions.Enter(ctx, from, netip.AddrPortFrom(dst, 25), perSource, perPair)
	if err != nil {
		return nil, err
	}
	moved := g.moved
	moved(from, dst, 1)
	return func() { // once, as its user promises: each open session has one
		release()
		moved(from, dst, -1)
	}, nil
}

// source is what counts as one source: an IPv4 address, but the whole /64 of an IPv6 address, since its holder has all
// of it. Where users are told apart within a /64, what counts is the user's part.
func (g gate) source(src netip.Addr) netip.Addr {
	src = src.Unmap()
	if src.Is4() {
		return src
	}
	bits := 64
	if u, ok := g.sources.Attribute(src); ok && u.Prefix.Addr().Is6() {
		bits = max(bits, u.Prefix.Bits())
	}
	p, err := src.Prefix(bits)
	if err != nil {
		return src
	}
	return p.Addr()
}
