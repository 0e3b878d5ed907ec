package smtp

import (
	"bytes"
	"fmt"
	"io"
	"testing"
)

// TestDotsOnASocket: however many lines begin with a dot, and wherever, what leaves is the message with each of them doubled,
// read from a client or made here, in pieces of any size.
func TestDotsOnASocket(t *testing.T) {
	t.Parallel()
	a, z := tcpPair(t)
	out := NewConn(a, Options{})
	for _, lines := range []int{0, 1, 2, mostSpots - 1, mostSpots, mostSpots + 1, 3 * mostSpots} {
		for _, first := range []string{"", ".", ".x\r\n", "Subject: x\r\n"} {
			text := []byte(first)
			if first == "." {
				text = []byte(".\r\n")
			}
			for i := range lines {
				text = append(text, fmt.Sprintf("plain %d.\r\n.dotted %d\r\n", i, i)...)
			}
			wire := bytes.ReplaceAll(append([]byte("\r\n"), text...), []byte("\r\n."), []byte("\r\n.."))[2:]
			wire = append(wire, ".\r\n"...)
			for _, size := range []int{1, 7, len(wire)} {
				in, _ := script(cut(string(wire), size)...)
				read, err := in.ReadData(nil)
				if err != nil || string(readAll(t, read)) != string(text) {
					t.Fatalf("%q is read as %q, %v", wire, readAll(t, read), err)
				}
				made, err := BodyFromBytes(text)
				if err != nil {
					t.Fatal(err)
				}
				for _, b := range []*Body{read, made} {
					if err := out.WriteData([]byte("Received: here\r\n"), b); err != nil {
						t.Fatal(err)
					}
					want := "Received: here\r\n" + string(wire)
					got := make([]byte, len(want))
					if _, err := io.ReadFull(z, got); err != nil || string(got) != want {
						t.Fatalf("sent %q, %v; want %q", got, err, want)
					}
					b.Release()
				}
			}
		}
	}
	if n, want := out.Writes(), int64(7*4*3*2); n != want {
		t.Errorf("%d writes for %d messages", n, want)
	}
}

// TestDotsAfterAFieldIsCut: what is known of their places does not hold any more.
func TestDotsAfterAFieldIsCut(t *testing.T) {
	t.Parallel()
	a, z := tcpPair(t)
	out := NewConn(a, Options{})
	for name, cut := range map[string]func(*Body) bool{
		"CutHeader": func(b *Body) bool { return b.CutHeader(0, 8) },
		"CutField":  func(b *Body) bool { return b.CutField("X-A") },
	} {
		b, err := BodyFromBytes([]byte("X-A: 1\r\nX-B: 2\r\n\r\n.dot\r\n.\r\nend\r\n"))
		if err != nil || !cut(b) {
			t.Fatalf("%s: %v", name, err)
		}
		if err := out.WriteData(nil, b); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		const want = "X-B: 2\r\n\r\n..dot\r\n..\r\nend\r\n.\r\n"
		got := make([]byte, len(want))
		if _, err := io.ReadFull(z, got); err != nil || string(got) != want {
			t.Errorf("%s: sent %q, %v; want %q", name, got, err, want)
		}
		b.Release()
	}
}
