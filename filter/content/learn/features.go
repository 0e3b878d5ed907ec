// Package learn tells bad mail from good by what it has seen of both: logistic regression on hashed features of a
// message's view, learnt on line.
package learn

import (
	"fmt"
	"slices"

	"sluice/filter/content/view"
)

// The bounds of what is read for features: the beginning of a message says what it is, and cost stays bounded.
const (
	maxGramText = 4000 // bytes of text whose letters are looked at, over all parts
	maxWordText = 6000 // bytes of text whose words are looked at
	maxWords    = 900
	maxSubject  = 160
)

// The views of a message, each with features and a normalisation of its own.
const (
	viewWords = iota // words of the text and pairs of them, header, form
	viewGrams        // runs of four letters of subject and text
	viewHead         // what a reader sees first and what he is to follow: subject, sender's name, links
	views
)

// Features are the hashed features of one message, without repetition. It is used again and again.
type Features struct {
	ids  [views][]uint32
	seen *bitmap
	view int
	// names, where it is not nil, is told what each feature stands for: wanted only for what has to be explained.
	names map[uint32]string
}

// slotBits is the size of the tables of weights: 1<<slotBits slots each. With a million slots a word of its own rarely
// shares its slot with a common one, and the tables together take 12 MiB.
const slotBits = 20

// bitmap has one bit for each slot of a table.
type bitmap [1 << slotBits >> 6]uint64

// NewFeatures returns an empty set.
func NewFeatures() *Features { return &Features{seen: new(bitmap)} }

func (f *Features) reset() {
	for i := range f.ids {
		for _, id := range f.ids[i] {
			f.seen[id>>6] = 0
		}
		f.ids[i] = f.ids[i][:0]
	}
}

func slot(h uint64) uint32 { return uint32((h * 0x9e3779b97f4a7c15) >> (64 - slotBits)) }

// add notes a feature.
func (f *Features) add(h uint64) {
	ids, n := f.room(1)
	ids[n] = slot(h)
	f.keep(ids, n)
}

// room returns the features of the view in a slice with room for so many more, and how many there are.
func (f *Features) room(more int) (ids []uint32, n int) {
	ids = f.ids[f.view]
	n = len(ids)
	return slices.Grow(ids, more)[:n+more], n
}

// keep takes ids for the features of the view, but of those behind the first n only what was not there before. That is a loop
// of its own, since together with what finds features it would have more at hand than fits into registers. Whether one was
// there nobody can foretell, so there is no branch: it is written in any case, and counts or not.
func (f *Features) keep(ids []uint32, n int) {
	b := f.seen
	for _, id := range ids[n:] {
		had := b[id>>6]
		b[id>>6] = had | 1<<(id&63)
		ids[n] = id
		n += int(^had >> (id & 63) & 1)
	}
	f.ids[f.view] = ids[:n]
}

const (
	offset64 = 14695981039346656037
	prime64  = 1099511628211
)

func hashOf(space byte, s []byte) uint64 {
	h := (uint64(offset64) ^ uint64(space)) * prime64
	for _, c := range s {
		h = (h ^ uint64(c)) * prime64
	}
	return h
}

func (f *Features) named(name string) {
	h := hashOf('N', []byte(name))
	f.add(h)
	if f.names != nil {
		f.names[slot(h)] = name
	}
}

func (f *Features) valued(name, value string) {
	h := hashOf('N', []byte(name)) ^ hashOf('V', []byte(value))*31
	f.add(h)
	if f.names != nil {
		f.names[slot(h)] = name + "=" + value
	}
}

// Extract fills f with the features of v.
func (f *Features) Extract(v *view.View) {
	f.names = nil
	f.extract(v)
}

