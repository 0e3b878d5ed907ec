// Package pool chooses the delivery address from which a mail leaves.
package pool

import (
	"fmt"
	"math"
	"net/netip"
	"strings"
)

// Address is one delivery address of the gateway with the name it gives in EHLO.
type Address struct {
	IP     netip.Addr
	Helo   string // should have the address as its A or AAAA, and be the address's PTR
	Weight int    // share of the mail relative to the others; 0 counts as 1
}

// Key is what the choice depends on: the same key gets the same address as long as the pool is the same (DIP2), so that
// a retry to another MX, or after greylisting, comes from where the first attempt came.
type Key struct {
	User      uint32
	Sender    string // domain of the reverse-path, "" for the null sender
	Recipient string // domain of the first recipient
}

// Pool is a set of delivery addresses, IPv4 and IPv6 apart. It is immutable and safe for concurrent use.
type Pool struct {
	v4, v6 []member
	all    map[netip.Addr]string
	set    *Set // that it belongs to; may be nil
	own    bool // the customer's own address
}

type member struct {
	Address
	seed uint64
}

// New returns the pool of the addresses. Doubled addresses, invalid ones and missing names are errors.
func New(addrs ...Address) (*Pool, error) {
	p := &Pool{all: make(map[netip.Addr]string, len(addrs))}
	for _, a := range addrs {
		a.IP = a.IP.Unmap()
		switch {
		case !a.IP.IsValid() || a.IP.IsUnspecified() || a.IP.IsMulticast():
			return nil, fmt.Errorf("could not use %q as delivery address: it is not the address of a host; give one that is routed to the gateway", a.IP)
		case a.Helo == "" || strings.ContainsAny(a.Helo, " \t\r\n\x00"):
			return nil, fmt.Errorf("could not use %v as delivery address: its HELO name %q is empty or has a space; give the name its PTR has", a.IP, a.Helo)
		case a.Weight < 0:
			return nil, fmt.Errorf("could not use %v as delivery address: its weight %d is negative; give 1 or more", a.IP, a.Weight)
		}
		if _, double := p.all[a.IP]; double {
			return nil, fmt.Errorf("could not use %v as delivery address: it is listed twice; remove one", a.IP)
		}
		a.Weight = max(a.Weight, 1)
		p.all[a.IP] = a.Helo
		b := a.IP.As16()
		m := member{Address: a, seed: hash(offset, b[:])}
		if a.IP.Is4() {
			p.v4 = append(p.v4, m)
		} else {
			p.v6 = append(p.v6, m)
		}
	}
	return p, nil
}

// Has tells whether ip is one of the delivery addresses, of this pool or of others that it stands beside.
func (p *Pool) Has(ip netip.Addr) bool {
	if p == nil {
		return false
	}
	if p.set != nil {
		return p.set.known[ip.Unmap()]
	}
	_, ok := p.all[ip.Unmap()]
	return ok
}

// holds tells whether ip is one of this pool's addresses.
func (p *Pool) holds(ip netip.Addr) bool {
	if p == nil {
		return false
	}
	_, ok := p.all[ip.Unmap()]
	return ok
}

// Empty tells whether there are no addresses.
func (p *Pool) Empty() bool { return p == nil || len(p.all) == 0 }

// Choose returns the address for k in the family of to. It is false when the pool has none in that family.
func (p *Pool) Choose(k Key, to netip.Addr) (Address, bool) {
	if p == nil {
		return Address{}, false
	}
	set := p.family(to)
	switch len(set) {
	case 0:
		return Address{}, false
	case 1:
		return set[0].Address, true
	}
	base := k.hash()
	best, top := 0, math.Inf(-1)
	for i := range set {
		if s := set[i].score(base); s > top {
			best, top = i, s
		}
	}
	return set[best].Address, true
}

// Several tells whether there is a choice in the family of an address.
func (p *Pool) Several(to netip.Addr) bool { return p != nil && len(p.family(to)) > 1 }

// family returns the members of the family of an address.
func (p *Pool) family(to netip.Addr) []member {
	if to.Unmap().Is4() {
		return p.v4
	}
	return p.v6
}

// Default returns a user's first address, from which sessions open before an envelope is known.
func (p *Pool) Default(user uint32, to netip.Addr) (Address, bool) {
	return p.Choose(Key{User: user}, to)
}

// score is the weighted rendezvous score: adding or removing an address moves only the keys that it wins or held.
func (m *member) score(key uint64) float64 {
	h := mix(key ^ m.seed)
	u := (float64(h>>11) + 0.5) / (1 << 53)
	return float64(m.Weight) / -math.Log(u)
}

// hash is FNV-1a over the key's parts: small, without allocation, and equal on every gateway and after a restart.
func (k Key) hash() uint64 {
	h := hash(offset, []byte{byte(k.User), byte(k.User >> 8), byte(k.User >> 16), byte(k.User >> 24)})
	h = lower(h, k.Sender)
	h = (h ^ 0xff) * prime
	return mix(lower(h, k.Recipient))
}

const (
	offset uint64 = 14695981039346656037
	prime  uint64 = 1099511628211
)

func hash(h uint64, b []byte) uint64 {
	for _, c := range b {
		h = (h ^ uint64(c)) * prime
	}
	return h
}

func lower(h uint64, s string) uint64 {
	for i := range len(s) {
		c := s[i]
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		h = (h ^ uint64(c)) * prime
	}
	return h
}

// mix spreads every input bit over the whole word (the finaliser of MurmurHash3).
func mix(h uint64) uint64 {
	h ^= h >> 33
	h *= 0xff51afd7ed558ccd
	h ^= h >> 33
	h *= 0xc4ceb9fe1a85ec53
	return h ^ h>>33
}
