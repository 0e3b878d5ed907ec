// Package learn tells bad mail from good by what it has seen of both: logistic regression on hashed features of a
// message's view, learnt on line.
package learn

import (
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

	plain   plain
	lengths lengths
	hashes  [maxWords]uint64
	short   []byte
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
func (f *Features) add(h uint64) { f.ids[f.view] = append(f.ids[f.view], slot(h)) }

// room returns the features of the view in a slice with room for so many more, and how many there are.
func (f *Features) room(more int) (ids []uint32, n int) {
	ids = f.ids[f.view]
	n = len(ids)
	return slices.Grow(ids, more)[:n+more], n
}

// settle takes out what was found before. That is a loop of its own, since together with what finds features it would have more at
// hand than fits into registers. Whether one was there nobody can foretell, so there is no branch: it is written in any case, and
// counts or not.
func (f *Features) settle() {
	b := f.seen
	for _, v := range [views]int{viewHead, viewWords, viewGrams} { // what several have is of the first of these alone
		ids, n := f.ids[v], 0
		for _, id := range ids {
			had := b[id>>6]
			b[id>>6] = had | 1<<(id&63)
			ids[n] = id
			n += int(^had >> (id & 63) & 1)
		}
		f.ids[v] = ids[:n]
	}
}

// bytes returns a copy of s, until it is called again.
func (f *Features) bytes(s string) []byte {
	f.short = append(f.short[:0], s...)
	return f.short
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
	f.find(v)
	f.settle()
}

// find fills f with the features of v, with repetitions.
func (f *Features) find(v *view.View) {
	f.reset()
	f.view = viewHead
	subject := v.Subject[:min(len(v.Subject), maxSubject)]
	f.words('s', subject, 40)
	f.view = viewGrams
	f.grams('S', len(subject))
	f.view = viewHead
	f.words('f', f.bytes(v.From.Name), 10)
	f.links(v)
	f.view = viewWords
	f.header(v)
	f.shape(v)
	room, grams, words := maxWordText, maxGramText, maxWords
	for _, r := range v.Runs {
		t := v.Text[r.Start:r.End]
		others := len(v.Text) - len(t)
		read := min(len(t), max(room/2, room-others))
		f.view = viewWords
		words -= f.words('b', t[:read], words)
		room -= read
		read = min(len(t), max(grams/2, grams-others)) // never more than of words
		f.view = viewGrams
		f.grams('B', read)
		grams -= read
	}
}

// ExtractNamed fills f like Extract and notes what the features stand for, which costs much more.
func (f *Features) ExtractNamed(v *view.View) {
	f.names = map[uint32]string{}
	f.find(v)
	f.settle()
}
