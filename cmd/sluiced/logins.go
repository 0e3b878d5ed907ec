package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/net/idna"

	"sluice/cmd/internal/api"
	"sluice/cmd/internal/store"
	"sluice/proxy/auth"
)

// logins is the directory of those who log in on the smarthost ports. It answers from memory.
type logins struct {
	own    *tls.Config // how customers' own servers are spoken to
	byName atomic.Pointer[map[string]auth.Account]
}

// load takes the logins as the store has them.
func (l *logins) load(st *store.Store) error {
	all, err := st.Logins()
	if err != nil {
		return err
	}
	m := make(map[string]auth.Account, len(all))
	for _, s := range all {
		m[s.Name] = l.account(s)
	}
	l.byName.Store(&m)
	return nil
}

// Login implements auth.Directory.
func (l *logins) Login(name string) (auth.Account, bool) {
	a, ok := (*l.byName.Load())[name]
	return a, ok
}

func (l *logins) account(s store.Login) auth.Account {
	a := auth.Account{Login: s.Name, Kind: kindOf(s.Name), User: s.User, Hash: s.Hash}
	if s.Own != "" {
		a.Own = &auth.Own{Addr: s.Own, Implicit: s.OwnImplicit, TLS: l.own}
	}
	return a
}

func kindOf(name string) auth.Kind {
	if strings.Contains(name, "@") {
		return auth.Mailbox
	}
	return auth.Domain
}

// loginName brings a domain or a mailbox into the form in which it is looked up.
func loginName(s string) (string, error) {
	s = strings.ToLower(strings.TrimSpace(s))
	at := strings.LastIndexByte(s, '@')
	local, domain := s[:max(at, 0)], s[at+1:]
	ascii, err := idna.Lookup.ToASCII(domain)
	switch {
	case err != nil || !strings.Contains(ascii, ".") || len(ascii) > 253:
		return "", fmt.Errorf("%q is not a domain", domain)
	case at < 0:
		return ascii, nil
	case local == "" || len(local) > 64 || strings.ContainsAny(local, " \t\"<>,;:\\\x00"):
		return "", fmt.Errorf("%q is not a mailbox", s)
	}
	return local + "@" + ascii, nil
}

func (b backend) shownLogin(l store.Login) api.Login {
	s := api.Login{Name: l.Name, Kind: string(kindOf(l.Name)), User: b.nameOf(l.User), Own: l.Own, Created: l.Created, Changed: l.Changed}
	s.Unset, s.Servers = l.Own == "" && l.Hash == "", b.d.smarthosts()
	if l.Own != "" {
		s.OwnTLS = "starttls"
		if l.OwnImplicit {
			s.OwnTLS = "implicit"
		}
	}
	return s
}

// Logins lists all logins, by name.
func (b backend) Logins(context.Context) ([]api.Login, error) {
	all, err := b.d.store.Logins()
	if err != nil {
		return nil, err
	}
	out := make([]api.Login, len(all))
	for i, l := range all {
		out[i] = b.shownLogin(l)
	}
	return out, nil
}

func (b backend) loginNamed(name string) (old *store.Login, err error) {
	all, err := b.d.store.Logins()
	for i := range all {
		if all[i].Name == name {
			return &all[i], err
		}
	}
	return nil, err
}

