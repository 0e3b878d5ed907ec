//go:build labtest

package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestManyRefusedRecipients: what the MX refuses is never counted against the client.
func TestManyRefusedRecipients(t *testing.T) {
	t.Parallel()
	ctx, l := testContext(t), ForTest(t, Options{})
	g := startGateway(t, l, "[limits]\ninvalid_recipients_percent = 0\n") // which, like the lock, is about just this
	sluice(t, g, "user", "set", "alice", "lock_unknown_recipients=0")
	for _, f := range bothFamilies {
		c, err := l.Hello(ctx, "alice", "", f.to)
		if err != nil {
			t.Fatal(err)
		}
		var rcpts []string
		for i := range 500 {
			rcpts = append(rcpts, fmt.Sprintf("reject%d@sink.example", i))
		}
		replies, last, err := c.Send("a@alice.example", append(rcpts, "good@sink.example"), []byte("Subject: one of 501\r\n\r\ngood\r\n"))
		if err != nil || last.Code != 250 || len(replies) != 501 {
			t.Fatalf("%s: after %d recipients %v %v", f.name, len(replies), last, err)
		}
		for i, r := range replies[:500] {
			if want := fmt.Sprintf("550 5.1.1 <%s>: Recipient unknown", rcpts[i]); r.String() != want {
				t.Fatalf("%s: recipient %d is answered %q, not %q", f.name, i, r, want)
			}
		}
		if err := c.Quit(); err != nil {
			t.Error(err)
		}
	}
	all, err := l.Sink("sink").Wait(ctx, 2)
	if err != nil || len(all) != 2 || len(all[0].Rcpts) != 1 || len(all[1].Rcpts) != 1 {
		t.Errorf("%d messages arrived: %v", len(all), err)
	}
}

// TestTooLargeMessages are refused at MAIL where they are declared, and after their end where they are not; the session
// goes on.
func TestTooLargeMessages(t *testing.T) {
	t.Parallel()
	ctx, l := testContext(t), ForTest(t, Options{})
	const most = 64 << 10
	startGateway(t, l, "[limits]\nmessage_size = \"64KiB\"\n")
	body := func(n int) []byte {
		head := "Subject: size\r\n\r\n"
		return []byte(head + strings.Repeat("x", 78) + "\r\n" + strings.Repeat(strings.Repeat("y", 62)+"\r\n", (n-len(head)-80)/64) + strings.Repeat("z", (n-len(head)-80)%64))
	}
	c, err := l.Hello(ctx, "alice", "", "[2001:db8:100::20]:25")
	if err != nil {
		t.Fatal(err)
	}
	if r, err := c.Cmd(fmt.Sprintf("MAIL FROM:<a@alice.example> SIZE=%d", most+1)); err != nil || r.Code != 552 || !strings.HasPrefix(r.Lines[0], "5.3.4") {
		t.Errorf("a declared excess: %v %v", r, err)
	}
	for _, n := range []int{most / 2, most + 100, 40 * most, most / 2} {
		want := 250
		if n > most {
			want = 552
		}
		if _, r, err := c.Send("a@alice.example", []string{"u@sink.example"}, body(n)); err != nil || r.Code != want {
			t.Errorf("a message of %d bytes: %v %v", n, r, err)
		}
	}
	if err := c.Quit(); err != nil {
		t.Error(err)
	}
	if all := l.Sink("sink").Messages(); len(all) != 2 {
		t.Errorf("%d messages arrived, not the 2 small ones", len(all))
	}
}

