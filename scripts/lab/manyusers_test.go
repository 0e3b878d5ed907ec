//go:build labtest

package lab

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

// manyUsers is how many users the configuration lists beside the lab's own: some in every test run, 100,000 in a campaign.
func manyUsers() int {
	if os.Getenv("SLUICE_SOAK") != "" {
		return 100_000
	}
	return 2_000
}

// TestLockAmongManyUsers: ten connections a minute of a locked user are explained, in both families together, the next is
// reset, and nobody else notices.
func TestLockAmongManyUsers(t *testing.T) {
	t.Parallel()
	ctx, l := testContext(t), ForTest(t, Options{})
	var users strings.Builder
	n := manyUsers()
	for i := range n {
		fmt.Fprintf(&users, "[[user]]\nname = \"bulk%d\"\nprefixes = [\"198.%d.%d.%d\"]\n", i, 18+i>>16, i>>8&255, i&255)
	}
	began := time.Now()
	g := startGateway(t, l, users.String())
	t.Logf("%d users were in force after %v", n, time.Since(began))
	sluice(t, g, "lock", "alice", "--reason", "test")
	for i := range 10 {
		c := within(ctx, t, l, "alice", sinkOf46[i%2])
		if _, r, err := c.Send("a@alice.example", []string{"u@sink.example"}, []byte("Subject: x\r\n\r\nx\r\n")); err != nil || r.Code != 451 {
			t.Errorf("connection %d: %v %v", i+1, r, err)
		}
		if err := c.Quit(); err != nil {
			t.Error(err)
		}
	}
	for _, to := range sinkOf46 {
		refused(t, l, "alice", "", to)
		served(t, l, "bob", "", to)
	}
	sluice(t, g, "unlock", "alice")
	for _, to := range sinkOf46 {
		served(t, l, "alice", "", to)
	}
	var detail struct{ Kernel map[string]uint64 }
	if err := sluiceJSON(ctx, g, &detail, "users", "show", "alice"); err != nil || detail.Kernel["explained"] != 10 || detail.Kernel["lock_reset"] < 2 {
		t.Errorf("alice's counters are %v, %v; want 10 explained and 2 reset", detail.Kernel, err)
	}
}
