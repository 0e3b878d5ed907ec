package spool

import (
	"encoding/binary"
	"hash/crc32"
)

// A segment is a header and records. Each record begins with eight bytes drawn at random for its segment, so that records
// are found again behind a damaged one, and nobody can write one into a message that would be taken for it. All numbers are
// little-endian, all sums CRC-32C.
const (
	version     = 1
	segHeadSize = 48
	recHeadSize = 36
	// Bounds of what a reader believes of a length.
	maxMeta = 16 << 20
	maxBody = 256 << 20
)

var (
	segMagic   = [8]byte{'S', 'L', 'S', 'P', 'O', 'O', 'L', '1'}
	castagnoli = crc32.MakeTable(crc32.Castagnoli)
)

// Kinds of records. They stand in files: never change or reuse one.
const (
	kEntry = 1 // fields of an entry, and the bytes of the message that are in no file of their own
	kState = 2 // fields of a state
	kLease = 3 // ID of a delivery that is being tried
	kSeal  = 4 // the last record: all before it are on disk
)

// segHead opens a segment.
type segHead struct {
	marker [8]byte
	tag    uint16 // of the generation
	number uint32 // within the generation
	stamp  uint64 // higher than that of all segments that were known when it was made: about nanoseconds since 1970
}

// put writes: magic, version, tag, two bytes of zero, number, four of zero, marker, stamp, four of zero, sum.
func (h *segHead) put(b []byte) {
	clear(b[:segHeadSize])
	le := binary.LittleEndian
	copy(b, segMagic[:])
	le.PutUint32(b[8:], version)
	le.PutUint16(b[12:], h.tag)
	le.PutUint32(b[16:], h.number)
	copy(b[24:32], h.marker[:])
	le.PutUint64(b[32:], h.stamp)
	le.PutUint32(b[44:], crc32.Checksum(b[:44], castagnoli))
}

// parseSegHead returns the version, which is 0 where no header stands.
func parseSegHead(b []byte) (h segHead, ver uint32) {
	le := binary.LittleEndian
	if len(b) < segHeadSize || [8]byte(b[:8]) != segMagic || crc32.Checksum(b[:44], castagnoli) != le.Uint32(b[44:]) {
		return h, 0
	}
	return segHead{marker: [8]byte(b[24:32]), tag: le.Uint16(b[12:]), number: le.Uint32(b[16:]), stamp: le.Uint64(b[32:])}, le.Uint32(b[8:])
}

// recHead opens a record.
type recHead struct {
	pos     uint32 // where in its segment it stands
	kind    uint8
	meta    uint32 // bytes of fields behind it
	body    uint32 // bytes of the message behind those
	bodySum uint32
	durable uint32 // bytes of the segment that were on disk for certain when this was written
}

func (h *recHead) size() int64 { return recHeadSize + int64(h.meta) + int64(h.body) }

// put writes the header of a record with those fields: marker, pos, kind, three bytes of zero, lengths, sum of the body,
// durable, sum of all that and the fields.
func (h *recHead) put(b []byte, marker *[8]byte, meta []byte) {
	le := binary.LittleEndian
	copy(b, marker[:])
	le.PutUint32(b[8:], h.pos)
	le.PutUint32(b[12:], uint32(h.kind))
	le.PutUint32(b[16:], h.meta)
	le.PutUint32(b[20:], h.body)
	le.PutUint32(b[24:], h.bodySum)
	le.PutUint32(b[28:], h.durable)
	le.PutUint32(b[32:], crc32.Update(crc32.Checksum(b[:32], castagnoli), castagnoli, meta))
}

// parseRecHead reads the header of the record at pos; false where none stands that could be.
func parseRecHead(b []byte, marker *[8]byte, pos int64) (h recHead, ok bool) {
	le := binary.LittleEndian
	if len(b) < recHeadSize || [8]byte(b[:8]) != *marker {
		return h, false
	}
	h = recHead{pos: le.Uint32(b[8:]), kind: b[12], meta: le.Uint32(b[16:]), body: le.Uint32(b[20:]), bodySum: le.Uint32(b[24:]), durable: le.Uint32(b[28:])}
	return h, int64(h.pos) == pos && h.meta <= maxMeta && h.body <= maxBody
}

// whole tells whether head and meta, as read, are what was written.
func whole(head, meta []byte) bool {
	return crc32.Update(crc32.Checksum(head[:32], castagnoli), castagnoli, meta) == binary.LittleEndian.Uint32(head[32:])
}
