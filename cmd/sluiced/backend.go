package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"sluice/cmd/internal/api"
	"sluice/cmd/internal/config"
	"sluice/cmd/internal/store"
	"sluice/filter/lock"
	"sluice/filter/policy"
	"sluice/intercept/control"
	"sluice/proxy"
)

// backend is what the API sees of the daemon.
type backend struct{ d *daemon }

func (d *daemon) backend() api.Backend {
	b := backend{d}
	return api.Backend{Suggester: b, Senders: b, AccountLocker: b, Appeals: b, Overview: b, Users: b, UserEditor: b, Importer: b, Ruler: b, Roller: b, Flows: b, Locks: b, Locker: b, Log: logOf{d}, Gates: b, Observe: b, StartTLS: b, Refusals: b, Logins: b, Models: b, Reports: b, Onward: b, MailQueue: b, Pools: b, Identities: b, UserSettings: b, Groups: b, Addresses: b, Campaigns: b, Quarantine: b, Tokens: b, Holders: b, Searches: b, Stories: b, HitActor: b, DKIM: b}
}

// Status gathers the gateway's state; a helper that is away is part of it, not an error.
func (b backend) Status(ctx context.Context) (*api.Status, error) {
	d := b.d
	cfg := d.cfg.Load()
	log, gate := d.messages.Stats(), d.gate.Stats()
	st := &api.Status{
		Gateway: cfg.Gateway.Name, Version: version, PID: os.Getpid(), Started: d.started,
		Helper: b.helper(ctx), Flows: d.proxy.Sessions(), Waiting: gate.Waiting,
		Users: len(d.roster.Load().all()), Locks: len(d.locks.List()), Messages: d.tally.byStatus(), Addresses: []api.Address{},
		Observer: d.observer(), Unread: d.figures.unread.sum(),
		Onward: d.onwardTLS(),
		Config: api.Config{File: cfg.File, Loaded: cfg.at, Error: cfg.err},
		Log:    api.LogStats{Records: log.Records, Lost: log.Lost, Bytes: log.Bytes},
	}
	for _, a := range cfg.Delivery.Address {
		one := api.Address{Address: a.Address, Helo: a.Helo, Weight: a.Weight}
		if c, ok := d.pools.Get(a.Address); ok && c.Out {
			one.Out = c.Why()
		}
		st.Addresses = append(st.Addresses, one)
	}
	st.Spool = d.mail.figures()
	var err error
	if st.Wrong, err = d.falsePositives(); err != nil {
		return nil, err
	}
	if st.Webhooks, err = d.notices.shown(); err != nil {
		return nil, err
	}
	st.Plugins, st.DNSLists = d.shownPlugins(), d.shownLists()
	d.accepting.Lock()
	defer d.accepting.Unlock()
	st.Accepting = len(d.acceptors) > 0 && !d.stopped
	for _, a := range d.acceptors {
		st.Queue.Waiting += int(a.waiting.Load())
		st.Queue.Limit += int(a.limit.Load())
	}
	return st, nil
}

func (b backend) helper(ctx context.Context) api.Helper {
	c := b.d.link.client.Load()
	if c == nil {
		return api.Helper{Error: b.d.link.complaint()}
	}
	s, err := c.Status(ctx)
	if err != nil {
		return api.Helper{Error: err.Error()}
	}
	h := api.Helper{Connected: true, Version: s.Helper, PID: s.PID, Path: s.Path, PathReason: s.PathReason, Heartbeat: s.Heartbeat,
		HeartbeatAgeMS: s.HeartbeatAgeMS, Sources: s.Sources, Locks: s.Locks, Unguarded: s.Unguarded, Problems: s.Problems}
	for _, i := range s.Interfaces {
		h.Interfaces = append(h.Interfaces, api.Interface{Name: i.Name, Role: i.Role, Path: i.Path, Error: i.Error})
	}
	for _, p := range s.Bypasses {
		h.Bypasses = append(h.Bypasses, shownBypass(p))
	}
	for _, e := range s.Elsewhere {
		h.Elsewhere = append(h.Elsewhere, api.Elsewhere{Address: e.Addr, User: b.nameOf(e.User), Answers: e.Count, Last: e.Last})
	}
	if text := b.d.link.complaint(); text != "" {
		h.Problems = append(h.Problems, text)
	}
	return h
}

