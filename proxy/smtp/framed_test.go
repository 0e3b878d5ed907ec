package smtp

import (
	"bytes"
	"io"
	"strings"
	"testing"
)

// TestFramed: what goes before a body and the end of data behind it are one piece with it where there is room around it, and the
// wire has the same bytes where there is none, also when the body is sent again from less memory.
func TestFramed(t *testing.T) {
	t.Parallel()
	field := func(n int) string { return "X: " + strings.Repeat("x", n-5) + "\r\n" }
	short := "Subject: x\r\n\r\ntext\r\n"
	for name, c := range map[string]struct {
		pending, prefix, text string
		cut                   int // so many bytes are cut out at its start
		chunk, whole          bool
		more                  int64 // writes than one
	}{
		"nothing before it":    {text: short, whole: true},
		"a field":              {prefix: field(300), text: short, whole: true},
		"as much as fits":      {prefix: field(headroom), text: short, whole: true},
		"one byte too much":    {prefix: field(headroom + 1), text: short},
		"a command as well":    {pending: "NOOP\r\n", prefix: field(headroom - 6), text: short, whole: true},
		"too much with it":     {pending: "NOOP\r\n", prefix: field(headroom - 5), text: short},
		"10 KiB":               {prefix: field(300), text: string(message10K()), whole: true},
		"a field was cut out":  {prefix: field(300), text: short, cut: 12, whole: true},
		"64 KiB":               {prefix: field(300), text: strings.Repeat("0123456789abcd\r\n", 1<<12)},
		"64 KiB and a dot":     {prefix: field(300), text: strings.Repeat("0123456789abcd\r\n", 1<<12) + ".x\r\n", more: 1},
		"a line with a dot":    {prefix: field(300), text: short + ".\r\n"},
		"an empty body":        {prefix: field(300)},
		"a chunk":              {prefix: field(300), text: short + ".\r\n", chunk: true, whole: true},
		"a chunk of no length": {prefix: "", chunk: true},
	} {
		for _, made := range []bool{false, true} {
			stuffed := strings.ReplaceAll(c.text, "\r\n.", "\r\n..")
			in, _ := script(cut(stuffed+".\r\n", 5000)...)
			b, err := in.ReadData(nil)
			if made {
				b.Release()
				b, err = BodyFromBytes([]byte(c.text))
			}
			if err != nil || c.cut > 0 && !b.CutHeader(0, c.cut) {
				t.Fatalf("%s: %v", name, err)
			}
			send, want := (*Conn).WriteData, c.pending+c.prefix+stuffed[c.cut:]+".\r\n"
			if c.chunk {
				send, want = (*Conn).WriteChunk, c.pending+c.prefix+c.text
			}
			for range 2 {
				a, z := tcpPair(t)
				out := NewConn(a, Options{})
				out.WriteRaw([]byte(c.pending))
				if whole := out.framed([]byte(c.prefix), b, !c.chunk); whole != nil != c.whole || c.whole && string(whole) != want {
					t.Errorf("%s: in one piece %.500q, want %t %.500q", name, whole, c.whole, want)
				}
				if err := send(out, []byte(c.prefix), b); err != nil || out.Writes() != 1+c.more {
					t.Fatalf("%s: %d writes, %v", name, out.Writes(), err)
				}
				a.Close()
				got, err := io.ReadAll(z)
				if i := bytes.Index(got, []byte(" LAST\r\n")); c.chunk && i > 0 {
					got = got[i+len(" LAST\r\n"):]
				}
				if err != nil || string(got) != want {
					t.Errorf("%s: sent %.500q, %v; want %.500q", name, got, err, want)
				}
				b.Fit()
			}
			b.Release()
		}
	}
}
