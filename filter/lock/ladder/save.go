package ladder

import (
	"encoding/binary"
	"errors"
	"math"
	"time"
)

// errSaved says that bytes are not of Append.
var errSaved = errors.New("what was saved of a sender is damaged")

// Append appends what is known of a sender to dst, for Restore.
func (s *Sender) Append(dst []byte) []byte {
	dst = binary.AppendUvarint(dst, uint64(s.probation))
	dst = binary.AppendUvarint(dst, uint64(len(s.marks)))
	for i := range s.marks {
		m := &s.marks[i]
		dst = binary.AppendUvarint(dst, uint64(m.at))
		dst = binary.LittleEndian.AppendUint64(dst, m.print)
		dst = binary.AppendUvarint(dst, uint64(m.origin))
		flags := uint64(m.kind) << 1
		if m.firm {
			flags |= 1
		}
		dst = binary.AppendUvarint(dst, flags)
	}
	for _, r := range s.rings() {
		dst = r.append(dst)
	}
	if s.doubts != nil {
		for _, r := range s.doubts.rings() {
			dst = r.append(dst)
		}
	}
	return dst
}

func (d *doubts) rings() [3]*ring { return [...]*ring{&d.short, &d.hour, &d.day} }

func (s *Sender) rings() [5]*ring {
	return [...]*ring{&s.short, &s.hour, &s.day, &s.known, &s.unknown}
}

func (r *ring) append(dst []byte) []byte {
	dst = binary.AppendUvarint(dst, uint64(r.total))
	if r.total == 0 {
		return dst
	}
	dst = binary.AppendUvarint(dst, uint64(r.length))
	dst = binary.AppendUvarint(dst, uint64(r.last))
	for i := range int64(slots + 1) { // each at its number modulo slots+1
		slot := r.last - (r.last-i+slots+1)%(slots+1)
		dst = binary.AppendUvarint(dst, uint64(r.at(slot)))
	}
	return dst
}

// Restore replaces what is known of a sender by what Append wrote, which is all of b. What is later than now, because the
// clock was set back, happened now.
func (s *Sender) Restore(b []byte, now time.Duration) error {
	r := reader{b: b}
	fresh := Sender{probation: time.Duration(r.next())}
	n := r.next()
	if n > Keep || fresh.probation < 0 {
		return errSaved
	}
	for range n {
		m := mark{at: min(now, time.Duration(r.next())), print: r.word(), origin: uint32(r.next())}
		flags := r.next()
		if m.kind, m.firm = Kind(flags>>1), flags&1 == 1; r.bad || flags>>1 >= uint64(kinds) || m.at < 0 {
			return errSaved
		}
		fresh.marks = append(fresh.marks, m)
	}
	for _, g := range fresh.rings() {
		g.restore(&r, now)
	}
	if len(r.b) > 0 {
		fresh.doubts = &doubts{}
		for _, g := range fresh.doubts.rings() {
			g.restore(&r, now)
		}
	}
	if r.bad || len(r.b) > 0 {
		return errSaved
	}
	*s = fresh
	return nil
}

// Join adds what speaks against a sender by a younger account of him.
func (s *Sender) Join(younger *Sender) {
	for i := range younger.marks {
		m := &younger.marks[i]
		s.mark(m.at, Event{Kind: m.kind, Print: m.print, Origin: m.origin, Firm: m.firm})
	}
}

func (g *ring) restore(r *reader, now time.Duration) {
	total := r.next()
	if r.bad || total == 0 {
		return
	}
	if total > math.MaxUint32 {
		r.bad = true
		return
	}
	g.length, g.last = time.Duration(r.next()), int64(r.next())
	if g.length <= 0 || g.length > day || g.last < 0 {
		r.bad = true
		return
	}
	sum, saved := uint64(0), [slots + 1]uint32{}
	for i := range saved {
		n := r.next()
		if n > total {
			r.bad = true
			return
		}
		saved[i] = uint32(n)
		sum += n
	}
	if sum != total {
		r.bad = true
		return
	}
	g.fill(&saved, uint32(total), slotOf(now, g.length))
}

// fill takes over what was saved, not later than in slot.
func (g *ring) fill(saved *[slots + 1]uint32, total uint32, slot int64) {
	g.total = total
	if g.last > slot { // it counts as of now
		g.last, g.present = slot, total
		return
	}
	g.older = new([slots]uint32)
	for s := max(0, g.last-slots); s < g.last; s++ {
		g.older[s%slots] = saved[s%(slots+1)]
	}
	g.present = saved[g.last%(slots+1)]
}

// reader reads numbers until they end too early.
type reader struct {
	b   []byte
	bad bool
}

func (r *reader) next() uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 || r.bad {
		r.bad = true
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *reader) word() uint64 {
	if len(r.b) < 8 || r.bad {
		r.bad = true
		return 0
	}
	v := binary.LittleEndian.Uint64(r.b)
	r.b = r.b[8:]
	return v
}
