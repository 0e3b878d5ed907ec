package smtp

import "strconv"

// Enhanced is an enhanced status code, class.subject.detail (RFC 3463); the zero value is none.
type Enhanced [3]uint16

// String gives "5.1.1", or "" for none.
func (e Enhanced) String() string { return string(e.append(nil)) }

func (e Enhanced) append(dst []byte) []byte {
	if e[0] == 0 {
		return dst
	}
	for i, n := range e {
		if i > 0 {
			dst = append(dst, '.')
		}
		dst = strconv.AppendUint(dst, uint64(n), 10)
	}
	return dst
}

// ParseEnhanced reads the enhanced status code that text begins with (RFC 2034 4), which must be
// of class 2, 4 or 5 and be followed by a blank or nothing. Otherwise it gives the zero value.
func ParseEnhanced(text []byte) Enhanced {
	var e Enhanced
	for i := range e {
		if i > 0 {
			if len(text) == 0 || text[0] != '.' {
				return Enhanced{}
			}
			text = text[1:]
		}
		n, digits := uint16(0), 0
		for digits < 3 && digits < len(text) && '0' <= text[digits] && text[digits] <= '9' {
			n = n*10 + uint16(text[digits]-'0')
			digits++
		}
		if digits == 0 {
			return Enhanced{}
		}
		e[i], text = n, text[digits:]
	}
	if len(text) > 0 && text[0] != ' ' && text[0] != '\t' {
		return Enhanced{}
	}
	if e[0] != 2 && e[0] != 4 && e[0] != 5 {
		return Enhanced{}
	}
	return e
}
