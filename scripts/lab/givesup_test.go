//go:build labtest

package lab

import (
	"strings"
	"testing"
	"time"
)

// TestTheQueueGivesUp: mail that is put off again and again is told to be late, once, then given back; what may not be told to the sender of
// the envelope, since nobody vouches for him, its user's contact hears.
func TestTheQueueGivesUp(t *testing.T) {
	t.Parallel()
	ctx, l := testContext(t), ForTest(t, Options{GreyDelay: time.Hour})
	config := strings.Replace(smarthostConfig, `name = "{{.Name}}"`, `name = "{{.Name}}"
contact = "{{.Name}}@sink.example"{{if eq .Name "alice"}}
sender = { from_domains = ["v4only.example"] }{{end}}`, 1)
	startGatewayWith(t, l, config+"\n[spool]\nfirst_retry = \"10s\"\ndelayed = \"1m\"\ngive_up = \"2m\"\n")
	late := map[string]string{"alice": "late@grey.example", "bob": "defer@sink.example"}
	for _, m := range []struct{ host, from string }{{"alice", "own@v4only.example"}, {"bob", "somebody@v4only.example"}} {
		if out, err := l.Swaks(ctx, m.host, "--server", "203.0.113.1:587", "--from", m.from, "--to", late[m.host]); err != nil || out.Code != 0 {
			t.Fatalf("%s hands in: %v, %s", m.host, err, out.Stdout)
		}
	}
	about := func(s *Sink, host, action string) (to []string) {
		for _, m := range s.Messages() {
			if text := string(m.Data); strings.Contains(text, "Final-Recipient: rfc822; "+late[host]+"\r\n") && strings.Contains(text, "\r\nAction: "+action+"\r\n") && m.Sender() == "" {
				to = append(to, m.Recipients()...)
			}
		}
		return to
	}
	own, desk := l.Sink("v4only"), l.Sink("sink")
	if !eventually(ctx, func() bool { return len(about(own, "alice", "failed")) > 0 && len(about(desk, "bob", "failed")) > 0 }) {
		t.Fatal("nobody hears that it failed")
	}
	for _, c := range []struct {
		at   *Sink
		host string
		to   string
	}{{own, "alice", "own@v4only.example"}, {desk, "bob", "bob@sink.example"}} {
		for _, action := range []string{"delayed", "failed"} {
			if got := strings.Join(about(c.at, c.host, action), " "); got != c.to {
				t.Errorf("that %s's mail is %s is told to %q, not %q", c.host, action, got, c.to)
			}
		}
	}
	if got := append(about(own, "bob", "failed"), about(own, "bob", "delayed")...); len(got) > 0 {
		t.Errorf("who is nobody's is told at %q", got)
	}
}
