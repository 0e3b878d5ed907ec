package api

import (
	"context"
	"net/netip"
	"strings"
	"testing"
)

func (f *fake) Logins(context.Context) ([]Login, error) {
	return []Login{{Name: "customer.example", Kind: "domain", User: "alice"}}, nil
}
func (f *fake) PutLogin(_ context.Context, who string, l NewLogin) (*MadeLogin, error) {
	f.who = who
	return &MadeLogin{Login: Login{Name: l.Name, User: l.User, Own: l.Own, OwnTLS: l.OwnTLS}, Password: "made"}, nil
}
func (f *fake) RemoveLogin(_ context.Context, _, name string) (*Login, error) {
	return &Login{Name: name}, nil
}
func (f *fake) Guessers(context.Context) ([]Guesser, error) {
	return []Guesser{{Place: netip.MustParsePrefix("192.0.2.7/32"), Wrong: 4}}, nil
}
func (f *fake) Forgive(_ context.Context, _ string, a netip.Addr) error {
	f.forgiven = a
	return nil
}

func TestLogins(t *testing.T) {
	t.Parallel()
	f := &fake{}
	c := serve(t, f)
	ctx := context.Background()
	var made MadeLogin
	if err := c.Do(ctx, "POST", "/v1/logins", NewLogin{Name: "customer.example", User: "alice"}, &made); err != nil || made.Password != "made" || f.who == "" {
		t.Errorf("%+v by %q, %v", made, f.who, err)
	}
	for want, l := range map[string]NewLogin{
		"needs a name":          {User: "alice"},
		"not a host and a port": {Name: "a.example", Own: "mail.a.example"},
		"here or a server":      {Name: "a.example", Own: "mail.a.example:587", Password: "long enough"},
		"no way to encrypt":     {Name: "a.example", Own: "mail.a.example:587", OwnTLS: "none"},
	} {
		if err := c.Do(ctx, "POST", "/v1/logins", l, &made); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, want %q", l, err, want)
		}
	}
	var gone Login
	if err := c.Do(ctx, "DELETE", "/v1/logins/bob@customer.example", nil, &gone); err != nil || gone.Name != "bob@customer.example" {
		t.Errorf("%+v, %v", gone, err)
	}
	var all []Guesser
	if err := c.Do(ctx, "GET", "/v1/guessers", nil, &all); err != nil || len(all) != 1 || all[0].Wrong != 4 {
		t.Errorf("%+v, %v", all, err)
	}
	var done Done
	if err := c.Do(ctx, "DELETE", "/v1/guessers/2001:db8::1", nil, &done); err != nil || f.forgiven.String() != "2001:db8::1" {
		t.Errorf("%v, %v", f.forgiven, err)
	}
	if err := c.Do(ctx, "DELETE", "/v1/guessers/nobody", nil, &done); err == nil || !strings.Contains(err.Error(), "not an address") {
		t.Errorf("%v", err)
	}
}
