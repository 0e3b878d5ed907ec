package bpf

import (
	"math/rand/v2"
	"net/netip"
	"testing"
)

// far is what the programs ask.
func (h mailHint) far(a netip.Addr) bool {
	b := a.AsSlice()
	half, n, family := 4, 6, mailFamilyFAMILY_6
	if a.Is4() {
		half, n, family = 0, 3, mailFamilyFAMILY_4
	}
	var word uint64
	for i := range n {
		word |= uint64(b[i]) << (8 * i)
	}
	at := mix(uint64(family), word)
	return h.Wide[half+int(b[0]>>6)]>>(b[0]&63)&1 == 0 && h.Near[at>>6&(uint64(len(h.Near))-1)]>>(at&63)&1 == 0
}

// An address inside any of the prefixes is never taken for far, and hardly any other is near.
func TestHintsMissNothing(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(1, 2))
	address := func(v4 bool) netip.Addr {
		var b [16]byte
		for i := range b {
			b[i] = byte(r.Uint32())
		}
		if v4 {
			return netip.AddrFrom4([4]byte(b[:4]))
		}
		return netip.AddrFrom16(b)
	}
	near := 0
	for i := range 2000 {
		v4 := i%2 == 0
		a := address(v4)
		p := netip.PrefixFrom(a, r.IntN(a.BitLen()+1)).Masked()
		h := hintOf([]netip.Prefix{p})
		if h.far(p.Addr()) {
			t.Fatalf("%v is far from %v", p.Addr(), p)
		}
		inside := p.Addr().AsSlice() // any bits behind the prefix
		other := address(v4).AsSlice()
		for bit := p.Bits(); bit < a.BitLen(); bit++ {
			inside[bit/8] |= other[bit/8] & (0x80 >> (bit % 8))
		}
		in, _ := netip.AddrFromSlice(inside)
		if !p.Contains(in) || h.far(in) {
			t.Fatalf("%v, inside %v, is far from it", in, p)
		}
		if p.Bits() >= 48 && !h.far(address(v4)) {
			near++
		}
	}
	if near > 20 {
		t.Errorf("%d of some 1,000 random addresses are near a random prefix", near)
	}
}
