package message

import (
	"bytes"
	"fmt"
	"testing"
)

func TestLook(t *testing.T) {
	t.Parallel()
	for header, want := range map[string]string{
		"": "looked",
		"Subject: x\r\nFrom:  a@b.example \r\n\r\nReceived: in the body\r\n": "looked from 1 a@b.example",
		"FROM: a@b.example\r\nfrom : c@d.example\r\n":                        "looked from 2 a@b.example",
		"From: x\r\n <a@b.example>\r\nreceived: by x\r\n\r\n":                "looked traced from 1 x\r\n <a@b.example>",
		"List-Id: <x.example>\r\n\r\n":                                       "looked listed",
		"list-post: <mailto:x@y.example>\r\n\r\n":                            "looked listed",
		"Delivered-To: a@b.example\r\n\r\n":                                  "looked passed",
		"X-Forwarded-For: a@b.example\r\n\r\n":                               "looked passed",
		"X-Forwarded-To: a@b.example\r\n\r\n":                                "looked passed",
		"Resent-From: a@b.example\r\n\r\n":                                   "looked passed",
		"no field\r\nReceived: x\r\n\r\n":                                    "looked",
	} {
		f := Look([]byte(header))
		got := "looked"
		for word, is := range map[string]bool{" traced": f.Traced, " listed": f.Listed, " passed": f.Passed} {
			if is {
				got += word
			}
		}
		if f.Froms > 0 {
			got += fmt.Sprintf(" from %d %s", f.Froms, f.From)
		}
		if got != want || !f.Looked {
			t.Errorf("%q: %s, want %s", header, got, want)
		}
	}
}

// TestFieldsMoved: what was found in a message is found in its copy, however much lies before or behind either.
func TestFieldsMoved(t *testing.T) {
	t.Parallel()
	text := []byte("before Subject: x\r\nFrom:  a@b.example \r\n\r\nbehind")[len("before "):]
	for _, to := range [][]byte{append(make([]byte, 0, 300), text...), bytes.Clone(text)} {
		f := Look(text)
		if f.Moved(text, to); string(f.From) != "a@b.example" || cap(to)-cap(f.From) != bytes.IndexByte(to, 'a') {
			t.Errorf("the author is %q", f.From)
		}
	}
	none := Look([]byte("Subject: x\r\n\r\n"))
	if none.Moved(nil, nil); none.From != nil {
		t.Errorf("an author came of nothing: %q", none.From)
	}
}

// FuzzLook: one look finds what those find that go over the header field by field.
func FuzzLook(f *testing.F) {
	f.Add([]byte("Received: from a (b [192.0.2.1]) by c with ESMTP\r\nFrom: a\r\n\r\n"))
	f.Add([]byte("Delivered-To : x\r\nList-Id:\r\nX-Forwarded-To: y"))
	f.Fuzz(func(t *testing.T, b []byte) {
		m := Message{Data: b}
		slow := PassedOn(&m)
		m.Fields = Look(b)
		if quick := PassedOn(&m); quick != slow {
			t.Errorf("passed on: %t, and %t after a look", slow, quick)
		}
		froms, traced, listed := 0, false, false
		for name := range Header(b) {
			if is(name, "From") {
				froms++
			}
			traced = traced || is(name, "Received")
			listed = listed || bytes.EqualFold(name, []byte("List-Id")) || bytes.EqualFold(name, []byte("List-Post"))
		}
		if froms != m.Fields.Froms || traced != m.Fields.Traced || listed != m.Fields.Listed {
			t.Errorf("%+v", m.Fields)
		}
	})
}
