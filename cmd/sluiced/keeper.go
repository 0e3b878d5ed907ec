package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"sluice/cmd/internal/config"
	"sluice/proxy"
	"sluice/proxy/smtp"
	"sluice/proxy/spool"
)

// spoolDir is where messages wait that were taken and not delivered yet.
func spoolDir(cfg *config.Config) string {
	if cfg.Spool.Dir != "" {
		return cfg.Spool.Dir
	}
	return filepath.Join(cfg.Store.Dir, "spool")
}

// keeper keeps messages of the smarthost in the spool.
type keeper struct{ mail *mailQueue }

// Begin implements proxy.Keeper.
func (k keeper) Begin() (proxy.Draft, error) {
	d, err := k.mail.create()
	if err != nil {
		return nil, unkept(err)
	}
	return &draft{d}, nil
}

// unkept tells the proxy which of its answers fits.
func unkept(err error) error {
	if errors.Is(err, spool.ErrFull) {
		return fmt.Errorf("%w: %w", proxy.ErrNoRoom, err)
	}
	return err
}

// draft is a message on its way into the spool.
type draft struct{ d *spool.Draft }

func (d *draft) OpenSpill() (smtp.Spill, error) { return d.d.OpenSpill() }
func (d *draft) Abort()                         { d.d.Abort() }

// Keep implements proxy.Draft. It does not end early with ctx: a message that is half written is no use.
func (d *draft) Keep(_ context.Context, m *proxy.Kept) error {
	env := spool.Envelope{
		Message: m.ID, User: m.Flow.User.ID, UserName: m.Flow.User.Name, Identity: m.Login, Client: m.Flow.Client.Addr(), Received: m.At,
		From: m.Mail.Address, UTF8: m.Mail.UTF8, Body: m.Mail.Body, Ret: m.Mail.Ret, EnvID: m.Mail.EnvID,
		Verified: m.Login != "" && m.Mail.Address != "", // such a sender is the login's own (FRM1)
		Rcpts:    make([]spool.Rcpt, len(m.Rcpts)),
	}
	for i := range m.Rcpts {
		r := &m.Rcpts[i]
		env.Rcpts[i] = spool.Rcpt{Address: r.Address, Notify: r.Notify, ORcpt: r.ORcpt}
	}
	_, err := d.d.Commit(&env, m.Trace, m.Body)
	if err != nil {
		return unkept(err)
	}
	return nil
}
