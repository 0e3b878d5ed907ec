package ladder

import "hash/fnv"

// fewWords is under how many words a text is compared as a whole: prints of so few say nothing.
const fewWords = 16

// mostText bounds how much of a text counts for its print, in bytes.
const mostText = 16 << 10

// Print returns the print of a message's body. Copies of one text, also where a name, a number or a link in it differs
// from copy to copy, have prints that are Alike; other texts have not. It is never 0.
func Print(body []byte) uint64 {
	var v votes
	var before, word uint64
	words, letters := 0, 0
	skip, tag := false, false
	text := body[:min(len(body), mostText)]
	for i := 0; i <= len(text); i++ {
		c := byte(' ')
		if i < len(text) {
			c = text[i]
		}
		switch {
		case tag:
			tag = c != '>'
			continue
		case c == '<':
			tag = true
			c = ' '
		}
		switch low := c | 0x20; {
		case low >= 'a' && low <= 'z' || c >= 0x80:
			if letters == 0 {
				word = 14695981039346656037
			}
			letters++
			word = (word ^ uint64(low)) * 1099511628211
			continue
		case c >= '0' && c <= '9' || c == '@' || c == '/' || c == '=' || c == '_':
			skip = true // numbers, addresses, links and what is encoded differ from copy to copy
			continue
		case c > ' ' && letters > 0 && (c == '.' || c == '-' || c == '+') && i+1 < len(text) && text[i+1] > ' ':
			continue
		}
		if letters > 1 && !skip {
			words++
			v.add(mix(word*31 + before))
			before = word
		}
		letters, skip = 0, false
	}
	if words < fewWords {
		h := fnv.New64a()
		_, _ = h.Write(body)
		return max(1, mix(h.Sum64()))
	}
	return max(1, v.print())
}

// votes counts for each of 64 bits in how many features it is set: eight bits in the bytes of one word, added at once.
type votes struct {
	bytes [8]uint64
	n     int // features in bytes: no byte has more
	ones  [64]int32
	all   int32
}

func (v *votes) add(f uint64) {
	for i := range v.bytes {
		v.bytes[i] += spread[byte(f>>(8*i))]
	}
	if v.n++; v.n == 255 {
		v.carry()
	}
}

// carry empties the bytes before one of them overflows.
func (v *votes) carry() {
	for i := range v.bytes {
		for b := range 8 {
			v.ones[8*i+b] += int32(v.bytes[i] >> (8 * b) & 0xff)
		}
		v.bytes[i] = 0
	}
	v.all += int32(v.n)
	v.n = 0
}

// print has the bits that are set in more than half of the features.
func (v *votes) print() (p uint64) {
	v.carry()
	for b, n := range v.ones {
		if 2*n > v.all {
			p |= 1 << b
		}
	}
	return p
}

// spread has for each byte a word with each of its bits in a byte of its own.
var spread = func() (t [256]uint64) {
	for c := range t {
		for b := range 8 {
			t[c] |= uint64(c>>b&1) << (8 * b)
		}
	}
	return t
}()

// Spread makes a print of any other name of a text: only those of one text are Alike.
func Spread(name uint64) uint64 { return max(1, mix(name)) }

// mix spreads a hash over all bits.
func mix(h uint64) uint64 {
	h ^= h >> 33
	h *= 0xff51afd7ed558ccd
	h ^= h >> 33
	h *= 0xc4ceb9fe1a85ec53
	return h ^ h>>33
}
