package main

import (
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"

	"sluice/cmd/internal/api"
)

const user = `[[user]]
name = "alice"
prefixes = ["127.0.0.0/8"]
[user.lock]
automatic = true
`

func TestMailCrosses(t *testing.T) {
	t.Parallel()
	g := newGateway(t, user)
	g.start()
	defer g.end()
	c := g.dial()
	c.say("EHLO client.customer.example", "250")
	if answer := c.mail("bob@mx.example", ham); !strings.HasPrefix(answer, "250") {
		t.Fatalf("answered %q\n%s", answer, g.log)
	}
	c.say("MAIL FROM:<alice@customer.example>", "250")
	if r := c.say("RCPT TO:<reject@mx.example>", "550"); !strings.Contains(r, "nobody of that name") {
		t.Errorf("the destination's words did not come back: %q", r)
	}
	c.say("QUIT", "221")
	got := g.mx.messages()
	if len(got) != 1 {
		t.Fatalf("%d messages arrived, want 1", len(got))
	}
	head, body, _ := strings.Cut(got[0], "From: ")
	if "From: "+body != ham+"\r\n" && "From: "+body != ham {
		t.Errorf("it arrived as %q", got[0])
	}
	if !strings.HasPrefix(head, "Received: from client.customer.example") || !strings.Contains(head, "by gw.example") {
		t.Errorf("trace field %q", head)
	}
	ms := g.logged("status=delivered", 1)
	if len(ms) != 1 || ms[0].User != "alice" || ms[0].From != "alice@customer.example" || ms[0].To[0].Address != "bob@mx.example" {
		t.Fatalf("the log says %+v", ms)
	}
	if same := get[[]*api.Message](g, "/v1/log?id="+ms[0].ID); len(same) != 1 {
		t.Errorf("by its id %d lines were found", len(same))
	}
	st := get[api.Status](g, "/v1/status")
	if !st.Accepting || st.Messages["delivered"] != 1 || st.Gateway != "gw.example" {
		t.Errorf("status %+v", st)
	}
}

func TestSpammerIsLockedAndUnlocked(t *testing.T) {
	t.Parallel()
	g := newGateway(t, user)
	g.start()
	early := g.dial()
	early.say("EHLO early.example", "250")
	c := g.dial()
	c.say("EHLO client.example", "250")
	for i := range 5 {
		answer := c.mail("bob@mx.example", fmt.Sprintf(gtube, i))
		if !strings.HasPrefix(answer, "550 5.7.1") || !strings.Contains(answer, "gw.example") || !strings.Contains(answer, "https://gw.example/help/") {
			t.Fatalf("spam %d was answered %q", i, answer)
		}
	}
	locks := get[[]api.Lock](g, "/v1/locks")
	if len(locks) != 1 || locks[0].User != "alice" || !locks[0].Automatic || locks[0].Until == nil || len(locks[0].Evidence) == 0 {
		t.Fatalf("locks %+v", locks)
	}
	ticket := locks[0].Ticket
	for _, open := range []*client{early, c} {
		if said := open.expect("421 4.7.1"); !strings.Contains(said, ticket) || !strings.Contains(said, "sent 5 spam messages") {
			t.Errorf("an open session hears %q, want the ticket %s and the reason", said, ticket)
		}
	}
	if n := len(g.mx.messages()); n != 0 {
		t.Errorf("%d messages of a spammer arrived", n)
	}
	g.end()

	// The lock survives a restart, and is there before the first connection is accepted.
	g.start()
	defer g.end()
	c = g.dial()
	c.say("EHLO client.example", "250")
	if answer := c.mail("bob@mx.example", ham); !strings.HasPrefix(answer, "451 4.7.1") || !strings.Contains(answer, ticket) {
		t.Errorf("after a restart it was answered %q", answer)
	}
	var l api.Lock
	if err := g.api.Do(t.Context(), "POST", "/v1/unlock", api.UnlockRequest{User: "127.0.0.1", Reason: "cleaned"}, &l); err != nil {
		t.Fatal(err)
	}
	if l.Ticket != ticket || l.EndedWhy != "cleaned" || l.Ended == nil {
		t.Errorf("unlocked %+v", l)
	}
	if answer := c.mail("bob@mx.example", ham); !strings.HasPrefix(answer, "250") {
		t.Errorf("after unlock it was answered %q\n%s", answer, g.log)
	}
	if err := g.api.Do(t.Context(), "POST", "/v1/unlock", api.UnlockRequest{User: "alice"}, nil); err == nil || !strings.Contains(err.Error(), "not locked") {
		t.Errorf("a second unlock: %v", err)
	}
	if h := get[[]api.Lock](g, "/v1/locks?history=1&user=alice"); len(h) != 1 || h[0].Ended == nil {
		t.Errorf("history %+v", h)
	}
}

