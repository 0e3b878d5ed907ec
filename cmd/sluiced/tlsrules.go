package main

import (
	"context"
	"net/netip"
	"slices"
	"sync"
	"time"

	"sluice/cmd/internal/config"
	"sluice/cmd/internal/store"
	"sluice/filter/policy"
	"sluice/proxy/distrust"
)

// tlsRules is what becomes of STARTTLS towards destinations: what operators decided at run time over what the
// configuration says. It is safe for concurrent use.
type tlsRules struct {
	mu         sync.RWMutex
	configured []store.Rule
	made       []store.Rule
	sorted     []tlsRule // the strongest first
}

// tlsRule is a rule in force.
type tlsRule struct {
	*store.Rule
	how policy.StartTLS
}

// configure takes what the configuration says.
func (r *tlsRules) configure(cfg *config.Config) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.configured = nil
	for _, x := range cfg.TLS.Destination {
		r.configured = append(r.configured, store.Rule{Prefix: x.Prefix.Prefix, Port: x.Port, Mode: x.StartTLS, Reason: x.Reason, Until: x.Until})
	}
	r.sort()
}

// sort puts the longest prefix first, with equal ones the one with a port, and with equal ports what was made at run time.
func (r *tlsRules) sort() {
	r.sorted = nil
	for _, list := range [][]store.Rule{r.made, r.configured} {
		for i := range list {
			if how, err := policy.ParseStartTLS(list[i].Mode); err == nil {
				r.sorted = append(r.sorted, tlsRule{&list[i], how})
			}
		}
	}
	slices.SortStableFunc(r.sorted, func(a, b tlsRule) int {
		if n := b.Prefix.Bits() - a.Prefix.Bits(); n != 0 {
			return n
		}
		return int(b.Port) - int(a.Port)
	})
}

// Towards finds the rule for a destination.
func (r *tlsRules) Towards(target netip.AddrPort) (policy.StartTLS, string, bool) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	if len(r.sorted) == 0 {
		return 0, "", false
	}
	now := time.Now()
	for _, x := range r.sorted {
		if x.Prefix.Contains(target.Addr()) && (x.Port == 0 || x.Port == target.Port()) && !x.Over(now) {
			return x.how, x.Reason, true
		}
	}
	return 0, "", false
}

// list returns both kinds of rules.
func (r *tlsRules) list() (made, configured []store.Rule) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return slices.Clone(r.made), slices.Clone(r.configured)
}

// change replaces the rules made at run time; the caller has stored them.
func (r *tlsRules) change(f func([]store.Rule) []store.Rule) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.made = f(slices.Clone(r.made))
	r.sort()
}

// mostTLSRules bounds what each session may have to look through.
const mostTLSRules = 1000

// openTLS reads what was decided and learnt about the clients' leg.
func (d *daemon) openTLS(cfg *config.Config) error {
	d.tlsRules = &tlsRules{}
	made, err := d.store.TLSRules()
	if err != nil {
		return err
	}
	d.tlsRules.made = made
	d.tlsRules.configure(cfg)
	d.distrust, err = distrust.New(distrust.Options{Store: d.store, Published: demands{d}, ByItself: d.passesByItself, Standing: d.standing, Events: d.refusalEvent})
	return err
}

// demands tells what destinations publish.
type demands struct{ d *daemon }

func (x demands) Demands(target netip.AddrPort) string { return x.d.onward.finder.Demands(target) }

// passesByItself tells whether anything passes unread that no person allowed.
func (d *daemon) passesByItself() bool { return d.cfg.Load().TLS.Refused == "published" }

// standing tells whether a user may have what no person gave him: never one whom bad mail has locked.
func (d *daemon) standing(user uint32) bool {
	_, locked := d.locks.Locked(user)
	return !locked && d.locks.Unlocks(user) == 0
}

// refusalsEvery is how often what is learnt is written down.
const refusalsEvery = time.Second

