package smtp

import (
	"bytes"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
)

type rest struct {
	*bytes.Reader
	closed bool
}

func (r *rest) Close() error { r.closed = true; return nil }

func TestStoredBodyIsSentAsTheOneItWasMadeOf(t *testing.T) {
	t.Parallel()
	msg := "Subject: x\r\n\r\n.dot\r\n..two\r\ngr\xc3\xbc\xc3\x9fe\r\nno end"
	prefix := []byte("Received: from a\r\n\tby b\r\n")
	b, err := BodyFromBytes([]byte(msg))
	if err != nil {
		t.Fatal(err)
	}
	whole := string(prefix) + msg
	facts := b.Facts(prefix)
	if facts.Header != int64(len(prefix)+len("Subject: x\r\n\r\n")) || facts.Dots != 2 || !facts.EightBit || facts.Lines != 7 || facts.Longest != 16 {
		t.Errorf("facts are %+v", facts)
	}
	for _, inMemory := range []int{len(whole), 30} {
		r := &rest{Reader: bytes.NewReader([]byte(whole[inMemory:]))}
		var later Rest = r
		if inMemory == len(whole) {
			later = nil
		}
		s, err := StoredBody(inMemory, func(p []byte) error { copy(p, whole); return nil }, later, int64(len(whole)), facts)
		if err != nil {
			t.Fatal(err)
		}
		if got, want := sentAsData(t, s, nil), sentAsData(t, b, prefix); got != want {
			t.Errorf("with %d bytes in memory it is sent as\n%q\nwant\n%q", inMemory, got, want)
		}
		s.Release()
		if later != nil && !r.closed {
			t.Error("what is not in memory was not closed")
		}
	}
}

func TestStoredBodyWithoutHeaderOrThatCannotBeRead(t *testing.T) {
	t.Parallel()
	b, err := BodyFromBytes([]byte("no empty line\r\n"))
	if err != nil {
		t.Fatal(err)
	}
	if f := b.Facts(nil); f.Header != 0 {
		t.Errorf("a header of %d bytes where there is none", f.Header)
	}
	s, err := StoredBody(15, func(p []byte) error { copy(p, "no empty line\r\n"); return nil }, nil, 15, b.Facts(nil))
	if err != nil || s.HeaderLen() != 15 || !s.Canonical() {
		t.Errorf("%v, header %d, canonical %t", err, s.HeaderLen(), s.Canonical())
	}
	bad := errors.New("torn")
	if _, err := StoredBody(3, func([]byte) error { return bad }, nil, 3, Facts{}); !errors.Is(err, bad) {
		t.Errorf("got %v", err)
	}
	if s, err = StoredBody(3, func(p []byte) error { copy(p, "a\nb"); return nil }, nil, 3, Facts{Binary: true}); err != nil || s.Canonical() {
		t.Errorf("a binary body: %v, canonical %t", err, s.Canonical())
	}
}

func sentAsData(t *testing.T, b *Body, prefix []byte) string {
	t.Helper()
	here, there := net.Pipe()
	got := make(chan string, 1)
	go func() {
		all, _ := io.ReadAll(there)
		got <- string(all)
	}()
	c := NewConn(here, Options{})
	if err := c.WriteData(prefix, b); err != nil {
		t.Error(err)
	}
	c.Close()
	sent := <-got
	if !strings.HasSuffix(sent, "\r\n.\r\n") {
		t.Errorf("no end of data: %q", sent)
	}
	return sent
}