func (f *Features) extract(v *view.View) {
	f.reset()
	f.view = viewHead
	f.words('s', v.Subject[:min(len(v.Subject), maxSubject)], 40)
	f.words('f', []byte(v.From.Name), 10)
	f.links(v)
	f.view = viewWords
	f.header(v)
	f.shape(v)
	room, words := maxWordText, maxWords
	for _, r := range v.Runs {
		t := v.Text[r.Start:r.End]
		t = t[:min(len(t), max(room/2, room-(len(v.Text)-len(t))))]
		words -= f.words('b', t, words)
		room -= len(t)
	}
	f.view = viewGrams
	f.grams('S', v.Subject[:min(len(v.Subject), maxSubject)])
	room = maxGramText
	for _, r := range v.Runs {
		t := v.Text[r.Start:r.End]
		t = t[:min(len(t), max(room/2, room-(len(v.Text)-len(t))))]
		f.grams('B', t)
		room -= len(t)
	}
}

// ExtractNamed fills f like Extract and notes what the features stand for, which costs much more.
func (f *Features) ExtractNamed(v *view.View) {
	f.names = map[uint32]string{}
	f.extract(v)
}

// words adds the words of text, and each with the one before.
func (f *Features) words(space byte, text []byte, most int) (n int) {
	ids, old := f.room(2 * len(text))
	k := old
	var prev uint64 // hash of the word before, which starts at before
	before := 0
	for i := 0; i < len(text) && n < most; {
		c := wordByte[text[i]]
		if c == 0 {
			if c := text[i]; c == '!' || c == '$' || c == '?' || c == '%' {
				ids[k] = slot(hashOf(space, text[i:i+1]))
				k++
			}
			i++
			continue
		}
		h := (uint64(offset64) ^ uint64(space)) * prime64
		start, digits := i, 0
		for _, b := range text[i:min(i+20, len(text))] {
			if c = wordByte[b]; c == 0 {
				break
			}
			if c == '0' {
				digits++
			}
			h = (h ^ uint64(c)) * prime64
			i++
		}
		for ; c != 0 && i < len(text); i++ { // what is longer is told by its beginning
			if c = wordByte[text[i]]; c == 0 {
				break
			}
			if c == '0' {
				digits++
			}
		}
		if l := i - start; digits > 2 && digits < l || l > 30 { // an identifier: its form is all that it tells
			h = hashOf(space, []byte("\x01id"))
		}
		n++
		ids[k] = slot(h)
		k++
		if prev != 0 {
			ids[k] = slot(h*3 + prev*7)
			k++
		}
		if f.names != nil {
			f.nameWord(space, text, before, start, i, h, prev)
		}
		prev, before = h, start
	}
	f.keep(ids[:k], old)
	return n
}

// places says where words of a space stand.
var places = map[byte]string{'s': "subject", 'f': "sender", 'b': "text", 'u': "link", 'a': "link text"}

// nameWord notes what the features of the word text[start:end] stand for.
func (f *Features) nameWord(space byte, text []byte, before, start, end int, h, prev uint64) {
	f.names[slot(h)] = fmt.Sprintf("%s %q", places[space], text[start:end])
	if prev != 0 {
		f.names[slot(h*3+prev*7)] = fmt.Sprintf("%s %q", places[space], text[before:end])
	}
}

// grams adds each run of four bytes of text, letters in lower case, digits all alike, blanks as one.
func (f *Features) grams(space byte, text []byte) {
	ids, old := f.room(len(text))
	k := old
	var g uint32
	salt := uint64(space) << 40
	n := 0
	for _, c := range text {
		c = gramByte[c]
		if c == ' ' && byte(g) == ' ' {
			continue
		}
		g = g<<8 | uint32(c)
		if n++; n >= 4 {
			ids[k] = slot((uint64(g) | salt) * prime64)
			k++
		}
	}
	f.keep(ids[:k], old)
}

// wordByte is each byte of a word, letters in lower case and digits all alike, and 0 for what stands between words;
// gramByte is each byte in the same way, and a space for blanks.
var wordByte, gramByte = func() (word, gram [256]byte) {
	for i := range 256 {
		c := byte(i)
		gram[i] = c
		switch {
		case c >= 'A' && c <= 'Z':
			word[i], gram[i] = c|0x20, c|0x20
		case c >= '0' && c <= '9':
			word[i], gram[i] = '0', '0'
		case c >= 'a' && c <= 'z' || c >= 0x80 || c == '\'' || c == '-':
			word[i] = c
		case c <= ' ':
			gram[i] = ' '
		}
	}
	return word, gram
}()
