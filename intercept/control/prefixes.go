package control

import (
	"iter"
	"net/netip"
)

// Prefixes holds values by prefix. It knows which lengths occur, so that a look-up costs as many steps as there are
// lengths. The zero value is empty. It is not safe for concurrent use.
type Prefixes[V any] struct {
	at     map[netip.Prefix]V
	length [2][129]int // how many of each, by family
}

func family(p netip.Prefix) int {
	if p.Addr().Is4() {
		return 0
	}
	return 1
}

// Len returns how many there are.
func (t *Prefixes[V]) Len() int { return len(t.at) }

// Get returns the value of exactly p.
func (t *Prefixes[V]) Get(p netip.Prefix) (v V, ok bool) {
	v, ok = t.at[p]
	return v, ok
}

// Put sets the value of p, which is in its plain form.
func (t *Prefixes[V]) Put(p netip.Prefix, v V) {
	if t.at == nil {
		t.at = make(map[netip.Prefix]V)
	}
	before := len(t.at)
	t.at[p] = v
	t.length[family(p)][p.Bits()] += len(t.at) - before
}

// Delete takes p out.
func (t *Prefixes[V]) Delete(p netip.Prefix) {
	before := len(t.at)
	delete(t.at, p)
	if len(t.at) < before {
		t.length[family(p)][p.Bits()]--
	}
}

// All gives everything, in no order.
func (t *Prefixes[V]) All() iter.Seq2[netip.Prefix, V] {
	return func(yield func(netip.Prefix, V) bool) {
		for p, v := range t.at {
			if !yield(p, v) {
				return
			}
		}
	}
}

// Around gives what holds all of p, the longest prefix first.
func (t *Prefixes[V]) Around(p netip.Prefix) iter.Seq2[netip.Prefix, V] {
	return func(yield func(netip.Prefix, V) bool) {
		f := family(p)
		for bits := p.Bits(); bits >= 0; bits-- {
			if t.length[f][bits] == 0 {
				continue
			}
			q, err := p.Addr().Prefix(bits)
			if err != nil {
				return // p has no address
			}
			if v, ok := t.at[q]; ok && !yield(q, v) {
				return
			}
		}
	}
}

// Cover returns the value of the longest prefix that holds all of p.
func (t *Prefixes[V]) Cover(p netip.Prefix) (v V, ok bool) {
	for _, v := range t.Around(p) {
		return v, true
	}
	return v, false
}

// Inside gives the prefixes that are longer than p and lie in it, in no order. Where few are possible it asks for each of
// them, else it goes through all.
func (t *Prefixes[V]) Inside(p netip.Prefix) iter.Seq[netip.Prefix] {
	return func(yield func(netip.Prefix) bool) {
		f, possible := family(p), 0
		for bits := p.Bits() + 1; bits <= p.Addr().BitLen(); bits++ {
			if t.length[f][bits] > 0 {
				possible += 1 << min(bits-p.Bits(), 32)
			}
		}
		switch {
		case possible == 0:
		case possible <= len(t.at):
			t.ask(p, yield)
		default:
			for q := range t.at {
				if q.Bits() > p.Bits() && p.Contains(q.Addr()) && !yield(q) {
					return
				}
			}
		}
	}
}

func (t *Prefixes[V]) ask(p netip.Prefix, yield func(netip.Prefix) bool) {
	for bits := p.Bits() + 1; bits <= p.Addr().BitLen(); bits++ {
		if t.length[family(p)][bits] == 0 {
			continue
		}
		q := netip.PrefixFrom(p.Addr(), bits)
		for range 1 << (bits - p.Bits()) {
			if _, ok := t.at[q]; ok && !yield(q) {
				return
			}
			q = next(q)
		}
	}
}

// next returns the prefix of the same length after p; after the last one it begins anew.
func next(p netip.Prefix) netip.Prefix {
	b := p.Addr().AsSlice()
	for bit := p.Bits() - 1; bit >= 0; bit-- {
		mask := byte(1) << (7 - bit%8)
		b[bit/8] ^= mask
		if b[bit/8]&mask != 0 { // no carry
			break
		}
	}
	a, _ := netip.AddrFromSlice(b) // it has an address's length
	return netip.PrefixFrom(a, p.Bits())
}
