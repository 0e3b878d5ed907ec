package smtp

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
)

// refDecode is the oracle: the same rules as decoder, line by line and slowly. end is the
// position behind the end of data, -1 if there is none.
func refDecode(s string) (body string, end int, nul, bareCR, bareLF bool) {
	var out strings.Builder
	prevCRLF, pos := true, 0
	for {
		i := strings.IndexByte(s[pos:], '\n')
		if i < 0 {
			return out.String(), -1, nul, bareCR, bareLF
		}
		line := s[pos : pos+i]
		pos += i + 1
		crlf := strings.HasSuffix(line, "\r")
		line = strings.TrimSuffix(line, "\r")
		if line == "." && crlf && prevCRLF {
			return out.String(), pos, nul, bareCR, bareLF
		}
		if line != "." {
			line = strings.TrimPrefix(line, ".")
		}
		nul = nul || strings.Contains(line, "\x00")
		bareCR = bareCR || strings.Contains(line, "\r")
		bareLF = bareLF || !crlf
		out.WriteString(line + "\r\n")
		prevCRLF = crlf
	}
}

// TestSmuggling holds every known way to make two servers disagree about the end of data: what
// stands before NEXT is one message, whatever it holds, and it leaves in canonical form.
func TestSmuggling(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name, in string
		want     string // body; "" with an error
		err      error
	}{
		{"canonical", "a\r\n.\r\n", "a\r\n", nil},
		{"empty", ".\r\n", "", nil},
		{"only an empty line", "\r\n.\r\n", "\r\n", nil},
		{"doubled dot", "..\r\n...a\r\n.\r\n", ".\r\n..a\r\n", nil},
		{"dot undoubled by the sender", ".a\r\n.\r\n", "a\r\n", nil},
		{"LF . LF", "a\n.\nMAIL FROM:<x@y>\r\n.\r\n", "a\r\n.\r\nMAIL FROM:<x@y>\r\n", nil},
		{"LF . CRLF", "a\n.\r\nMAIL FROM:<x@y>\r\n.\r\n", "a\r\n.\r\nMAIL FROM:<x@y>\r\n", nil},
		{"CRLF . LF", "a\r\n.\nMAIL FROM:<x@y>\r\n.\r\n", "a\r\n.\r\nMAIL FROM:<x@y>\r\n", nil},
		{"first line . LF", ".\nMAIL FROM:<x@y>\r\n.\r\n", ".\r\nMAIL FROM:<x@y>\r\n", nil},
		{"LF .. CRLF", "a\n..\r\nb\r\n.\r\n", "a\r\n.\r\nb\r\n", nil},
		{"CRLF . CR", "a\r\n.\rMAIL\r\n.\r\n", "", ErrBareCR},
		{"CRLF . CR CRLF", "a\r\n.\r\r\nb\r\n.\r\n", "", ErrBareCR},
		{"CR . CR", "a\r.\rb\r\n.\r\n", "", ErrBareCR},
		{"CR . CRLF", "a\r.\r\nb\r\n.\r\n", "", ErrBareCR},
		{"CR . LF", "a\r.\nb\r\n.\r\n", "", ErrBareCR},
		{"LF . CR", "a\n.\rb\r\n.\r\n", "", ErrBareCR},
		{"LF . CR CRLF", "a\n.\r\r\nb\r\n.\r\n", "", ErrBareCR},
		{"CR CRLF . CRLF ends", "a\r\r\n.\r\n", "", ErrBareCR},
		{"LF CR . CRLF", "a\n\r.\r\nb\r\n.\r\n", "", ErrBareCR},
		{"CRLF . NUL CRLF", "a\r\n.\x00\r\nb\r\n.\r\n", "", ErrNUL},
		{"CRLF NUL . CRLF", "a\r\n\x00.\r\nb\r\n.\r\n", "", ErrNUL},
		{"CRLF . blank CRLF", "a\r\n. \r\nb\r\n.\r\n", "a\r\n \r\nb\r\n", nil},
		{"blank . CRLF", "a\r\n .\r\nb\r\n.\r\n", "a\r\n .\r\nb\r\n", nil},
		{"LF CRLF . CRLF ends", "a\n\r\n.\r\n", "a\r\n\r\n", nil},
		{"LF LF . CRLF", "a\n\n.\r\nb\r\n.\r\n", "a\r\n\r\n.\r\nb\r\n", nil},
		{"UTF-8 lookalikes", "a\u2028.\u2028\u0085.\u0085b\r\n.\r\n", "a\u2028.\u2028\u0085.\u0085b\r\n", nil},
		{"bare LF only", "a\nb\n.b\n..\n\r\n.\r\n", "a\r\nb\r\nb\r\n.\r\n\r\n", nil},
	} {
		for size := 1; size <= len(tc.in)+4; size++ {
			name := fmt.Sprintf("%s/%d", tc.name, size)
			c, _ := script(cut(tc.in+"NEXT\r\n", size)...)
			b, err := c.ReadData(nil)
			if !errors.Is(err, tc.err) {
				t.Fatalf("%s: error %v, want %v", name, err, tc.err)
			}
			if err == nil {
				if got := readAll(t, b); got != tc.want {
					t.Fatalf("%s: body %q, want %q", name, got, tc.want)
				}
				onward(t, name, b)
				b.Release()
			} else if !Recoverable(err) {
				t.Fatalf("%s: %v is not recoverable", name, err)
			}
			if cmd, err := c.ReadCommand(); err != nil || string(cmd.Line) != "NEXT" {
				t.Fatalf("%s: after the body %q, %v", name, cmd.Line, err)
			}
		}
	}
}

