//go:build labtest

package lab

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestUserSettings: settings are inherited, set, explained, exported, planned and imported, hold for a time or for good, and
// over a restart; accounts share budgets.
func TestUserSettings(t *testing.T) {
	t.Parallel()
	ctx, l := testContext(t), ForTest(t, Options{})
	g := startGateway(t, l, "")
	send := func(host, rcpt, want string) {
		t.Helper()
		c, err := l.Hello(ctx, host, "", "198.51.100.20:25")
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		rcpts, last, err := c.Send("a@"+host+".example", []string{rcpt}, []byte("Subject: x\r\n\r\nhello\r\n"))
		if err != nil {
			t.Fatal(err)
		}
		if rcpts[0].Code != 250 {
			last = rcpts[0]
		}
		if got := last.String(); !strings.HasPrefix(got, want) {
			t.Errorf("%s hears %q, want %q", host, got, want)
		}
	}
	refused := func(want string, args ...string) {
		t.Helper()
		out, err := g.Sluice(ctx, args...)
		if err != nil || out.Code == 0 || !strings.Contains(out.Stderr, want) {
			t.Errorf("sluice %v: %+v, %v, want %q", args, out, err, want)
		}
	}
	from := func(user, key string) string {
		t.Helper()
		var x struct {
			Settings []struct{ Key, Value, From string }
		}
		if err := sluiceJSON(ctx, g, &x, "user", "show", user, "--explain"); err != nil {
			t.Fatal(err)
		}
		for _, s := range x.Settings {
			if s.Key == key {
				return s.Value + " by " + s.From
			}
		}
		return ""
	}
	is := func(user, key, want string) {
		t.Helper()
		if got := from(user, key); got != want {
			t.Errorf("%s of %s is %q, want %q", key, user, got, want)
		}
	}
	is("alice", "messages_per_day", "0 by default")
	sluice(t, g, "user", "set", "alice", "messages_per_day=1", "messages_per_day.action=reject")
	is("alice", "messages_per_day", "1 by run time")
	send("alice", "u1@sink.example", "250 ")
	send("alice", "u2@sink.example", "550 5.7.1 gw.example: [RATE-MSG]")
	sluice(t, g, "user", "set", "alice", "messages_per_day=100", "--for", "1h", "--reason", "sale")
	is("alice", "messages_per_day", "100 by for a time")
	send("alice", "u3@sink.example", "250 ")
	refused("there is no setting", "user", "set", "alice", "messages_per_fortnight=1")
	refused("want at least 0", "user", "set", "alice", "messages_per_week=-1")
	refused(`no user "nobody"`, "user", "set", "nobody", "messages_per_week=1")

	refused("there is no plan", "accounts", "set", "account", "house", "--plan", "basic")
	sluice(t, g, "accounts", "set", "plan", "basic", "recipients_per_day=50", "budget.messages_per_hour=2")
	sluice(t, g, "accounts", "set", "account", "house", "--plan", "basic", "messages_per_week=40")
	sluice(t, g, "users", "join", "bob", "house")
	sluice(t, g, "users", "join", "dave", "house")
	if out := sluice(t, g, "accounts", "set", "plan", "basic", "recipients_per_day=60", "--plan-only"); !strings.Contains(out, "would change for 2 users: bob, dave") {
		t.Error(out)
	}
	is("bob", "recipients_per_day", "50 by plan basic")
	is("bob", "messages_per_week", "40 by account house")
	refused("inside of itself", "accounts", "set", "account", "house", "--parent", "house")
	refused("2 users and 0 accounts belong to it", "accounts", "remove", "account", "house")
	send("bob", "b1@sink.example", "250 ")
	send("dave", "b2@sink.example", "250 ")
	send("bob", "b3@sink.example", "451 4.7.1 gw.example: [RATE-MSG] this sender's account has reached its limit of 2 messages per hour")
	send("mallory", "b4@sink.example", "250 ")

	dir := t.TempDir()
	file := filepath.Join(dir, "settings.toml")
	exported := sluice(t, g, "settings", "export", "--format", "toml")
	if want := "[\"alice\"]\n\"messages_per_day\" = \"1\"\n\"messages_per_day.action\" = \"reject\"\n"; exported != want {
		t.Errorf("exported is %q, want %q", exported, want)
	}
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(exported + "[dave]\nrecipients_per_month = 7\n")
	if out := sluice(t, g, "settings", "plan", file); !strings.Contains(out, "dave: recipients_per_month inherited -> 7") || !strings.Contains(out, "1 user would change") {
		t.Error(out)
	}
	is("dave", "recipients_per_month", "0 by default")
	sluice(t, g, "settings", "import", file, "--reason", "billing")
	is("dave", "recipients_per_month", "7 by run time")
	write("[dave]\nrecipients_per_month = 8\n[nobody]\ndelivery = \"own\"\n")
	refused("nothing was changed", "settings", "import", file)
	is("dave", "recipients_per_month", "7 by run time")

	copied := filepath.Join(dir, "gw.sluice")
	sluice(t, g, "backup", copied)
	sluice(t, g, "user", "set", "dave", "recipients_per_month=9") // what the backup does not have
	if err := g.Sluiced.Stop(ctx); err != nil {
		t.Fatal(err)
	}
	sluice(t, g, "restore", "--replace", copied)
	if err := g.StartSluiced(ctx); err != nil {
		t.Fatal(err)
	}
	is("alice", "messages_per_day", "100 by for a time")
	is("bob", "messages_per_week", "40 by account house")
	is("dave", "recipients_per_month", "7 by run time")
	send("bob", "b5@sink.example", "451 4.7.1 gw.example: [RATE-MSG] this sender's account")
	// A change is in force when the command ends, and that is soon.
	sluice(t, g, "user", "set", "bob", "lock_never=true")
	refused("never to be locked", "lock", "bob", "--reason", "x")
	least := time.Minute
	for n := range 5 {
		begin := time.Now()
		sluice(t, g, "user", "set", "mallory", fmt.Sprintf("messages_per_hour=%d", []int{1000, 1}[n%2]), "messages_per_hour.action=reject")
		least = min(least, time.Since(begin))
		send("mallory", fmt.Sprintf("m%d@sink.example", n), []string{"250 ", "550 5.7.1 gw.example: [RATE-MSG]"}[n%2])
	}
	t.Logf("the fastest of five changes took %v, command and all", least)
	sluice(t, g, "user", "set", "alice", "messages_per_day=100", "--for", "1s")
	eventually(ctx, func() bool { return from("alice", "messages_per_day") == "1 by run time" })
	is("alice", "messages_per_day", "1 by run time")
	sluice(t, g, "user", "unset", "alice", "messages_per_day", "messages_per_day.action")
	is("alice", "messages_per_day", "0 by default")
	if out := sluice(t, g, "audit"); !strings.Contains(out, "settings imported") || !strings.Contains(out, "billing") || !strings.Contains(out, "account of a user changed") {
		t.Error(out)
	}
}
