package view

import (
	"encoding/base64"
	"unicode/utf16"
	"unicode/utf8"

	"golang.org/x/text/encoding"
	"golang.org/x/text/transform"
)

// utf7 reads UTF-7 (RFC 2152), which the text library does not know.
type utf7 struct{}

func (utf7) NewDecoder() *encoding.Decoder { return &encoding.Decoder{Transformer: utf7Reader{}} }

func (utf7) NewEncoder() *encoding.Encoder { return encoding.Nop.NewEncoder() }

// utf7Reader has no state between calls: it takes whole shifted sequences or none.
type utf7Reader struct{ transform.NopResetter }

// Transform implements transform.Transformer.
func (utf7Reader) Transform(dst, src []byte, _ bool) (n, used int, err error) {
	for used < len(src) {
		text, step := src[used:used+1], 1
		if src[used] == '+' {
			text, step = unshift(src[used+1:])
			step++
		}
		if n+len(text) > len(dst) {
			return n, used, transform.ErrShortDst
		}
		n += copy(dst[n:], text)
		used += step
	}
	return n, used, nil
}

// unshift decodes what follows a "+": base64 of UTF-16 up to its end, at most 1,024 characters of it.
func unshift(src []byte) (text []byte, used int) {
	if len(src) > 0 && src[0] == '-' {
		return []byte("+"), 1
	}
	end := 0
	for end < len(src) && end < 1024 && isBase64(src[end]) {
		end++
	}
	raw := make([]byte, base64.RawStdEncoding.DecodedLen(end))
	n, _ := base64.RawStdEncoding.Decode(raw, src[:end]) // what is left over at the end is padding
	units := make([]uint16, 0, n/2)
	for i := 0; i+1 < n; i += 2 {
		units = append(units, uint16(raw[i])<<8|uint16(raw[i+1]))
	}
	for _, c := range utf16.Decode(units) {
		text = utf8.AppendRune(text, c)
	}
	if end < len(src) && src[end] == '-' {
		end++
	}
	return text, end
}

func isBase64(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '+' || c == '/'
}
