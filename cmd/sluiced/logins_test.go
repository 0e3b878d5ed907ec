package main

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"testing"

	"sluice/cmd/internal/api"
	"sluice/proxy/auth"
)

// TestLoginsByCommand are in force at once and over a restart, and what is wrong with one is said.
func TestLoginsByCommand(t *testing.T) {
	t.Parallel()
	g := newGateway(t, user)
	g.start()
	put := func(l api.NewLogin) (made api.MadeLogin, err error) {
		err = g.api.Do(t.Context(), "POST", "/v1/logins", l, &made)
		return made, err
	}
	made, err := put(api.NewLogin{Name: "Customer.Example", User: "alice"})
	if err != nil || made.Name != "customer.example" || made.Kind != "domain" || len(made.Password) != 20 {
		t.Fatalf("%+v, %v", made, err)
	}
	if _, err := put(api.NewLogin{Name: "bob@bücher.example", User: "alice", Own: "mail.customer.example:587"}); err != nil {
		t.Fatal(err)
	}
	for want, l := range map[string]api.NewLogin{
		"is not a domain":  {Name: "customer", User: "alice"},
		"is not a mailbox": {Name: "@customer.example", User: "alice"},
		"there is no user": {Name: "a.example", User: "dave"},
		"needs a user":     {Name: "a.example"},
		"8 to 256 bytes":   {Name: "a.example", User: "alice", Password: "short"},
	} {
		if _, err := put(l); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, want %q", l, err, want)
		}
	}
	check := func(login, password string, want error) {
		t.Helper()
		c, err := auth.NewChecker(&g.daemon.logins)
		if err != nil {
			t.Fatal(err)
		}
		if a, err := c.Check(context.Background(), login, password); !errors.Is(err, want) || want == nil && (err != nil || a.Kind != auth.Domain) {
			t.Errorf("%s: %+v, %v; want %v", login, a, err, want)
		}
	}
	check("customer.example", made.Password, nil)
	if _, err := put(api.NewLogin{Name: "customer.example", Password: "correct horse"}); err != nil { // and his user stays
		t.Fatal(err)
	}
	check("customer.example", made.Password, auth.ErrWrong)
	g.end()
	g.start()
	defer g.end()
	check("customer.example", "correct horse", nil)
	if all := get[[]api.Login](g, "/v1/logins"); len(all) != 2 || all[0].Name != "bob@xn--bcher-kva.example" || all[0].OwnTLS != "starttls" || all[1].User != "alice" {
		t.Errorf("%+v", all)
	}
	for range 2 {
		err := g.api.Do(t.Context(), "DELETE", "/v1/logins/customer.example", nil, nil)
		if _, there := g.daemon.logins.Login("customer.example"); there {
			t.Errorf("still there: %v", err)
		}
	}
	a := netip.MustParseAddr("192.0.2.66")
	for i := range 10 {
		g.daemon.guard.Failed(a, "admin", strings.Repeat("x", i))
	}
	if all := get[[]api.Guesser](g, "/v1/guessers"); len(all) != 1 || all[0].Until == nil || all[0].Login != "admin" {
		t.Errorf("%+v", all)
	}
	g.daemon.saveGuessers()
	g.end()
	g.start()
	if _, _, shut := g.daemon.guard.Admit(a, "admin"); !shut {
		t.Error("a restart let the guesser in")
	}
	if err := g.api.Do(t.Context(), "DELETE", "/v1/guessers/192.0.2.66", nil, nil); err != nil {
		t.Error(err)
	}
	if err := g.api.Do(t.Context(), "DELETE", "/v1/guessers/192.0.2.66", nil, nil); err == nil || !strings.Contains(err.Error(), "neither slowed down nor shut out") {
		t.Errorf("forgiven twice: %v", err)
	}
}
