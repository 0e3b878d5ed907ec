package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"

	"sluice/cmd/internal/api"
	"sluice/cmd/internal/store"
	"sluice/filter/policy"
	"sluice/proxy/distrust"
)

// TLSRules lists what becomes of STARTTLS: the default, users who have another setting, and destinations.
func (b backend) TLSRules(context.Context) ([]api.TLSRule, error) {
	cfg := b.d.cfg.Load()
	list := []api.TLSRule{{Policy: cfg.TLS.StartTLS, Origin: "config", Reason: cfg.TLS.StartTLSReason}}
	users, err := b.userTLS()
	if err != nil {
		return nil, err
	}
	list = append(list, users...)
	made, configured := b.d.tlsRules.list()
	for i := range made {
		list = append(list, shownTLS(&made[i], "run-time"))
	}
	now := time.Now()
	for i := range configured {
		if x := shownTLS(&configured[i], "config"); !configured[i].Over(now) {
			x.Beaten = slices.ContainsFunc(made, func(o store.Rule) bool {
				return o.Prefix == configured[i].Prefix && o.Port == configured[i].Port
			})
			list = append(list, x)
		}
	}
	return list, nil
}

// userTLS lists the users whose setting is not the default.
func (b backend) userTLS() (list []api.TLSRule, err error) {
	overrides, err := b.d.store.Overrides()
	if err != nil {
		return nil, err
	}
	cfg := b.d.cfg.Load()
	for i := range cfg.User {
		u := &cfg.User[i]
		m := b.d.roster.Load().named(u.Name)
		if m != nil && overrides[m.ID].StartTLS == nil && u.StartTLS != cfg.TLS.StartTLS {
			list = append(list, api.TLSRule{User: u.Name, Policy: u.StartTLS, Origin: "config", Reason: u.StartTLSReason})
		}
	}
	for id, o := range overrides {
		if o.StartTLS == nil {
			continue
		}
		s := b.d.policy.Settings(id)
		x := api.TLSRule{User: b.nameOf(id), Policy: s.StartTLS.String(), Origin: "run-time", Reason: s.StartTLSWhy}
		if x.User == "" { // made for an unknown source
			if x.User, err = b.d.store.NameOf(id); err != nil {
				return nil, err
			}
		}
		list = append(list, x)
	}
	slices.SortFunc(list, func(x, y api.TLSRule) int { return strings.Compare(x.User, y.User) })
	return list, nil
}

func shownTLS(r *store.Rule, origin string) api.TLSRule {
	x := api.TLSRule{Prefix: r.Prefix.String(), Port: r.Port, Policy: r.Mode, Origin: origin, Reason: r.Reason, By: r.By}
	x.Since = moment(r.Since)
	x.Until = moment(r.Until)
	return x
}

// SetTLS says what becomes of STARTTLS, from the next EHLO on.
func (b backend) SetTLS(_ context.Context, who string, p netip.Prefix, t api.TLSRequest) (*api.TLSRule, error) {
	d := b.d
	d.change.Lock()
	defer d.change.Unlock()
	if d.retired() {
		return nil, errRetired
	}
	now := time.Now()
	act := store.Act{At: now, Who: who, What: "starttls set", Subject: t.User + t.Prefix, Detail: t.Policy + ": " + t.Reason}
	if t.User != "" {
		how, err := policy.ParseStartTLS(t.Policy)
		if err != nil {
			return nil, err
		}
		return b.setUserTLS(t.User, &how, &t.Reason, act)
	}
	r := store.Rule{Prefix: p, Port: t.Port, Mode: t.Policy, Reason: t.Reason, By: who, Since: now.UTC()}
	if t.Until != nil {
		r.Until = t.Until.UTC()
	}
	if made, _ := d.tlsRules.list(); len(withoutRule(made, p, t.Port)) >= mostTLSRules {
		return nil, &api.Problem{Status: http.StatusConflict, Code: "refused", What: fmt.Sprintf("there are %d rules for STARTTLS already", mostTLSRules), Remedy: "remove some, or write prefixes that hold several"}
	}
	act.Detail = detail(&r)
	if err := d.store.PutTLSRule(r, act); err != nil {
		return nil, err
	}
	d.tlsRules.change(func(all []store.Rule) []store.Rule { return append(withoutRule(all, p, t.Port), r) })
	d.log.Warn("what becomes of STARTTLS was changed", "target", p, "to", detail(&r), "by", who)
	x := shownTLS(&r, "run-time")
	return &x, nil
}

// setUserTLS changes a user's setting; nil inherits again. d.change is held.
func (b backend) setUserTLS(name string, how *policy.StartTLS, why *string, act store.Act) (*api.TLSRule, error) {
	m, err := b.find(name)
	if err != nil {
		return nil, err
	}
	act.Subject = m.Name
	o, err := b.d.store.SetStartTLS(m.ID, how, why, act)
	if err != nil {
		return nil, err
	}
	b.d.policy.Override(m.ID, o)
	s := b.d.policy.Settings(m.ID)
	b.d.log.Warn("what becomes of a user's STARTTLS was changed", "user", m.Name, "to", s.StartTLS, "reason", s.StartTLSWhy, "by", act.Who)
	x := &api.TLSRule{User: m.Name, Policy: s.StartTLS.String(), Origin: "config", Reason: s.StartTLSWhy}
	if how != nil {
		x.Origin = "run-time"
	}
	return x, nil
}

