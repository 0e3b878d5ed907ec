//go:build labtest

package lab

import (
	"strings"
	"testing"
	"time"
)

// TestLockLeavesTheAdministratorReachable: a locked customer whose connections the kernel resets still reaches the mail
// exchangers of the administrator's mailbox, and there nobody else (INT6, LCK3).
func TestLockLeavesTheAdministratorReachable(t *testing.T) {
	onEachPath(t, func(t *testing.T, path string) {
		ctx, l := testContext(t), ForTest(t, Options{})
		g := startGatewayWith(t, l, by(path, strings.Replace(atOnce, "contact = ", "admin_address = \"postmaster@gosmtp.example\"\ncontact = ", 1)))
		sluice(t, g, "lock", "alice", "--for", "1h", "--reason", "compromised")
		for _, to := range []struct{ admin, other string }{
			{"198.51.100.24:25", "198.51.100.20:25"}, {"[2001:db8:100::24]:25", "[2001:db8:100::20]:25"},
		} {
			var c *Client
			for { // the exchangers are asked for in the background
				var err error
				if c, err = l.Hello(ctx, "alice", "", to.admin); err == nil {
					break
				}
				if sleep(ctx, 20*time.Millisecond) != nil {
					t.Fatalf("the administrator's exchanger stays closed: %v", err)
				}
			}
			body := []byte("Subject: what happened\r\n\r\nWhy am I locked?\r\n")
			if _, last, err := c.Send("u@alice.example", []string{"postmaster@gosmtp.example"}, body); err != nil || last.Code != 250 {
				t.Errorf("mail to the administrator: %v %v", last, err)
			}
			if _, last, err := c.Send("u@alice.example", []string{"somebody@gosmtp.example"}, body); err != nil || last.Code != 451 {
				t.Errorf("mail to somebody else at his exchanger: %v %v", last, err)
			}
			if err := c.Close(); err != nil {
				t.Error(err)
			}
			refused(t, l, "alice", "", to.other)
		}
		if got := l.Sink("gosmtp").Messages(); len(got) != 2 {
			t.Errorf("%d messages arrived, want the two to the administrator", len(got))
		}
	})
}
