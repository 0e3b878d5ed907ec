package main

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"sluice/cmd/internal/api"
	"sluice/proxy/auth"
)

// TestEachDomainHasALogin of its own by itself, which lets nobody in before it has a password; what two users have is nobody's.
func TestEachDomainHasALogin(t *testing.T) {
	t.Parallel()
	g := newGateway(t, user+"\n[[user]]\nname = \"bob\"\nprefixes = [\"127.0.0.77/32\"]\n[user.sender]\nfrom_domains = [\"shared.example\", \"bob.example\"]\n"+
		"[smarthost]\nname = \"smtp.provider.example\"\n[[smarthost.listener]]\naddress = \"127.0.0.1:587\"\n")
	g.start()
	defer g.end()
	set := func(domains string) {
		t.Helper()
		if _, err := (backend{g.daemon}).ChangeSettings(t.Context(), "test", api.SettingsChange{User: "alice", Set: map[string]string{"from_domains": domains}, Reason: "test"}); err != nil {
			t.Fatal(err)
		}
	}
	all := func() string {
		var b strings.Builder
		for _, l := range get[[]api.Login](g, "/v1/logins") {
			fmt.Fprintf(&b, "%s %s %t %s;", l.Name, l.User, l.Unset, l.Servers[0])
		}
		return b.String()
	}
	const at = " smtp.provider.example port 587, STARTTLS;"
	set("one.example two.example shared.example .below.example")
	if got, want := all(), "bob.example bob true"+at+"one.example alice true"+at+"two.example alice true"+at; got != want {
		t.Errorf("logins are %q, want %q", got, want)
	}
	c, err := auth.NewChecker(&g.daemon.logins)
	if err != nil {
		t.Fatal(err)
	}
	for _, guess := range []string{"x", "one.example", " "} {
		if _, err := c.Check(t.Context(), "one.example", guess); !errors.Is(err, auth.ErrWrong) {
			t.Errorf("without a password %q lets in: %v", guess, err)
		}
	}
	var made api.MadeLogin
	if err := g.api.Do(t.Context(), "POST", "/v1/logins", api.NewLogin{Name: "one.example"}, &made); err != nil {
		t.Fatal(err)
	}
	if a, err := c.Check(t.Context(), "one.example", made.Password); err != nil || a.Login != "one.example" || made.Servers[0]+";" != strings.TrimSpace(at) {
		t.Errorf("%+v %v %q", a, err, made.Servers)
	}
	set("three.example")
	if got, want := all(), "bob.example bob true"+at+"one.example alice false"+at+"shared.example bob true"+at+"three.example alice true"+at; got != want {
		t.Errorf("logins are %q, want %q", got, want)
	}
}