// RemoveTLS takes back what was said at run time: of a user what holds then is the answer, of destinations what was.
func (b backend) RemoveTLS(_ context.Context, who string, p netip.Prefix, t api.TLSRequest) (*api.TLSRule, error) {
	d := b.d
	d.change.Lock()
	defer d.change.Unlock()
	if d.retired() {
		return nil, errRetired
	}
	act := store.Act{At: time.Now(), Who: who, What: "starttls removed", Subject: t.User + t.Prefix, Detail: t.Reason}
	if t.User != "" {
		return b.setUserTLS(t.User, nil, nil, act)
	}
	made, _ := d.tlsRules.list()
	i := slices.IndexFunc(made, func(o store.Rule) bool { return o.Prefix == p && o.Port == t.Port })
	if i < 0 {
		return nil, &api.Problem{Status: http.StatusNotFound, Code: "no-such-rule", What: fmt.Sprintf("no rule for STARTTLS was made at run time for exactly %s, %s", p, ports(t.Port)), Remedy: "`sluice tls` lists all; those of the configuration are removed there"}
	}
	if err := d.store.RemoveTLSRule(p, t.Port, act); err != nil {
		return nil, err
	}
	d.tlsRules.change(func(all []store.Rule) []store.Rule { return withoutRule(all, p, t.Port) })
	d.log.Info("a rule for STARTTLS was removed", "target", p, "by", who)
	x := shownTLS(&made[i], "run-time")
	return &x, nil
}

// Authority tells who certifies the names that clients ask for.
func (b backend) Authority(context.Context) (*api.Authority, error) {
	a := b.d.certs.Load().Authority()
	if a == nil {
		return nil, &api.Problem{Status: http.StatusNotFound, Code: "no-authority", What: "this gateway has no authority: clients see the same certificate whatever name they ask for", Remedy: "name the domains in tls.ca_domains and reload"}
	}
	return &api.Authority{Domains: a.Domains(), Fingerprint: a.Fingerprint(), NotAfter: a.NotAfter(), Leaves: a.Leaves(), PEM: string(a.PEM())}, nil
}

// ListRefusals lists who refuses the certificate.
func (b backend) ListRefusals(context.Context) ([]api.Refusal, error) {
	all := b.d.distrust.List()
	list := make([]api.Refusal, len(all))
	for i := range all {
		list[i] = b.shownRefusal(&all[i])
	}
	return list, nil
}

func (b backend) shownRefusal(e *distrust.Entry) api.Refusal {
	r := api.Refusal{Source: e.Source.String(), Target: e.Target, User: e.User, Alerts: e.Alerts, Shakes: e.Shakes, Lefts: e.Lefts, Wanted: e.Wanted, Text: e.Text,
		First: e.First, Last: e.Last, Allowed: e.Grant.In(time.Now()), By: e.Grant.By, Why: e.Grant.Why}
	if e.Source.IsSingleIP() {
		r.Source = e.Source.Addr().String()
	}
	if r.Allowed {
		r.Until = &e.Grant.Until
	}
	r.Connections, r.Bytes = b.d.distrust.Left(e.Source)
	return r
}

// AllowRefusal lets STARTTLS of a source to a destination pass unread.
func (b backend) AllowRefusal(_ context.Context, who string, source netip.Addr, target netip.AddrPort, r api.RefusalRequest) (*api.Refusal, error) {
	if b.d.retired() {
		return nil, errRetired
	}
	user := ""
	if m, err := b.find(source.String()); err == nil {
		user = m.Name
	}
	g := distrust.Grant{By: who, Why: r.Reason}
	if r.Until != nil {
		g.Until = r.Until.UTC()
	}
	p := distrust.Pair{Source: distrust.SourceOf(source), Target: target}
	e, err := b.d.distrust.Allow(p, g, user)
	if err != nil {
		return nil, &api.Problem{Status: http.StatusConflict, Code: "refused", What: err.Error(), Remedy: "`sluice tls refusals` lists what is allowed"}
	}
	x := b.shownRefusal(&e)
	return &x, b.d.store.Audit(store.Act{At: time.Now(), Who: who, What: "refusal allowed", Subject: x.Source + " " + target.String(), Detail: r.Reason})
}

// ForgetRefusal removes what is known of a source and a destination.
func (b backend) ForgetRefusal(_ context.Context, who string, source netip.Addr, target netip.AddrPort, reason string) (*api.Refusal, error) {
	if b.d.retired() {
		return nil, errRetired
	}
	e, err := b.d.distrust.Forget(distrust.Pair{Source: distrust.SourceOf(source), Target: target})
	if errors.Is(err, distrust.ErrUnknown) {
		return nil, &api.Problem{Status: http.StatusNotFound, Code: "no-such-refusal", What: fmt.Sprintf("nothing is known of %s and %s", source, target), Remedy: "`sluice tls refusals` lists all"}
	}
	if err != nil {
		return nil, err
	}
	x := b.shownRefusal(&e)
	return &x, b.d.store.Audit(store.Act{At: time.Now(), Who: who, What: "refusal forgotten", Subject: x.Source + " " + target.String(), Detail: reason})
}
