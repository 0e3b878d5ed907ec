package msglog

import (
	"encoding/binary"
	"math/bits"
	"net/netip"
	"strings"
)

// keyKind says what a key is of, so that equal texts in different fields differ.
type keyKind byte

const (
	keyFlow keyKind = iota + 1
	keyTicket
	keySender
	keySenderDomain
	keyRecipient
	keyRecipientDomain
	keyClient
	keyUser
	keyStatus
	keyIdentity
	// Those below have no part in the filters of blocks that earlier versions wrote; only sealed segments are asked for them.
	keyClientNet
	keyCode
	keyTarget
	keyCampaign // no record of earlier versions has one
)

// hashes returned by the functions below are FNV-1a with a final mix; letters count without case, as domains do.
const (
	fnvOffset = 14695981039346656037
	fnvPrime  = 1099511628211
)

func hashText(k keyKind, s string) uint64 {
	h := hashSeed(k)
	for i := range len(s) {
		h = (h ^ hashed(s[i])) * fnvPrime
	}
	return mix(h)
}

// hashAddress is hashText of an address and of its domain, which are made beside each other: a byte waits for the one before.
func hashAddress(whole, domain keyKind, s string) (w, d uint64) {
	w, d = hashSeed(whole), hashSeed(domain)
	at := strings.LastIndexByte(s, '@') + 1
	for i := range at {
		w = (w ^ hashed(s[i])) * fnvPrime
	}
	for i := at; i < len(s); i++ {
		c := hashed(s[i])
		w, d = (w^c)*fnvPrime, (d^c)*fnvPrime
	}
	return mix(w), mix(d)
}

func hashNumber(k keyKind, n uint64) uint64 { return mix((hashSeed(k) ^ n) * fnvPrime) }

func hashSeed(k keyKind) uint64 { return (fnvOffset ^ uint64(k)) * fnvPrime }

// hashed is a byte as it is hashed.
func hashed(c byte) uint64 {
	if c-'A' < 26 {
		c |= 0x20
	}
	return uint64(c)
}

func hashAddr(k keyKind, a netip.Addr) uint64 {
	b := a.Unmap().As16()
	h := hashNumber(k, binary.BigEndian.Uint64(b[:8]))
	return mix(h ^ binary.BigEndian.Uint64(b[8:])*fnvPrime)
}

// hashNet is the key of the network around an address: the /24 of IPv4, the /64 of IPv6.
func hashNet(a netip.Addr) uint64 {
	p, _ := a.Unmap().WithZone("").Prefix(netBits(a))
	return hashAddr(keyClientNet, p.Addr())
}

func netBits(a netip.Addr) int {
	if a.Unmap().Is4() {
		return 24
	}
	return 64
}

func mix(h uint64) uint64 {
	h ^= h >> 32
	h *= 0x9E3779B97F4A7C15
	return h ^ h>>29
}

// A filter says of a key that it is surely not in a block, or that it may be: a Bloom filter of at least ten bits a key and four
// probes, wrong once in eighty times or less.
const (
	bitsPerKey = 10
	probes     = 4
)

// newFilter makes a filter whose bits are a power of two: no probe needs a division.
func newFilter(keys []uint64) []byte {
	f := make([]byte, 8<<bits.Len(uint(max(0, len(keys)*bitsPerKey-1)/64)))
	mask := uint32(8*len(f) - 1)
	for _, k := range keys {
		for i := range uint32(probes) {
			bit := (uint32(k) + i*(uint32(k>>32)|1)) & mask
			f[bit/8] |= 1 << (bit % 8)
		}
	}
	return f
}

// mayHold reports whether all keys may be in the block of filter f.
func mayHold(f []byte, keys []uint64) bool {
	if len(f) == 0 {
		return true
	}
	for _, k := range keys {
		for i := range uint32(probes) {
			if bit := probe(k, i, len(f)); f[bit/8]&(1<<(bit%8)) == 0 {
				return false
			}
		}
	}
	return true
}

func probe(k uint64, i uint32, size int) uint32 {
	return (uint32(k) + i*(uint32(k>>32)|1)) % uint32(size*8)
}