func TestUsersByCommand(t *testing.T) {
	t.Parallel()
	g := newGateway(t, "")
	g.start()
	defer g.end()
	c := g.dial()
	c.say("EHLO x.example", "250")
	if answer := c.mail("bob@mx.example", ham); !strings.HasPrefix(answer, "250") {
		t.Fatal(answer)
	}
	if us := get[[]api.User](g, "/v1/users"); len(us) != 1 || us[0].Name != "127.0.0.1/32" || us[0].Origin != "template" {
		t.Errorf("the unknown source became %+v", us)
	}
	n := api.NewUser{Name: "carol", Prefixes: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/24")}}
	if err := g.api.Do(t.Context(), "POST", "/v1/users", n, nil); err != nil {
		t.Fatal(err)
	}
	c = g.dial()
	c.say("EHLO x.example", "250")
	c.mail("bob@mx.example", ham)
	if ms := g.logged("user=carol", 1); len(ms) != 1 {
		t.Errorf("%d messages of the new user, want 1", len(ms))
	}
	if u := get[api.UserDetail](g, "/v1/users/127.0.0.9"); u.Name != "carol" || u.Settings.MessagesPerHour != 500 {
		t.Errorf("the address belongs to %+v", u)
	}
	if err := g.api.Do(t.Context(), "POST", "/v1/users", api.NewUser{Name: "a/b", Prefixes: n.Prefixes}, nil); err == nil || !strings.Contains(err.Error(), "cannot be a name") {
		t.Errorf("a bad name: %v", err)
	}
	if err := g.api.Do(t.Context(), "DELETE", "/v1/users/carol", nil, nil); err != nil {
		t.Error(err)
	}
	if err := g.api.Do(t.Context(), "GET", "/v1/users/carol", nil, nil); err == nil {
		t.Error("the removed user is still there")
	}
}

func TestReload(t *testing.T) {
	t.Parallel()
	g := newGateway(t, user)
	g.start()
	defer g.end()
	g.configure(user + "[limits]\nmessages_per_huor = 1\n")
	if err := g.daemon.reload(); err == nil {
		t.Fatal("a bad configuration was taken")
	}
	st := get[api.Status](g, "/v1/status")
	if !strings.Contains(st.Config.Error, "limits.messages_per_huor") || !strings.Contains(st.Config.Error, "did you mean") {
		t.Errorf("the refusal is told as %q", st.Config.Error)
	}
	if u := get[api.UserDetail](g, "/v1/users/alice"); u.Settings.MessagesPerHour != 500 {
		t.Errorf("the old limit did not stay: %d", u.Settings.MessagesPerHour)
	}
	g.configure(user + "[limits]\nmessages_per_hour = 1\n")
	if err := g.daemon.reload(); err != nil {
		t.Fatal(err)
	}
	if st := get[api.Status](g, "/v1/status"); st.Config.Error != "" {
		t.Errorf("the old refusal is still told: %q", st.Config.Error)
	}
	c := g.dial()
	c.say("EHLO x.example", "250")
	if answer := c.mail("bob@mx.example", ham); !strings.HasPrefix(answer, "250") {
		t.Fatal(answer)
	}
	c.say("MAIL FROM:<alice@customer.example>", "250")
	c.say("RCPT TO:<bob@mx.example>", "451")
	c.say("QUIT", "221")
}

func TestPlannedEnd(t *testing.T) {
	t.Parallel()
	g := newGateway(t, user)
	g.start()
	idle, busy := g.dial(), g.dial()
	idle.say("EHLO idle.example", "250")
	busy.say("EHLO busy.example", "250")
	busy.say("MAIL FROM:<alice@customer.example>", "250")
	busy.say("RCPT TO:<bob@mx.example>", "250")
	busy.say("DATA", "354")
	g.stop()
	idle.expect("421 4.3.2")
	if _, err := fmt.Fprintf(busy.c, "%s\r\n.\r\n", ham); err != nil {
		t.Fatal(err)
	}
	busy.expect("250")
	if err := <-g.done; err != nil {
		t.Error(err)
	}
	if n := len(g.mx.messages()); n != 1 {
		t.Errorf("%d messages arrived, want the one under way", n)
	}
}

func TestQueueThatGrowsStopsTheHeartbeat(t *testing.T) {
	t.Parallel()
	g := newGateway(t, "")
	f, port := g.socket()
	defer f.Close()
	l := listener(t, f, port)
	a := &acceptor{l: l}
	for range calm + 8 {
		c, err := net.Dial("tcp", g.addr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	waitFor(t, func() bool { n, _, err := l.Queue(); return err == nil && n > calm })
	if a.sane() {
		t.Error("a queue that nobody empties is taken for sane")
	}
	for range 9 {
		c, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		_ = c.Close()
	}
	if !a.sane() {
		t.Error("a queue that became shorter is not taken for sane")
	}
}

func TestFailuresAtStartAreTold(t *testing.T) {
	t.Parallel()
	var out, errs strings.Builder
	if code := run([]string{"-config", "/nonexistent/sluice.toml"}, &out, &errs); code != exitConfig || !strings.HasPrefix(errs.String(), "sluiced: ") || !strings.Contains(errs.String(), "--config") {
		t.Errorf("code %d, %q", code, errs.String())
	}
	out.Reset()
	if code := run([]string{"-config", "../../deploy/sluice.toml", "-check"}, &out, &errs); code != 0 || !strings.Contains(out.String(), "good") {
		t.Errorf("code %d, %q %q", code, out.String(), errs.String())
	}
	out.Reset()
	if code := run([]string{"-describe"}, &out, &errs); code != 0 || !strings.Contains(out.String(), "messages_per_hour") {
		t.Errorf("code %d, %q", code, out.String())
	}
	if code := run([]string{"stray"}, &out, &errs); code != 2 {
		t.Errorf("a stray argument ended with code %d", code)
	}
	g := newGateway(t, "")
	g.configure("")
	if code := run([]string{"-config", g.file(), "-check"}, &out, &errs); code != 0 {
		t.Errorf("code %d: %s", code, errs.String())
	}
}