// onward sends b and checks that even the most lenient reader finds its end only where it is, and
// a strict one the same bytes.
func onward(t testing.TB, name string, b *Body) {
	t.Helper()
	c, s := script()
	if err := c.WriteData([]byte("Received: by gw\r\n"), b); err != nil {
		t.Fatalf("%s: WriteData: %v", name, err)
	}
	wire := s.out.String()
	body, end, nul, bareCR, bareLF := refDecode(wire)
	want := "Received: by gw\r\n" + readAll(t, b)
	if !strings.HasSuffix(want, "\n") {
		want += "\r\n"
	}
	if body != want || end != len(wire) || nul || bareCR || bareLF {
		t.Fatalf("%s: sent onward %q", name, wire)
	}
	lenient := strings.NewReplacer("\r\n", "\n", "\r", "\n").Replace("\n" + wire)
	if i := strings.Index(lenient, "\n.\n"); i != len(lenient)-3 {
		t.Fatalf("%s: a lenient server sees an end at %d of %q", name, i, lenient)
	}
}

func TestReadDataRefuses(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", 70_000)
	for _, tc := range []struct {
		name, in string
		o        DataOptions
		err      error
	}{
		{"bare LF by setting", "a\nb\r\n.\r\n", DataOptions{RefuseBareLF: true}, ErrBareLF},
		{"too large", "12345678\r\n.\r\n", DataOptions{MaxSize: 9}, ErrTooLarge},
		{"too large by far", strings.Repeat(long+"\r\n", 20) + ".\r\n", DataOptions{MaxSize: 100}, ErrTooLarge},
		{"exactly the size", "1234567\r\n.\r\n", DataOptions{MaxSize: 9}, nil},
		{"size counts no stuffing", "..234567\r\n.\r\n", DataOptions{MaxSize: 9}, nil},
		{"long line", "abcdef\r\n.\r\n", DataOptions{MaxLine: 5}, ErrBodyLine},
		{"line of the limit", "abcde\r\n.\r\n", DataOptions{MaxLine: 5}, nil},
		{"no limit", long + "\r\n.\r\n", DataOptions{}, nil},
		{"no spill", strings.Repeat(long, 3) + "\r\n.\r\n", DataOptions{MaxMemory: 1}, ErrSpill},
		{"spill fails to open", strings.Repeat(long, 3) + "\r\n.\r\n",
			DataOptions{MaxMemory: 1, OpenSpill: func() (Spill, error) { return nil, io.ErrShortWrite }}, ErrSpill},
		{"spill fails to write", strings.Repeat(long, 3) + "\r\n.\r\n",
			DataOptions{MaxMemory: 1, OpenSpill: func() (Spill, error) { return brokenSpill{}, nil }}, ErrSpill},
		{"no memory and no spill", "a\r\n.\r\n", DataOptions{Reserve: func(int) bool { return false }}, ErrSpill},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			c, _ := script(cut(tc.in+"NOOP\r\n", 5000)...)
			b, err := c.ReadData(&tc.o)
			if !errors.Is(err, tc.err) || (err != nil && !Recoverable(err)) {
				t.Fatalf("error %v, want %v", err, tc.err)
			}
			b.Release()
			if cmd, err := c.ReadCommand(); err != nil || cmd.Verb != NOOP {
				t.Fatalf("after the body %q, %v", cmd.Line, err)
			}
		})
	}
}

