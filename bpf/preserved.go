package bpf

import (
	"fmt"
	"net/netip"
)

// Preserve lets the socket with this cookie (SO_COOKIE) connect from src to dst past the guard at the uplink. It must
// carry the judged mark and stand here before it connects; another connection of the same socket is dropped, so that
// whoever gets it, while it is connecting, cannot turn it elsewhere.
func (d *Datapath) Preserve(cookie uint64, src netip.Addr, dst netip.AddrPort) error {
	f, _ := family(dst.Addr())
	v := mailPreserved{Saddr: words(src), Daddr: words(dst.Addr()), Dport: htons(dst.Port()), Family: f}
	if err := d.objects.Preserved.Put(cookie, v); err != nil {
		return fmt.Errorf("could not let a socket connect from %v to %v: %w", src, dst, err)
	}
	return nil
}

// words gives an address as packets have it; the bindings are for little-endian machines only.
func words(a netip.Addr) (w [4]uint32) {
	_, b := family(a)
	for i := range w {
		w[i] = uint32(b[4*i]) | uint32(b[4*i+1])<<8 | uint32(b[4*i+2])<<16 | uint32(b[4*i+3])<<24
	}
	return w
}
