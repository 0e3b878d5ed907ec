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
	"sluice/intercept/control"
	"sluice/intercept/flow"
)

// Modes lists every mode that is said of a prefix, and at last the default.
func (b backend) Modes(context.Context) ([]api.Mode, error) {
	r := b.d.rules.Load()
	list := []api.Mode{}
	made := r.listed()
	for i := range made {
		list = append(list, b.shownMode(&made[i]))
	}
	r.mu.RLock()
	for p, m := range r.configured {
		_, beaten := r.made[p]
		list = append(list, m.shown(p, beaten))
	}
	r.mu.RUnlock()
	slices.SortStableFunc(list, func(x, y api.Mode) int {
		return comparePrefixes(netip.MustParsePrefix(x.Prefix), netip.MustParsePrefix(y.Prefix))
	})
	return append(list, api.Mode{Mode: b.d.cfg.Load().Intercept.DefaultMode, Origin: "default", Reason: "intercept.default_mode"}), nil
}

func (m configuredMode) shown(p netip.Prefix, beaten bool) api.Mode {
	a := api.Mode{Prefix: p.String(), Mode: m.mode, Percent: m.percent, Origin: "config", Reason: m.reason, Beaten: beaten}
	if m.user != "" {
		a.Origin = "user"
	}
	return a
}

func (b backend) shownMode(r *store.Rule) api.Mode {
	a := api.Mode{Prefix: r.Prefix.String(), Mode: r.Mode, Percent: r.Percent, Origin: "run-time", Reason: r.Reason, By: r.By, Since: &r.Since}
	a.Until = moment(r.Until)
	if err := b.d.rules.Load().ceiling.Check(sourceOf(r)); err != nil {
		a.Refused = err.Error()
	}
	return a
}

// Holding tells what holds for an address or all of a prefix. Longer prefixes inside of it may have other modes.
func (b backend) Holding(_ context.Context, p netip.Prefix) (*api.Mode, error) {
	a := b.holding(p)
	if u, ok := b.d.roster.Load().table.Around(p); ok {
		a.User = u.Name
	} else if b.d.cfg.Load().Template.Unknown == "make" {
		t := flow.Template{V4: b.d.cfg.Load().Template.IPv4, V6: b.d.cfg.Load().Template.IPv6}
		if q, ok := t.Prefix(p.Addr()); ok && q.Bits() <= p.Bits() {
			a.User = q.String()
		}
	}
	if v := b.d.rules.Load().of(p); v.mode == control.Canary && a.User != "" {
		a.Canary = v.side(a.User)
	}
	return a, nil
}

func (b backend) holding(p netip.Prefix) *api.Mode {
	r := b.d.rules.Load()
	v := r.of(p)
	var a api.Mode
	switch {
	case v.by != nil:
		a = b.shownMode(v.by)
	case v.from.IsValid():
		a = r.configured[v.from].shown(v.from, false)
	default:
		a = api.Mode{Origin: "default", Reason: "intercept.default_mode"}
	}
	a.Mode, a.Percent = v.mode.String(), v.percent
	return &a
}

// side is on which side of a canary a user is.
func (v *verdict) side(user string) string {
	if v.enforced(user) {
		return "enforced"
	}
	return "shadow"
}

// modeOf is the mode of a user's prefixes, all of them where they differ, and his side of a canary.
func (b backend) modeOf(m *member) (mode, canary string) {
	var modes []string
	r := b.d.rules.Load()
	for _, p := range m.Prefixes {
		v := r.of(p)
		name := v.mode.String()
		if v.mode == control.Canary {
			name, canary = fmt.Sprintf("canary %d%%", v.percent), v.side(m.Name)
		}
		if !slices.Contains(modes, name) {
			modes = append(modes, name)
		}
	}
	return strings.Join(modes, ", "), canary
}

