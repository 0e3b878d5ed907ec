package msglog

import (
	"cmp"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"slices"
)

// The index of a sealed segment is a table of buckets, as many in each: so the index of several is joined bucket by bucket.
// A bucket holds, for each key whose hash falls into it, the rows that have the key: four bytes of the hash, the number of
// rows, the bytes they take, then the distances from row to row as varints. In front of it stands its CRC-32C.

// bucketCount is so small that the table of buckets stays in memory once it was read, and so large that a bucket is read at
// once: of 32 MiB of rows some hundred postings fall into each, of segments that were merged some thousand.
const bucketCount = 8192

var errBucket = errors.New("a bucket of the index is damaged")

// posting says that a row has a key: half of the key and the row, which sort as they stand in a bucket. A segment has
// millions.
type posting uint64

func postingOf(key uint64, row uint32) posting { return posting(key<<32 | uint64(row)) }

func (p posting) tag() uint32 { return uint32(p >> 32) }
func (p posting) row() uint32 { return uint32(p) }

// postings are those of one key, as they stand in a bucket.
type postings struct {
	n    int
	rows []byte
}

// bucketOf spreads keys over n buckets by their upper half; the lower one tells them apart.
func bucketOf(key uint64, n uint32) uint32 { return uint32((key >> 32) * uint64(n) >> 32) }

// buckets sorts the keys of rows into n buckets, each in the order of its keys and then of rows. It returns their postings in
// one slice, and where each bucket ends.
func buckets(all *rowKeys, n uint32) (sorted []posting, ends []uint32) {
	ends = make([]uint32, n+1)
	keys := 0
	for _, b := range all.batches {
		for _, k := range b.keys {
			ends[bucketOf(k, n)+1]++
		}
		keys += len(b.keys)
	}
	for i := uint32(1); i <= n; i++ {
		ends[i] += ends[i-1]
	}
	sorted = make([]posting, keys)
	row := uint32(0)
	for _, batch := range all.batches {
		from := uint32(0)
		for _, end := range batch.ends {
			for _, k := range batch.keys[from:end] { // moves each bucket's start to its end
				b := bucketOf(k, n)
				sorted[ends[b]] = postingOf(k, row)
				ends[b]++
			}
			from = end
			row++
		}
	}
	from := uint32(0)
	for _, end := range ends[:n] {
		slices.Sort(sorted[from:end])
		from = end
	}
	return sorted, ends[:n]
}

// appendBucket appends the bucket of ps, which are in order.
func appendBucket(dst []byte, ps []posting) []byte {
	if len(ps) == 0 {
		return dst
	}
	start := len(dst)
	dst = append(dst, 0, 0, 0, 0)
	var rows []byte
	for len(ps) > 0 {
		tag, n, last := ps[0].tag(), 0, uint32(0)
		rows = rows[:0]
		for len(ps) > 0 && ps[0].tag() == tag {
			if row := ps[0].row(); n == 0 || row != last { // two recipients of one domain
				rows = binary.AppendUvarint(rows, uint64(row-last))
				last = row
				n++
			}
			ps = ps[1:]
		}
		dst = appendKey(dst, tag, postings{n, rows})
	}
	putBucketSum(dst[start:])
	return dst
}

func appendKey(dst []byte, tag uint32, p postings) []byte {
	dst = binary.LittleEndian.AppendUint32(dst, tag)
	dst = binary.AppendUvarint(dst, uint64(p.n))
	dst = binary.AppendUvarint(dst, uint64(len(p.rows)))
	return append(dst, p.rows...)
}

func putBucketSum(bucket []byte) {
	binary.LittleEndian.PutUint32(bucket, crc32.Checksum(bucket[4:], castagnoli))
}

// eachKey hands over what stands in a bucket, key by key, until take returns false.
func eachKey(bucket []byte, take func(tag uint32, p postings) bool) error {
	if len(bucket) == 0 {
		return nil
	}
	if len(bucket) < 4 || crc32.Checksum(bucket[4:], castagnoli) != binary.LittleEndian.Uint32(bucket) {
		return errBucket
	}
	for b := bucket[4:]; len(b) > 0; {
		if len(b) < 4 {
			return errBucket
		}
		tag := binary.LittleEndian.Uint32(b)
		n, w := binary.Uvarint(b[4:])
		if w <= 0 {
			return errBucket
		}
		size, v := binary.Uvarint(b[4+w:])
		b = b[4+w+max(0, v):]
		if v <= 0 || size > uint64(len(b)) || n > size {
			return errBucket
		}
		if !take(tag, postings{int(n), b[:size]}) {
			return nil
		}
		b = b[size:]
	}
	return nil
}

// findIn returns the postings of a key in a bucket; none where the key has no row.
func findIn(bucket []byte, key uint64) (found postings, err error) {
	err = eachKey(bucket, func(tag uint32, p postings) bool {
		if tag == uint32(key) {
			found = p
		}
		return found.n == 0
	})
	return found, err
}

// list returns the rows, ascending.
func (p postings) list() []uint32 {
	rows := make([]uint32, 0, p.n)
	row := uint32(0)
	for b := p.rows; len(b) > 0; {
		d, w := binary.Uvarint(b)
		if w <= 0 {
			break
		}
		row += uint32(d)
		rows = append(rows, row)
		b = b[w:]
	}
	return rows
}

// rowsWorth is how many postings may be decoded to save the reading of one row, which means a block unpacked.
const rowsWorth = 10_000

// common returns the rows that all have, or rather: those of the rarest key, less what the others surely exclude. Who
// reads them compares each record anyway, so a list that is much longer is not decoded to save a few.
func common(all []postings) []uint32 {
	slices.SortFunc(all, func(a, b postings) int { return cmp.Compare(a.n, b.n) })
	rows := all[0].list()
	for _, p := range all[1:] {
		if p.n > rowsWorth*len(rows) {
			break
		}
		rows = intersect(rows, p.list())
	}
	return rows
}

// intersect returns what stands in both, which ascend; it overwrites a.
func intersect(a, b []uint32) []uint32 {
	out := a[:0]
	for _, row := range a {
		for len(b) > 0 && b[0] < row {
			b = b[1:]
		}
		if len(b) > 0 && b[0] == row {
			out = append(out, row)
		}
	}
	return out
}