// keepTLS writes down what is learnt of clients, and ends rules at their time, until ctx ends.
func (d *daemon) keepTLS(ctx context.Context) {
	t := time.NewTicker(refusalsEvery)
	defer t.Stop()
	for {
		select {
		case <-t.C:
		case <-ctx.Done():
			return
		}
		if d.retired() {
			continue // what it still learns the other process learns, too
		}
		if err := d.distrust.Save(); err != nil {
			d.log.Error("could not write down which clients refuse the certificate; it is tried again", "err", err)
		}
		d.endTLSRules(time.Now())
	}
}

// endTLSRules takes out what is over.
func (d *daemon) endTLSRules(now time.Time) {
	made, _ := d.tlsRules.list()
	for _, x := range made {
		if !x.Over(now) {
			continue
		}
		act := store.Act{At: now, Who: "sluiced", What: "starttls rule ended", Subject: x.Prefix.String(), Detail: "its time is over"}
		if err := d.store.RemoveTLSRule(x.Prefix, x.Port, act); err != nil {
			d.log.Error("a rule for STARTTLS whose time is over could not be removed; it has no effect", "prefix", x.Prefix, "err", err)
			continue
		}
		d.tlsRules.change(func(all []store.Rule) []store.Rule { return withoutRule(all, x.Prefix, x.Port) })
	}
}

func withoutRule(all []store.Rule, p netip.Prefix, port uint16) []store.Rule {
	return slices.DeleteFunc(all, func(o store.Rule) bool { return o.Prefix == p && o.Port == port })
}

// toldPerMinute bounds what strangers can have written to the journal and the audit log.
const toldPerMinute = 60

// toldBudget counts what was told in the present minute.
type toldBudget struct {
	mu     sync.Mutex
	minute int64
	n      int
}

// take tells whether one more may be told, and whether it is the last.
func (b *toldBudget) take(now time.Time) (ok, last bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if m := now.Unix() / 60; m != b.minute {
		b.minute, b.n = m, 0
	}
	b.n++
	return b.n <= toldPerMinute, b.n == toldPerMinute
}

// refusalEvent tells the journal and the audit log what was learnt or granted. It is called in the way of mail.
func (d *daemon) refusalEvent(e distrust.Event) {
	x := &e.Entry
	grave := 0
	if e.Kind == distrust.Granted || e.Kind == distrust.Spent { // what passes is not to drown in what does not
		grave = 1
	}
	switch told, last := d.told[grave].take(time.Now()); {
	case !told:
		return
	case last:
		d.log.Warn("many clients refuse the gateway's certificate; for a minute no more of them are told here; `sluice tls refusals` shows all")
	}
	learnt, granted := "a client refuses the gateway's certificate", "mail of a client that refuses the certificate"
	if x.Wanted > 0 {
		learnt, granted = "a destination wants a certificate of its client's", "mail to a destination that wants its client's certificate"
	}
	switch e.Kind {
	case distrust.Learnt:
		d.log.Warn(learnt+"; `sluice tls refusals` shows what can be done", "user", x.User, "source", x.Source, "target", x.Target, "how", x.Text)
	case distrust.Granted:
		d.log.Warn(granted+" passes UNREAD from now on, bounded", "user", x.User, "source", x.Source, "target", x.Target, "until", x.Grant.Until, "why", x.Grant.Why, "by", x.Grant.By)
	case distrust.Spent:
		d.log.Warn("a source has used up what may pass unread in an hour; nothing more of it passes", "user", x.User, "source", x.Source, "target", x.Target)
	case distrust.Ended:
		d.log.Info("mail of a client passes unread no more", "user", x.User, "source", x.Source, "target", x.Target)
	}
	if x.Grant.By != "" && e.Kind == distrust.Granted {
		return // whoever gave it is in the audit log already
	}
	act := store.Act{At: time.Now(), Who: "sluiced", What: "refusal " + e.Kind.String(), Subject: x.Source.String() + " " + x.Target.String(), Detail: x.User + ": " + x.Text + " " + x.Grant.Why}
	d.audits.Go(func() {
		if err := d.store.Audit(act); err != nil {
			d.log.Error("could not write the audit log", "act", act.What, "err", err)
		}
	})
}
