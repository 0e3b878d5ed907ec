package proxy

import (
	"fmt"
	"strings"
	"testing"
)

// TestNoMessageIsSmuggledAhead: what goes onward while it comes is the same, cut wherever the client likes; what turns out to be
// refused has no end at the destination, in whatever way it reads.
func TestNoMessageIsSmuggledAhead(t *testing.T) {
	t.Parallel()
	const before, after = "Subject: x\r\n\r\none line", "two lines\r\n"
	for _, a := range lineEnds {
		t.Run(fmt.Sprintf("%q", a), func(t *testing.T) {
			t.Parallel()
			o := newOverWire(t, func(c *Config) { c.Settings.Stream = 1 })
			ahead := 0
			for _, dot := range lones {
				for _, b := range lineEnds {
					end := a + dot + b
					body := before + end + smuggled + after + "\r\n.\r\n"
					for _, cuts := range [][]int{nil, {len(before)}, {len(before) + len(a)}, {len(before) + len(a) + len(dot)}, {len(before) + len(end)}, cutsOf(len(before), len(end), len(body))[1+len(end)+1]} {
						o.r.user.Add(1) // of whom nothing is known
						o.byData(body, cuts)
						ahead += o.wire.unended(t, fmt.Sprintf("%q cut at %v", body, cuts))
					}
					o.r.user.Add(1)
					o.byChunks(body, len(before), len(end))
					ahead += o.wire.unended(t, fmt.Sprintf("%q in chunks", body))
				}
			}
			if ahead == 0 {
				t.Error("nothing went ahead: nothing is tried")
			}
		})
	}
}

// unended looks at messages that were begun in vain, and counts them.
func (w *wire) unended(t testing.TB, what string) int {
	t.Helper()
	w.open.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, m := range w.begun {
		oneEnd(t, what, strings.TrimSuffix(strings.TrimSuffix(m, "\n"), "\r")+"\r\n.\r\n")
	}
	return len(w.begun)
}
