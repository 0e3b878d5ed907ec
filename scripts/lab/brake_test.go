//go:build labtest

package lab

import (
	"crypto/sha256"
	"fmt"
	"strings"
	"testing"
)

// TestMassLockBrake: a check that has locked five customers within minutes locks no more of them: it still refuses, and holds
// what they send besides; an operator is told. One command takes all of it back.
func TestMassLockBrake(t *testing.T) {
	t.Parallel()
	users := replayUsers()
	ctx, l := testContext(t), ForTest(t, Options{Customers: users})
	g := startGateway(t, l, "")
	n := 0
	send := func(host, body string) string {
		t.Helper()
		n++
		return say(ctx, t, l, host, "u@sink.example", plainMail(fmt.Sprint(n), words(n)+body))
	}
	locked := func() (all []string) {
		t.Helper()
		var locks []struct{ User, Check string }
		if err := sluiceJSON(ctx, g, &locks, "locks"); err != nil {
			t.Fatal(err)
		}
		for _, x := range locks {
			all = append(all, x.User)
		}
		return all
	}
	for i, u := range users[:7] {
		for range 5 {
			if got := send(u.Name, gtubeText); !strings.HasPrefix(got, "550 5.7.1 gw.example: [GTUBE]") {
				t.Errorf("spam of %s hears %q", u.Name, got)
			}
		}
		if got, want := len(locked()), min(i+1, 5); got != want {
			t.Fatalf("after the spam of %d customers %d are locked, not %d", i+1, got, want)
		}
	}
	if got := send("user0", "minutes"); !strings.HasPrefix(got, "451 4.7.1 gw.example: [LOCKED]") {
		t.Errorf("mail of a locked customer hears %q", got)
	}
	if got := send("user5", "minutes"); !strings.HasPrefix(got, "451 4.7.1 gw.example: [HELD]") {
		t.Errorf("mail of a customer whom the brake spared hears %q", got)
	}
	if got := send("user7", "minutes"); !strings.HasPrefix(got, "250 ") {
		t.Errorf("mail of a good customer hears %q", got)
	}
	if err := g.Sluiced.WaitLog(ctx, "locks nobody"); err != nil {
		t.Error(err)
	}
	if out := sluice(t, g, "undo", "--check", "content", "--since", "1h"); !strings.Contains(out, "5 locks lifted") || len(locked()) != 0 {
		t.Errorf("undo: %s; locked are %v", out, locked())
	}
	if got := send("user0", "minutes"); !strings.HasPrefix(got, "250 ") {
		t.Errorf("behind undo mail hears %q", got)
	}
}

// words are a text unlike that of any other number, so that two messages are no copies of each other.
func words(n int) string {
	var b strings.Builder
	for i := range 40 {
		fmt.Fprintf(&b, "%x ", sha256.Sum256(fmt.Appendf(nil, "%d %d", n, i)))
	}
	return b.String()
}
