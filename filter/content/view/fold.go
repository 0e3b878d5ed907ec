package view

import (
	"encoding/binary"
	"slices"
)

// Eight bytes at once: the highest bit of each, the lowest, and eight spaces.
const (
	highs  = 0x8080808080808080
	lows   = 0x0101010101010101
	spaces = ' ' * lows
)

// appendFolded appends text with runs of blanks folded into one, of line ends into one line end.
func appendFolded(dst, text []byte) (_ []byte, cut bool) {
	last := byte('\n')
	if len(dst) > 0 {
		last = dst[len(dst)-1]
	}
	n := len(dst)
	dst = slices.Grow(dst, len(text))[:min(n+len(text), max(n, MaxText))]
	for i := 0; i < len(text); {
		if n == len(dst) {
			return dst, true
		}
		if len(text)-i >= 8 && len(dst)-n >= 8 {
			if w := binary.LittleEndian.Uint64(text[i:]); settled(w, last) {
				binary.LittleEndian.PutUint64(dst[n:], w)
				last = byte(w >> 56)
				n += 8
				i += 8
				continue
			}
		}
		for end := min(i+8, len(text)); i < end && n < len(dst); i++ {
			n, last = fold(dst, n, last, text[i])
		}
	}
	return dst[:n], false
}

// settled reports whether folding leaves eight bytes as they are behind last: there is no control among them, nor a space
// behind a blank.
func settled(w uint64, last byte) bool {
	controls := (w - spaces) &^ w & highs // a borrow makes it see one too many, never one too few
	x := w ^ spaces
	space := (x - lows) &^ x & highs // the same holds here
	if controls|space&(space<<8) != 0 {
		return false
	}
	return last > ' ' || space&0x80 == 0
}

// fold puts the next byte of the text behind dst[:n].
func fold(dst []byte, n int, last, c byte) (int, byte) {
	switch {
	case c > ' ':
	case c == '\n' || c == '\r':
		if last == '\n' {
			return n, last
		}
		if last == ' ' {
			n--
		}
		c = '\n'
	case last == ' ' || last == '\n':
		return n, last
	default:
		c = ' '
	}
	dst[n] = c
	return n + 1, c
}
