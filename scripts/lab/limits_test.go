//go:build labtest

package lab

import (
	"strings"
	"testing"
)

// limitsConfig gives each customer another limit.
var limitsConfig = strings.Replace(GatewayConfig, `name = "{{.Name}}"`, `name = "{{.Name}}"{{if eq .Name "alice"}}
limits = { messages_per_day = 2, reject = ["messages_per_day"], texts = ["messages_per_day: your plan allows two messages a day"] }{{else if eq .Name "bob"}}
limits = { distinct_recipients_per_day = 2, bytes_per_day = "64KiB" }{{else if eq .Name "mallory"}}
limits = { messages_per_day = 1, recipients_per_day = 1, lock = ["messages_per_day"], shadow = ["recipients_per_day"] }{{end}}`, 1)

// TestLimits: what a user may send in a day, to how many different recipients and how much is held to, also over a
// restart; what was deferred does not count, what is only reported refuses nobody, and what is to lock locks.
func TestLimits(t *testing.T) {
	t.Parallel()
	ctx, l := testContext(t), ForTest(t, Options{})
	g := startGatewayWith(t, l, limitsConfig)
	type step struct {
		host string
		to   []string
		size int
		want string
	}
	send := func(s step) {
		t.Helper()
		c, err := l.Hello(ctx, s.host, "", "198.51.100.20:25")
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		rcpts, last, err := c.Send("a@"+s.host+".example", s.to, []byte("Subject: x\r\n\r\n"+strings.Repeat(strings.Repeat("y", 70)+"\r\n", s.size/72)))
		if err != nil {
			t.Fatal(err)
		}
		answer := last
		for _, r := range rcpts {
			if r.Code != 250 {
				answer = r
			}
		}
		if got := answer.String(); !strings.HasPrefix(got, s.want) {
			t.Errorf("%s to %v hears %q, want %q", s.host, s.to, got, s.want)
		}
	}
	for range 5 { // a destination that defers
		send(step{"alice", []string{"defer1@sink.example"}, 100, "451 "})
	}
	const over = "550 5.7.1 gw.example: [RATE-MSG] your plan allows two messages a day"
	for _, s := range []step{
		{"alice", []string{"u1@sink.example"}, 100, "250 "},
		{"alice", []string{"u2@sink.example"}, 100, "250 "},
		{"alice", []string{"u3@sink.example"}, 100, over},
		{"bob", []string{"u1@sink.example", "U1@sink.example"}, 100, "250 "},
		{"bob", []string{"u2@sink.example"}, 100, "250 "},
		{"bob", []string{"u3@sink.example"}, 100, "451 4.7.1 gw.example: [RATE-DISTINCT] this sender has reached its limit of 2 different recipients per day"},
		{"bob", []string{"u2@sink.example"}, 80_000, "451 4.7.1 gw.example: [RATE-BYTES] this sender has reached its limit of 65536 bytes per day"},
		{"bob", []string{"u2@sink.example"}, 100, "250 "},
		{"mallory", []string{"u1@sink.example", "u2@sink.example"}, 100, "250 "},
		{"mallory", []string{"u1@sink.example"}, 100, "451 4.7.1 gw.example: [RATE-MSG]"},
	} {
		send(s)
	}
	var log []struct {
		Class, Status string
		Hits          []struct{ Code, Action, Evidence string }
	}
	eventually(ctx, func() bool {
		log = nil
		return sluiceJSON(ctx, g, &log, "log", "--user", "mallory", "--status", "delivered") != nil || len(log) > 0
	})
	if len(log) != 1 || log[0].Class != "clean" || len(log[0].Hits) == 0 || log[0].Hits[0].Evidence != "only reported: recipients_per_day 1 of the user" {
		t.Errorf("what is only reported is not in the log: %+v", log)
	}
	var locks []struct{ User, Reason string }
	eventually(ctx, func() bool {
		locks = nil
		return sluiceJSON(ctx, g, &locks, "locks") != nil || len(locks) > 0
	})
	if len(locks) != 1 || locks[0].User != "mallory" || !strings.HasPrefix(locks[0].Reason, "went over messages_per_day 1 of the user") {
		t.Errorf("locked are %+v", locks)
	}
	if err := g.RestartSluiced(ctx); err != nil {
		t.Fatal(err)
	}
	send(step{"alice", []string{"u4@sink.example"}, 100, over})
	send(step{"bob", []string{"u4@sink.example"}, 100, "451 4.7.1 gw.example: [RATE-DISTINCT]"})
	send(step{"bob", []string{"u1@sink.example"}, 100, "250 "})
}
