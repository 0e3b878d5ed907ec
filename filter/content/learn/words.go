package learn

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/bits"
)

// Words are looked at in passes over the whole text, each of which does one thing with as few branches as may be: where a word ends
// and how long it is nobody can foretell, and a wrong guess costs as much as the rest of the word. So first the text is put into its
// normal form with a bit for each byte that belongs to a word, then the bits that begin and end words are counted off, then the words
// of one length are hashed after each other, of which many are under way at once, and at last they are put into their order.

// maxHashed is how many bytes of a word tell it apart: what is longer is told by its beginning.
const maxHashed = 20

// identifier is the length under which words stand of which only the form is of interest.
const identifier = 0

// plain is a text in its normal form: letters in lower case, digits all alike, blanks all spaces. Its memory is used again.
type plain struct {
	text  []byte
	word  []byte   // a bit for each byte of the text that belongs to a word
	digit []byte   // the same for digits
	edges []uint32 // where words begin and end, in turn
	mark  []uint64 // a bit for each mark that counts as a word
	marks []uint32 // where these stand
}

// lengths are the words of a text by their lengths: numbers of words, and how many there are.
type lengths struct {
	words [maxHashed + 1][maxWords]uint16
	n     [maxHashed + 1]uint16
}

// read puts text into its normal form and finds its words.
func (p *plain) read(text []byte) {
	blocks := (len(text) + 63) / 64
	p.text = grown(p.text, 64*blocks)
	p.word = grown(p.word, 8*blocks)
	p.digit = grown(p.digit, 8*blocks+8) // some more, since words are looked at by eight bytes of bits
	p.edges = grown(p.edges, len(text)+1)
	whole := len(text) / 8
	normalise(p.text, text, p.word[:whole], p.digit)
	if rest := text[8*whole:]; len(rest) > 0 { // behind the end nothing is of a kind
		last := [8]byte{0x7f, 0x7f, 0x7f, 0x7f, 0x7f, 0x7f, 0x7f, 0x7f}
		copy(last[:], rest)
		normalise(p.text[8*whole:], last[:], p.word[whole:whole+1], p.digit[whole:])
		whole++
	}
	clear(p.word[whole:])
	p.text = p.text[:len(text)]
	n := edges(p.edges, p.word)
	if n%2 == 1 {
		p.edges[n] = uint32(len(text))
		n++
	}
	p.edges = p.edges[:n]
	p.findMarks()
}

// normalise puts eight bytes for each of word into their normal form, and the bits of word and digit beside each other.
func normalise(to, from []byte, word, digit []byte) {
	digit = digit[:len(word)]
	for i := range word {
		w := binary.LittleEndian.Uint64(from[8*i:])
		normal, letters, digits := classes(w)
		binary.LittleEndian.PutUint64(to[8*i:], normal)
		word[i], digit[i] = gather(letters), gather(digits)
	}
}

// classes returns eight bytes in their normal form, and the highest bit of each that belongs to a word and that is a digit. No sum
// reaches into the next byte, since the highest bits are taken off before.
func classes(w uint64) (normal, word, digit uint64) {
	t := w &^ highs
	ascii := ^w & highs
	small := t | 0x20*lows
	letter := (small + (0x80-'a')*lows) &^ (small + (0x7f-'z')*lows) & ascii
	digit = (t + (0x80-'0')*lows) &^ (t + (0x7f-'9')*lows) & ascii
	blank := ascii &^ (t + (0x7f-' ')*lows)
	inner := ascii &^ (((t ^ '\''*lows) + 0x7f*lows) & ((t ^ '-'*lows) + 0x7f*lows))
	normal = (w | (letter|blank)>>2) &^ (blank>>2 - blank>>7) &^ (digit>>3 - digit>>7)
	return normal, letter | digit | inner | w&highs, digit
}

// gather puts the highest bits of eight bytes beside each other.
func gather(m uint64) byte { return byte(m >> 7 * 0x0102040810204080 >> 56) }

// edges writes where bits of word differ from the one before and returns how many there are.
func edges(to []uint32, word []byte) (n int) {
	before := uint64(0)
	for at := uint32(0); len(word) >= 8; word = word[8:] {
		w := binary.LittleEndian.Uint64(word)
		for e := w ^ (w<<1 | before); e != 0; e &= e - 1 {
			to[n] = at + uint32(bits.TrailingZeros64(e))
			n++
		}
		before = w >> 63
		at += 64
	}
	return n
}

// findMarks finds the marks that count as words.
func (p *plain) findMarks() {
	p.marks, p.mark = p.marks[:0], p.mark[:0]
	for _, c := range []byte("!$%?") {
		for at := 0; ; at++ {
			i := bytes.IndexByte(p.text[at:], c)
			if i < 0 {
				break
			}
			if len(p.mark) == 0 {
				p.mark = grown(p.mark, len(p.text)/64+1)
				clear(p.mark)
			}
			at += i
			p.mark[at/64] |= 1 << (at % 64)
		}
	}
	for i, m := range p.mark {
		for ; m != 0; m &= m - 1 {
			p.marks = append(p.marks, uint32(64*i+bits.TrailingZeros64(m)))
		}
	}
}

// grown returns s with length n; what it holds does not matter.
func grown[T any](s []T, n int) []T {
	if cap(s) < n {
		return make([]T, n, n+n/2)
	}
	return s[:n]
}

