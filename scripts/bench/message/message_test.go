package message

import (
	"bytes"
	"errors"
	"testing"
)

func stamped(t *testing.T, size int, id uint64) []byte {
	t.Helper()
	tpl, err := New(size)
	if err != nil {
		t.Fatal(err)
	}
	wire := tpl.Clone().Stamp(id)
	if len(wire) != size+3 || !bytes.HasSuffix(wire, []byte("\r\n.\r\n")) {
		t.Fatalf("wire form has %d bytes and ends in %q", len(wire), wire[len(wire)-5:])
	}
	if bytes.Count(wire, []byte("\r\n.\r\n")) != 1 {
		t.Fatal("end of data occurs inside the message")
	}
	return wire[:len(wire)-3]
}

func TestCheckerInPieces(t *testing.T) {
	t.Parallel()
	for _, ahead := range []string{"", "Received: by gateway.example;\r\n\tid 7\r\nX-Bench-Other: 1\r\n"} {
		msg := append([]byte(ahead), stamped(t, 10<<10, 0xfeed00000007)...)
		var c Checker
		for _, piece := range []int{1, 7, 100, 4096, len(msg)} {
			for rest := msg; len(rest) > 0; {
				n := min(piece, len(rest))
				c.Write(rest[:n])
				rest = rest[n:]
			}
			if id, err := c.Finish(); err != nil || id != 0xfeed00000007 {
				t.Errorf("pieces of %d after %q: id %x, %v", piece, ahead, id, err)
			}
		}
	}
}

func TestCheckerSeesDamage(t *testing.T) {
	t.Parallel()
	good := stamped(t, 2000, 9)
	damage := map[string][]byte{
		"empty":         {},
		"no marker":     good[lineLen:],
		"cut":           good[:len(good)-2],
		"doubled line":  append(bytes.Clone(good), "more\r\n"...),
		"other number":  bytes.Replace(good, []byte("0009 "), []byte("0008 "), 1),
		"one bit":       bytes.Replace(good, []byte("figures"), []byte("figurds"), 1),
		"stuffing lost": bytes.Replace(good, []byte("\r\n.."), []byte("\r\n."), 1),
		"far too late":  append(bytes.Repeat([]byte("a: b\r\n"), 4000), good...),
	}
	for name, msg := range damage {
		var c Checker
		c.Write(msg)
		if id, err := c.Finish(); !errors.Is(err, ErrDamaged) {
			t.Errorf("%s: id %x, err %v, want ErrDamaged", name, id, err)
		}
		c.Write(good)
		if id, err := c.Finish(); err != nil || id != 9 {
			t.Errorf("good message after %s: id %x, %v", name, id, err)
		}
	}
}

func TestStampDoesNotAllocate(t *testing.T) {
	tpl, err := New(10 << 10)
	if err != nil {
		t.Fatal(err)
	}
	if n := testing.AllocsPerRun(100, func() { tpl.Stamp(3) }); n != 0 {
		t.Errorf("Stamp allocates %v times", n)
	}
}

func TestTooSmall(t *testing.T) {
	t.Parallel()
	if _, err := New(MinSize - 1); err == nil {
		t.Error("a message without room for its header was built")
	}
}