// SetMode makes a rule for a source prefix, in the place of one for the same prefix.
func (b backend) SetMode(_ context.Context, who string, p netip.Prefix, m api.ModeRequest) (*api.Mode, error) {
	if err := b.goesOn(m.Mode); err != nil {
		return nil, err
	}
	now := time.Now()
	r := store.Rule{Prefix: p, Mode: m.Mode, Percent: m.Percent, Reason: m.Reason, By: who, Since: now.UTC()}
	if m.Until != nil {
		r.Until = m.Until.UTC()
	}
	act := store.Act{At: now, Who: who, What: "mode set", Subject: p.String(), Detail: detail(&r)}
	if err := b.d.changeModes([]store.Rule{r}, nil, act); err != nil {
		return nil, refusal(err)
	}
	b.d.log.Info("mode set", "prefix", p, "mode", detail(&r), "by", who)
	return b.holding(p), nil
}

// RemoveMode removes a rule; what holds then is the answer.
func (b backend) RemoveMode(_ context.Context, who string, p netip.Prefix, reason string) (*api.Mode, error) {
	r := b.d.rules.Load()
	old, ok := r.get(p)
	if !ok {
		problem := &api.Problem{Status: http.StatusNotFound, Code: "no-such-rule", What: fmt.Sprintf("no rule was made at run time for exactly %s", p), Remedy: "`sluice mode` lists all"}
		if r.inFile(p) != 0 {
			problem.What += "; its mode stands in the configuration"
			problem.Remedy = "change it there and reload, or set another mode at run time, which beats it"
		}
		return nil, problem
	}
	act := store.Act{At: time.Now(), Who: who, What: "mode removed", Subject: p.String(), Detail: reason + " (was " + detail(&old) + ")"}
	if err := b.d.changeModes(nil, []netip.Prefix{p}, act); err != nil {
		return nil, refusal(err)
	}
	b.d.log.Info("mode removed", "prefix", p, "by", who, "reason", reason)
	return b.holding(p), nil
}

// goesOn refuses modes that connect from customers' own addresses where that is impossible.
func (b backend) goesOn(mode string) error {
	other := slices.ContainsFunc(b.d.cfg.Load().Intercept.MailPorts(), func(p uint16) bool { return p != control.MailPort })
	if (mode == "shadow" || mode == "canary") && other {
		return &api.Problem{Status: http.StatusConflict, Code: "refused", What: mode + " goes on to port 25 only, and intercept.ports has others", Remedy: "write ports = [25] in the configuration, or choose another mode"}
	}
	return nil
}

// detail is a rule for the audit log.
func detail(r *store.Rule) string {
	var b strings.Builder
	b.WriteString(r.Mode)
	if r.Percent != 0 {
		fmt.Fprintf(&b, " %d%%", r.Percent)
	}
	if r.Port != 0 {
		fmt.Fprintf(&b, ", port %d", r.Port)
	}
	if !r.Until.IsZero() {
		b.WriteString(", until " + r.Until.Format(time.RFC3339))
	}
	return b.String() + ": " + r.Reason
}

// refusal is an error of a change as the API tells it.
func refusal(err error) error {
	var ce *control.Error
	var p *api.Problem
	switch {
	case errors.As(err, &p):
		return p
	case errors.As(err, &ce):
		what, remedy, _ := strings.Cut(ce.Text, "; ")
		status := http.StatusConflict
		if ce.Code == control.CodeCeiling {
			status = http.StatusForbidden
		}
		return &api.Problem{Status: status, Code: ce.Code, What: what, Remedy: remedy}
	case errors.Is(err, errAway), errors.Is(err, control.ErrLost):
		return &api.Problem{Status: http.StatusServiceUnavailable, Code: "helper-away", What: "nothing was changed: sluice-intercept is away", Remedy: "try again when it is there; `sluice status` tells"}
	}
	return err
}

// Exemptions lists the destinations that are exempt.
func (b backend) Exemptions(context.Context) ([]api.Exemption, error) {
	r := b.d.rules.Load()
	r.mu.RLock()
	defer r.mu.RUnlock()
	list := []api.Exemption{}
	for i := range r.destined {
		list = append(list, *b.shownExemption(&r.destined[i]))
	}
	now := time.Now()
	for _, x := range b.d.cfg.Load().Exempt {
		a := api.Exemption{Prefix: x.Prefix.String(), Port: x.Port, Mode: x.Mode, Origin: "config", Reason: x.Reason}
		if !x.Until.IsZero() {
			a.Until = &x.Until
			if !x.Until.After(now) {
				continue
			}
		}
		a.Beaten = slices.ContainsFunc(r.destined, func(o store.Rule) bool { return o.Prefix == x.Prefix.Prefix && o.Port == x.Port })
		list = append(list, a)
	}
	return list, nil
}

