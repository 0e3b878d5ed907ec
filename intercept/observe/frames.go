package observe

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// Kind tells what a frame holds.
type Kind uint8

// The kinds of frames.
const (
	Piece  Kind = iota + 1 // a record of the kernel's ring, as it came
	Packet                 // an IP packet, or its beginning
	Lost                   // eight bytes: how many of the others were lost so far
)

const (
	frameHead = 5
	maxFrame  = 128 << 10
)

// AppendFrame appends a frame to b: kind, length and bytes. What reads packets with privileges hands them in frames to
// what understands them without.
func AppendFrame(b []byte, kind Kind, payload []byte) []byte {
	b = append(b, byte(kind))
	b = binary.NativeEndian.AppendUint32(b, uint32(len(payload)))
	return append(b, payload...)
}

// AppendLost appends a frame that counts what was lost.
func AppendLost(b []byte, lost uint64) []byte {
	return AppendFrame(b, Lost, binary.NativeEndian.AppendUint64(nil, lost))
}

// Frames reads frames.
type Frames struct {
	r   *bufio.Reader
	buf []byte
}

// NewFrames reads frames from r.
func NewFrames(r io.Reader) *Frames { return &Frames{r: bufio.NewReaderSize(r, 256<<10)} }

// Next gives the next frame, valid until the next call; io.EOF at the end.
func (f *Frames) Next() (Kind, []byte, error) {
	var head [frameHead]byte
	if _, err := io.ReadFull(f.r, head[:]); err != nil {
		return 0, nil, err
	}
	n := int(binary.NativeEndian.Uint32(head[1:]))
	if n > maxFrame {
		return 0, nil, fmt.Errorf("a frame of %d bytes: more than %d", n, maxFrame)
	}
	if cap(f.buf) < n {
		f.buf = make([]byte, n)
	}
	b := f.buf[:n]
	if _, err := io.ReadFull(f.r, b); err != nil {
		return 0, nil, errors.Join(io.ErrUnexpectedEOF, err)
	}
	return Kind(head[0]), b, nil
}

// LostOf reads the number in a frame of that kind.
func LostOf(b []byte) uint64 {
	if len(b) != 8 {
		return 0
	}
	return binary.NativeEndian.Uint64(b)
}