// PutLogin makes a login, or gives one a new password.
func (b backend) PutLogin(_ context.Context, who string, n api.NewLogin) (*api.MadeLogin, error) {
	name, err := loginName(n.Name)
	if err != nil {
		return nil, &api.Problem{Status: http.StatusBadRequest, Code: "invalid", What: err.Error(), Remedy: "log in as a domain like customer.example, or as a mailbox like alice@customer.example"}
	}
	b.d.change.Lock()
	defer b.d.change.Unlock()
	old, err := b.loginNamed(name)
	if err != nil {
		return nil, err
	}
	now := time.Now()
	l := store.Login{Name: name, Own: n.Own, OwnImplicit: n.OwnTLS == "implicit", Created: now, Changed: now}
	what := "login added"
	if old != nil {
		l.User, l.Created, what = old.User, old.Created, "login changed"
	}
	if n.User != "" {
		m := b.d.roster.Load().named(n.User)
		if m == nil {
			return nil, &api.Problem{Status: http.StatusNotFound, Code: "no-such-user", What: fmt.Sprintf("there is no user %q", n.User), Remedy: "`sluice users` lists those with names"}
		}
		l.User = m.ID
	}
	if l.User == 0 {
		return nil, &api.Problem{Status: http.StatusBadRequest, Code: "invalid", What: "a new login needs a user who answers for what it sends", Remedy: "name one of `sluice users`"}
	}
	var made api.MadeLogin
	if n.Own == "" {
		password := n.Password
		if password == "" {
			password = auth.NewPassword()
			made.Password = password
		}
		if l.Hash, err = auth.Hash(password); err != nil {
			return nil, &api.Problem{Status: http.StatusBadRequest, Code: "invalid", What: err.Error(), Remedy: "choose another one, or leave it out and one is made"}
		}
	}
	if err := b.d.store.PutLogin(l, store.Act{At: now, Who: who, What: what, Subject: name, Detail: "user " + b.nameOf(l.User)}); err != nil {
		return nil, err
	}
	made.Login = b.shownLogin(l)
	return &made, b.d.logins.load(b.d.store)
}

// RemoveLogin takes a login away.
func (b backend) RemoveLogin(_ context.Context, who, given string) (*api.Login, error) {
	name, err := loginName(given)
	if err != nil {
		name = given
	}
	b.d.change.Lock()
	defer b.d.change.Unlock()
	old, err := b.loginNamed(name)
	if err == nil {
		err = b.d.store.RemoveLogin(name, store.Act{At: time.Now(), Who: who, What: "login removed", Subject: name})
	}
	switch {
	case errors.Is(err, store.ErrNoLogin):
		return nil, &api.Problem{Status: http.StatusNotFound, Code: "no-such-login", What: fmt.Sprintf("nobody logs in as %q", name), Remedy: "`sluice login` lists who does"}
	case err != nil:
		return nil, err
	}
	l := b.shownLogin(*old)
	return &l, b.d.logins.load(b.d.store)
}

// Guessers lists who is slowed down or shut out.
func (b backend) Guessers(context.Context) ([]api.Guesser, error) {
	out := []api.Guesser{}
	for _, o := range b.d.guard.List() {
		g := api.Guesser{Place: o.Place, Wrong: o.Wrong, Times: o.Times, Last: o.Last, Login: o.Login, Exempt: o.Exempt}
		g.Until = moment(o.Until)
		out = append(out, g)
	}
	return out, nil
}

// Forgive lets an address try again.
func (b backend) Forgive(_ context.Context, who string, a netip.Addr) error {
	if !b.d.guard.Forgive(a) {
		return &api.Problem{Status: http.StatusNotFound, Code: "not-shut-out", What: fmt.Sprintf("%s is neither slowed down nor shut out", a), Remedy: "`sluice guessers` lists who is"}
	}
	b.d.saveGuessers()
	return b.d.store.Audit(store.Act{At: time.Now(), Who: who, What: "guesser forgiven", Subject: a.String()})
}

// smarthosts are the names and ports that take a login, as customers enter them.
func (d *daemon) smarthosts() []string {
	set := &d.cfg.Load().Smarthost
	out := make([]string, 0, len(set.Listener))
	for _, l := range set.Listener {
		s := fmt.Sprintf("%s port %d, %s", set.Name, l.Address.Port(), map[string]string{"implicit": "TLS", "starttls": "STARTTLS"}[l.TLS])
		if !slices.Contains(out, s) {
			out = append(out, s)
		}
	}
	return out
}
