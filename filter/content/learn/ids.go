package learn

import (
	"encoding/binary"
	"errors"
	"slices"
)

// AppendIDs appends the features in a form that ParseFeatures reads: enough to repeat what a message taught, and none of its
// words.
func (f *Features) AppendIDs(dst []byte) []byte {
	for v := range f.ids {
		ids := slices.Clone(f.ids[v])
		slices.Sort(ids)
		dst = binary.AppendUvarint(dst, uint64(len(ids)))
		last := uint32(0)
		for _, id := range ids {
			dst = binary.AppendUvarint(dst, uint64(id-last))
			last = id
		}
	}
	return dst
}

// ParseFeatures reads what AppendIDs wrote. The features serve to repeat or to take back a lesson, and nothing else.
func ParseFeatures(b []byte) (*Features, error) {
	f := &Features{}
	next := func() (uint64, bool) {
		n, k := binary.Uvarint(b)
		if k > 0 {
			b = b[k:]
		}
		return n, k > 0
	}
	for v := range f.ids {
		n, ok := next()
		if !ok || n > uint64(len(b)) {
			return nil, errors.New("a lesson's features end early")
		}
		last := uint64(0)
		for range n {
			d, ok := next()
			if last += d; !ok || d >= 1<<slotBits || last >= 1<<slotBits {
				return nil, errors.New("a lesson's features make no sense")
			}
			f.ids[v] = append(f.ids[v], uint32(last))
		}
	}
	return f, nil
}

// Relearn repeats what Learn did with a message of these features.
func (m *Model) Relearn(f *Features, steps float64, bad bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.step(f, steps, 1)
	if bad {
		m.info.Bad++
	} else {
		m.info.Good++
	}
}
