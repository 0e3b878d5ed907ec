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
	return to > 0 && b.CutHeader(from, to)
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
