package smtp

import (
	"bytes"
	"strings"
	"testing"
)

func TestAFieldIsCutOut(t *testing.T) {
	t.Parallel()
	const rest = "Subject: x\r\n\r\n.dot\r\nX-AuthUser: in the body\r\n"
	for text, want := range map[string]string{
		"X-AuthUser: a\r\n" + rest:                                      rest,
		"From: a\r\nx-authuser : a\r\n\tb\r\n c\r\n" + rest:             "From: a\r\n" + rest,
		"From: a\r\nX-AuthUser: a\r\nTo: b\r\nX-AuthUser: b\r\n" + rest: "",
		rest:                            "",
		"X-AuthUser: a\r\n":             "",
		"Subject: y\r\nX-AuthUser: a\r": "",
	} {
		b, err := BodyFromBytes([]byte(text))
		if err != nil {
			continue // what is no message is none to cut from
		}
		lines := strings.Count(want, "\n")
		switch cut := b.CutField("X-AuthUser"); {
		case want == "" && text == "X-AuthUser: a\r\n":
			if !cut || b.Size() != 0 {
				t.Errorf("%q: cut %t, %d bytes are left", text, cut, b.Size())
			}
		case want == "" && (cut || string(b.Bytes()) != text):
			t.Errorf("%q became %q", text, b.Bytes())
		case want != "" && (!cut || string(b.Bytes()) != want || b.Size() != int64(len(want)) || b.Lines() != lines || b.Dots() != 1):
			t.Errorf("%q became %q (%d bytes, %d lines, %d dots), want %q", text, b.Bytes(), b.Size(), b.Lines(), b.Dots(), want)
		case want != "":
			if h := int64(strings.Index(want, "\r\n\r\n") + 4); b.HeaderLen() != h {
				t.Errorf("%q: the header has %d bytes, want %d", text, b.HeaderLen(), h)
			}
			onward(t, "cut", b)
		}
		b.Release()
	}
}

func TestAFieldIsCutOutOfALargeBody(t *testing.T) {
	t.Parallel()
	text := "From: a\r\nX-AuthUser: a\r\n\r\n" + strings.Repeat(strings.Repeat("x", 70)+"\r\n", 3000)
	b := NewBody(&DataOptions{MaxMemory: 4 << 10, OpenSpill: tempSpill(t)})
	b.Append([]byte(text))
	if err := b.Finish(); err != nil {
		t.Fatal(err)
	}
	defer b.Release()
	if !b.Spilled() || !b.CutField("X-AuthUser") {
		t.Fatal("nothing was cut out")
	}
	var got bytes.Buffer
	if _, err := b.NewReader().WriteTo(&got); err != nil || got.String() != strings.Replace(text, "X-AuthUser: a\r\n", "", 1) {
		t.Errorf("%v, %d bytes", err, got.Len())
	}
}
