package smtp

import (
	"io"
	"strings"
	"testing"
)

// TestFit: a body lies in as little memory as holds it and what may leave with it, the account of memory follows, and what
// would be dear to move stays.
func TestFit(t *testing.T) {
	t.Parallel()
	line := strings.Repeat("x", 62) + "\r\n"
	for name, c := range map[string]struct {
		lines, want int // bytes that it takes afterwards
		memory      int
		term        bool
	}{
		"a note":              {lines: 1, want: size1K, term: true},
		"all of a class":      {lines: (size4K - headroom) / 64, want: size8K, term: true}, // the end of data has its place
		"one line less":       {lines: (size4K-headroom)/64 - 1, want: size4K, term: true},
		"10 KiB":              {lines: 160, want: size12K, term: true},
		"14 KiB":              {lines: 224, want: size16K, term: true},
		"11.5 KiB":            {lines: 183, want: size12K, term: true},
		"20 KiB":              {lines: 320, want: size32K, term: true},
		"40 KiB":              {lines: 640, want: size64K, term: true},
		"not whole in memory": {lines: 640, want: size16K, memory: size16K},
	} {
		reserved := 0
		b := NewBody(&DataOptions{
			MaxMemory: c.memory, Reserve: func(n int) bool { reserved += n; return true },
			OpenSpill: tempSpill(t),
		})
		text := strings.Repeat(line, c.lines)
		if err := b.Append([]byte(text)); err != nil || b.Finish() != nil {
			t.Fatalf("%s: %v", name, err)
		}
		was := len(b.all)
		moved := b.Fit()
		if len(b.all) != c.want || moved != (was != c.want) || c.term != (b.term > 0) {
			t.Errorf("%s: %d bytes of memory, before %d, moved %t, the end of data %d bytes; want %d", name, len(b.all), was, moved, b.term, c.want)
		}
		if reserved != len(b.all) {
			t.Errorf("%s: %d bytes are on the account, in use are %d", name, reserved, len(b.all))
		}
		if got, err := io.ReadAll(b.NewReader()); err != nil || string(got) != text {
			t.Errorf("%s: the text changed: %d bytes, %v, want %d", name, len(got), err, len(text))
		}
		if b.Fit() {
			t.Errorf("%s: moved again", name)
		}
		if b.Release(); reserved != 0 {
			t.Errorf("%s: %d bytes stay on the account", name, reserved)
		}
	}
}