func shownBypass(p control.Bypass) api.Bypass {
	s := api.Bypass{Since: p.Since, Reason: p.Reason, By: p.By}
	if p.Prefix.IsValid() {
		s.Prefix = p.Prefix.String()
	}
	s.Until = moment(p.Until)
	return s
}

// moment is a time as the API tells it: absent where it is zero.
func moment(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}

func (b backend) Counters(ctx context.Context) (*api.Counters, error) {
	d := b.d
	c := &api.Counters{Daemon: map[string]uint64{}}
	for status, n := range d.tally.byStatus() {
		c.Daemon["messages_"+strings.ReplaceAll(status, "-", "_")] = n
	}
	gate, log := d.gate.Stats(), d.messages.Stats()
	c.Daemon["sessions_open"] = uint64(d.proxy.Sessions())
	c.Daemon["sessions_waited"], c.Daemon["sessions_refused"] = gate.Capped, gate.Refused
	c.Daemon["log_records"], c.Daemon["log_lost"] = log.Records, log.Lost
	c.Daemon["inflight_overflowed"] = d.journal.Overflowed()
	spool := d.mail.figures()
	c.Daemon["spool_deliveries"], c.Daemon["spool_held"], c.Daemon["spool_bytes"] = uint64(spool.Deliveries), uint64(spool.Held), uint64(spool.Bytes)
	held, heldBytes := d.held.Figures()
	c.Daemon["quarantine_messages"], c.Daemon["quarantine_bytes"] = uint64(held), uint64(heldBytes)
	copies := d.campaigns.Figures()
	c.Daemon["campaigns"], c.Daemon["campaigns_held"], c.Daemon["campaigns_refused"] = uint64(copies.Campaigns), uint64(copies.Held), uint64(copies.Refused)
	c.Daemon["campaign_messages"], c.Daemon["campaign_copies"], c.Daemon["campaign_kinds"] = copies.Seen, copies.Copies, uint64(copies.Kinds)
	d.observations.counters(c.Daemon)
	d.figures.counters(c.Daemon)
	d.onwardCounters(c.Daemon)
	d.pluginCounters(c.Daemon)
	d.listCounters(c.Daemon)
	d.accepting.Lock()
	for _, a := range d.acceptors {
		c.Daemon["accepted"] += a.accepted.Load()
		c.Daemon["accept_refused"] += a.refused.Load()
		c.Daemon["accept_failed"] += a.failed.Load()
	}
	d.accepting.Unlock()
	if client := d.link.client.Load(); client != nil {
		kernel, err := client.Counters(ctx)
		if err != nil {
			return nil, fmt.Errorf("could not read the kernel's counters: %w", err)
		}
		c.Kernel = kernel
	}
	return c, nil
}

// Users lists everybody known by name, then those made for unknown sources.
func (b backend) Users(context.Context) ([]api.User, error) {
	open := b.openFlows()
	us := []api.User{}
	for _, m := range b.d.roster.Load().all() {
		us = append(us, b.user(m, open))
	}
	all, err := b.d.store.Users()
	if err != nil {
		return nil, err
	}
	for _, u := range all {
		if u.Origin == store.Template {
			us = append(us, b.user(b.made(u), open))
		}
	}
	return us, nil
}

func (b backend) openFlows() map[uint32]int {
	open := map[uint32]int{}
	for _, f := range b.d.proxy.Flows() {
		open[f.Flow.User.ID]++
	}
	return open
}

// made is a user made for an unknown source: he has what unknown sources have.
func (b backend) made(u store.User) *member {
	return &member{Listed: u.Listed, origin: u.Origin, fail: b.d.roster.Load().fail}
}

