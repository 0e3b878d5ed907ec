package campaign

import (
	"bytes"
	"encoding/binary"
	"math/bits"
	"strings"

	"sluice/filter/content/view"
)

// lanes is how many minima a print has: each is the least hash of one part of a message's features, so that the share of
// lanes in which two prints agree estimates what share of their features the messages have in common.
const lanes = 32

// Print tells near-duplicates: the fewer lanes two prints agree in, the less the messages have in common.
type Print [lanes]uint16

const (
	maxPrinted = 4 << 10 // bytes of visible text that are looked at
	shingle    = 3       // words in a row that make one feature
	fewest     = 8       // features below which a message says too little to be told from others
	perLink    = 3       // features that one link stands for
	perFile    = 12      // and one file: who sends the same one sends the same message
	maxLinks   = 24      // of a message
	longRun    = 10      // letters and figures in one part of a path from which on it is one recipient's own
)

// Take makes the print of a message as its recipient sees it: words in a row without figures and whatever the case, where
// its links lead without what is made for one recipient, and its files. False where there is too little of all that.
func Take(v *view.View, p *Print) bool {
	var t taker
	for i := range t.least {
		t.least[i] = none
	}
	t.text(v.Text[:min(len(v.Text), maxPrinted)])
	if t.features < maxFeaturesForSubject {
		t.text(v.Subject)
	}
	t.links(v.Links)
	for i := range v.Files {
		t.file(&v.Files[i])
	}
	if t.features < fewest {
		return false
	}
	t.settle(p)
	return true
}

// maxFeaturesForSubject is up to how many features of the text the subject is looked at, too: it is often made for one
// recipient, and of a long text the lesser part.
const maxFeaturesForSubject = 64

// none is a lane that no feature fell into.
const none = 1 << 17

// taker gathers features.
type taker struct {
	least    [lanes]uint32
	features int
}

// add takes one feature: the low bits of its hash say in which lane it counts, sixteen others what it counts.
func (t *taker) add(h uint64) {
	h = mix(h)
	lane, value := h%lanes, uint32(h>>32)&0xffff
	t.least[lane] = min(t.least[lane], value)
	t.features++
}

// heavy takes a feature that counts as many.
func (t *taker) heavy(h uint64, n int) {
	for i := range n {
		t.add(h + uint64(i)*0x9e3779b97f4a7c15)
	}
}

// mix spreads a hash over all bits.
func mix(h uint64) uint64 {
	hi, lo := bits.Mul64(h^0xa0761d6478bd642f, 0xe7037ed1a0b428db)
	return hi ^ lo
}

// class tells what is part of a word: letters by their lower case, and all bytes of other scripts.
var class = func() (c [256]byte) {
	for i := range 26 {
		c['a'+i], c['A'+i] = byte('a'+i), byte('a'+i)
	}
	for i := 0x80; i < 0x100; i++ {
		c[i] = byte(i)
	}
	return c
}()

// text takes the words in a row. Links that are written out stand for themselves, as links.
func (t *taker) text(b []byte) {
	var last [shingle]uint64
	words := 0
	for i := 0; i < len(b); {
		for i < len(b) && class[b[i]] == 0 {
			i++
		}
		start, h := i, uint64(0)
		for ; i < len(b); i++ { // no multiplication for each letter: add spreads the bits of the sum
			c := class[b[i]]
			if c == 0 {
				break
			}
			h = bits.RotateLeft64(h, 7) ^ uint64(c)
		}
		if i < len(b) && b[i] == ':' && bytes.HasPrefix(b[i:], []byte("://")) {
			for i < len(b) && b[i] > ' ' {
				i++
			}
			continue
		}
		if n := i - start; n == 0 || n == 1 && b[start] < 0x80 {
			continue
		}
		last[words%shingle] = h
		if words++; words >= shingle {
			t.add(last[words%shingle]*0x9e3779b97f4a7c15 + last[(words+1)%shingle]*0xbf58476d1ce4e5b9 + last[(words+2)%shingle]*0x94d049bb133111eb)
		}
	}
}

// links takes where links lead: the host, and the path without what looks made for one recipient.
func (t *taker) links(all []view.Link) {
	for i := range all[:min(len(all), maxLinks)] {
		t.heavy(place(all[i].URL), perLink)
	}
}

// place hashes where a URL leads.
func place(url string) uint64 {
	if _, rest, ok := strings.Cut(url, "://"); ok {
		url = rest
	}
	if i := strings.IndexAny(url, "?#"); i >= 0 {
		url = url[:i]
	}
	h := uint64(0x55524c)
	first := true
	for part := range strings.SplitSeq(url, "/") {
		h = h*31 + 1
		if first || !own(part) {
			for i := range len(part) {
				c := part[i]
				if c >= 'A' && c <= 'Z' {
					c |= 0x20
				}
				h = (h ^ uint64(c)) * 0x100000001b3
			}
		}
		first = false
	}
	return h
}

// own tells a part of a path that looks made for one recipient: with figures among many letters.
func own(part string) bool {
	figure := strings.ContainsAny(part, "0123456789")
	return figure && (len(part) >= longRun || strings.Trim(part, "0123456789") == "")
}

// file takes a file by its content, of which the first half MiB is known.
func (t *taker) file(f *view.File) {
	if len(f.Head) > 0 {
		t.heavy(sum(f.Head), perFile)
	}
}

// sum is a hash of much data at the speed of memory. Whoever makes two files of one hash gains only that they count as one.
func sum(b []byte) uint64 {
	h := uint64(len(b))
	for ; len(b) >= 16; b = b[16:] {
		hi, lo := bits.Mul64(binary.LittleEndian.Uint64(b)^0x2d358dccaa6c78a5^h, binary.LittleEndian.Uint64(b[8:])^0x8bb84b93962eacc9)
		h = hi ^ lo
	}
	for _, c := range b {
		h = (h ^ uint64(c)) * 0x100000001b3
	}
	return h
}

// settle makes the print. A lane without a feature takes the next one's with a mark of the distance, so that short
// messages that agree do so in all lanes.
func (t *taker) settle(p *Print) {
	for i := range p {
		v, far := t.least[i], uint32(0)
		for v == none {
			far++
			v = t.least[(uint32(i)+far)%lanes]
		}
		p[i] = uint16(v + far*0x9e37)
	}
}

// Alike returns in what share of lanes two prints agree.
func (p *Print) Alike(q *Print) float64 {
	n := 0
	for i := range p {
		if p[i] == q[i] {
			n++
		}
	}
	return float64(n) / lanes
}
