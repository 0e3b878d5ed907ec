// Package transfer decodes base64 and quoted-printable as lenient mail readers do.
package transfer

import "bytes"

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

// AppendBase64 appends src, decoded as lenient readers do, to dst: what is not of the alphabet is passed over, after padding it begins
// anew, and the part ends at a line that starts with "-", as boundaries do.
func AppendBase64(dst, src []byte) []byte {
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

// AppendQuoted appends src, decoded from quoted-printable (RFC 2045 6.7), to dst. What is no escape stands for itself.
func AppendQuoted(dst, src []byte) []byte {
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
