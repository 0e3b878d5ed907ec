// Package transfer decodes base64 and quoted-printable as lenient mail readers do.
package transfer

import (
	"encoding/binary"
	"math/bits"
	"slices"
)

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

// base64Places maps the bytes of a group of four to their bits in three bytes.
var base64Places = func() (t [4][256]uint32) {
	for i, v := range base64Values {
		for k := range t {
			if t[k][i] = notInGroup; v != notBase64 {
				t[k][i] = uint32(v) << (18 - 6*k)
			}
		}
	}
	return t
}()

const notInGroup = 1 << 24

// AppendBase64 appends src, decoded as lenient readers do, to dst: what is not of the alphabet is passed over, after padding it begins
// anew, and the part ends at a line that starts with "-", as boundaries do.
func AppendBase64(dst, src []byte) []byte {
	dst = slices.Grow(dst, min(len(src)/4*3+4, 64<<10)) // it may end early
	var acc uint32
	n := 0 // sixes of bits in acc
	for i := 0; i < len(src); i++ {
		if n == 0 {
			k := len(dst)
			room := dst[k:cap(dst)]
			for ; len(src)-i >= 4 && len(room) >= 4; i += 4 {
				group := src[i : i+4 : i+4]
				v := base64Places[0][group[0]] | base64Places[1][group[1]] | base64Places[2][group[2]] | base64Places[3][group[3]]
				if v >= notInGroup {
					break
				}
				binary.BigEndian.PutUint32(room, v<<8)
				room = room[3:]
				k += 3
			}
			if dst = dst[:k]; i == len(src) {
				break
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
	n := len(dst)
	dst = slices.Grow(dst, len(src)+8)
	dst = dst[:n+len(src)+8]
	for {
		i := 0
		for ; i+8 <= len(src); i += 8 { // escapes are near each other: a search and a copy for each would cost more
			w := binary.LittleEndian.Uint64(src[i:])
			binary.LittleEndian.PutUint64(dst[n+i:], w)
			if e := equals(w); e != 0 {
				i += bits.TrailingZeros64(e) / 8
				break
			}
		}
		for ; i < len(src) && src[i] != '='; i++ {
			dst[n+i] = src[i]
		}
		n += i
		if i == len(src) {
			return dst[:n]
		}
		src = src[i+1:]
		if soft := softBreak(src); soft > 0 {
			src = src[soft:]
			continue
		}
		if len(src) >= 2 {
			if hi, lo := hex[src[0]], hex[src[1]]; hi|lo < 16 {
				dst[n] = hi<<4 | lo
				n++
				src = src[2:]
				continue
			}
		}
		dst[n] = '='
		n++
	}
}

// equals has a bit for each of eight bytes that is an equals sign, the lowest of which is right.
func equals(w uint64) uint64 {
	x := w ^ 0x3d3d3d3d3d3d3d3d
	return (x - 0x0101010101010101) &^ x & 0x8080808080808080
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

// hex is the value of a hexadecimal digit, and more than 15 for what is none.
var hex = func() (t [256]byte) {
	for i := range t {
		t[i] = 0xff
	}
	for i, c := range "0123456789abcdef" {
		t[c] = byte(i)
	}
	for i, c := range "ABCDEF" {
		t[c] = byte(10 + i)
	}
	return t
}()
