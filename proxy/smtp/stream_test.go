package smtp

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"strings"
	"testing"
)

// streamed reads wire as DATA in pieces of at most n bytes and passes what comes to a stream, in chunks or not, from `from` bytes
// on. It gives the body, what had left before the end was asked for, and all that left.
func streamed(t *testing.T, wire string, n, from int, chunks bool) (body *Body, before, all string) {
	t.Helper()
	in, _ := script(cut(wire, n)...)
	out, sc := script()
	var st *Stream
	b, err := in.ReadData(&DataOptions{MaxMemory: 4 << 10, OpenSpill: tempSpill(t), From: int64(from), Arrived: func(b *Body) {
		if b.Arrived() < int64(from) {
			t.Errorf("called with %d bytes, from %d on", b.Arrived(), from)
		}
		if st == nil {
			var err error
			if st, err = out.BeginStream([]byte("Received: here\r\n"), chunks); err != nil {
				t.Fatal(err)
			}
		}
		if err := st.Pass(b); err != nil {
			t.Fatal(err)
		}
	}})
	if err != nil {
		t.Fatal(err)
	}
	if st == nil {
		b.Release()
		return nil, "", ""
	}
	t.Cleanup(st.Release)
	if err := st.Pass(b); err != nil {
		t.Fatal(err)
	}
	if err := st.End(func() error { before = sc.out.String(); return nil }); err != nil {
		t.Fatal(err)
	}
	return b, before, sc.out.String()
}

// unchunked joins BDAT chunks; last tells whether the last one was there, at the end.
func unchunked(t *testing.T, s string) (text string, last bool) {
	t.Helper()
	for s != "" {
		line, rest, _ := strings.Cut(s, "\r\n")
		size, l, err := ParseBDAT(strings.TrimPrefix(line, "BDAT "))
		if err != nil || last || int64(len(rest)) < size {
			t.Fatalf("chunk %q, %v, behind the last: %t", line, err, last)
		}
		text, s, last = text+rest[:size], rest[size:], l
	}
	return text, last
}

// TestStreamIsTheMessage: what is passed on while it comes is byte by byte what would be sent of the whole message, whatever the
// pieces in which it comes, and without its end until that is asked for.
func TestStreamIsTheMessage(t *testing.T) {
	t.Parallel()
	rnd := rand.New(rand.NewPCG(1, 2))
	words := []string{"\r\n", "\r\n.", "\r\n..", ".", "\n", "\n.\n", "x", "\r\n.\n", strings.Repeat("long ", 300), "\xe4"}
	for range 60 {
		var w strings.Builder
		for range 20 + rnd.IntN(200) {
			w.WriteString(words[rnd.IntN(len(words))])
		}
		wire := strings.ReplaceAll(w.String(), "\r\n.\r\n", "\r\n") + "\r\n.\r\n"
		n, from := 1+rnd.IntN(5000), rnd.IntN(60<<10)
		for _, chunks := range []bool{false, true} {
			b, before, all := streamed(t, wire, n, from, chunks)
			if b == nil {
				continue
			}
			ref, sc := script()
			if err := ref.WriteData([]byte("Received: here\r\n"), b); err != nil {
				t.Fatal(err)
			}
			want := sc.out.String()
			if chunks {
				text, last := unchunked(t, all)
				if part, ended := unchunked(t, before); ended || !strings.HasPrefix(text, part) {
					t.Fatalf("the last chunk had left before it was asked for: %t", ended)
				}
				out, _ := io.ReadAll(b.NewReader())
				if !last || text != "Received: here\r\n"+string(out) {
					t.Fatalf("in chunks of %d bytes: got %d bytes, want %d", n, len(text), len(out)+16)
				}
			} else if all != want || strings.Contains(before, "\r\n.\r\n") || !strings.HasPrefix(want, before) {
				t.Fatalf("pieces of %d, from %d: got %d bytes, want %d; %d before the end", n, from, len(all), len(want), len(before))
			}
			b.Release()
		}
	}
}

// TestBeginningOfABody is what the whole body begins with, in memory or beyond it, and the header is known once it is there.
func TestBeginningOfABody(t *testing.T) {
	t.Parallel()
	wire := "Subject: x\r\n\r\n" + strings.Repeat("0123456789\r\n", 8000) + ".\r\n"
	want := strings.TrimSuffix(wire, ".\r\n")
	in, _ := script(cut(wire, 3000)...)
	calls := 0
	b, err := in.ReadData(&DataOptions{MaxMemory: 4 << 10, OpenSpill: tempSpill(t), Arrived: func(b *Body) {
		calls++
		for _, n := range []int64{1, 5000, 50_000, 1 << 30} {
			p, err := b.Beginning(n)
			if err != nil || int64(len(p)) != min(n, b.Arrived()) || !strings.HasPrefix(want, string(p)) {
				t.Fatalf("the first %d of %d bytes: %d, %v", n, b.Arrived(), len(p), err)
			}
		}
		if b.HeaderArrived() != 14 {
			t.Errorf("header of %d bytes", b.HeaderArrived())
		}
	}})
	if err != nil || calls < 10 {
		t.Fatalf("%v, after %d calls", err, calls)
	}
	b.Release()
}

// TestRefusedBodyArrivesNoMore: what speaks against a body is known before what stands behind it is passed on.
func TestRefusedBodyArrivesNoMore(t *testing.T) {
	t.Parallel()
	for _, bad := range []string{"a\x00b", "a\rb", strings.Repeat("z", 6000)} {
		in, _ := script(cut("Subject: x\r\n\r\n"+strings.Repeat("fine\r\n", 1000)+bad+"\r\nbehind\r\n.\r\n", 1000)...)
		var seen bytes.Buffer
		_, err := in.ReadData(&DataOptions{MaxSize: 10_000, OpenSpill: tempSpill(t), Arrived: func(b *Body) {
			p, err := b.Beginning(1 << 30)
			if err != nil {
				t.Fatal(err)
			}
			seen.Reset()
			seen.Write(p)
		}})
		if err == nil || bytes.ContainsAny(seen.Bytes(), "\x00") || bytes.Contains(seen.Bytes(), []byte("behind")) || bytes.Contains(seen.Bytes(), []byte("\rb")) {
			t.Errorf("%.5q: %v; %d bytes were seen", bad, err, seen.Len())
		}
	}
}

// TestStreamThatIsNotEnded: an objection at the end leaves the end out.
func TestStreamThatIsNotEnded(t *testing.T) {
	t.Parallel()
	no := errors.New("no")
	for _, chunks := range []bool{false, true} {
		out, sc := script()
		st, err := out.BeginStream(nil, chunks)
		if err != nil {
			t.Fatal(err)
		}
		b, err := BodyFromBytes([]byte("Subject: x\r\n\r\ntext\r\n"))
		if err != nil {
			t.Fatal(err)
		}
		if err := st.Pass(b); err != nil {
			t.Fatal(err)
		}
		if err := st.End(func() error { return no }); err != no {
			t.Errorf("End gives %v", err)
		}
		if s := sc.out.String(); strings.Contains(s, "\r\n.\r\n") || strings.Contains(s, "LAST") {
			t.Errorf("chunks %t: %q left", chunks, s)
		}
		st.Release()
		b.Release()
	}
	if _, err := NewConn(&scriptConn{}, Options{}).BeginStream([]byte("no line"), false); err != ErrNotCanonical {
		t.Errorf("a prefix without a line end: %v", err)
	}
}
