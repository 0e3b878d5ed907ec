//go:build labtest

package lab

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

// post sends v to a path of a gateway's API, as programs do.
func post(ctx context.Context, g *Gateway, path string, v any) error {
	c := http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", g.Socket)
	}}}
	text, err := json.Marshal(v)
	if err != nil {
		return err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://sluice"+path, bytes.NewReader(text))
	if err != nil {
		return err
	}
	res, err := c.Do(r)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if b, err := io.ReadAll(res.Body); err != nil || res.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %d %s %w", path, res.StatusCode, b, err)
	}
	return nil
}

// TestSettingsAreInForceAtOnce: the next command of a session that is open already hears of a change of its user's settings,
// of his account's, and of a list, by API and by command. In a campaign 100,000 users stand beside, and the time from the
// request to the reply that shows it is at most 100 ms at p99: `make soak-settings`.
func TestSettingsAreInForceAtOnce(t *testing.T) {
	t.Parallel()
	ctx := testContext(t)
	l := ForTest(t, Options{})
	rounds, campaign := 4, os.Getenv("SLUICE_SOAK") != ""
	if campaign {
		rounds = 300
	}
	g := startGateway(t, l, "")
	list := filepath.Join(g.Dir, "customers.csv")
	writeList(t, list, manyUsers())
	if out, err := g.Sluice(ctx, "users", "import", list); err != nil || out.Code != 0 {
		t.Fatalf("import: %+v %v", out, err)
	}
	sluice(t, g, "accounts", "set", "account", "house")
	sluice(t, g, "users", "join", "bob", "house")
	settings := func(i int) map[string]string { return map[string]string{"recipients_per_mail": fmt.Sprint(1 + i%2)} }
	for _, c := range []struct {
		name, host string
		change     func(i int) error
	}{
		{"a user's settings", "alice", func(i int) error {
			return post(ctx, g, "/v1/settings", map[string]any{"user": "alice", "set": settings(i)})
		}},
		{"an account's settings", "bob", func(i int) error {
			return post(ctx, g, "/v1/groups", map[string]any{"kind": "account", "name": "house", "set": settings(i)})
		}},
		{"a user's settings by command", "dave", func(i int) error {
			out, err := g.Sluice(ctx, "user", "set", "dave", fmt.Sprintf("recipients_per_mail=%d", 1+i%2))
			if err == nil && out.Code != 0 {
				err = fmt.Errorf("%+v", out)
			}
			return err
		}},
	} {
		s, err := l.Hello(ctx, c.host, "", "198.51.100.20:25")
		if err != nil {
			t.Fatal(err)
		}
		var took []time.Duration
		for i := range rounds {
			begun := time.Now()
			if err := c.change(i); err != nil {
				t.Fatal(err)
			}
			var last Reply
			for _, line := range []string{"MAIL FROM:<a@" + c.host + ".example>", "RCPT TO:<u1@sink.example>", "RCPT TO:<u2@sink.example>"} {
				if last, err = s.Cmd(line); err != nil {
					t.Fatal(err)
				}
			}
			took = append(took, time.Since(begun))
			if taken := last.Code == 250; taken != (i%2 == 1) {
				t.Errorf("%s, round %d: the second recipient hears %v", c.name, i, last)
			}
			if r, err := s.Cmd("RSET"); err != nil || r.Code != 250 {
				t.Fatalf("RSET: %v %v", r, err)
			}
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		slices.Sort(took)
		p50, p99 := took[len(took)/2], took[len(took)*99/100]
		t.Logf("%s, %d users: p50 %v, p99 %v", c.name, manyUsers(), p50.Round(10*time.Microsecond), p99.Round(10*time.Microsecond))
		if campaign && p99 > 100*time.Millisecond {
			t.Errorf("%s: p99 is %v, want at most 100 ms", c.name, p99)
		}
	}
}
