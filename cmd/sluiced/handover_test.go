package main

import (
	"fmt"
	"io"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sluice/cmd/internal/api"
	"sluice/filter/limit"
)

// TestHandOver: a second process takes over, while a session of the first goes on in the midst of a message; locks and
// counts are known to both, and the first ends when its last session has.
func TestHandOver(t *testing.T) {
	t.Parallel()
	g, h, before := handingOver(t)
	if answer := before.mail("bob@mx.example", ham); !strings.HasPrefix(answer, "250") {
		t.Fatal(answer)
	}
	before.say("MAIL FROM:<alice@customer.example>", "250")
	before.say("RCPT TO:<bob@mx.example>", "250")

	next := *g
	newer := &next
	newer.log = &lines{}
	newer.run(nil, 0)
	waitFor(t, func() bool { return strings.Contains(g.log.String(), "handed over") })
	if st := get[api.Status](newer, "/v1/status"); !st.Accepting || st.Flows != 0 {
		t.Errorf("the API shows %+v, want the newer process, which accepts and has no session", st)
	}
	// The session that goes on in the older process takes its place in the newer one, too.
	waitFor(t, func() bool { return newer.daemon.gate.Stats().Active == 1 })
	last, _ := beat(t, h.heartbeat)
	waitFor(t, func() bool { now, restart := beat(t, h.heartbeat); return now > last && restart == 0 })

	before.say("DATA", "354")
	if _, err := fmt.Fprint(before.c, ham+".\r\n"); err != nil {
		t.Fatal(err)
	}
	before.expect("250")
	after := newer.dial()
	after.say("EHLO after.example", "250")
	if answer := after.mail("bob@mx.example", ham); !strings.HasPrefix(answer, "250") {
		t.Fatal(answer)
	}
	u, _ := newer.daemon.sources.Attribute(netip.MustParseAddr("127.0.0.1"))
	key := limit.Key{User: u.ID, What: limit.Messages, Window: time.Hour}
	waitFor(t, func() bool { n, _ := newer.daemon.counts.counts.Count(key); return n == 3 })

	// Two of the five go through the newer process: it takes both sessions together to lock.
	for i := range 2 {
		after.mail("bob@mx.example", fmt.Sprintf(gtube, 10+i))
	}
	for i := range 3 {
		before.mail("bob@mx.example", fmt.Sprintf(gtube, i))
	}
	waitFor(t, func() bool { n, _ := h.locked(); return n == 1 && len(get[[]api.Lock](newer, "/v1/locks")) == 1 })
	waitFor(t, func() bool { _, locked := g.daemon.locks.Locked(u.ID); return locked })
	ticket := get[[]api.Lock](newer, "/v1/locks")[0].Ticket
	for _, open := range []*client{before, after} { // told without having asked, whichever process locked
		if said := open.expect("421 4.7.1"); !strings.Contains(said, ticket) {
			t.Errorf("locked by both together, an open session hears %q", said)
		}
		open.c.Close()
	}
	if err := newer.api.Do(t.Context(), "POST", "/v1/unlock", api.UnlockRequest{User: "alice"}, nil); err != nil {
		t.Fatal(err)
	}
	if err := <-g.done; err != nil {
		t.Errorf("the older process ended with %v\n%s", err, g.log)
	}
	if _, restart := beat(t, h.heartbeat); restart != 0 {
		t.Error("the older process announced a restart")
	}
	g.stop()
	waitFor(t, func() bool { return newer.daemon.gate.Stats().Active == 0 })
	after = newer.dial()
	after.say("EHLO after.example", "250")
	if answer := after.mail("bob@mx.example", ham); !strings.HasPrefix(answer, "250") {
		t.Errorf("after the hand-over the newer process answered %q", answer)
	}
	newer.end()
}

// TestHandOverLosesNoSettings: what the older process is told of settings and accounts while its successor starts holds there, too.
func TestHandOverLosesNoSettings(t *testing.T) {
	t.Parallel()
	g, _, before := handingOver(t)
	next := *g
	newer := &next
	newer.log = &lines{}
	newer.before = func(*daemon) { // it has read everything, and serves nobody yet
		for path, v := range map[string]any{
			"/v1/settings": api.SettingsChange{User: "alice", Set: map[string]string{"recipients_per_mail": "7"}},
			"/v1/groups":   api.GroupRequest{Kind: "account", Name: "house"},
		} {
			if err := g.api.Do(t.Context(), "POST", path, v, nil); err != nil {
				t.Error(err)
			}
		}
	}
	newer.run(nil, 0)
	waitFor(t, func() bool { return strings.Contains(g.log.String(), "handed over") })
	u := newer.daemon.roster.Load().named("alice")
	if n := newer.daemon.policy.Settings(u.ID).RecipientsPerMail; n != 7 {
		t.Errorf("recipients_per_mail is %d, want 7", n)
	}
	if err := newer.api.Do(t.Context(), "POST", "/v1/groups/join", api.JoinRequest{User: "alice", Account: "house"}, nil); err != nil {
		t.Error(err)
	}
	before.c.Close()
	if err := <-g.done; err != nil {
		t.Errorf("the older process ended with %v\n%s", err, g.log)
	}
	g.stop()
	newer.end()
}

// TestCutReachesTheOlderProcess: a lock with a cut, given to the newer process, ends what the older one still holds.
func TestCutReachesTheOlderProcess(t *testing.T) {
	t.Parallel()
	g, _, before := handingOver(t)
	before.say("MAIL FROM:<alice@customer.example>", "250")

	next := *g
	newer := &next
	newer.log = &lines{}
	newer.run(nil, 0)
	waitFor(t, func() bool { return strings.Contains(g.log.String(), "handed over") })
	if err := newer.api.Do(t.Context(), "POST", "/v1/lock", api.LockRequest{User: "alice", Reason: "test", Cut: true}, nil); err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(before.r); err == nil && len(b) > 0 {
		t.Errorf("the cut session got %q", b)
	}
	if err := <-g.done; err != nil {
		t.Errorf("the older process ended with %v\n%s", err, g.log)
	}
	g.stop()
	newer.end()
}

// handingOver starts a first process beside a helper, and in it a session that said EHLO.
func handingOver(t *testing.T) (*gateway, *fakeHelper, *client) {
	t.Helper()
	g := newGateway(t, user)
	f, port := g.socket()
	t.Cleanup(func() { f.Close() })
	h := &fakeHelper{path: filepath.Join(g.dir, "control.sock"), port: port, heartbeat: memory(t)}
	h.start(t, f)
	t.Cleanup(func() { h.stop(t) })
	g.run(nil, 0)
	waitFor(t, func() bool { return get[api.Status](g, "/v1/status").Accepting })
	before := g.dial()
	before.say("EHLO before.example", "250")
	return g, h, before
}
