package message

import (
	"errors"
	"fmt"
	"testing"
)

func TestAuthors(t *testing.T) {
	t.Parallel()
	for header, want := range map[string]string{
		"From: a@b.example\r\n\r\n": "[a@b.example]",
		"X: 1\r\nFROM : \"x, y\" <a@b.example>, d@e.example (c)\r\n\r\nbody": "[a@b.example d@e.example]",
		"From: =?klingon-1?Q?=FF?= <a@b.example>\r\n\r\n":                    "[a@b.example]",
		"From: J\xf6rg <a@b.example>\r\n\r\n":                                "[a@b.example]",
		"From: a@b.example\r\n (folded)\r\n\r\n":                             "[a@b.example]",
		"From: \"a@b.example\" <c@d.example>\r\n\r\n":                        "[c@d.example]",
	} {
		if got, err := Authors([]byte(header)); err != nil || fmt.Sprint(got) != want {
			t.Errorf("%q: %v, %v, want %s", header, got, err, want)
		}
	}
	for header, want := range map[string]error{
		"To: a@b.example\r\n\r\nFrom: a@b.example\r\n":               ErrNoAuthor,
		"From: a@b.example\r\nfrom: c@d.example\r\n\r\n":             ErrTwoAuthors,
		"From: a@b.example <c@d.example\r\n\r\n":                     ErrGarbled,
		"From: undisclosed\r\n\r\n":                                  ErrGarbled,
		"From:\r\n\r\n":                                              ErrGarbled,
		"From: a@b.example\r\nno field\r\nFrom: c@d.example\r\n\r\n": ErrTwoAuthors,
	} {
		if got, err := Authors([]byte(header)); !errors.Is(err, want) {
			t.Errorf("%q: %v, %v, want %v", header, got, err, want)
		}
	}
}

func TestField(t *testing.T) {
	t.Parallel()
	data := []byte("A: 1\r\nX-Proof: se\r\n cret\r\nB: 2\r\n\r\nX-Proof: body\r\n")
	v, from, to, n := Field(data, "x-proof")
	if string(v) != "se\r\n cret" || n != 1 || string(data[:from])+string(data[to:]) != "A: 1\r\nB: 2\r\n\r\nX-Proof: body\r\n" {
		t.Errorf("%q, %d to %d, %d times", v, from, to, n)
	}
	if _, _, _, n := Field([]byte("A: 1\r\na: 2\r\n\r\n"), "A"); n != 2 {
		t.Errorf("twice is %d times", n)
	}
	if _, _, _, n := Field([]byte("no field\r\nA: 1\r\n\r\n"), "A"); n > 1 {
		t.Errorf("behind a line that is no field it stands %d times", n)
	}
}

func FuzzAuthors(f *testing.F) {
	f.Add([]byte("From: \"x\" <a@b.example>\r\n\r\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		all, err := Authors(data)
		if (err == nil) != (len(all) > 0) {
			t.Errorf("%v, %v", all, err)
		}
		if _, from, to, n := Field(data, "From"); n > 0 && (from < 0 || to > len(data) || from >= to) {
			t.Errorf("the field goes from %d to %d of %d", from, to, len(data))
		}
	})
}
