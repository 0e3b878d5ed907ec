package view

import (
	"encoding/binary"
	"math/bits"
	"slices"
	"strings"
	"unicode/utf8"

	"golang.org/x/text/encoding"
	"golang.org/x/text/encoding/charmap"
	"golang.org/x/text/encoding/htmlindex"
	"golang.org/x/text/encoding/ianaindex"
	"golang.org/x/text/encoding/unicode"
	"golang.org/x/text/encoding/unicode/utf32"
	"golang.org/x/text/transform"
)

// toUTF8 appends src, which is in charset, to dst as UTF-8. A charset that nobody knows, or none, is read as UTF-8 where
// it is that, else as windows-1252, as mail programs do.
func toUTF8(dst, src []byte, charset string) []byte {
	if plain(src) && !stateful(charset) {
		return append(dst, src...)
	}
	enc := lookup(charset)
	if enc == nil {
		if utf8.Valid(src) {
			return append(dst, src...)
		}
		enc = charmap.Windows1252
	}
	if m, ok := enc.(*charmap.Charmap); ok && m.DecodeByte('A') == 'A' {
		return bytewise(dst, src, m)
	}
	return decode(dst, src, enc.NewDecoder())
}

// bytewise appends src, of whose bytes each is a character and those of ASCII are themselves, to dst as UTF-8.
func bytewise(dst, src []byte, m *charmap.Charmap) []byte {
	dst = slices.Grow(dst, len(src)+len(src)/4)
	for len(src) > 0 {
		n := asciiPrefix(src)
		dst = append(dst, src[:n]...)
		for src = src[n:]; len(src) > 0 && src[0] >= utf8.RuneSelf; src = src[1:] {
			dst = utf8.AppendRune(dst, m.DecodeByte(src[0]))
		}
	}
	return dst
}

// asciiPrefix is how many bytes of src come before the first one that is not ASCII.
func asciiPrefix(src []byte) (n int) {
	for ; len(src)-n >= 8; n += 8 {
		if high := binary.LittleEndian.Uint64(src[n:]) & highs; high != 0 {
			return n + bits.TrailingZeros64(high)/8
		}
	}
	for n < len(src) && src[n] < utf8.RuneSelf {
		n++
	}
	return n
}

// plain reports whether src is ASCII.
func plain(src []byte) bool {
	for ; len(src) >= 32; src = src[32:] {
		if (binary.LittleEndian.Uint64(src)|binary.LittleEndian.Uint64(src[8:])|binary.LittleEndian.Uint64(src[16:])|binary.LittleEndian.Uint64(src[24:]))&highs != 0 {
			return false
		}
	}
	for ; len(src) >= 8; src = src[8:] {
		if binary.LittleEndian.Uint64(src)&highs != 0 {
			return false
		}
	}
	for _, c := range src {
		if c >= 0x80 {
			return false
		}
	}
	return true
}

// stateful reports whether text in charset may consist of ASCII bytes that do not mean ASCII.
func stateful(charset string) bool {
	c := strings.ToLower(charset)
	return strings.HasPrefix(c, "utf-16") || strings.HasPrefix(c, "utf-32") || strings.HasPrefix(c, "utf-7") ||
		strings.HasPrefix(c, "iso-2022") || strings.HasPrefix(c, "hz") || strings.HasPrefix(c, "unicode")
}

// lookup returns the encoding of that name, or nil for UTF-8 and unknown ones.
func lookup(charset string) encoding.Encoding {
	charset = strings.ToLower(strings.Trim(charset, " \t\"'"))
	switch charset {
	case "", "utf-8", "utf8", "us-ascii", "ascii", "default", "unknown-8bit", "x-unknown":
		return nil
	case "utf-32", "utf-32be":
		return utf32.UTF32(utf32.BigEndian, utf32.UseBOM)
	case "utf-32le":
		return utf32.UTF32(utf32.LittleEndian, utf32.UseBOM)
	case "utf-7", "unicode-1-1-utf-7", "x-unicode-2-0-utf-7":
		return utf7{}
	}
	if len(charset) > 40 {
		return nil
	}
	if e, err := htmlindex.Get(charset); err == nil {
		switch name, err := htmlindex.Name(e); {
		case err == nil && name == "utf-8":
			return nil
		case err == nil && name == "utf-16le" && charset != name: // its first character may tell
			return unicode.UTF16(unicode.LittleEndian, unicode.UseBOM)
		case err != nil || name != "replacement": // browsers refuse those; mail programs read some
			return e
		}
	}
	if e, err := ianaindex.MIME.Encoding(charset); err == nil {
		return e // nil where the library knows the name only
	}
	return nil
}

// decode runs t over src in pieces, so that dst grows no further than the text does.
func decode(dst, src []byte, t transform.Transformer) []byte {
	for len(src) > 0 {
		if cap(dst)-len(dst) < len(src)+64 {
			dst = append(dst, make([]byte, len(src)+64)...)[:len(dst)]
		}
		n, used, err := t.Transform(dst[len(dst):cap(dst)], src, true)
		dst, src = dst[:len(dst)+n], src[used:]
		if err == nil {
			return dst
		}
		if err == transform.ErrShortDst {
			if n == 0 && used == 0 {
				dst = append(dst, make([]byte, 256+len(src))...)[:len(dst)]
			}
			continue
		}
		if used == 0 { // what it cannot read it passes over
			dst, src = append(dst, "\uFFFD"...), src[1:]
		}
	}
	return dst
}
