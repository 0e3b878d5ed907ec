//go:build labtest

package lab

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
)

// scopeLock is a lock as the command shows it.
type scopeLock struct{ Ticket, User, Identity, Rule, Reason string }

// TestIdentityIsLockedAlone: the script that sends spam is locked and its neighbours go on, over a restart too; then, on
// probation, less is enough; spam of three identities locks their user, in the kernel.
func TestIdentityIsLockedAlone(t *testing.T) {
	t.Parallel()
	ctx, l := testContext(t), ForTest(t, Options{})
	g := startGatewayWith(t, l, identityConfig)
	n := 0
	send := func(identity, body, want string) {
		t.Helper()
		n++
		x, err := l.Hello(ctx, "alice", "", "198.51.100.20:25")
		if err != nil {
			t.Fatal(err)
		}
		defer x.Close()
		_, last, err := x.Send("a@alice.example", []string{"u@sink.example"}, fmt.Appendf(nil, "X-AuthUser: %s\r\nSubject: %d\r\n\r\n%d %s\r\n", identity, n, n, body))
		if err != nil || !strings.HasPrefix(last.String(), want) {
			t.Fatalf("message %d of %s: %v %v, want %s", n, identity, last, err, want)
		}
	}
	locks := func() (all []scopeLock) {
		t.Helper()
		if err := sluiceJSON(ctx, g, &all, "locks"); err != nil {
			t.Fatal(err)
		}
		return all
	}
	for range 5 {
		send("shop", gtubeText, "550 5.7.1")
	}
	all := locks()
	if len(all) != 1 || all[0].Identity != "shop" || all[0].Rule != "spam" {
		t.Fatalf("locks are %+v, want that of shop", all)
	}
	locked := "451 4.7.1 gw.example: [LOCKED] shop is locked, ticket " + all[0].Ticket
	send("shop", "hello", locked)
	send("shop", gtubeText, "550 5.7.1")
	send("office", "hello", "250 ")
	send("newsletter", "hello", "250 ")
	if err := g.RestartSluiced(ctx); err != nil {
		t.Fatal(err)
	}
	send("shop", "hello", locked)
	send("office", "hello", "250 ")
	if out, err := g.Sluice(ctx, "why", all[0].Ticket); err != nil || !strings.Contains(out.Stdout, "sent 5 spam messages") {
		t.Errorf("why: %v %+v", err, out)
	}
	sluice(t, g, "unlock", "alice", "--identity", "shop", "--reason", "mended")
	send("shop", "hello", "250 ")
	send("shop", gtubeText, "550 5.7.1")
	send("shop", gtubeText, "550 5.7.1") // on probation two are enough
	send("shop", "hello", "451 4.7.1 gw.example: [LOCKED] shop is locked")
	send("office", gtubeText, "550 5.7.1")
	send("newsletter", gtubeText, "550 5.7.1") // the third
	all = locks()
	if len(all) != 2 || all[0].Identity != "" || all[0].User != "alice" {
		t.Fatalf("locks are %+v, want alice's as a whole, too", all)
	}
	if out := sluice(t, g, "undo", "--check", "content", "--since", "1h", "--json"); !strings.Contains(out, all[0].Ticket) || len(locks()) != 0 {
		t.Errorf("undo says %s, locks are %+v", out, locks())
	}
}

// TestLockHoldsTheQueue: what a locked user has in the queue waits, and goes out at the end of the lock; others' goes on.
func TestLockHoldsTheQueue(t *testing.T) {
	t.Parallel()
	ctx, l := testContext(t), ForTest(t, Options{})
	g := startGatewayWith(t, l, smarthostConfig+"[spool]\nfirst_retry = \"2s\"\n")
	for name, user := range map[string]string{"customer.example": "alice", "other.example": "bob"} {
		var made struct{ Name, Password string }
		if err := json.Unmarshal([]byte(sluice(t, g, "login", "add", name, "--user", user, "--json")), &made); err != nil {
			t.Fatal(err)
		}
		out, err := l.Swaks(ctx, HostInternet, "--to", "u@refused.example", "--ehlo", "client.example", "--server", "203.0.113.1:587", "--tls",
			"--auth", "PLAIN", "--auth-user", made.Name, "--auth-password", made.Password, "--from", "a@"+name)
		if err != nil || out.Code != 0 {
			t.Fatal(err, out)
		}
	}
	sluice(t, g, "lock", "alice", "--for", "1h", "--reason", "stolen login")
	ticket := ticketOf(ctx, t, g)
	held := func(want string) func() bool {
		return func() bool {
			var page struct{ Deliveries []queued }
			out, err := g.Sluice(ctx, "queue", "list", "--json")
			if err != nil || json.Unmarshal([]byte(out.Stdout), &page) != nil || len(page.Deliveries) != 2 {
				return false
			}
			for _, q := range page.Deliveries {
				if hold := strings.TrimSuffix(want, "-") + ticket; strings.HasSuffix(q.Sender, "customer.example") && (q.Hold == hold) != (want != "") ||
					strings.HasSuffix(q.Sender, "other.example") && q.Hold != "" {
					return false
				}
			}
			return true
		}
	}
	eventually(ctx, held("sender locked, ticket "))
	if ctx.Err() != nil {
		t.Fatal("the locked user's mail is not on hold: ", sluice(t, g, "queue", "list"))
	}
	if err := g.RestartSluiced(ctx); err != nil {
		t.Fatal(err)
	}
	eventually(ctx, held("sender locked, ticket "))
	sluice(t, g, "unlock", "alice")
	eventually(ctx, held(""))
	if ctx.Err() != nil {
		t.Fatal("the unlocked user's mail is still on hold: ", sluice(t, g, "queue", "list"))
	}
}
