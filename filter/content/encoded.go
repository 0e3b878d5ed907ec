package content

import (
	"bytes"
	"sync"
)

// most bounds how much of a message is decoded: content checks read its first 256 KiB.
const most = 256 << 10

// part is a decoded part of a message. Its text is valid until done.
type part struct {
	text     []byte
	encoding string // "base64" or "quoted-printable"
	start    int    // where its encoded text begins in the message
	buf      *[]byte
}

func (p part) done() { buffers.Put(p.buf) }

// buffers lends the room for decoded text, which never outgrows what is decoded.
var buffers = sync.Pool{New: func() any { b := make([]byte, 0, 32<<10); return &b }}

// parts walks over the encoded parts of a message. It does not follow the MIME structure, which in bad mail is often
// broken in ways that every reader repairs differently: wherever a Content-Transfer-Encoding field stands at the start of
// a line, what follows the next empty line is decoded, up to the next such field.
type parts struct {
	data  []byte
	field int // where the next field starts, or -1
}

func encoded(data []byte) parts {
	data = data[:min(len(data), most)]
	return parts{data, nextField(data, 0)}
}

// next returns the next part decoded; false at the end.
func (p *parts) next() (part, bool) {
	for p.field >= 0 {
		value, body := fieldAt(p.data, p.field)
		p.field = nextField(p.data, body)
		end := p.field
		if end < 0 {
			end = len(p.data)
		}
		if decode, name := decoder(value); decode != nil {
			buf := buffers.Get().(*[]byte)
			*buf = decode((*buf)[:0], p.data[body:end])
			return part{*buf, name, body, buf}, true
		}
	}
	return part{}, false
}

var fieldName = []byte("content-transfer-encoding:")

// nextField returns where the next Content-Transfer-Encoding field at or behind from starts, or -1. from is the start of
// a line.
func nextField(data []byte, from int) int {
	for from+len(fieldName) <= len(data) {
		if data[from]|0x20 == 'c' && bytes.EqualFold(data[from:from+len(fieldName)], fieldName) {
			return from
		}
		nl := bytes.IndexByte(data[from:], '\n')
		if nl < 0 {
			return -1
		}
		from += nl + 1
	}
	return -1
}

// fieldAt returns the value of the field that starts at field, folding left in, and where the text of its part begins.
func fieldAt(data []byte, field int) (value []byte, body int) {
	end := field
	for {
		nl := bytes.IndexByte(data[end:], '\n')
		if nl < 0 {
			return data[field+len(fieldName):], len(data)
		}
		end += nl + 1
		if end == len(data) || data[end] != ' ' && data[end] != '\t' {
			break
		}
	}
	value = data[field+len(fieldName) : end]
	for body = end; body < len(data); {
		nl := bytes.IndexByte(data[body:], '\n')
		if nl < 0 {
			return value, len(data)
		}
		line := data[body : body+nl+1]
		body += nl + 1
		if len(line) == 1 || len(line) == 2 && line[0] == '\r' {
			return value, body
		}
	}
	return value, len(data)
}

// decoder returns what decodes the encoding that a field's value names, or nil.
func decoder(value []byte) (decode func(dst, src []byte) []byte, name string) {
	var room [200]byte
	value = room[:copy(room[:], value)]
	for i, c := range value {
		if c >= 'A' && c <= 'Z' {
			value[i] = c | 0x20
		}
	}
	switch {
	case bytes.Contains(value, []byte("base64")):
		return appendBase64, "base64"
	case bytes.Contains(value, []byte("quoted-printable")):
		return appendQuoted, "quoted-printable"
	}
	return nil, ""
}

// notBase64 is what base64Values holds for bytes outside the alphabet.
const notBase64 = 0xff

// base64Values maps a byte to its six bits.
var base64Values = func() (t [256]byte) {
	for i := range t {
		t[i] = notBase64
	}
	for i, c := range "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/" {
		t[c] = byte(i)
	}
	return t
}()

// appendBase64 decodes src as lenient readers do: what is not of the alphabet is passed over, after padding it begins
// anew, and the part ends at a line that starts with "-", as boundaries do.
func appendBase64(dst, src []byte) []byte {
	var acc uint32
	n := 0 // sixes of bits in acc
	for i := 0; i < len(src); i++ {
		if n == 0 && i+4 <= len(src) {
			a, b, c, d := base64Values[src[i]], base64Values[src[i+1]], base64Values[src[i+2]], base64Values[src[i+3]]
			if a|b|c|d < 64 {
				dst = append(dst, a<<2|b>>4, b<<4|c>>2, c<<6|d)
				i += 3
				continue
			}
		}
		switch v := base64Values[src[i]]; {
		case v != notBase64:
			acc = acc<<6 | uint32(v)
			if n++; n == 4 {
				dst, n = append(dst, byte(acc>>16), byte(acc>>8), byte(acc)), 0
			}
		case src[i] == '=':
			dst, n = appendRest(dst, acc, n), 0
		case src[i] == '-' && (i == 0 || src[i-1] == '\n'):
			return appendRest(dst, acc, n)
		}
	}
	return appendRest(dst, acc, n)
}

// appendRest appends the whole bytes in the last n sixes of bits of acc.
func appendRest(dst []byte, acc uint32, n int) []byte {
	switch n {
	case 2:
		return append(dst, byte(acc>>4))
	case 3:
		return append(dst, byte(acc>>10), byte(acc>>2))
	}
	return dst
}

// appendQuoted decodes quoted-printable (RFC 2045 6.7). What is no escape stands for itself.
func appendQuoted(dst, src []byte) []byte {
	for {
		i := bytes.IndexByte(src, '=')
		if i < 0 {
			return append(dst, src...)
		}
		dst = append(dst, src[:i]...)
		src = src[i+1:]
		if soft := softBreak(src); soft > 0 {
			src = src[soft:]
			continue
		}
		if len(src) >= 2 {
			if hi, lo := hex(src[0]), hex(src[1]); hi|lo < 16 {
				dst = append(dst, hi<<4|lo)
				src = src[2:]
				continue
			}
		}
		dst = append(dst, '=')
	}
}

// softBreak returns the length of the soft line break behind a "=" at the start of src, with the blanks that a transport
// may have added before it, or 0.
func softBreak(src []byte) int {
	for i, c := range src {
		switch c {
		case '\n':
			return i + 1
		case ' ', '\t', '\r':
		default:
			return 0
		}
	}
	return 0
}

// hex returns the value of a hexadecimal digit, or more than 15.
func hex(c byte) byte {
	switch {
	case c >= '0' && c <= '9':
		return c - '0'
	case c|0x20 >= 'a' && c|0x20 <= 'f':
		return c | 0x20 - 'a' + 10
	}
	return 0xff
}
