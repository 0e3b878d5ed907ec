package ladder

import (
	"fmt"
	"math/bits"
	"math/rand/v2"
	"strings"
	"testing"
)

// text is words of a vocabulary, by a seed.
func text(seed uint64, n int) []string {
	rnd := rand.New(rand.NewPCG(seed, 9))
	words := make([]string, n)
	for i := range words {
		var b strings.Builder
		for v := rnd.IntN(600) + 40; v > 0; v /= 7 {
			b.WriteString([]string{"ba", "ce", "di", "fo", "gu", "la", "ne"}[v%7])
		}
		words[i] = b.String()
	}
	return words
}

func TestPrints(t *testing.T) {
	t.Parallel()
	worst := 0
	for seed := range uint64(200) {
		words := text(seed, 150)
		one := Print([]byte("Dear Anna,\r\n" + strings.Join(words, " ") + "\r\nhttps://shop.example/u/1234?x=abc order 55231"))
		other := Print([]byte("Dear Berthold,\r\n" + strings.Join(words, " ") + "\r\nhttps://shop.example/u/99871?x=zzq order 8"))
		worst = max(worst, bits.OnesCount64(one^other))
		if b := Print([]byte(strings.Join(text(seed+1000, 150), " "))); Alike(one, b) {
			t.Errorf("seed %d: two texts are alike: %x %x", seed, one, b)
		}
	}
	if worst > alikeBits {
		t.Errorf("copies that differ in name, link and number have prints %d bits apart, want at most %d", worst, alikeBits)
	}
	for i := range 100 {
		if Alike(Print([]byte(fmt.Sprint("spam ", i))), Print([]byte(fmt.Sprint("spam ", i+1)))) {
			t.Errorf("short texts %d and %d are alike", i, i+1)
		}
	}
	if Print(nil) == 0 || Print([]byte("<html")) == 0 {
		t.Error("a print is 0")
	}
}

func BenchmarkPrint(b *testing.B) {
	body := []byte(strings.Join(text(1, 600), " "))
	b.SetBytes(int64(len(body)))
	for range b.N {
		Print(body)
	}
}
