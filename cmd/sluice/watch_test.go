package main

import (
	"bytes"
	"context"
	"strings"
	"testing"
	"time"
)

// TestWatch: what is watched is shown again and again, each time on an empty screen, until the person has seen enough.
func TestWatch(t *testing.T) {
	t.Parallel()
	socket := serve(t)
	for line, want := range map[string]string{"queue --watch": "  800  ", "queue list -w --user alice": "6rnhgw6s8k26", "flows -w": "k3f9a2"} {
		ctx, cancel := context.WithCancel(t.Context())
		out := &viewer{want: want, enough: cancel}
		s := &screen{out: out, now: func() time.Time { return now }, zone: time.UTC, width: 100}
		var errs bytes.Buffer
		code := run(ctx, s, &errs, append([]string{"--socket", socket}, strings.Fields(line)...))
		if text := out.String(); code != 0 || errs.Len() > 0 || strings.Count(text, want) != 2 || strings.Count(text, "\x1b[H\x1b[2J") != 2 {
			t.Errorf("%s: exit code %d, %q, on the screen:\n%q", line, code, errs.String(), text)
		}
		cancel()
	}
	if code, out, _ := call(socket, 0, "queue", "--json"); code != 0 || strings.Count(out, `"domain": "dead.example"`) != 1 {
		t.Errorf("without it, once: %d, %s", code, out)
	}
}

// viewer is a screen whose viewer has seen enough once something stands there for the second time.
type viewer struct {
	bytes.Buffer
	want   string
	enough func()
}

func (s *viewer) Write(p []byte) (int, error) {
	n, err := s.Buffer.Write(p)
	if bytes.Count(s.Bytes(), []byte(s.want)) == 2 {
		s.enough()
	}
	return n, err
}
