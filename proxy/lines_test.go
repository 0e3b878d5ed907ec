package proxy

import "testing"

// TestLines: a reply that comes again and again between others is kept once. It is not parallel: it counts allocations.
func TestLines(t *testing.T) {
	var l lines
	for _, raw := range []string{"250 ok\r\n", "250 queued as 1\r\n", "250 ok\r\n", "250 queued as 2\r\n250 more\r\n", "250 ok\r\n", ""} {
		if got, want := l.of([]byte(raw)), firstLine([]byte(raw)); got != want {
			t.Errorf("%q: %q", raw, got)
		}
	}
	ok := []byte("250 ok\r\n")
	l.of(ok)
	if n := testing.AllocsPerRun(10, func() { l.of(ok) }); n != 0 {
		t.Errorf("%v allocations for what is known", n)
	}
}
