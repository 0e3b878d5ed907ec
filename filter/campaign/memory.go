package campaign

// A message is looked for by parts of its print: each part is some lanes in a row. Two messages that have seven features in
// ten in common meet in some part 19 times in 20, two that have three in ten once in four; whether they are alike, the
// whole print then says.
const (
	rows  = 3
	parts = lanes / rows // two lanes are in none
	alike = 0.5          // share of lanes from which on two messages are copies of one
)

// kind is what is remembered of one kind of message. It holds no pointers, so that a million of them cost the collector
// nothing.
type kind struct {
	print Print
	last  int32  // when the last copy came, in seconds since the start
	first int32  // when the first one came
	user  uint32 // who sent the first
	who   uint32 // a hash of its recipients
	from  uint32 // a hash of where it came from
	group uint32 // the campaign that it became; 0 for none
	// What the content filter said of the first, and how likely its content is bad, in 255ths.
	look   look
	chance uint8
}

// memory remembers the latest kinds of messages: so many, and each for so long after its last copy. Not safe for
// concurrent use.
type memory struct {
	most  int
	keep  int32 // seconds
	kinds [][]kind
	used  int
	hand  int               // the one whose place may be needed next
	index map[uint32]uint32 // part of a print -> place
}

// chunk is by how many kinds the memory grows.
const chunk = 4096

func newMemory(most int, keep int32) *memory {
	return &memory{most: most, keep: keep, index: map[uint32]uint32{}}
}

func (m *memory) at(i uint32) *kind { return &m.kinds[i/chunk][i%chunk] }

// keys name the parts of a print.
func (p *Print) keys() (k [parts]uint32) {
	for n := range k {
		h := uint64(n+1) * 0x9e3779b97f4a7c15
		l := p[n*rows : (n+1)*rows]
		k[n] = uint32(mix(h ^ uint64(l[0]) ^ uint64(l[1])<<16 ^ uint64(l[2])<<32))
	}
	return k
}

// find returns the kind that a print is most alike, or nil.
func (m *memory) find(p *Print, keys *[parts]uint32, now int32) (best *kind) {
	most := alike - 0.5/lanes
	for _, key := range keys {
		i, ok := m.index[key]
		if !ok {
			continue
		}
		k := m.at(i)
		if k == best || now-k.last > m.keep {
			continue
		}
		if a := k.print.Alike(p); a > most {
			if best, most = k, a; a == 1 {
				break
			}
		}
	}
	return best
}

// add remembers a new kind, if need be in the place of the oldest.
func (m *memory) add(k kind, keys *[parts]uint32, now int32) *kind {
	i := m.place(now)
	c := m.at(i)
	*c = k
	for _, key := range keys {
		m.index[key] = i
	}
	return c
}

// maxSkips bounds how many kinds that are still needed are passed by in the search of a place.
const maxSkips = 64

// place finds a place: that of one that is over, else a new one, else the oldest one's. Campaigns keep theirs while they
// go on, unless nothing else is left.
func (m *memory) place(now int32) uint32 {
	for range maxSkips {
		if m.used == 0 {
			break
		}
		k := m.at(uint32(m.hand))
		over := now-k.last > m.keep
		if over || k.group == 0 && m.used >= m.most {
			return m.reuse()
		}
		if k.group == 0 {
			break
		}
		m.hand = (m.hand + 1) % m.used
	}
	if m.used >= m.most {
		return m.reuse()
	}
	if m.used%chunk == 0 {
		m.kinds = append(m.kinds, make([]kind, chunk))
	}
	m.used++
	return uint32(m.used - 1)
}

// reuse frees the place that the hand points to.
func (m *memory) reuse() uint32 {
	i := uint32(m.hand)
	m.hand = (m.hand + 1) % m.used
	for _, key := range m.at(i).print.keys() {
		if m.index[key] == i {
			delete(m.index, key)
		}
	}
	return i
}
