package lab

import (
	"strings"
	"testing"
	"time"
)

func TestScriptsAreRead(t *testing.T) {
	t.Parallel()
	s, err := parseScript(`
// a comment
connect: stall 1s | reply 220 late
rcpt@bad*: reply 550 5.1.1 no
rcpt#2: close
ehlo: reply 250-a\n250 b
mail: raw 25\x30 ok\r\n\0
body#1000: reset
any: stall 100ms | ok
`)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		step  string
		nth   int
		local string
		want  string
	}{
		{"connect", 1, "", "stall reply"},
		{"rcpt", 1, "badly", "reply"},
		{"rcpt", 2, "good", "close"},
		{"rcpt", 1, "good", "stall ok"},
		{"quit", 1, "", "stall ok"},
	} {
		actions, ok := s.find(c.step, c.nth, c.local)
		var verbs []string
		for _, a := range actions {
			verbs = append(verbs, a.verb)
		}
		if got := strings.Join(verbs, " "); !ok || got != c.want {
			t.Errorf("%s#%d@%s: %q, not %q", c.step, c.nth, c.local, got, c.want)
		}
	}
	if a, _ := s.find("ehlo", 1, ""); a[0].text != "250-a\r\n250 b\r\n" {
		t.Errorf("lines: %q", a[0].text)
	}
	if a, _ := s.find("mail", 1, ""); a[0].text != "250 ok\r\n\x00" {
		t.Errorf("bytes: %q", a[0].text)
	}
	if n, a := s.bodyLimit(); n != 1000 || a[0].verb != "reset" {
		t.Errorf("body: %d %v", n, a)
	}
	if a, _ := s.find("any", 1, ""); a[0].wait != 100*time.Millisecond {
		t.Errorf("stall: %v", a[0].wait)
	}
}

func TestBadScriptsAreRefused(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"mail", "mial: ok", "mail: okay", "mail#0: ok", "rcpt: stall soon", "dot: flood much", "ehlo: raw \\q"} {
		if _, err := parseScript(text); err == nil {
			t.Errorf("%q was taken", text)
		}
	}
}
