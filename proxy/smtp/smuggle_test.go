package smtp

import (
	"errors"
	"os"
	"strings"
	"testing"
)

// TestEveryShortMessage tries all texts of a few bytes of those that matter, behind a line and at the start, whole and byte
// by byte: the end, the bytes and the refusals are those of slow reading, and what goes onward has one end for everybody.
func TestEveryShortMessage(t *testing.T) {
	t.Parallel()
	const alphabet = "\r\n.x\x00"
	most := 5
	if os.Getenv("SLUICE_SOAK") != "" {
		most = 8
	}
	for _, before := range []string{"", "a\r\n", "a\n", "a"} {
		t.Run(before, func(t *testing.T) {
			t.Parallel()
			texts := []string{""}
			for range most {
				var longer []string
				for _, s := range texts {
					for _, c := range alphabet {
						longer = append(longer, s+string(c))
					}
				}
				texts = longer
				for i, s := range texts {
					tryMessage(t, before+s+"\r\n.\r\nNEXT\r\n", i%2 == 0)
				}
			}
		})
	}
}

// tryMessage reads one message and compares.
func tryMessage(t *testing.T, in string, bytewise bool) {
	t.Helper()
	size := len(in)
	if bytewise {
		size = 1
	}
	want, end, nul, bareCR, _ := refDecode(in)
	c, _ := script(cut(in, size)...)
	b, err := c.ReadData(nil)
	switch {
	case end < 0:
		t.Fatalf("%q has no end", in)
	case nul || bareCR:
		if !errors.Is(err, ErrNUL) && !errors.Is(err, ErrBareCR) || !Recoverable(err) {
			t.Fatalf("%q: %v", in, err)
		}
	case err != nil:
		t.Fatalf("%q: %v", in, err)
	default:
		if got := readAll(t, b); got != want {
			t.Fatalf("%q is read as %q, want %q", in, got, want)
		}
		onward(t, in, b)
		b.Release()
	}
	line, _, _ := strings.Cut(in[end:], "\n")
	cmd, err := c.ReadCommand()
	if bad := strings.ContainsAny(strings.TrimSuffix(line, "\r"), "\r\x00"); bad != (err != nil) || !bad && string(cmd.Line) != strings.TrimSuffix(line, "\r") {
		t.Fatalf("%q: behind the message %q, %v; want %q", in, cmd.Line, err, line)
	}
}
