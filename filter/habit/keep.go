package habit

import (
	"bytes"
	"encoding/binary"
	"errors"
	"time"
)

// forget is after how many silent days a sender is not kept.
const forget = 60 * 24 * time.Hour

// form is the first byte of what Append writes: another form is not read.
const form = 1

// Changed tells whether anything was learnt since the last Append.
func (h *Habits) Changed() bool { return h.changed.Load() }

// Append appends what is known in the form that Restore reads.
func (h *Habits) Append(dst []byte) []byte {
	h.changed.Store(false)
	dst = append(dst, form)
	since := h.now().Add(-forget).Unix()
	for i := range h.shards {
		s := &h.shards[i]
		s.mu.Lock()
		for w, x := range s.all {
			if x.Last < since {
				continue
			}
			dst = binary.LittleEndian.AppendUint32(dst, w.user)
			dst = binary.LittleEndian.AppendUint64(dst, w.identity)
			dst, _ = binary.Append(dst, binary.LittleEndian, &x.habits) // of fixed size: it always has a form
			dst = binary.LittleEndian.AppendUint16(dst, uint16(len(x.known)))
			for _, k := range x.known {
				dst = binary.LittleEndian.AppendUint32(dst, k)
			}
		}
		s.mu.Unlock()
	}
	return dst
}

var errForm = errors.New("could not read what senders usually do: it is of another version, or cut; their habits begin anew")

// Restore takes over what Append wrote. Of whom something is known already, that stays.
func (h *Habits) Restore(b []byte) error {
	if len(b) == 0 || b[0] != form {
		return errForm
	}
	for r := bytes.NewReader(b[1:]); r.Len() > 0; {
		var head struct {
			User     uint32
			Identity uint64
		}
		x := new(sender)
		var n uint16
		for _, part := range []any{&head, &x.habits, &n} {
			if binary.Read(r, binary.LittleEndian, part) != nil {
				return errForm
			}
		}
		if n > mostKnown {
			return errForm
		}
		x.known = make([]uint32, n)
		if binary.Read(r, binary.LittleEndian, x.known) != nil {
			return errForm
		}
		s := &h.shards[head.User%shards]
		w := who{head.User, head.Identity}
		s.mu.Lock()
		if s.all[w] == nil && len(s.all) < h.most {
			s.all[w] = x
		}
		s.mu.Unlock()
	}
	return nil
}
