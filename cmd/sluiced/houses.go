package main

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"

	"sluice/cmd/internal/config"
	"sluice/filter/policy"
	"sluice/intercept/control"
	"sluice/intercept/flow"
	"sluice/proxy"
	"sluice/proxy/auth"
	"sluice/proxy/cert"
	"sluice/proxy/delivery"
	"sluice/proxy/durable"
	"sluice/proxy/smtp"
)

// house is one listener of the smarthost at work.
type house struct {
	*acceptor
	name string // by which helper and systemd know its socket
	set  proxy.House
	at   config.Listener
}

// openDoor makes what tells logins apart.
func (d *daemon) openDoor() error {
	cs, err := connectors(&d.cfg.Load().Smarthost)
	if err != nil {
		return err
	}
	d.connectors.Store(&cs)
	d.acmeReady = make(chan struct{})
	d.acme, err = newACME(d.cfg.Load().Config, d.log, d.certified, func(err error) { d.log.Error("no new certificate", "err", err) })
	if err != nil {
		return err
	}
	d.guard = auth.NewGuard()
	d.guard.ShutAfter(d.cfg.Load().Smarthost.Guesses)
	d.logins.own = &tls.Config{RootCAs: d.onward.roots}
	if err := d.logins.load(d.store); err != nil {
		return err
	}
	c, err := auth.NewChecker(&d.logins)
	d.door = &auth.Door{Checker: c, Guard: d.guard, Shut: d.saveGuessers}
	d.recallGuessers()
	return err
}

// guessersFile keeps who is shut out, so that a restart lets nobody in.
func (d *daemon) guessersFile() string {
	return filepath.Join(d.cfg.Load().Store.Dir, "guessers.json")
}

func (d *daemon) recallGuessers() {
	var list []auth.Offender
	b, err := os.ReadFile(d.guessersFile())
	if err == nil {
		err = json.Unmarshal(b, &list)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		d.log.Error("could not read who guesses passwords; their waits begin anew", "err", err)
	}
	d.guard.Restore(list)
}

// saveGuessers writes who is shut out. It is seldom: each has tried ten passwords before.
func (d *daemon) saveGuessers() {
	d.savingGuessers.Lock()
	defer d.savingGuessers.Unlock()
	list := slices.DeleteFunc(d.guard.List(), func(o auth.Offender) bool { return o.Until.IsZero() })
	b, err := json.Marshal(list)
	if err == nil {
		err = durable.WriteFile(d.guessersFile(), b, 0o600)
	}
	if err != nil {
		d.log.Error("could not save who guesses passwords; a restart lets them in", "err", err)
	}
}

// Login implements proxy.Logins: an account whose user is gone is nobody's.
func (d *daemon) Login(ctx context.Context, from netip.Addr, login, password string) (proxy.Client, error) {
	a, err := d.door.Try(ctx, from, login, password)
	if err != nil {
		return proxy.Client{}, err
	}
	m := d.roster.Load().user(a.User)
	if m == nil {
		d.log.Warn("a login's user is gone; remove it, or give it another user", "login", a.Login)
		return proxy.Client{}, auth.ErrWrong
	}
	return proxy.Client{User: flow.User{ID: m.ID, Name: m.Name}, Login: a.Login, Kind: a.Kind}, nil
}

// takeHouse accepts at the socket of a listener, or goes on with the acceptor that has the same one.
func (d *daemon) takeHouse(name string, f *os.File) error {
	at, ok := d.listenerAt(name)
	if !ok {
		return nil // of an older configuration, here or there
	}
	d.accepting.Lock()
	defer d.accepting.Unlock()
	if d.stopped || slices.ContainsFunc(d.houses, func(h *house) bool { return h.name == name }) {
		return nil
	}
	l, err := flow.NewListener(f, flow.Options{Ports: []uint16{at.Address.Port()}, Attribution: guests{d, at.Trusted}, IDs: d.ids})
	if err != nil {
		return fmt.Errorf("could not accept at %s: %w", name, err)
	}
	h := &house{name: name, at: at}
	h.acceptor = &acceptor{l: l, log: d.log, full: d.full, done: make(chan struct{})}
	switch at.TLS {
	case challenges:
		h.serve = d.serveChallenge
	case pages:
		h.serve = d.servePages
	default:
		h.set = d.houseAt(at)
		h.serve = func(c *flow.Conn, done func()) {
			d.proxy.ServeHouse(context.Background(), c, c.Attributed(), &h.set, done)
		}
	}
	d.houses = append(d.houses, h)
	go h.run()
	d.log.Info("accepting by name", "address", at.Address, "tls", at.TLS)
	if at.TLS == challenges {
		d.beginACME()
	}
	return nil
}

