package smtp

import (
	"errors"
	"testing"
)

func TestParseCommand(t *testing.T) {
	t.Parallel()
	c := ParseCommand([]byte("mail \tFROM:<a@b.example> SIZE=3 "))
	if c.Verb != MAIL || string(c.Arg) != "FROM:<a@b.example> SIZE=3" {
		t.Errorf("got %v with %q", c.Verb, c.Arg)
	}
	if c := ParseCommand(nil); c.Verb != Unknown || len(c.Arg) != 0 {
		t.Errorf("an empty line is %v with %q", c.Verb, c.Arg)
	}
}

func TestCutReply(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		in   string
		code int
		text string
		n    int
		err  error
	}{
		{"220 mx ready\r\n250 next", 220, "mx ready", 14, nil},
		{"250-mx\r\n250-PIPELINING\r\n250 SIZE 10\r\nrest", 250, "mx", 37, nil},
		{"354\n", 354, "", 4, nil},
		{"250-mx\r\n250 SIZ", 0, "", 0, nil},
		{"", 0, "", 0, nil},
		{"hello\r\n", 0, "", 0, ErrBadReply},
		{"250-a\r\n550 b\r\n", 0, "", 0, ErrBadReply},
		{"250 \x00\r\n", 0, "", 0, ErrBadReply},
	} {
		code, text, n, err := CutReply([]byte(c.in))
		if code != c.code || text != c.text || n != c.n || !errors.Is(err, c.err) {
			t.Errorf("%q: %d %q %d %v, want %d %q %d %v", c.in, code, text, n, err, c.code, c.text, c.n, c.err)
		}
	}
}