// TestSmuggling: whatever stands for a line end elsewhere, a second message hidden behind it stays part of the first, or
// the first is refused. Bare line feeds are tried under both settings.
func TestSmuggling(t *testing.T) {
	t.Parallel()
	for _, setting := range []string{"normalise", "refuse"} {
		t.Run(setting, func(t *testing.T) {
			t.Parallel()
			ctx, l := testContext(t), ForTest(t, Options{})
			startGatewayWith(t, l, strings.Replace(GatewayConfig, "[smtp]\n", "[smtp]\nbare_newline = \""+setting+"\"\n", 1))
			ends := []string{"\n.\n", "\r\n.\n", "\n.\r\n", "\r.\r", "\r\n.\r", "\r.\r\n", "\r.\n", "\n.\r", "\r\r\n.\r\r\n", "\r\n\x00.\r\n", "\r\n.\x00\r\n", "\n\n.\n\n"}
			arrived := 0
			for _, end := range ends {
				c, err := l.Hello(ctx, "mallory", "", "198.51.100.20:25")
				if err != nil {
					t.Fatal(err)
				}
				for _, line := range []string{"MAIL FROM:<m@mallory.example>", "RCPT TO:<u@sink.example>", "DATA"} {
					if r, err := c.Cmd(line); err != nil || r.Code >= 400 {
						t.Fatalf("%s: %v %v", line, r, err)
					}
				}
				text := "Subject: first\r\n\r\nfirst" + end +
					"MAIL FROM:<smuggled@mallory.example>\r\nRCPT TO:<smuggled@sink.example>\r\nDATA\r\nSubject: smuggled\r\n\r\nsmuggled\r\n.\r\n"
				if _, err := c.Write([]byte(text)); err != nil {
					t.Fatal(err)
				}
				r, err := c.Reply()
				switch {
				case err == nil && r.Code == 250 && !strings.ContainsAny(end, "\x00") && !strings.Contains(strings.ReplaceAll(end, "\r\n", ""), "\r") && setting == "normalise":
					arrived++
				case err == nil && r.Code == 550 && strings.HasPrefix(r.Lines[0], "5.6.0 "):
				default:
					t.Errorf("%q is answered %v %v", end, r, err)
				}
				// The session is in step: the next reply is to the next command.
				if r, err := c.Cmd("VRFY x"); err != nil || r.Code != 252 {
					t.Errorf("after %q the next command is answered %v %v", end, r, err)
				}
				if err := c.Quit(); err != nil {
					t.Error(err)
				}
			}
			all := l.Sink("sink").Messages()
			if len(all) != arrived || (setting == "normalise") != (arrived > 0) {
				t.Errorf("%d messages were answered 250, %d arrived", arrived, len(all))
			}
			for _, m := range all {
				if m.Sender() != "m@mallory.example" || !bytes.Contains(m.Data, []byte("Subject: smuggled")) {
					t.Errorf("a message from %s arrived as %q", m.Sender(), m.Data)
				}
				rest := bytes.ReplaceAll(m.Data, []byte("\r\n"), nil)
				if bytes.ContainsAny(rest, "\r\n\x00") {
					t.Errorf("a bare line end went onward: %q", m.Data)
				}
			}
		})
	}
}

// TestForgedSources: who sends from another's address, or to the gateway itself, gets nowhere.
func TestForgedSources(t *testing.T) { onEachPath(t, forgedSourcesBy) }

func forgedSourcesBy(t *testing.T, path string) {
	ctx, l := testContext(t), ForTest(t, Options{})
	g := startGatewayWith(t, l, by(path, GatewayConfig))
	if err := l.ip(ctx, "mallory", []string{"addr add 192.0.2.10/32 dev lo", "addr add 2001:db8:1::10/128 dev lo nodad", "addr add 203.0.113.17/32 dev lo"}); err != nil {
		t.Fatal(err)
	}
	up, err := l.Capture(ctx, HostGateway, "up0", "tcp port 25 or ip6")
	if err != nil {
		t.Fatal(err)
	}
	for from, to := range map[string]string{"192.0.2.10": "198.51.100.20:25", "2001:db8:1::10": "[2001:db8:100::20]:25", "203.0.113.17": "198.51.100.20:25"} {
		soon, cancel := context.WithTimeout(ctx, 1500*time.Millisecond)
		c, err := l.Dial(soon, "mallory", from, to)
		cancel()
		if err == nil {
			_ = c.Close()
			t.Errorf("mallory was served as %s", from)
		}
	}
	for _, to := range []string{"203.0.113.1:25", "[2001:db8:203::1]:25", "192.0.2.1:25", "203.0.113.17:25"} {
		soon, cancel := context.WithTimeout(ctx, 20*time.Second)
		c, err := l.SMTP(soon, "mallory", "", to)
		cancel()
		if err == nil && c.Greeting.Code/100 == 2 {
			t.Errorf("the gateway's own address %s greets %v", to, c.Greeting)
		}
		if !errors.Is(err, syscall.ECONNREFUSED) && err != nil && soon.Err() == context.DeadlineExceeded {
			t.Errorf("%s leaves the client waiting: %v", to, err)
		}
	}
	served(t, l, "alice", "", "198.51.100.20:25")
	packets, err := up.Stop()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range []string{"192.0.2.10", "2001:db8:1::10", "192.0.2.66", "2001:db8:66::66"} {
		if n := len(packets.Where(From(a))); n != 0 {
			t.Errorf("%d packets left from %s", n, a)
		}
	}
	var u struct{ Kernel map[string]uint64 }
	if err := sluiceJSON(ctx, g, &u, "users", "show", "alice"); err != nil || u.Kernel["spoofed"] == 0 {
		t.Errorf("the forged packets are not counted: %v %v", u.Kernel, err)
	}
}