// listenerAt finds the listener of a name in the configuration.
func (d *daemon) listenerAt(name string) (config.Listener, bool) {
	for _, l := range d.cfg.Load().Smarthost.Listener {
		if control.HouseName(l.Address) == name {
			return l, true
		}
	}
	for _, a := range d.cfg.Load().TLS.ACME.Listen {
		if control.HouseName(a) == name {
			return config.Listener{Address: a, TLS: challenges}, true
		}
	}
	for _, a := range d.cfg.Load().Public.Listen {
		if control.HouseName(a) == name {
			return config.Listener{Address: a, TLS: pages}, true
		}
	}
	return config.Listener{}, false
}

func (d *daemon) houseAt(at config.Listener) proxy.House {
	cfg := d.cfg.Load()
	stranger := policy.Default()
	stranger.MessageSize = int64(cfg.Limits.MessageSize)
	h := proxy.House{Name: cfg.Smarthost.Name, TLS: d.houseTLS(), Implicit: at.TLS == "implicit", Sessions: cfg.Smarthost.SessionsPerSource, Logins: d, Keeper: d.keeper, Stranger: stranger,
		AnyFrom: cfg.Smarthost.From == "any", Tenants: d.tenants, Roots: d.onward.roots}
	if cfg.Smarthost.Callout {
		h.Callout = callout{d.mail.callouts}
	}
	return h
}

// callout asks recipients' servers by the ways of the queue.
type callout struct{ *delivery.Callouts }

// Ask implements proxy.Callout.
func (c callout) Ask(ctx context.Context, user uint32, from string, rcpts []smtp.Rcpt) []proxy.Nobody {
	all := c.Callouts.Ask(ctx, user, from, rcpts)
	out := make([]proxy.Nobody, len(all))
	for i := range all {
		out[i] = proxy.Nobody{Code: all[i].Code, Enh: all[i].Enh, Text: all[i].Text, Host: all[i].Host}
	}
	return out
}

// houseTLS follows the certificate of the configuration in force, whatever becomes of STARTTLS of intercepted mail.
func (d *daemon) houseTLS() *tls.Config {
	get := func(h *tls.ClientHelloInfo) (*tls.Certificate, error) { return d.certs.Load().Certificate(h) }
	c, asked := cert.Config(get), cert.Config(get)
	asked.ClientAuth = tls.RequestClientCert // of services alone: mail programs would ask people which one to show
	turn, turnAsked := c.GetConfigForClient, asked.GetConfigForClient
	asked.GetConfigForClient = nil
	c.GetConfigForClient = func(h *tls.ClientHelloInfo) (*tls.Config, error) {
		if a, ok := h.Conn.RemoteAddr().(*net.TCPAddr); ok && len(d.tenants(a.AddrPort().Addr())) > 0 {
			_, err := turnAsked(h)
			return asked, err
		}
		return turn(h)
	}
	return c
}

// guests attributes those who come to a listener: the addresses of users who have a name, and trusted ones to whoever has
// them. Nobody is made for a stranger.
type guests struct {
	d       *daemon
	trusted []config.Prefix
}

// Attribute implements flow.Attributor.
func (g guests) Attribute(src netip.Addr) (flow.User, bool) {
	if u, ok := g.d.roster.Load().table.Attribute(src); ok {
		return u, true
	}
	for _, p := range g.trusted {
		if p.Prefix.Contains(src) {
			return g.d.sources.Attribute(src)
		}
	}
	return flow.User{}, false
}

// closeHouses closes the smarthost's sockets; the helper has its own copies.
func (d *daemon) closeHouses() {
	d.accepting.Lock()
	defer d.accepting.Unlock()
	for _, h := range d.houses {
		if err := h.l.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			d.log.Warn("could not close a listener", "address", h.at.Address, "err", err)
		}
	}
}

// rehouse brings the listeners in line with a configuration that changed: what is gone is closed, and the helper is asked
// anew for what is missing.
func (d *daemon) rehouse(old, now *config.Smarthost) {
	if slices.EqualFunc(old.Listener, now.Listener, sameListener) && old.Name == now.Name && old.SessionsPerSource == now.SessionsPerSource && old.From == now.From && old.Callout == now.Callout {
		return
	}
	d.accepting.Lock()
	var gone []*house
	d.houses = slices.DeleteFunc(d.houses, func(h *house) bool {
		if h.at.TLS == challenges || h.at.TLS == pages || slices.ContainsFunc(now.Listener, func(l config.Listener) bool { return sameListener(l, h.at) }) && old.Name == now.Name {
			return false
		}
		gone = append(gone, h)
		return true
	})
	d.accepting.Unlock()
	for _, h := range gone {
		h.stop()
		if err := h.l.Close(); err != nil {
			d.log.Warn("could not close a listener", "address", h.at.Address, "err", err)
		}
	}
	if c := d.link.client.Load(); c != nil {
		_ = c.Close() // it is dialled again, and the welcome brings the sockets
	}
}

func sameListener(a, b config.Listener) bool {
	return a.Address == b.Address && a.TLS == b.TLS && slices.Equal(a.Trusted, b.Trusted)
}
