package spool

import (
	"encoding/binary"
	"time"
)

// The parts of a record that people may add to are fields: a number, a length, that many bytes. A reader skips fields it
// does not know, so that a version may add some and an older one still reads what it needs.

// fields writes fields.
type fields []byte

func (b *fields) bytes(n uint64, v []byte) {
	if len(v) > 0 {
		*b = append(binary.AppendUvarint(binary.AppendUvarint(*b, n), uint64(len(v))), v...)
	}
}

func (b *fields) text(n uint64, s string) {
	if s != "" {
		*b = append(binary.AppendUvarint(binary.AppendUvarint(*b, n), uint64(len(s))), s...)
	}
}

func (b *fields) num(n, v uint64) {
	if v != 0 {
		var room [binary.MaxVarintLen64]byte
		b.bytes(n, room[:binary.PutUvarint(room[:], v)])
	}
}

func (b *fields) flag(n uint64, v bool) {
	if v {
		b.num(n, 1)
	}
}

// time writes microseconds since the epoch of the spool; what was before it has no business here.
func (b *fields) time(n uint64, t time.Time) {
	if t.After(epoch) {
		b.num(n, uint64(t.Sub(epoch).Microseconds()))
	}
}

// each calls f with each field of b. False: what is there is not made of fields.
func each(b []byte, f func(n uint64, v []byte)) bool {
	for len(b) > 0 {
		n, i := binary.Uvarint(b)
		if i <= 0 {
			return false
		}
		size, j := binary.Uvarint(b[i:])
		if j <= 0 || size > uint64(len(b)-i-j) {
			return false
		}
		f(n, b[i+j:i+j+int(size)])
		b = b[i+j+int(size):]
	}
	return true
}

func num(v []byte) uint64 {
	n, i := binary.Uvarint(v)
	if i <= 0 {
		return 0
	}
	return n
}

func moment(v []byte) time.Time {
	n := num(v)
	if n == 0 || n > 1<<62/1000 {
		return time.Time{}
	}
	return epoch.Add(time.Duration(n) * time.Microsecond)
}
