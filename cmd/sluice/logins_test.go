package main

import (
	"context"
	"net/netip"
	"strings"
	"testing"
	"time"

	"sluice/cmd/internal/api"
)

var dayServers = []string{"smtp.provider.example port 587, STARTTLS", "smtp.provider.example port 465, TLS"}

var dayLogins = []api.Login{
	{Name: "bob@customer.example", Kind: "mailbox", User: "alice", Own: "mail.customer.example:465", OwnTLS: "implicit", Servers: dayServers, Created: now.Add(-time.Hour), Changed: now.Add(-time.Hour)},
	{Name: "customer.example", Kind: "domain", User: "alice", Servers: dayServers, Created: now.Add(-100 * time.Hour), Changed: now.Add(-50 * time.Hour)},
	{Name: "other.example", Kind: "domain", User: "alice", Unset: true, Servers: dayServers, Created: now.Add(-time.Hour), Changed: now.Add(-time.Hour)},
}

func (fake) Logins(context.Context) ([]api.Login, error) { return dayLogins, nil }
func (fake) PutLogin(_ context.Context, _ string, n api.NewLogin) (*api.MadeLogin, error) {
	m := &api.MadeLogin{Login: api.Login{Name: n.Name, User: n.User, Own: n.Own, OwnTLS: n.OwnTLS, Servers: dayServers}}
	switch {
	case n.Password != "" && n.Password != "correct horse":
		return nil, &api.Problem{Status: 400, Code: "invalid", What: "not the password of the file"}
	case n.Password == "" && n.Own == "":
		m.Password = "abcdefghijkmnpqrstuv"
	}
	if n.User == "" {
		m.User = "alice"
	}
	return m, nil
}
func (fake) RemoveLogin(_ context.Context, _, name string) (*api.Login, error) {
	return &api.Login{Name: name}, nil
}
func (fake) Guessers(context.Context) ([]api.Guesser, error) {
	return []api.Guesser{
		{Place: netip.MustParsePrefix("192.0.2.66/32"), Until: &inHalfAnHour, Wrong: 0, Times: 2, Last: now.Add(-time.Minute), Login: "admin"},
		{Place: netip.MustParsePrefix("2001:db8:1::/64"), Wrong: 4, Last: now.Add(-time.Minute), Login: "bob@customer.example", Exempt: true},
	}, nil
}
func (fake) Forgive(context.Context, string, netip.Addr) error { return nil }

func TestAPasswordFromStandardInput(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{"secret word\n": "secret word", "secret word\r\nmore": "secret word", "no end": "no end", "": "", "\nsecond": ""} {
		got, err := (&loginFlags{file: "-"}).password(strings.NewReader(text))
		if got != want || (err != nil) != (want == "") {
			t.Errorf("%q: %q, %v", text, got, err)
		}
	}
}