// sort puts the first words, at most so many, into their lengths and returns how many there are.
func (l *lengths) sort(p *plain, most int) (n int) {
	l.n = [maxHashed + 1]uint16{}
	n = min(len(p.edges)/2, most)
	edges := p.edges[:2*n]
	for i := range n {
		start, end := edges[2*i], edges[2*i+1]
		size := end - start
		digits := binary.LittleEndian.Uint64(p.digit[start/8:]) >> (start % 8)
		digits &^= ^uint64(0) << (size & 63) // of a word that is longer than that they do not matter
		length := min(size, maxHashed)
		if d := uint32(bits.OnesCount64(digits)); d > 2 && d < size || size > 30 { // an identifier: its form is all that it tells
			length = identifier
		}
		k := l.n[length]
		l.words[length][k] = uint16(i)
		l.n[length] = k + 1
	}
	return n
}

// hash puts the hashes of all words of p to their numbers.
func (l *lengths) hash(p *plain, space byte, hashes []uint64) {
	seed := (uint64(offset64) ^ uint64(space)) * prime64
	for length := range l.words {
		words := l.words[length][:l.n[length]]
		if length == identifier {
			for _, i := range words {
				hashes[i] = hashOf(space, []byte("\x01id"))
			}
			continue
		}
		for ; len(words) >= 4; words = words[4:] { // four at once, since each step of one waits for the last
			a, b := p.text[p.edges[2*words[0]]:][:length], p.text[p.edges[2*words[1]]:][:length]
			c, d := p.text[p.edges[2*words[2]]:][:length], p.text[p.edges[2*words[3]]:][:length]
			ha, hb, hc, hd := seed, seed, seed, seed
			for k := range length {
				ha, hb = (ha^uint64(a[k]))*prime64, (hb^uint64(b[k]))*prime64
				hc, hd = (hc^uint64(c[k]))*prime64, (hd^uint64(d[k]))*prime64
			}
			hashes[words[0]], hashes[words[1]], hashes[words[2]], hashes[words[3]] = ha, hb, hc, hd
		}
		for _, i := range words {
			h := seed
			for _, c := range p.text[p.edges[2*i]:][:length] {
				h = (h ^ uint64(c)) * prime64
			}
			hashes[i] = h
		}
	}
}

// words adds the words of text and each with the one before, at most so many, and the marks among them. Afterwards f.plain has
// the text.
func (f *Features) words(space byte, text []byte, most int) (n int) {
	p := &f.plain
	p.read(text)
	n = f.lengths.sort(p, min(most, maxWords))
	f.lengths.hash(p, space, f.hashes[:n])
	marks := p.marks
	ids, k := f.room(2*n + len(marks))
	i := 0
	for _, at := range marks {
		from := i
		for i < n && p.edges[2*i] < at {
			i++
		}
		if i == n && n == most {
			i = from
			break // behind the last word that is looked at
		}
		k += f.follow(ids[k:], from, i)
		ids[k] = slot(hashOf(space, p.text[at:at+1]))
		k++
	}
	k += f.follow(ids[k:], i, n)
	f.ids[f.view] = ids[:k]
	if f.names != nil {
		f.nameWords(space, text, n)
	}
	return n
}

// follow writes the words from one number to another, each but the first of all with the one before, and returns how many features
// that makes.
func (f *Features) follow(ids []uint32, from, to int) (k int) {
	if from == to {
		return 0
	}
	hashes := f.hashes[from:to]
	var prev uint64
	if from == 0 {
		prev = hashes[0]
		ids[0] = slot(prev)
		ids, hashes, k = ids[1:], hashes[1:], 1
	} else {
		prev = f.hashes[from-1]
	}
	ids = ids[:2*len(hashes)]
	for i, h := range hashes {
		ids[2*i] = slot(h)
		ids[2*i+1] = slot(h*3 + prev*7)
		prev = h
	}
	return k + len(ids)
}

// places says where words of a space stand.
var places = map[byte]string{'s': "subject", 'f': "sender", 'b': "text", 'u': "link", 'a': "link text"}

// nameWords notes what the features of the first n words of text stand for.
func (f *Features) nameWords(space byte, text []byte, n int) {
	e := f.plain.edges
	for i, h := range f.hashes[:n] {
		f.names[slot(h)] = fmt.Sprintf("%s %q", places[space], text[e[2*i]:e[2*i+1]])
		if i > 0 {
			f.names[slot(h*3+f.hashes[i-1]*7)] = fmt.Sprintf("%s %q", places[space], text[e[2*i-2]:e[2*i+1]])
		}
	}
}

// grams adds each run of four bytes of text[:size], of which f.plain has the normal form, blanks as one.
func (f *Features) grams(space byte, size int) {
	text := f.plain.text[:size]
	if bytes.Contains(text, []byte("  ")) {
		text = single(text)
	}
	if len(text) < 4 {
		return
	}
	ids, k := f.room(len(text) - 3)
	f.ids[f.view] = ids
	ids = ids[k:]
	salt := uint64(space) << 40
	for len(ids) >= 5 && len(text) >= 8 {
		w := binary.BigEndian.Uint64(text)
		ids[0] = gram(w>>32 | salt)
		ids[1] = gram(w>>24&0xffffffff | salt)
		ids[2] = gram(w>>16&0xffffffff | salt)
		ids[3] = gram(w>>8&0xffffffff | salt)
		ids[4] = gram(w&0xffffffff | salt)
		ids, text = ids[5:], text[5:]
	}
	for i := range ids {
		ids[i] = gram(uint64(binary.BigEndian.Uint32(text[i:])) | salt)
	}
}

// gram is the slot of a run with its space.
func gram(g uint64) uint32 { return slot(g * prime64) }

// single takes out, in place, the blanks that stand behind blanks.
func single(text []byte) []byte {
	n := 0
	for _, c := range text {
		if c == ' ' && n > 0 && text[n-1] == ' ' {
			continue
		}
		text[n] = c
		n++
	}
	return text[:n]
}
