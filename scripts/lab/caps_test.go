//go:build labtest

package lab

import (
	"strings"
	"testing"
)

// TestSessionsOfASourceAtTheSmarthost: an address has ten of them; the next hears why, others do not notice, and who leaves
// makes room.
func TestSessionsOfASourceAtTheSmarthost(t *testing.T) {
	t.Parallel()
	ctx, l := testContext(t), ForTest(t, Options{})
	startGatewayWith(t, l, smarthostConfig)
	const to = "203.0.113.1:587"
	var open []*Client
	for range 10 {
		c, err := l.Hello(ctx, "bob", "", to)
		if err != nil {
			t.Fatal(err)
		}
		open = append(open, c)
	}
	c, err := l.SMTP(ctx, "bob", "", to)
	if err != nil {
		t.Fatal(err)
	}
	if got := c.Greeting.String(); got != "421 4.7.0 gw.example: Too many concurrent SMTP connections from this IP address; please try again later" {
		t.Errorf("the eleventh is greeted with %q", got)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	if c, err = l.Hello(ctx, "alice", "", to); err != nil {
		t.Errorf("another source: %v", err)
	} else if err := c.Quit(); err != nil {
		t.Error(err)
	}
	if err := open[0].Quit(); err != nil {
		t.Error(err)
	}
	if !eventually(ctx, func() bool { open[0], err = l.Hello(ctx, "bob", "", to); return err == nil }) {
		t.Errorf("when one has left: %v", err)
	}
	for _, c := range open {
		if err := c.Quit(); err != nil {
			t.Error(err)
		}
	}
}

// cappedConfig has one delivery address for mail.
func cappedConfig(settings string) string {
	before, rest, _ := strings.Cut(GatewayConfig, "{{range .Addresses}}")
	_, after, _ := strings.Cut(rest, "{{end}}\n[lock]")
	return strings.Replace(before, "[delivery]\n", "[delivery]\n"+settings, 1) + `
[[delivery.address]]
address = "203.0.113.17"
helo = "out17.gw.example"
[lock]` + after
}

// TestSessionsOfADeliveryAddress: no more connections than set lead from an address to one destination at once; the next mail
// waits for the end of one, whether a client or nobody has it, and else is put off.
func TestSessionsOfADeliveryAddress(t *testing.T) {
	t.Parallel()
	ctx, l := testContext(t), ForTest(t, Options{})
	startGatewayWith(t, l, cappedConfig("sessions_per_address = 2\nreuse = \"1m\"\n"))
	begin := func(host string, to string) (*Client, Reply) {
		t.Helper()
		c, err := l.Hello(ctx, host, "", to)
		if err != nil {
			t.Fatal(err)
		}
		r, err := c.Cmd("MAIL FROM:<a@" + host + ".example>")
		if err == nil && r.Code == 250 {
			r, err = c.Cmd("RCPT TO:<u@" + host + ".example>")
		}
		if err != nil {
			t.Fatal(err)
		}
		return c, r
	}
	const one, other = "198.51.100.101:25", "198.51.100.102:25"
	alice, r := begin("alice", one)
	if r.Code != 250 {
		t.Fatal(r)
	}
	mallory, r := begin("mallory", one)
	if r.Code != 250 {
		t.Fatal(r)
	}
	if _, r = begin("bob", one); r.Code != 421 {
		t.Errorf("a third at once hears %s", r)
	}
	bob, r := begin("bob", other)
	if r.Code != 250 {
		t.Errorf("at another destination he hears %s", r)
	}
	finishes(t, bob)
	finishes(t, alice)
	finishes(t, mallory)
	bob, r = begin("bob", one)
	if r.Code != 250 {
		t.Errorf("where the others' connections stand idle he hears %s", r)
	}
	finishes(t, bob)
	most := 0
	for _, s := range l.Sink("peer01").Sessions() {
		if strings.Contains(strings.Join(s.Lines, "\n"), "C: DATA") {
			most++
		}
	}
	if most != 3 {
		t.Errorf("mail came by %d sessions", most)
	}
}

// finishes sends the message of a transaction that was begun, and leaves.
func finishes(t *testing.T, c *Client) {
	t.Helper()
	if r, err := c.Data([]byte("Subject: x\r\n\r\nx\r\n")); err != nil || r.Code != 250 {
		t.Error(r, err)
	}
	if err := c.Quit(); err != nil {
		t.Error(err)
	}
}
