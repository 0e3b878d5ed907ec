package learn

import (
	"bytes"
	"math/rand/v2"
	"slices"
	"testing"
)

// wordsPlainly are the features of a text's words, found byte by byte.
func wordsPlainly(space byte, text []byte, most int) (ids []uint32, n int) {
	var prev uint64
	for i := 0; i < len(text) && n < most; {
		c := wordByte(text[i])
		if c == 0 {
			if bytes.IndexByte([]byte("!$?%"), text[i]) >= 0 {
				ids = append(ids, slot(hashOf(space, text[i:i+1])))
			}
			i++
			continue
		}
		var word []byte
		digits := 0
		for ; i < len(text) && wordByte(text[i]) != 0; i++ {
			if c = wordByte(text[i]); c == '0' {
				digits++
			}
			word = append(word, c)
		}
		h := hashOf(space, word[:min(len(word), 20)])
		if digits > 2 && digits < len(word) || len(word) > 30 {
			h = hashOf(space, []byte("\x01id"))
		}
		n++
		if ids = append(ids, slot(h)); prev != 0 {
			ids = append(ids, slot(h*3+prev*7))
		}
		prev = h
	}
	return ids, n
}

// gramsPlainly are the features of a text's letters, found byte by byte.
func gramsPlainly(space byte, text []byte) (ids []uint32) {
	var run []byte
	for _, c := range text {
		switch {
		case c <= ' ':
			if c = ' '; len(run) > 0 && run[len(run)-1] == ' ' {
				continue
			}
		case wordByte(c) != 0:
			c = wordByte(c)
		}
		run = append(run, c)
	}
	for ; len(run) >= 4; run = run[1:] {
		g := uint64(run[0])<<24 | uint64(run[1])<<16 | uint64(run[2])<<8 | uint64(run[3])
		ids = append(ids, slot((g|uint64(space)<<40)*prime64))
	}
	return ids
}

// wordByte is a byte of a word, letters in lower case and digits all alike, or 0.
func wordByte(c byte) byte {
	switch {
	case c >= 'A' && c <= 'Z':
		return c | 0x20
	case c >= '0' && c <= '9':
		return '0'
	case c >= 'a' && c <= 'z' || c >= 0x80 || c == '\'' || c == '-':
		return c
	}
	return 0
}

// sameFound reports where the features of a text are not those that are found byte by byte.
func sameFound(t *testing.T, f *Features, text []byte, most, read int) {
	t.Helper()
	f.reset()
	f.view = viewWords
	n := f.words('b', text, most)
	ids, want := wordsPlainly('b', text, most)
	if n != want || !slices.Equal(f.ids[viewWords], ids) {
		t.Fatalf("the first %d words of %q: %d with features %x, want %d with %x", most, text, n, f.ids[viewWords], want, ids)
	}
	f.view = viewGrams
	f.grams('B', read)
	if ids := gramsPlainly('B', text[:read]); !slices.Equal(f.ids[viewGrams], ids) {
		t.Fatalf("runs of letters of %q: %x, want %x", text[:read], f.ids[viewGrams], ids)
	}
}

// TestFoundByteByByte: what is found in passes is what is found byte by byte, in the same order.
func TestFoundByteByByte(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(3, 1))
	f := NewFeatures()
	alphabets := []string{"ab ", "aZ09 ", "a0- '\n", "aé!$%?# ", "\x00\x1f !~\x7f\x80\xff@[`{/:az09AZ&,.", "abcdefghijklmnopqrstuvwxy "}
	for round := range 4000 {
		all := alphabets[r.IntN(len(alphabets))]
		text := make([]byte, r.IntN([]int{9, 70, 300, 9000}[round%4]))
		for i := range text {
			text[i] = all[r.IntN(len(all))]
		}
		for range r.IntN(3) { // long words and long blanks
			if i := r.IntN(len(text) + 1); r.IntN(2) == 0 {
				copy(text[i:], bytes.Repeat([]byte{"a0 "[r.IntN(3)]}, r.IntN(200)))
			}
		}
		sameFound(t, f, text, []int{0, 1, 6, 40, maxWords}[r.IntN(5)], r.IntN(len(text)+1))
	}
	for c := range 256 {
		for at := range 17 {
			text := []byte("word word word   word")
			text[at] = byte(c)
			sameFound(t, f, text, maxWords, len(text))
		}
	}
}

func FuzzFound(f *testing.F) {
	f.Add([]byte("Hello, WORLD 2001 -- it's 100% free!!  \x80\xff\n"), uint8(4), uint16(20))
	found := NewFeatures()
	f.Fuzz(func(t *testing.T, text []byte, most uint8, read uint16) {
		sameFound(t, found, text, int(most), min(int(read), len(text)))
	})
}
