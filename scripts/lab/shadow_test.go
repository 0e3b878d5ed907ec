//go:build labtest

package lab

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"testing"
)

// bobShadow is the usual configuration where bob is only watched, and alice's mail is let alone.
var bobShadow = strings.Replace(GatewayConfig, `name = "{{.Name}}"`, `name = "{{.Name}}"{{if eq .Name "bob"}}
mode = "shadow"{{end}}{{if eq .Name "alice"}}
mode = "pass"{{end}}`, 1)

const gtubeText = "XJS*C4JDBQADN1.NSBN3*2IDNEN*GTUBE-STANDARD-ANTI-UBE-TEST-EMAIL*C.34X"

// TestShadow: who is in shadow cannot be told from who is let alone, neither by the client nor by the MX, and the log
// says what would have been done.
func TestShadow(t *testing.T) { onEachPath(t, shadowBy) }

func shadowBy(t *testing.T, path string) {
	ctx, l := testContext(t), ForTest(t, Options{})
	g := startGatewayWith(t, l, by(path, bobShadow))
	for i, to := range []string{"198.51.100.20:25", "[2001:db8:100::20]:25"} {
		// What each of the two hears and what the MX gets, with his name and number taken out.
		heard, got := map[string]string{}, map[string]string{}
		for _, host := range []string{"alice", "bob"} {
			rcpt := fmt.Sprintf("shadow%d-%s@sink.example", i, host)
			heard[host] = strings.ReplaceAll(strings.Join(inShadow(ctx, t, l, host, to, rcpt), "\n"), host, "X")
			m := messageTo(ctx, t, l, rcpt)
			got[host] = strings.ReplaceAll(string(m.Data), host, "X")
			var own netip.Addr
			for _, c := range l.Customers() {
				if own = c.V4; c.Name == host && i == 1 {
					own = c.V6
				}
				if c.Name == host {
					break
				}
			}
			if from := m.Peer.Addr().Unmap(); from != own {
				t.Errorf("the MX sees %s at %v instead of %v", host, from, own)
			}
		}
		if heard["alice"] != heard["bob"] {
			t.Errorf("in shadow a client hears\n%s\ninstead of\n%s", heard["bob"], heard["alice"])
		}
		if got["alice"] != got["bob"] || !strings.Contains(got["bob"], gtubeText) || strings.Contains(got["bob"], "Received:") {
			t.Errorf("in shadow the MX gets\n%s\ninstead of\n%s", got["bob"], got["alice"])
		}
	}
	var all []struct {
		User, Status, Class, Would, Source string
		Shadow                             bool
	}
	if err := sluiceJSON(ctx, g, &all, "log", "--user", "bob", "--status", "delivered"); err != nil {
		t.Fatal(err)
	}
	if len(all) != 2 {
		t.Fatalf("%d delivered messages of bob in the log: %+v", len(all), all)
	}
	for _, m := range all {
		if !m.Shadow || m.Status != "delivered" || m.Class != "spam" || !strings.HasPrefix(m.Would, "550 5.7.1 gw.example: [GTUBE]") {
			t.Errorf("logged %+v", m)
		}
	}
	if out := sluice(t, g, "locks"); !strings.Contains(out, "nobody is locked") {
		t.Errorf("locks: %s", out)
	}
	// A person's lock is one: it is explained, not overheard.
	sluice(t, g, "lock", "bob", "--reason", "test")
	c, err := l.Hello(ctx, "bob", "", "198.51.100.20:25")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, r, err := c.Send("a@bob.example", []string{"locked@sink.example"}, []byte("Subject: x\r\n\r\nx\r\n")); err != nil || r.Code != 451 || !strings.Contains(r.String(), "LOCKED") {
		t.Errorf("locked in shadow: %v %v", r, err)
	}
}

// inShadow sends GTUBE in a dialogue with everything in it that a proxy is tempted to answer itself, and returns all
// replies.
func inShadow(ctx context.Context, t *testing.T, l *Lab, host, to, rcpt string) (replies []string) {
	t.Helper()
	c, err := l.SMTP(ctx, host, "", to)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	replies = append(replies, c.Greeting.String())
	for _, line := range []string{
		"XYZZY", "EHLO " + host + ".example", "NOOP", "VRFY somebody", "MAIL FROM:<a@" + host + ".example>", "RSET", "RCPT TO:<early@sink.example>",
		"MAIL FROM:<a@" + host + ".example>", "RCPT TO:<" + rcpt + ">",
	} {
		r, err := c.Cmd(line)
		if err != nil {
			t.Fatalf("%s: %s: %v", host, line, err)
		}
		replies = append(replies, line+" -> "+r.String())
	}
	r, err := c.Data([]byte("Subject: offer\r\n\r\n" + gtubeText + "\r\n.dot\r\n"))
	if err != nil || r.Code != 250 {
		t.Errorf("%s: GTUBE is answered %v, %v", host, r, err)
	}
	replies = append(replies, r.String())
	if r, err = c.Cmd("QUIT"); err != nil {
		t.Errorf("%s: QUIT: %v", host, err)
	}
	return append(replies, r.String())
}