func (b backend) shownExemption(r *store.Rule) *api.Exemption {
	a := &api.Exemption{Prefix: r.Prefix.String(), Port: r.Port, Mode: r.Mode, Origin: "run-time", Reason: r.Reason, By: r.By, Since: &r.Since}
	a.Until = moment(r.Until)
	for _, x := range exemptionsOf([]store.Rule{*r}) {
		if err := b.d.rules.Load().ceiling.CheckExemption(x, time.Now()); err != nil {
			a.Refused = err.Error()
		}
	}
	return a
}

// Exempt exempts a destination, in the place of an exemption for the same prefix and port.
func (b backend) Exempt(_ context.Context, who string, p netip.Prefix, x api.ExemptRequest) (*api.Exemption, error) {
	if err := b.goesOn(x.Mode); err != nil {
		return nil, err
	}
	if ports := b.d.cfg.Load().Intercept.MailPorts(); x.Port != 0 && x.Port != control.MailPort && !slices.Contains(ports, x.Port) {
		return nil, &api.Problem{Status: http.StatusBadRequest, Code: "invalid", What: fmt.Sprintf("port %d is no mail port here", x.Port), Remedy: "intercept.ports lists those beside 25"}
	}
	now := time.Now()
	r := store.Rule{Prefix: p, Port: x.Port, Mode: x.Mode, Reason: x.Reason, By: who, Since: now.UTC()}
	if x.Until != nil {
		r.Until = x.Until.UTC()
	}
	act := store.Act{At: now, Who: who, What: "exemption set", Subject: p.String(), Detail: detail(&r)}
	err := b.d.changeExemptions(func(all []store.Rule) ([]store.Rule, error) {
		for _, c := range exemptionsOf([]store.Rule{r}) {
			if err := b.d.rules.Load().ceiling.CheckExemption(c, now); err != nil {
				return nil, err
			}
		}
		return append(slices.DeleteFunc(all, func(o store.Rule) bool { return o.Prefix == p && o.Port == x.Port }), r), nil
	}, func() error { return b.d.store.PutExemption(r, act) })
	if err != nil {
		return nil, refusal(err)
	}
	b.d.log.Info("exemption set", "prefix", p, "mode", detail(&r), "by", who)
	return b.shownExemption(&r), nil
}

// RemoveExemption removes one that was made at run time.
func (b backend) RemoveExemption(_ context.Context, who string, p netip.Prefix, port uint16, reason string) (*api.Exemption, error) {
	var old store.Rule
	var act store.Act
	err := b.d.changeExemptions(func(all []store.Rule) ([]store.Rule, error) {
		i := slices.IndexFunc(all, func(o store.Rule) bool { return o.Prefix == p && o.Port == port })
		if i < 0 {
			return nil, &api.Problem{Status: http.StatusNotFound, Code: "no-such-rule", What: fmt.Sprintf("no exemption was made at run time for exactly %s, %s", p, ports(port)), Remedy: "`sluice exempt` lists all; those of the configuration are removed there"}
		}
		old = all[i]
		act = store.Act{At: time.Now(), Who: who, What: "exemption removed", Subject: p.String(), Detail: reason + " (was " + detail(&old) + ")"}
		return slices.Delete(all, i, i+1), nil
	}, func() error { return b.d.store.RemoveExemption(p, port, act) })
	if err != nil {
		return nil, refusal(err)
	}
	b.d.log.Info("exemption removed", "prefix", p, "by", who, "reason", reason)
	return b.shownExemption(&old), nil
}

func ports(port uint16) string {
	if port == 0 {
		return "every mail port"
	}
	return fmt.Sprintf("port %d", port)
}