type brokenSpill struct{}

func (brokenSpill) Write([]byte) (int, error)         { return 0, io.ErrShortWrite }
func (brokenSpill) ReadAt([]byte, int64) (int, error) { return 0, io.EOF }
func (brokenSpill) Close() error                      { return nil }

func TestReadDataGivesUp(t *testing.T) {
	t.Parallel()
	endless := strings.Repeat(strings.Repeat("x", 998)+"\r\n", 200)
	c, _ := script(cut(endless, 4096)...)
	if _, err := c.ReadData(&DataOptions{MaxSize: 1000, MaxDiscard: 50_000}); err != ErrFlood || Recoverable(err) {
		t.Errorf("flood: %v", err)
	}
	c, _ = script("a\r\n.\r")
	if _, err := c.ReadData(nil); err != io.ErrUnexpectedEOF || !gone(err) {
		t.Errorf("cut off: %v", err)
	}
	_, s := script(cut(endless, 4096)...)
	c = NewConn(s, Options{MaxTotal: 10_000})
	if _, err := c.ReadData(nil); err != ErrTotal || c.BytesIn() != 10_000 {
		t.Errorf("total: %v after %d", err, c.BytesIn())
	}
}

func TestBodyFacts(t *testing.T) {
	t.Parallel()
	c, _ := script("A: b\r\n", "C: d\n\r\n", "..x\r\nlonger \xc3\xa9 line\r\n.\r\n")
	b, err := c.ReadData(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Release()
	if got := string(b.Header()); got != "A: b\r\nC: d\r\n\r\n" || b.HeaderLen() != 14 {
		t.Errorf("header %q", got)
	}
	if b.Lines() != 5 || b.Dots() != 1 || !b.Has8Bit() || !b.HadBareLF() || !b.Canonical() || b.LongestLine() != 14 || b.Spilled() {
		t.Errorf("lines %d dots %d 8bit %v LF %v longest %d", b.Lines(), b.Dots(), b.Has8Bit(), b.HadBareLF(), b.LongestLine())
	}
	if string(b.Bytes()) != "A: b\r\nC: d\r\n\r\n.x\r\nlonger é line\r\n" || b.Size() != int64(len(b.Bytes())) {
		t.Errorf("bytes %q", b.Bytes())
	}
	nohead, err := BodyFromBytes([]byte("no empty line\r\n"))
	if err != nil || nohead.HeaderLen() != 15 {
		t.Errorf("no empty line: %v", err)
	}
}

// TestSpill reads bodies of many sizes around the bounds of memory and window, with and without
// memory to spare, and compares all ways to read them.
func TestSpill(t *testing.T) {
	t.Parallel()
	line := "some text.\r\n..dots and a bare\nlf here\r\n"
	clean := "some text.\r\n.dots and a bare\r\nlf here\r\n"
	for _, n := range []int{1, 300, 420, 430, 1700, 7000, 14000, 30000} {
		for _, mem := range []int{1, size64K, size4M} {
			in := strings.Repeat(line, n)
			want := strings.Repeat(clean, n)
			used := 0
			o := &DataOptions{MaxMemory: mem, OpenSpill: tempSpill(t), Reserve: func(d int) bool { used += d; return true }}
			c, _ := script(cut(in+".\r\nQUIT\r\n", 65521)...)
			b, err := c.ReadData(o)
			if err != nil {
				t.Fatalf("%d lines, memory %d: %v", n, mem, err)
			}
			if b.Size() != int64(len(want)) || readAll(t, b) != want {
				t.Fatalf("%d lines, memory %d: body of %d bytes differs, want %d", n, mem, b.Size(), len(want))
			}
			if len(b.Bytes()) > classFor(mem) || used > classFor(mem) { // the window has been given back
				t.Errorf("%d lines: %d bytes in memory, %d reserved, allowed %d", n, len(b.Bytes()), used, mem)
			}
			var w bytes.Buffer
			if k, err := b.NewReader().WriteTo(&w); err != nil || k != b.Size() || w.String() != want {
				t.Errorf("WriteTo: %d, %v", k, err)
			}
			mid := make([]byte, 100)
			if k, err := b.ReadAt(mid, b.Size()-20); k != 20 || err != io.EOF {
				t.Errorf("ReadAt over the end: %d, %v", k, err)
			}
			onward(t, "spilled", b)
			b.Release()
			b.Release()
			if used != 0 {
				t.Errorf("%d bytes are still reserved", used)
			}
			if cmd, err := c.ReadCommand(); err != nil || cmd.Verb != QUIT {
				t.Errorf("after the body: %q, %v", cmd.Line, err)
			}
		}
	}
}

// TestReadDataUnchanged: canonical bytes pass as they are, in few reads and one write.
func TestReadDataUnchanged(t *testing.T) {
	t.Parallel()
	msg := "Subject: x\r\n\r\n" + strings.Repeat("line of text, quite usual in length, neither short nor long\r\n", 200)
	a, b := tcpPair(t)
	in, out := NewConn(a, Options{}), NewConn(b, Options{})
	body, err := BodyFromBytes([]byte(msg))
	if err != nil {
		t.Fatal(err)
	}
	defer body.Release()
	if err := out.WriteData([]byte("X-A: b\r\n"), body); err != nil {
		t.Fatal(err)
	}
	if out.Writes() != 1 {
		t.Errorf("%d writes", out.Writes())
	}
	got, err := in.ReadData(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer got.Release()
	if string(got.Bytes()) != "X-A: b\r\n"+msg {
		t.Error("bytes differ")
	}
	if out.BytesOut() != in.BytesIn() || out.BytesOut() != int64(len(msg)+8+3) {
		t.Errorf("%d bytes out, %d in", out.BytesOut(), in.BytesIn())
	}
}

func TestWriteDataRefuses(t *testing.T) {
	t.Parallel()
	body, err := BodyFromBytes([]byte("a\r\n"))
	if err != nil {
		t.Fatal(err)
	}
	for _, prefix := range []string{"A: b", "A: b\n", "A\r: b\r\n", ".\r\n", "A: b\r\n.\r\n", "A\x00\r\n", "\n"} {
		c, s := script()
		if err := c.WriteData([]byte(prefix), body); err != ErrNotCanonical || s.out.Len() > 0 {
			t.Errorf("prefix %q: %v, wrote %q", prefix, err, s.out.String())
		}
	}
	b := NewBody(&DataOptions{Binary: true})
	b.Append([]byte("a\nb"))
	if err := b.Finish(); err != nil || b.Canonical() {
		t.Fatalf("binary body: %v", err)
	}
	c, _ := script()
	if err := c.WriteData(nil, b); err != ErrNotCanonical {
		t.Errorf("binary body: %v", err)
	}
}

func TestReadChunk(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name   string
		chunks []string
		o      DataOptions
		want   string
		err    error
	}{
		{"one", []string{"a\r\n.\r\nb\r\n"}, DataOptions{}, "a\r\n.\r\nb\r\n", nil},
		{"CRLF over two", []string{"a\r", "\nb\r\n"}, DataOptions{}, "a\r\nb\r\n", nil},
		{"empty last", []string{"a\r\n", ""}, DataOptions{}, "a\r\n", nil},
		{"no line end", []string{"a\r\nb"}, DataOptions{}, "a\r\nb", nil},
		{"bare LF", []string{"a\nb\n"}, DataOptions{}, "a\r\nb\r\n", nil},
		{"bare CR", []string{"a\rb\r\n"}, DataOptions{}, "", ErrBareCR},
		{"bare CR last", []string{"a\r"}, DataOptions{}, "", ErrBareCR},
		{"NUL", []string{"a\x00\r\n"}, DataOptions{}, "", ErrNUL},
		{"binary", []string{"a\x00\nb\rc\r\n\r"}, DataOptions{Binary: true}, "a\x00\nb\rc\r\n\r", nil},
		{"too large", []string{"abc\r\n", "def\r\n"}, DataOptions{MaxSize: 6}, "", ErrTooLarge},
	} {
		for size := 1; size < 12; size++ {
			c, _ := script(cut(strings.Join(tc.chunks, "")+"RSET\r\n", size)...)
			b := NewBody(&tc.o)
			var err error
			for _, chunk := range tc.chunks {
				err = c.ReadChunk(b, int64(len(chunk)))
			}
			if ferr := b.Finish(); err == nil {
				err = ferr
			}
			if !errors.Is(err, tc.err) {
				t.Fatalf("%s/%d: %v, want %v", tc.name, size, err, tc.err)
			}
			if err == nil && string(b.Bytes()) != tc.want {
				t.Fatalf("%s/%d: %q", tc.name, size, b.Bytes())
			}
			if err == nil && b.Canonical() {
				onward(t, tc.name, b)
			}
			b.Release()
			if cmd, err := c.ReadCommand(); err != nil || cmd.Verb != RSET {
				t.Fatalf("%s/%d: then %q, %v", tc.name, size, cmd.Line, err)
			}
		}
	}
}

// TestWriteChunk: one write, and the bytes come back as they were, also binary, spilled and dotted ones.
func TestWriteChunk(t *testing.T) {
	t.Parallel()
	for name, msg := range map[string]string{"plain": "a\r\nb\r\n", "dots": ".\r\n..\r\n", "binary": "a\x00\nb\r", "empty": "",
		"spilled": strings.Repeat("0123456789\r\n", 10_000)} {
		o := &DataOptions{Binary: true, MaxMemory: 1, OpenSpill: tempSpill(t)}
		b := NewBody(o)
		b.Append([]byte(msg))
		if err := b.Finish(); err != nil {
			t.Fatal(err)
		}
		out, s := script()
		if err := out.WriteChunk([]byte("A: b\r\n"), b); err != nil || (!b.Spilled() && s.writes != 1) {
			t.Fatalf("%s: %d writes, %v", name, s.writes, err)
		}
		in, _ := script(cut(s.out.String()+"QUIT\r\n", 5000)...)
		cmd, err := in.ReadCommand()
		if err != nil || cmd.Verb != BDAT {
			t.Fatalf("%s: %q, %v", name, cmd.Line, err)
		}
		n, last, err := ParseBDAT(string(cmd.Arg))
		if err != nil || !last || n != int64(len(msg)+6) {
			t.Fatalf("%s: %q", name, cmd.Line)
		}
		back := NewBody(o)
		if err := errors.Join(in.ReadChunk(back, n), back.Finish()); err != nil || readAll(t, back) != "A: b\r\n"+msg {
			t.Errorf("%s: came back as %d bytes, %v", name, back.Size(), err)
		}
		if cmd, err := in.ReadCommand(); err != nil || cmd.Verb != QUIT {
			t.Errorf("%s: then %q, %v", name, cmd.Line, err)
		}
		b.Release()
		back.Release()
	}
}

// TestPipelinedMessages: whole messages and commands that arrive in one read come out one by one.
func TestPipelinedMessages(t *testing.T) {
	t.Parallel()
	big := strings.Repeat("0123456789012345678901234567890123456789\r\n", 2500)
	in := big + ".\r\n" + strings.Repeat("DATA\r\nx\ny\r\n.\r\n", 3000) + "QUIT\r\n"
	c, _ := script(in)
	b, err := c.ReadData(nil)
	if err != nil || string(b.Bytes()) != big {
		t.Fatalf("first message: %v", err)
	}
	b.Release()
	for i := range 3000 {
		if cmd, err := c.ReadCommand(); err != nil || cmd.Verb != DATA {
			t.Fatalf("message %d: %q, %v", i, cmd.Line, err)
		}
		if b, err = c.ReadData(nil); err != nil || string(b.Bytes()) != "x\r\ny\r\n" {
			t.Fatalf("message %d: %v", i, err)
		}
		b.Release()
	}
	if cmd, err := c.ReadCommand(); err != nil || cmd.Verb != QUIT {
		t.Errorf("%q, %v", cmd.Line, err)
	}
	if c.Reads() > 10 {
		t.Errorf("%d reads", c.Reads())
	}
	c.Idle()
	if c.buf != nil {
		t.Error("an idle connection keeps its buffer")
	}
}