func (b backend) user(m *member, open map[uint32]int) api.User {
	ticket, locked := b.d.locks.Locked(m.ID)
	mode, canary := b.modeOf(m)
	observed, would := b.d.observations.of(m.ID)
	return api.User{ID: m.ID, Name: m.Name, Prefixes: m.Prefixes, Contact: m.Contact, Origin: string(m.origin), Mode: mode, Canary: canary, Fail: m.fail,
		Flows: open[m.ID], Locked: locked, Ticket: ticket, Observed: observed, WouldLocks: would, Auth: b.d.figures.auth.of(m.ID), Unread: b.d.figures.unread.of(m.ID), Forwarded: b.d.figures.forwarded.of(m.ID)}
}

// find returns the user of that name, or the one that an address belongs to.
func (b backend) find(name string) (*member, error) {
	r := b.d.roster.Load()
	if m := r.named(name); m != nil {
		return m, nil
	}
	if a, err := netip.ParseAddr(name); err == nil {
		if u, ok := r.table.Attribute(a.Unmap()); ok {
			if m := r.user(u.ID); m != nil {
				return m, nil
			}
		}
		t := b.d.cfg.Load().Template
		bits := t.IPv6
		if a.Unmap().Is4() {
			bits = t.IPv4
		}
		if p, err := a.Unmap().Prefix(bits); err == nil {
			name = p.String()
		}
	}
	u, err := b.d.store.User(name)
	switch {
	case errors.Is(err, store.ErrNoUser):
		return nil, &api.Problem{Status: http.StatusNotFound, Code: "no-such-user", What: fmt.Sprintf("there is no user %q", name), Remedy: "`sluice users` lists all"}
	case err != nil:
		return nil, err
	}
	return b.made(u), nil
}

func (b backend) User(ctx context.Context, name string) (*api.UserDetail, error) {
	m, err := b.find(name)
	if err != nil {
		return nil, err
	}
	d := &api.UserDetail{User: b.user(m, b.openFlows()), Settings: shown(b.d.policy.Settings(m.ID)), Unlocks: b.d.locks.Unlocks(m.ID), Standing: b.conduct(lock.Scope{User: m.ID}), Bound: m.bound}
	c := b.d.link.client.Load()
	if c == nil {
		return d, nil
	}
	counts, err := c.UserCounters(ctx)
	if err != nil {
		return nil, fmt.Errorf("could not read the kernel's counters: %w", err)
	}
	if i := slices.IndexFunc(counts, func(u control.UserCount) bool { return u.User == m.ID }); i >= 0 {
		d.Kernel = counts[i].Counts
	}
	return d, nil
}

func shown(s *policy.Settings) api.Settings {
	return api.Settings{
		Delivery: s.Delivery.String(), MessagesPerHour: maxOf(s.Limits, policy.MessagesHour), RecipientsPerHour: maxOf(s.Limits, policy.RecipientsHour),
		RecipientsPerMessage: s.RecipientsPerMail, MessageSize: s.MessageSize, SessionsPerSource: s.SessionsPerSource, SessionsPerPair: s.SessionsPerPair, ConnectionsPerSecond: s.PerSecond,
		LockAutomatic: s.Lock.Automatic, LockSpamCount: s.Lock.SpamCount, LockSpamShare: s.Lock.SpamShare,
		LockWindow: int(s.Lock.Window.Seconds()), LockTime: int(s.Lock.Time.Seconds()), LockMaxUnlocks: s.Lock.MaxUnlocks, LockExplained: s.Lock.Explained,
		LockRules: shownRules(&s.Lock), LockKeepPassed: s.Lock.KeepPassed, OnwardTLS: s.Onward.String(), StartTLS: s.StartTLS.String(), StartTLSReason: s.StartTLSWhy,
		KeepWithheld: s.KeepWithheld, KeepDeferred: s.KeepDeferred,
		DKIM: s.Signing.DKIM.String(), DKIMSelector: s.Signing.Selector,
	}
}

// maxOf is one limit, 0 where there is none.
func maxOf(l *policy.Limits, k policy.LimitKind) int {
	if l == nil {
		return 0
	}
	return int(l.Max[k])
}

