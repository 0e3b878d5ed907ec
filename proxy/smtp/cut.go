package smtp

import "bytes"

// CutField takes the one header field of that name, in whatever letters, out of the body. It does nothing and gives false
// where there are none or several, or where the header is not wholly in memory.
func (b *Body) CutField(name string) bool {
	end := b.HeaderLen()
	if name == "" || name[0] == '.' || end > int64(len(b.mem)) {
		return false
	}
	from, to := 0, 0
	for at, header := 0, b.mem[:end]; at < len(header); {
		n := fieldLen(header[at:])
		if colon := bytes.IndexByte(header[at:at+n], ':'); colon > 0 && bytes.EqualFold(bytes.TrimRight(header[at:at+colon], " \t"), []byte(name)) {
			if to > 0 {
				return false
			}
			from, to = at, at+n
		}
		at += n
	}
	if to == 0 {
		return false
	}
	gone := to - from
	b.dec.lines -= bytes.Count(b.mem[from:to], []byte("\n"))
	whole := b.mem[:len(b.mem)+b.term] // the end of data may stand behind it already
	copy(whole[from:], whole[to:])
	b.mem = b.mem[:len(b.mem)-gone]
	b.size -= int64(gone)
	if b.dec.header >= 0 {
		b.dec.header -= int64(gone)
	}
	return true
}

// fieldLen is the length of the header field at the start of h, its folded lines included.
func fieldLen(h []byte) int {
	for i := 0; ; {
		nl := bytes.IndexByte(h[i:], '\n')
		if nl < 0 {
			return len(h)
		}
		if i += nl + 1; i == len(h) || h[i] != ' ' && h[i] != '\t' {
			return i
		}
	}
}
