//go:build labtest

package lab

import (
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"
)

// smarthostConfig is the usual gateway with a smarthost at its uplink's addresses.
const smarthostConfig = GatewayConfig + `
[smarthost]
name = "smtp.provider.example"
guesses = 6
callout = true
[[smarthost.listener]]
address = "203.0.113.1:587"
[[smarthost.listener]]
address = "[2001:db8:203::1]:465"
`

// TestSmarthostTakesMail of customers who log in and of users' addresses, and nothing of strangers, from whichever side
// they come; also when either program, or both, are started anew.
func TestSmarthostTakesMail(t *testing.T) {
	t.Parallel()
	ctx, l := testContext(t), ForTest(t, Options{})
	g := startGatewayWith(t, l, smarthostConfig)
	var made struct {
		Name, Password string
		Servers        []string
	}
	if err := json.Unmarshal([]byte(sluice(t, g, "login", "add", "customer.example", "--user", "alice", "--json")), &made); err != nil {
		t.Fatal(err)
	}
	if len(made.Servers) != 2 || made.Servers[0] != "smtp.provider.example port 587, STARTTLS" || made.Servers[1] != "smtp.provider.example port 465, TLS" {
		t.Errorf("the customer is told %q", made.Servers)
	}
	ways := [][]string{{"--server", "203.0.113.1:587", "--tls"}, {"--server", "[2001:db8:203::1]:465", "--tls-on-connect"}}
	send := func(host string, way []string, more ...string) Output {
		t.Helper()
		args := append(append([]string{"--to", "b@sink.example", "--ehlo", "client.example"}, way...), more...)
		out, err := l.Swaks(ctx, host, args...)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	login := []string{"--auth", "PLAIN", "--auth-user", made.Name, "--auth-password", made.Password, "--from", "a@customer.example"}
	n := 0
	taken := func(what string, out Output) {
		t.Helper()
		if n++; out.Code != 0 || !strings.Contains(out.Stdout, "250 2.0.0 gw.example: kept as ") {
			t.Fatalf("%s: exit %d\n%s", what, out.Code, out.Stdout)
		}
	}
	for _, way := range ways {
		taken("a customer from the internet", send(HostInternet, way, login...))
		taken("a user's own address", send("bob", way, "--from", "x@bob.example"))
		out := send(HostInternet, way, "--from", "a@customer.example")
		if out.Code == 0 || !strings.Contains(out.Stdout, "550 5.7.1 gw.example: no relaying for you: log in first") {
			t.Errorf("a stranger: exit %d\n%s", out.Code, out.Stdout)
		}
		out = send(HostInternet, way, append(login[:len(login)-1:len(login)-1], "a@elsewhere.example")...)
		if out.Code == 0 || !strings.Contains(out.Stdout, "550 5.7.1") {
			t.Errorf("another sender than the login's: exit %d\n%s", out.Code, out.Stdout)
		}
		out = send(HostInternet, way, append(login, "--h-From", "ceo@bank.example")...)
		if out.Code == 0 || !strings.Contains(out.Stdout, "550 5.7.1") {
			t.Errorf("another author than the login's: exit %d\n%s", out.Code, out.Stdout)
		}
		out = send(HostInternet, way, append(login, "--to", "reject1@sink.example")...)
		if out.Code == 0 || !strings.Contains(out.Stdout, "550 5.1.1 gw.example: there is no such recipient: mx.sink.example said") {
			t.Errorf("a recipient who does not exist: exit %d\n%s", out.Code, out.Stdout)
		}
	}
	// A domain that a user gets has a login by itself, which lets somebody in once it has a password.
	sluice(t, g, "users", "set", "alice", "from_domains=shop.example", "--reason", "a new shop")
	if out := sluice(t, g, "login"); !strings.Contains(out, "shop.example") || !strings.Contains(out, "none yet") || !strings.Contains(out, "smtp.provider.example port 587, STARTTLS") {
		t.Errorf("the login of a user's domain: %s", out)
	}
	shop := made
	if err := json.Unmarshal([]byte(sluice(t, g, "login", "password", "shop.example", "--json")), &shop); err != nil {
		t.Fatal(err)
	}
	taken("the login of a user's domain", send(HostInternet, ways[0], "--auth", "PLAIN", "--auth-user", "shop.example", "--auth-password", shop.Password, "--from", "a@shop.example"))
	for what, restart := range map[string]func() error{
		"sluiced":          func() error { return g.RestartSluiced(ctx) },
		"sluice-intercept": func() error { return g.RestartIntercept(ctx) },
	} {
		if err := restart(); err != nil {
			t.Fatal(err)
		}
		for _, way := range ways {
			taken("behind a restart of "+what, send(HostInternet, way, login...))
		}
	}
	began := time.Now()
	var guesses sync.WaitGroup
	for i := range 6 { // at once, which gains nothing: they wait for each other, and each longer than the one before
		guesses.Go(func() {
			args := append([]string{"swaks", "--quit-after", "AUTH"}, ways[0]...)
			_, err := l.Exec(ctx, HostInternet, append(args, "--auth", "PLAIN", "--auth-user", made.Name, "--auth-password", fmt.Sprint("guess-", i))...)
			if err != nil {
				t.Error(err)
			}
		})
	}
	guesses.Wait()
	if took := time.Since(began); took < (1+2+4)*time.Second {
		t.Errorf("six guesses at once took %v", took)
	}
	out := send(HostInternet, ways[0], login...)
	if out.Code == 0 || !strings.Contains(out.Stdout, "421 4.7.0 gw.example: too many wrong passwords from this address") {
		t.Errorf("whoever guesses is let in: exit %d\n%s", out.Code, out.Stdout)
	}
	shown := sluice(t, g, "guessers")
	if !strings.Contains(shown, "shut out until") || !strings.Contains(shown, "customer.example") {
		t.Errorf("sluice guessers shows\n%s", shown)
	}
	place, _, _ := strings.Cut(strings.Fields(strings.Split(shown, "\n")[1])[0], "/")
	sluice(t, g, "guessers", "forgive", place)
	taken("behind sluice guessers forgive", send(HostInternet, ways[0], login...))
	all, err := l.Sink("sink").Wait(ctx, n)
	if err != nil {
		t.Fatal(err)
	}
	ids := map[string]int{}
	for _, m := range all {
		text := string(m.Data)
		_, id, _ := strings.Cut(text, "Message-Id: ")
		id, _, _ = strings.Cut(id, "\r\n")
		if ids[id]++; ids[id] > 1 || id == "" {
			t.Errorf("message %q came %d times", id, ids[id])
		}
		if !deliveredFrom(m) || !strings.HasPrefix(text, "Received: from client.example") || strings.Count(text, "\r\nReceived: ") > 0 {
			t.Errorf("it came from %v as\n%.300s", m.Peer, text)
		}
	}
	var ms []json.RawMessage
	if err := sluiceJSON(ctx, g, &ms, "log", "--status", "queued"); err != nil || len(ms) != n {
		t.Errorf("%d of %d messages stand in the log as queued, %v", len(ms), n, err)
	}
	empty := func(q map[string]queued) bool { return len(q) == 0 }
	untilQueue(ctx, t, g, "the queue does not empty", empty)
	// With a bound of one, a second message waits at the client until the first has left the queue.
	sluice(t, g, "users", "set", "bob", "queued_messages=1")
	bob := func(to string) Output { return send("bob", ways[0], "--from", "x@bob.example", "--to", to) }
	taken("the only message that may wait", bob("u@refused.example"))
	if out := bob("b@sink.example"); out.Code == 0 || !strings.Contains(out.Stdout, "452 4.3.1 gw.example: [QUEUE-MAX] ") {
		t.Errorf("one more than may wait: exit %d\n%s", out.Code, out.Stdout)
	}
	sluice(t, g, "queue", "delete", queue(ctx, t, g)["refused.example"].ID, "--reason", "room")
	untilQueue(ctx, t, g, "the queue does not empty", empty)
	taken("behind the one that left", bob("b@sink.example"))
}

// deliveredFrom tells whether a message came from one of the gateway's delivery addresses.
func deliveredFrom(m *Message) bool {
	a := m.Peer.Addr().Unmap()
	return DeliveryV4.Contains(a) || DeliveryV6.Contains(a)
}