// AddUser adds a user for good and puts him in force in proxy and kernel.
func (b backend) AddUser(_ context.Context, who string, n api.NewUser) (*api.User, error) {
	if err := config.CheckUserName(n.Name); err != nil {
		what, remedy, _ := strings.Cut(err.Error(), "; ")
		return nil, &api.Problem{Status: http.StatusBadRequest, Code: "invalid", What: what, Remedy: remedy}
	}
	for _, p := range n.Prefixes {
		if !p.IsValid() || p != p.Masked() || p.Addr().Is4In6() {
			return nil, &api.Problem{Status: http.StatusBadRequest, Code: "invalid", What: fmt.Sprintf("%v is not a prefix", p), Remedy: "write it like 192.0.2.0/29, without bits behind its length"}
		}
	}
	listed, err := b.d.store.AddUser(policy.Listed{Name: n.Name, Prefixes: n.Prefixes, Contact: n.Contact})
	if err != nil {
		return nil, &api.Problem{Status: http.StatusConflict, Code: "refused", What: err.Error(), Remedy: "`sluice users` lists who has what"}
	}
	if err := b.changed(who, "user added", listed, true); err != nil {
		return nil, err
	}
	return b.named(listed.Name)
}

func (b backend) named(name string) (*api.User, error) {
	m, err := b.find(name)
	if err != nil {
		return nil, err
	}
	u := b.user(m, b.openFlows())
	return &u, nil
}

// RemoveUser removes a user that was added by command.
func (b backend) RemoveUser(_ context.Context, who, name string) (*api.User, error) {
	m, err := b.find(name)
	if err != nil {
		return nil, err
	}
	u := b.user(m, b.openFlows())
	if _, err := b.d.store.RemoveUser(m.Name); err != nil {
		return nil, &api.Problem{Status: http.StatusConflict, Code: "refused", What: err.Error()}
	}
	return &u, b.changed(who, "user removed", m.Listed, false)
}

// changed puts one user in force, or takes him out of it, after a change in the store. The others are not looked at: there
// may be a million.
func (b backend) changed(who, what string, u policy.Listed, there bool) error {
	d := b.d
	d.change.Lock()
	defer d.change.Unlock()
	d.log.Info(what, "user", u.Name, "by", who)
	if err := d.store.Audit(store.Act{At: time.Now(), Who: who, What: what, Subject: u.Name, Detail: fmt.Sprint(u.Prefixes)}); err != nil {
		return err
	}
	r := d.roster.Load()
	var err error
	if r.remove(u.Name); there {
		err = r.put(u)
	}
	if err != nil { // the store would not have taken him
		return errors.Join(err, d.rosterAnew())
	}
	if d.o.socket != nil || d.retired() { // there is no helper, or another process speaks to it
		return nil
	}
	if len(u.Prefixes) > control.MaxPutUsers {
		if c := d.link.client.Load(); c != nil {
			d.tellHelper(c)
		}
		return nil
	}
	var l delta
	for _, p := range u.Prefixes {
		s, ok := d.sourceAt(p)
		l.add(p, s, ok)
	}
	if err := d.tellDelta(&l); err != nil && !errors.Is(err, errAway) { // it is told the whole set when it is back
		d.link.note(err)
		d.retell()
	}
	d.locks.Reapply()
	return nil
}

func (b backend) Flows() []api.Flow { return b.d.shownFlows(b.d.proxy.Flows()) }

func (d *daemon) shownFlows(live []proxy.Live) []api.Flow {
	fs := make([]api.Flow, 0, len(live))
	for _, l := range live {
		ticket, _ := d.locks.Locked(l.Flow.User.ID)
		fs = append(fs, api.Flow{ID: l.Flow.ID.String(), User: l.Flow.User.Name, Client: l.Flow.Client, Target: l.Flow.Target,
			Helo: l.Helo, State: l.State, Since: l.Since, Messages: l.Messages, TLS: l.TLS, Ticket: ticket})
	}
	slices.SortFunc(fs, func(x, y api.Flow) int { return x.Since.Compare(y.Since) })
	return fs
}
