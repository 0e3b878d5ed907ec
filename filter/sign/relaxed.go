package sign

import (
	"bytes"
	"hash"
)

// relaxedBody hashes a body in the relaxed canonical form (RFC 6376 3.4.4) as it is written, in pieces of any size. Its lines end in
// CRLF.
type relaxedBody struct {
	hash  hash.Hash
	out   []byte // canonical text that is not hashed yet
	ends  int    // line ends that are held back: those at the end of the body do not count
	blank bool   // white space that is held back: at the end of a line it does not count
	text  bool   // something was written
}

// canonicalBlock is how much canonical text is hashed at once.
const canonicalBlock = 8 << 10

// Write takes the next piece of the body. It never fails.
func (b *relaxedBody) Write(p []byte) (int, error) {
	n := len(p)
	for len(p) > 0 {
		switch p[0] {
		case ' ', '\t':
			b.blank, p = true, p[1:]
			continue
		case '\r':
			p = p[1:]
			continue
		case '\n':
			b.ends, b.blank, p = b.ends+1, false, p[1:]
			continue
		}
		for ; b.ends > 0; b.ends-- {
			b.put("\r\n")
		}
		if b.blank {
			b.put(" ")
			b.blank = false
		}
		i := regular(p)
		b.add(p[:i])
		p = p[i:]
	}
	return n, nil
}

// regular is the length of the beginning of p, which is no white space, that is canonical as it stands: most bodies are, from end to end.
func regular(p []byte) int {
	for i := 1; ; {
		for i < len(p) && p[i] > ' ' {
			i++
		}
		switch {
		case i+1 < len(p) && p[i] == ' ' && p[i+1] > ' ':
			i += 2
		case i+2 < len(p) && p[i] == '\r' && p[i+1] == '\n' && p[i+2] > ' ':
			i += 3
		case i < len(p) && p[i] != ' ' && p[i] != '\t' && p[i] != '\r' && p[i] != '\n':
			i++
		default:
			return i
		}
	}
}

func (b *relaxedBody) put(s string) {
	b.room(len(s))
	b.out = append(b.out, s...)
}

// add adds what is canonical.
func (b *relaxedBody) add(p []byte) {
	b.text = true
	if len(p) >= canonicalBlock/8 {
		b.room(canonicalBlock)
		b.hash.Write(p)
		return
	}
	b.room(len(p))
	b.out = append(b.out, p...)
}

// room hashes what is there where n more bytes would be too much.
func (b *relaxedBody) room(n int) {
	if len(b.out)+n > canonicalBlock {
		b.hash.Write(b.out)
		b.out = b.out[:0]
	}
}

// sum ends the body and appends its hash.
func (b *relaxedBody) sum(dst []byte) []byte {
	if b.text {
		b.put("\r\n")
	}
	b.hash.Write(b.out)
	return b.hash.Sum(dst)
}

// appendRelaxed appends a header field, name and value, in the relaxed canonical form (RFC 6376 3.4.2), without a line end.
func appendRelaxed(dst, name, value []byte) []byte {
	for _, c := range bytes.TrimRight(name, " \t") {
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		dst = append(dst, c)
	}
	dst = append(dst, ':')
	start := len(dst)
	blank := false
	for _, c := range value {
		switch c {
		case '\r', '\n':
		case ' ', '\t':
			blank = true
		default:
			if blank && len(dst) > start {
				dst = append(dst, ' ')
			}
			blank = false
			dst = append(dst, c)
		}
	}
	return dst
}
