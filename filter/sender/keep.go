package sender

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
)

// form is the first byte of what Append writes: another form is not read.
const form = 1

// Changed tells whether anything was noted since the last Append.
func (b *Book) Changed() bool { return b.changed.Load() }

// Append forgets what was unused for long, and appends the rest in the form that Restore reads.
func (b *Book) Append(dst []byte) []byte {
	b.changed.Store(false)
	dst = append(dst, form)
	now := b.now()
	for i := range b.shards {
		s := &b.shards[i]
		s.mu.Lock()
		s.sweep(now)
		for user, p := range s.all {
			for name, u := range p.boxes {
				dst = binary.LittleEndian.AppendUint32(dst, user)
				dst = append(dst, byte(len(name))) // 254 at most
				dst = append(dst, name...)
				dst, _ = binary.Append(dst, binary.LittleEndian, &u.use) // of fixed size: it always has a form
			}
		}
		s.mu.Unlock()
	}
	return dst
}

var errForm = errors.New("could not read which senders were found in users' mail: it is of another version, or cut; they are found anew")

// Restore takes over what Append wrote. What is known already stays.
func (b *Book) Restore(saved []byte) error {
	if len(saved) == 0 || saved[0] != form {
		return errForm
	}
	for r := bytes.NewReader(saved[1:]); r.Len() > 0; {
		var head struct {
			User uint32
			Len  uint8
		}
		if binary.Read(r, binary.LittleEndian, &head) != nil {
			return errForm
		}
		name, u := make([]byte, head.Len), use{}
		if _, err := io.ReadFull(r, name); err != nil || binary.Read(r, binary.LittleEndian, &u) != nil {
			return errForm
		}
		b.restore(head.User, string(name), u)
	}
	return nil
}

func (b *Book) restore(user uint32, name string, u use) {
	s := b.shelf(user)
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.person(user)
	if p.boxes[name] == nil && len(p.boxes) < mostOfUser && s.n < b.most {
		p.boxes[name] = &box{name, u}
		s.n++
	}
}
