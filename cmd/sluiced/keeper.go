package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"sluice/cmd/internal/config"
	"sluice/filter"
	"sluice/filter/campaign"
	"sluice/filter/policy"
	"sluice/intercept/flow"
	"sluice/proxy"
	"sluice/proxy/smtp"
	"sluice/proxy/spool"
	"sluice/proxy/tlspolicy"
)

// spoolDir is where messages wait that were taken and not delivered yet.
func spoolDir(cfg *config.Config) string {
	if cfg.Spool.Dir != "" {
		return cfg.Spool.Dir
	}
	return filepath.Join(cfg.Store.Dir, "spool")
}

// keeper keeps messages in the spool: those of the smarthost, and of intercepted ones what users' settings say.
type keeper struct{ d *daemon }

// Begin implements proxy.Keeper.
func (k keeper) Begin() (proxy.Draft, error) {
	d, in, err := k.d.mail.create()
	if err != nil {
		return nil, unkept(err)
	}
	return &draft{k: k, d: d, in: in}, nil
}

// unkept tells the proxy which of its answers fits.
func unkept(err error) error {
	if errors.Is(err, spool.ErrFull) {
		return fmt.Errorf("%w: %w", proxy.ErrNoRoom, err)
	}
	return err
}

// draft is a message on its way into the spool.
type draft struct {
	k   keeper
	d   *spool.Draft
	in  *spool.Spool
	old *spool.Draft // before the queue was handed over; may be nil
}

func (d *draft) OpenSpill() (smtp.Spill, error) { return d.d.OpenSpill() }

func (d *draft) Abort() {
	d.d.Abort()
	if d.old != nil {
		d.old.Abort()
	}
}

// move begins the message anew in the spool that this process has since it handed its queue over, with what of the body stands in
// a file of the older one.
func (d *draft) move(to *spool.Spool, body *smtp.Body) error {
	next, err := to.Create()
	if err != nil {
		return err
	}
	d.d, d.in, d.old = next, to, d.d
	return body.Move(next.OpenSpill)
}

// Keep implements proxy.Draft. It does not end early with ctx: a message that is half written is no use.
func (d *draft) Keep(_ context.Context, m *proxy.Kept) error {
	if !m.HandedIn { // else it has its place since its first recipient
		back, err := d.k.place(m.Flow.User.ID)
		if err != nil {
			return err
		}
		defer back()
	}
	q := d.k.d.mail
	q.mu.RLock() // until it is kept nothing is handed over
	defer q.mu.RUnlock()
	if d.in != q.spool {
		if err := d.move(q.spool, m.Body); err != nil {
			return unkept(err)
		}
	}
	env := d.k.envelopeOf(m)
	var err error
	if m.Withheld == nil {
		_, err = d.d.Commit(&env, m.Trace, m.Body)
	} else {
		_, err = d.d.CommitHeld(&env, m.Trace, m.Body, heldBecause(m.Withheld))
	}
	if err != nil {
		return unkept(err)
	}
	return nil
}

// place takes a place in the queue for a message of a user, which back gives back once the queue holds it.
func (k keeper) place(user uint32) (back func(), err error) {
	most := k.most(user)
	if !k.d.waiting.Take(user, most) {
		return nil, tooManyWait(most)
	}
	return func() { k.d.waiting.Give(user) }, nil
}

// most is how many messages of a user may wait; 0: any number.
func (k keeper) most(user uint32) int64 {
	l := k.d.policy.Settings(user).Limits
	if l == nil || l.Shadow[policy.QueuedMessages] {
		return 0
	}
	return l.Max[policy.QueuedMessages]
}

func tooManyWait(most int64) error {
	return fmt.Errorf("%d messages of its user wait for delivery, as many as may by %s", most, policy.QueuedMessages)
}

// envelopeOf is the envelope of a message from the proxy.
func (k keeper) envelopeOf(m *proxy.Kept) spool.Envelope {
	env := spool.Envelope{
		Message: m.ID, User: m.Flow.User.ID, UserName: m.Flow.User.Name, Identity: m.Login, Client: m.Flow.Client.Addr(), Received: m.At,
		From: m.Mail.Address, UTF8: m.Mail.UTF8, RequireTLS: m.Mail.RequireTLS, Body: m.Mail.Body, Ret: m.Mail.Ret, EnvID: m.Mail.EnvID,
		Verified: m.Mail.Address != "" && (m.Login != "" || k.own(m.Flow.User.ID, m.Mail.Address)), // with a login it is the login's own (FRM1)
		As:       m.As,
		Rcpts:    make([]spool.Rcpt, len(m.Rcpts)),
	}
	switch {
	case m.Risky:
		env.Class = classRisk
	case m.Forwarded:
		env.Class = classForwarded
	}
	if m.Group != 0 {
		env.Campaign = campaign.ID(m.Group)
	}
	for i := range m.Rcpts {
		r := &m.Rcpts[i]
		env.Rcpts[i] = spool.Rcpt{Address: r.Address, Notify: r.Notify, ORcpt: r.ORcpt}
	}
	return env
}

// own tells whether a sender is of a domain that is the user's by his settings, so that a notice may go there (DEL2, DEL3).
func (k keeper) own(user uint32, sender string) bool {
	return k.d.policy.Settings(user).Sender.Domains.Has(sender[strings.LastIndexByte(sender, '@')+1:])
}

// Later implements proxy.LateKeeper. Of mail that is on hold whoever releases it sees what becomes of it.
func (k keeper) Later(ctx context.Context, f *flow.Flow, m *smtp.Mail, name string, held bool) error {
	if m.RequireTLS {
		return errors.New("REQUIRETLS was asked of its destination")
	}
	if _, ok := k.d.mail.NoticeTo(&spool.Envelope{User: f.User.ID, Verified: k.own(f.User.ID, m.Address)}); !ok && !held && m.Address != "" {
		return errors.New("a notice about it could go nowhere; give its user a contact, or name his domains")
	}
	if most := k.most(f.User.ID); most > 0 && k.d.waiting.Full(f.User.ID, most) {
		return tooManyWait(most)
	}
	ctx, cancel := context.WithTimeout(ctx, termsWait)
	defer cancel()
	domain, err := k.d.onward.finder.Domain(ctx, name)
	if err != nil {
		return err
	}
	to := f.Target.Addr().Unmap()
	if !slices.ContainsFunc(domain.Hosts, func(h tlspolicy.Host) bool { return slices.Contains(h.Answer.Addrs, to) }) {
		return fmt.Errorf("its destination %v is no mail exchanger of %s", to, name)
	}
	return nil
}

// heldBecause is why a message is on hold, as the queue shows it.
func heldBecause(v *filter.Verdict) string {
	h := v.Decisive()
	if h == nil {
		return v.Action.String()
	}
	return v.Action.String() + ": [" + h.Code + "] " + h.Text
}
