package sign

import (
	"bytes"
	"encoding/binary"

	"sluice/filter/message"
	"sluice/intercept/flow"
)

// Left is what a trace field of ours says of a mail that left here, as long as its id is one.
type Left struct {
	Flow flow.ID
	N    int // number of the transaction within the flow
	tag  [6]byte
}

// Left returns what the Received fields of header, the first most of them, say of mails that left here, latest first. Any
// word of the right length reads as an id: only Proves tells which is ours.
func (t *Tracer) Left(header []byte, most int) (all []Left) {
	n := 0
	for name, value := range message.Header(header) {
		if len(name) != len("Received") || !bytes.EqualFold(name, []byte("Received")) {
			continue
		}
		if n++; n > most {
			break
		}
		if b, ok := t.open(idOf(value)); ok {
			l := Left{Flow: flow.ID(binary.BigEndian.Uint64(b[:8])), N: int(binary.BigEndian.Uint16(b[8:10]))}
			copy(l.tag[:], b[10:])
			all = append(all, l)
		}
	}
	return all
}

// Proves reports whether l is of a mail that user sent, its first recipient rcpt: nobody without the key can make one.
func (t *Tracer) Proves(l Left, user uint32, rcpt string) bool { return l.tag == t.tag(user, rcpt) }
