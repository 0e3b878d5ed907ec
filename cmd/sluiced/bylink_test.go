package main

import (
	"errors"
	"net/netip"
	"testing"
	"time"

	"sluice/cmd/internal/api"
	"sluice/cmd/internal/public"
	"sluice/cmd/internal/store"
	"sluice/filter/lock"
)

// TestUnlocksByLinkAreCounted: the links of notices end as many locks of one user as the setting says, however far apart they
// are; then a person has to, who may let them count anew. A lock by hand no link ends.
func TestUnlocksByLinkAreCounted(t *testing.T) {
	t.Parallel()
	g := newGateway(t, `[[user]]
name = "alice"
prefixes = ["127.0.0.1/32"]
lock = { automatic = true, unlocks_by_link = 2 }
`)
	g.start()
	defer g.end()
	at, from := desk{g.daemon}, netip.MustParseAddr("192.0.2.9")
	virus := func() lock.Lock {
		t.Helper()
		c := g.dial()
		c.say("EHLO x.example", "250")
		c.mail("u@sink.example", eicarTest)
		var l lock.Lock
		waitFor(t, func() bool {
			all := g.daemon.locks.List()
			if len(all) == 1 {
				l = all[0]
			}
			return len(all) == 1
		})
		return l
	}
	long := func(n int) { // as if the last time were two hours ago
		t.Helper()
		l := g.daemon.roster.Load().named("alice")
		if err := g.daemon.store.SetLinkUnlocks(lock.Scope{User: l.ID}, store.LinkUnlocks{N: n, Last: time.Now().Add(-2 * time.Hour)}); err != nil {
			t.Fatal(err)
		}
	}
	for n := range 2 {
		l := virus()
		if seen, err := at.Locked(t.Context(), l.Ticket); err != nil || seen.Left != 1-n {
			t.Fatalf("lock %d: %+v %v", n+1, seen, err)
		}
		if err := at.Unlock(t.Context(), l.Ticket, from); err != nil {
			t.Fatal(err)
		}
		if err := at.Unlock(t.Context(), l.Ticket, from); !errors.Is(err, public.ErrOver) {
			t.Errorf("once more: %v", err)
		}
		long(n + 1)
	}
	l := virus()
	if _, err := at.Locked(t.Context(), l.Ticket); !errors.Is(err, public.ErrUsed) {
		t.Errorf("the third page: %v", err)
	}
	if err := at.Unlock(t.Context(), l.Ticket, from); !errors.Is(err, public.ErrUsed) {
		t.Errorf("the third link: %v", err)
	}
	if err := g.api.Do(t.Context(), "POST", "/v1/unlock", api.UnlockRequest{User: "alice", Reset: true, Reason: "mended"}, nil); err != nil {
		t.Fatal(err)
	}
	l = virus()
	if seen, err := at.Locked(t.Context(), l.Ticket); err != nil || seen.Left != 1 {
		t.Errorf("after they count anew: %+v %v", seen, err)
	}
	if err := g.api.Do(t.Context(), "POST", "/v1/lock", api.LockRequest{User: "alice", Reason: "by hand"}, nil); err != nil {
		t.Fatal(err)
	}
	if err := at.Unlock(t.Context(), l.Ticket, from); !errors.Is(err, public.ErrManual) {
		t.Errorf("a lock by hand: %v", err)
	}
}

// eicarTest is a mail with the test file for virus scanners, in two parts so that this file is none.
const eicarTest = "From: alice@customer.example\r\nSubject: invoice\r\n\r\n" + `X5O!P%@AP[4\PZX54(P^)7CC)7}$EICAR-STANDARD-` + `ANTIVIRUS-TEST-FILE!$H+H*` + "\r\n"
