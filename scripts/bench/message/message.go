// Package message builds numbered mail messages and checks on arrival that none of their bytes changed.
//
// The first header line of each message carries its number and a CRC32C of
// that number and of every byte after the line. Header fields that a gateway
// puts in front are therefore allowed; any other change is damage.
package message

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"strconv"
)

const (
	marker = "X-Bench: "
	// lineLen is the marker, 16 hex digits of the number, a space, 8 hex digits of the sum, CRLF.
	lineLen = len(marker) + 16 + 1 + 8 + 2
	// maxAhead bounds what a gateway may put in front of the marker line.
	maxAhead = 16 << 10
	// MinSize is the smallest message in bytes that has room for its header fields.
	MinSize = 512

	idDigits  = 16
	sumDigits = 8
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// ErrDamaged is returned for a message whose bytes are not those that were sent.
var ErrDamaged = errors.New("message is damaged")

// Template is one message in wire form (dot-stuffed, ended by CRLF.CRLF) that
// Stamp gives a number. It is not safe for concurrent use; see Clone.
type Template struct {
	wire  []byte
	msgID int // offset of the number inside the Message-ID field
}

// New makes a Template of size bytes, the final dot line not counted.
func New(size int) (*Template, error) {
	if size < MinSize {
		return nil, fmt.Errorf("could not build a message of %d bytes: it needs at least %d", size, MinSize)
	}
	var b bytes.Buffer
	b.Grow(size + 3)
	fmt.Fprintf(&b, "%s%016x %08x\r\n", marker, 0, 0)
	b.WriteString("From: Sender <sender@client.example>\r\nTo: Recipient <recipient@sink.example>\r\n" +
		"Subject: Monthly figures\r\nDate: Sat, 21 Nov 2026 12:00:00 +0000\r\nMessage-ID: <")
	msgID := b.Len()
	b.WriteString("0000000000000000@client.example>\r\nMIME-Version: 1.0\r\n" +
		"Content-Type: text/plain; charset=us-ascii\r\n\r\n")
	fill(&b, size)
	b.WriteString(".\r\n")
	return &Template{wire: b.Bytes(), msgID: msgID}, nil
}

// fill writes lines of words until b has exactly size bytes; every 13th line
// begins with a dot, so that stuffing is on the path too.
func fill(b *bytes.Buffer, size int) {
	words := []string{"the", "figures", "of", "this", "month", "follow", "below", "and", "were", "checked", "twice", "by", "hand"}
	seed := uint32(1)
	for line := 1; size-b.Len() > 80; line++ {
		if line%13 == 0 {
			b.WriteString("..")
		}
		for start := b.Len(); b.Len()-start < 60; {
			seed = seed*1664525 + 1013904223
			b.WriteString(words[int(seed>>16)%len(words)])
			b.WriteByte(' ')
		}
		b.WriteString("\r\n")
	}
	for size-b.Len() > 2 {
		b.WriteByte('=')
	}
	b.WriteString("\r\n")
}

// Clone gives another session its own copy.
func (t *Template) Clone() *Template {
	return &Template{wire: bytes.Clone(t.wire), msgID: t.msgID}
}

// Stamp numbers the message and returns its wire form, valid until the next Stamp.
func (t *Template) Stamp(id uint64) []byte {
	num := t.wire[len(marker) : len(marker)+idDigits]
	putHex(num, id)
	copy(t.wire[t.msgID:], num)
	sum := crc32.Checksum(num, castagnoli)
	sum = crc32.Update(sum, castagnoli, t.wire[lineLen:len(t.wire)-len(".\r\n")])
	putHex(t.wire[len(marker)+idDigits+1:][:sumDigits], uint64(sum))
	return t.wire
}

func putHex(dst []byte, v uint64) {
	for i := len(dst) - 1; i >= 0; i-- {
		dst[i] = "0123456789abcdef"[v&15]
		v >>= 4
	}
}

// Checker reads one message at a time, in pieces, without its final dot line.
type Checker struct {
	head   []byte // bytes held while the marker line is not complete
	found  bool
	bad    bool
	id     uint64
	want   uint32
	sum    uint32
	digits [4]byte
}

// Write takes the next piece of the message.
func (c *Checker) Write(p []byte) {
	if c.found {
		c.sum = crc32.Update(c.sum, castagnoli, p)
		return
	}
	if c.bad {
		return
	}
	if len(c.head) > 0 {
		c.head = append(c.head, p...)
		p = c.head
	}
	at := markerAt(p)
	if at > maxAhead {
		c.bad = true
		return
	}
	if at < 0 || len(p) < at+lineLen {
		c.hold(p)
		return
	}
	c.parse(p[at : at+lineLen])
	if c.found {
		c.sum = crc32.Update(c.sum, castagnoli, p[at+lineLen:])
	}
}

// hold keeps p for the next Write, or gives the message up as damaged.
func (c *Checker) hold(p []byte) {
	if len(p) > maxAhead+lineLen {
		c.bad = true
		return
	}
	if len(c.head) == 0 {
		c.head = append(c.head, p...)
	}
}

func markerAt(p []byte) int {
	if bytes.HasPrefix(p, []byte(marker)) {
		return 0
	}
	if i := bytes.Index(p, []byte("\n"+marker)); i >= 0 {
		return i + 1
	}
	return -1
}

func (c *Checker) parse(line []byte) {
	num := line[len(marker) : len(marker)+idDigits]
	id, err := strconv.ParseUint(string(num), 16, 64)
	if err != nil || line[lineLen-2] != '\r' || line[lineLen-1] != '\n' {
		c.bad = true
		return
	}
	if _, err := hex.Decode(c.digits[:], line[len(marker)+idDigits+1:][:sumDigits]); err != nil {
		c.bad = true
		return
	}
	c.want = uint32(c.digits[0])<<24 | uint32(c.digits[1])<<16 | uint32(c.digits[2])<<8 | uint32(c.digits[3])
	c.id, c.found = id, true
	c.sum = crc32.Checksum(num, castagnoli)
}

// Finish ends the message and returns its number, or ErrDamaged. The Checker
// is then ready for the next message.
func (c *Checker) Finish() (uint64, error) {
	id, ok := c.id, c.found && !c.bad && c.sum == c.want
	*c = Checker{head: c.head[:0]}
	if !ok {
		return 0, ErrDamaged
	}
	return id, nil
}
