//go:build labtest

package lab

import (
	"context"
	"crypto/tls"
	"fmt"
	"strings"
	"testing"
	"time"
)

// gateLine is what this test reads of a line of the gate.
type gateLine struct {
	Check, Verdict, Text, Remedy string
	Count, Of, Unknown           int
	Worst                        []struct {
		User, Detail string
		Count        int
	}
}

// TestGate: of a user in shadow and one whose mail is enforced the gate tells whom the next step would hurt, and whom not.
func TestGate(t *testing.T) {
	t.Parallel()
	ctx, l := testContext(t), ForTest(t, Options{})
	text := strings.Replace(GatewayConfig, `name = "{{.Name}}"`, `name = "{{.Name}}"{{if eq .Name "bob"}}
mode = "shadow"{{end}}`, 1)
	g := startGatewayWith(t, l, strings.Replace(text, "]\n{{end}}", "]\n{{if eq .Name \"dave\"}}[user.limits]\nsessions_per_pair = 1\n{{end}}{{end}}", 1))
	if _, err := l.SinkAt(HostInternet, "smarthost", routerV4.String()+":25"); err != nil {
		t.Fatal(err)
	}
	good := "Subject: x\r\n\r\nx\r\n"
	sent := 0
	for i := range 5 {
		for _, m := range []struct{ from, to, rcpt, body string }{
			{"a@bob.example", "198.51.100.20:25", "good", good},
			{"a@bob.example", "[2001:db8:100::20]:25", "good6", good},
			{"a@bob.example", "198.51.100.20:25", "spam", fmt.Sprintf("Subject: buy\r\n\r\nOffer %d\r\n%s\r\n", i, gtubeText)},
			{"a@only.bob.example", "198.51.100.20:25", "spf", good},
			{"a@bob.example", routerV4.String() + ":25", "relayed", good},
		} {
			gateMail(ctx, t, l, "bob", m.from, m.to, m.rcpt+"@sink.example", m.body)
			sent++
			gateLines(ctx, t, g, "bob", sent) // nobody in shadow waits for a verdict, and each counts for the next
		}
	}
	gateMail(ctx, t, l, "alice", "a@alice.example", "198.51.100.20:25", "fine@sink.example", good)
	refuseCertificate(ctx, t, l)
	waitForGreeting(ctx, t, l)

	by := gateLines(ctx, t, g, "bob", sent)
	for check, want := range map[string]string{
		"traffic":  "look 25 bob 25 messages in 25 connections of 1 user",
		"refusals": "look 11 bob GTUBE 5, HELD 4, LOCKED 2", // he would be held meanwhile and locked by the fifth
		"locks":    "look 1 bob bad messages",
		"spf":      "stop 5 bob only.bob.example 5",
		"relay":    "stop 5 bob " + routerV4.String() + " 5",
		"tls":      "unknown 0  not known before enforcement",
		"caps":     "ok 0  no source had more",
		"opaque":   "ok 0  every connection could be read",
	} {
		l := by[check]
		user, detail := "", l.Text
		if len(l.Worst) > 0 {
			user, detail = l.Worst[0].User, l.Worst[0].Detail
		}
		if check == "traffic" {
			user = "bob"
		}
		if got := fmt.Sprintf("%s %d %s %s", l.Verdict, l.Count, user, detail); !strings.HasPrefix(got, want) || l.Unknown != 0 {
			t.Errorf("%s: %q (%+v), want %q", check, got, l, want)
		}
	}
	by = gateLines(ctx, t, g, "alice", 2)
	if x := by["tls"]; x.Verdict != "look" || x.Count != 1 || x.Of != 2 || x.Worst[0].User != "alice" {
		t.Errorf("alice's client refused our certificate once, and the gate says %+v", x)
	}
	for _, check := range []string{"refusals", "locks", "spf", "relay", "caps"} {
		if by[check].Verdict != "ok" {
			t.Errorf("alice did nothing, and the gate says %+v", by[check])
		}
	}
	if x := gateLines(ctx, t, g, "dave", 2)["caps"]; x.Verdict != "look" || x.Count != 1 || x.Of != 2 || x.Worst[0].User != "dave" || x.Worst[0].Detail != "192.0.2.30 1" {
		t.Errorf("dave's second session waited for the first, and the gate says %+v", x)
	}
	if out := sluice(t, g, "gate", "--prefix", "192.0.2.20/32"); !strings.Contains(out, "192.0.2.20/32") || !strings.Contains(out, "spf        stop") {
		t.Errorf("as a table:\n%s", out)
	}
}

func gateMail(ctx context.Context, t *testing.T, l *Lab, host, from, to, rcpt, body string) {
	t.Helper()
	c, err := l.Hello(ctx, host, "", to)
	if err != nil {
		t.Fatal(err)
	}
	if _, last, err := c.Send(from, []string{rcpt}, []byte(body)); err != nil || last.Code != 250 {
		t.Fatalf("%s to %s: %v, %v", from, to, last, err)
	}
	if err := c.Quit(); err != nil {
		t.Error(err)
	}
}

// refuseCertificate is a client of alice's that believes no self-made certificate.
func refuseCertificate(ctx context.Context, t *testing.T, l *Lab) {
	t.Helper()
	c, err := l.Hello(ctx, "alice", "", "198.51.100.21:25")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if r, err := c.Cmd("STARTTLS"); err != nil || r.Code != 220 {
		t.Fatalf("STARTTLS: %v, %v", r, err)
	}
	if err := tls.Client(c.Conn, &tls.Config{ServerName: "mx.selfsigned.example"}).HandshakeContext(ctx); err == nil {
		t.Fatal("a self-made certificate was believed")
	}
}

// waitForGreeting opens two sessions where one is allowed: the second is greeted when the first has gone.
func waitForGreeting(ctx context.Context, t *testing.T, l *Lab) {
	t.Helper()
	first, err := l.Hello(ctx, "dave", "", "198.51.100.20:25")
	if err != nil {
		t.Fatal(err)
	}
	nc, err := l.Dial(ctx, "dave", "", "198.51.100.20:25")
	if err != nil {
		t.Fatal(err)
	}
	second := NewClient(nc)
	defer second.Close()
	second.Timeout(300 * time.Millisecond)
	if r, err := second.Reply(); err == nil {
		t.Fatalf("a session beyond the cap was greeted with %v", r)
	}
	if err := first.Quit(); err != nil {
		t.Error(err)
	}
	second.Timeout(10 * time.Second)
	if r, err := second.Reply(); err != nil || r.Code != 220 {
		t.Fatalf("its turn brought %v, %v", r, err)
	}
	if err := second.Quit(); err != nil {
		t.Error(err)
	}
}

// gateLines asks until so many connections of a user's are in the log.
func gateLines(ctx context.Context, t *testing.T, g *Gateway, user string, want int) map[string]gateLine {
	t.Helper()
	for {
		var gate struct {
			Flows int
			Lines []gateLine
		}
		if err := sluiceJSON(ctx, g, &gate, "gate", "--user", user); err != nil {
			t.Fatal(err)
		}
		by := map[string]gateLine{}
		for _, l := range gate.Lines {
			by[l.Check] = l
		}
		if gate.Flows == want {
			return by
		}
		if err := sleep(ctx, 50*time.Millisecond); err != nil {
			t.Fatalf("%d flows of %s were logged, want %d", gate.Flows, user, want)
		}
	}
}