// TestUnknownSourceGetsAUser: a customer that nobody configured is somebody from his first connection on.
func TestUnknownSourceGetsAUser(t *testing.T) { onEachPath(t, unknownSourceGetsAUserBy) }

func unknownSourceGetsAUserBy(t *testing.T, path string) {
	ctx, l := testContext(t), ForTest(t, Options{})
	g := startGatewayWith(t, l, by(path, GatewayConfig))
	if err := l.AddCustomer(ctx, Customer{Name: "erin", V4: netip.MustParseAddr("192.0.2.50"), V6: netip.MustParseAddr("2001:db8:50::50")}); err != nil {
		t.Fatal(err)
	}
	served(t, l, "erin", "", "198.51.100.20:25")
	served(t, l, "erin", "", "[2001:db8:100::20]:25")
	made := map[string]string{}
	read := func() {
		t.Helper()
		var users []struct {
			Name, Origin string
			Prefixes     []string
		}
		if err := sluiceJSON(ctx, g, &users, "users"); err != nil {
			t.Fatal(err)
		}
		clear(made)
		for _, u := range users {
			if u.Origin == "template" {
				made[strings.Join(u.Prefixes, " ")] = u.Name
			}
		}
	}
	read()
	if len(made) != 2 || made["192.0.2.50/32"] == "" || made["2001:db8:50::/64"] == "" {
		t.Errorf("users made for unknown sources: %v", made)
	}
	var log []struct{ User string }
	if err := sluiceJSON(ctx, g, &log, "log", "--status", "delivered"); err != nil || len(log) != 2 {
		t.Fatal(log, err)
	}
	for _, m := range log {
		if m.User != made["192.0.2.50/32"] && m.User != made["2001:db8:50::/64"] {
			t.Errorf("a message of the new customer is attributed to %q", m.User)
		}
	}
	// He is somebody who can be locked, and still is after a restart.
	sluice(t, g, "lock", "192.0.2.50", "--reason", "a test")
	if err := g.RestartSluiced(ctx); err != nil {
		t.Fatal(err)
	}
	if locked := lockedUsers(ctx, t, g); len(locked) != 1 || locked[0] != made["192.0.2.50/32"] {
		t.Errorf("locked are %v", locked)
	}
	before := fmt.Sprint(made)
	if read(); fmt.Sprint(made) != before {
		t.Errorf("after a restart the made users are %v, not %s", made, before)
	}
	if path != "tcx" { // what follows is sluiced's alone
		return
	}
	// By choice no user is made: a stranger is turned away, and who is known goes on.
	if err := g.Configure(by(path, GatewayConfig), "\n[template]\nunknown = \"refuse\"\n"); err != nil {
		t.Fatal(err)
	}
	if err := g.RestartSluiced(ctx); err != nil {
		t.Fatal(err)
	}
	if err := l.AddCustomer(ctx, Customer{Name: "frank", V4: netip.MustParseAddr("192.0.2.51"), V6: netip.MustParseAddr("2001:db8:51::51")}); err != nil {
		t.Fatal(err)
	}
	for _, f := range bothFamilies {
		c, err := l.SMTP(ctx, "frank", "", f.to)
		if err != nil {
			t.Fatal(err)
		}
		if _ = c.Close(); c.Greeting.Code != 554 {
			t.Errorf("a stranger who is to be refused is greeted %v", c.Greeting)
		}
	}
	if read(); made["192.0.2.51/32"] != "" || made["2001:db8:51::/64"] != "" {
		t.Errorf("a user was made for who is to be refused: %v", made)
	}
	served(t, l, "alice", "", "198.51.100.20:25")
}

// TestProxyHasNoRights: who parses strangers' bytes is nobody.
func TestProxyHasNoRights(t *testing.T) {
	t.Parallel()
	l := ForTest(t, Options{})
	g := startGateway(t, l, "")
	served(t, l, "alice", "", "198.51.100.20:25")
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", g.Sluiced.Pid()))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"Uid:\t65534\t65534\t65534\t65534", "Gid:\t65534\t65534\t65534\t65534",
		"CapInh:\t0000000000000000", "CapPrm:\t0000000000000000", "CapEff:\t0000000000000000", "CapAmb:\t0000000000000000"} {
		if !strings.Contains(string(status), want) {
			t.Errorf("sluiced's status has no %q:\n%s", want, status)
		}
	}
}
