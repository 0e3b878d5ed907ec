package main

import (
	"crypto/tls"
	"fmt"
	"runtime"
	"strings"
	"time"

	"sluice/cmd/internal/config"
	"sluice/filter"
	"sluice/filter/content"
	"sluice/filter/identity"
	"sluice/filter/limit"
	"sluice/filter/reputation"
	"sluice/filter/reputation/trap"
	"sluice/filter/scanner"
	"sluice/filter/sender"
	"sluice/intercept/control"
	"sluice/intercept/flow"
	"sluice/proxy"
	"sluice/proxy/cert"
	"sluice/proxy/pool"
	"sluice/proxy/relay"
)

// makeProxy makes the server and everything that only it needs.
func (d *daemon) makeProxy(cfg *config.Config) error {
	trace, err := tracer(cfg.Store.Dir)
	if err != nil {
		return err
	}
	certs, err := newCerts(cfg)
	if err != nil {
		return err
	}
	d.certs.Store(certs)
	d.trace = trace
	if d.pools, err = newPoolGate(d, cfg); err != nil {
		return err
	}
	pl, err := d.pools.set()
	if err != nil {
		return err
	}
	d.gate = limit.NewSessions(limit.SessionOptions{Wait: cfg.SMTP.GreetingWait.D(), OnCap: func(c limit.Capped) {
		d.log.Warn("a source is at its cap of sessions; the excess waits for its greeting", "source", c.Source, "target", c.Target, "open", c.Active, "waiting", c.Waiting)
	}})
	d.elsewhere.gate = d.gate
	d.busy = filter.NewTurns(max(1, runtime.GOMAXPROCS(0)-1)) // one processor is for who has just come
	d.checks = d.pipeline(d.toldCounts(), d.limitMet)
	d.dialer = relay.NewDialer(relay.Options{Timeouts: onwardTimeouts(&cfg.Delivery), Own: d.link, Keep: cfg.Delivery.Reuse.D(), Chunks: cfg.Delivery.Chunks,
		Servers: d.onward.finder, Roots: d.onward.roots, Leave: d.pools.leave})
	d.proxy, err = proxy.New(proxy.Config{
		Settings:   d.proxySettings(cfg, pl),
		Policy:     settingsOf{d.policy},
		Locks:      toldLocks{d.locks, d},
		Unenforced: d.unenforced.locks,
		Log:        countedLog{d.tally, &d.figures},
		Dialer:     d.dialer,
		Onward:     d.onward,
		Signatures: signatures{sender.NewRules(d.policy, d.dns)},
		Signer:     d.signer(),
		Tracer:     trace,
		Choices:    d.choices.choices,
		Authority:  d.authority,
		Busy:       d.busy,
		Gate:       gate{d.gate, d.sources, d.moved},
		Inflight:   journal{d.journal},
		Keeper:     d.keeper,
		TLS:        d.clientTLS(),
		Quarantine: custodian{d},
		Guard:      guessed{d},
		Standing:   d.locks,
		StartTLS:   d.tlsRules,
		Refusals:   d.distrust,
		Panicked: func(f flow.Flow, cause any, stack []byte) {
			d.log.Error("a mistake of ours ended a session; please report it", "flow", f.ID, "user", f.User.Name, "client", f.Client, "cause", cause, "stack", string(stack))
		},
	})
	if err == nil {
		d.locals.pools.Store(pl)
	}
	return err
}

// pipeline holds the checks, cheap ones first; what users send is counted by counts, and over hears of limits that are met.
func (d *daemon) pipeline(counts limit.Counter, over func(limit.Over)) *filter.Pipeline {
	settings := d.policy
	finder := identity.NewFinder(settings, d.identities)
	finder.Survey, finder.Alarm = &d.survey, d.odd
	rate := limit.NewRate(counts, settings, over)
	rate.Waiting = d.waiting
	return filter.NewPipeline(append([]filter.Step{
		{Name: "identity", Phases: identity.Phases, Check: finder},
		{Name: "sender", Phases: sender.Phases, Check: sender.New()},
		{Name: "addresses", Phases: sender.ListPhases, Check: d.addresses},
		{Name: "rules", Phases: sender.RulePhases, Check: d.senderRules()},
		{Name: "size", Phases: limit.SizePhases, Check: limit.NewSize(settings)},
		{Name: "recipients", Phases: limit.PerMailPhases, Check: limit.NewPerMail(settings)},
		{Name: "rate", Phases: limit.RatePhases, Check: rate},
		{Name: "traps", Phases: trap.Phases, Check: d.traps},
		{Name: "helo", Phases: sender.HelloPhases, Check: sender.NewHello(settings, d.dns, d.ourName)},
	}, d.opinions()...)...)
}

// opinions are the checks that look into a message; what only computes does so in turns.
func (d *daemon) opinions() []filter.Step {
	c := d.classifier()
	return []filter.Step{
		{Name: "content", Phases: content.Phases, Check: filter.InTurn(content.NewMarks(), d.busy)},
		{Name: "learned", Phases: content.Phases, Check: filter.InTurn(c, d.busy)},
		{Name: "lists", Phases: reputation.Phases, Check: d.lists},
		{Name: "plugins", Phases: scanner.Phases, Check: d.plugins},
		{Name: "weighed", Phases: content.Phases, Check: c.Weigher()},
	}
}

func (d *daemon) proxySettings(cfg *config.Config, pl *pool.Set) proxy.Settings {
	return proxy.Settings{
		Name:         cfg.Gateway.Name,
		HelpURL:      cfg.Gateway.HelpURL,
		Page:         d.pageOf(cfg),
		Contact:      cfg.Gateway.Contact,
		Admin:        cfg.Gateway.AdminAddress,
		Pool:         pl.Primary(),
		Pools:        pl,
		Pipeline:     d.checks,
		Local:        d.isLocal,
		HeldLater:    cfg.Quarantine.Answer == "451",
		MaxHops:      cfg.Delivery.HopLimit,
		MaxSize:      maxSize(cfg),
		BodyMemory:   int(cfg.SMTP.BodyMemory),
		BodiesMemory: int64(cfg.SMTP.BodyMemoryTotal),
		SpillDir:     cfg.SMTP.SpillDir,
		EarlyData:    earlyData(cfg),
		Stream:       int64(cfg.Delivery.Stream),
		Mirror:       cfg.SMTP.Greeting == "mirror",
		RefuseBareLF: cfg.SMTP.BareNewline == "refuse",
		UserSessions: max(cfg.SMTP.Sessions/4, cfg.Limits.SessionsPerSource), // a whole network of his must not fill the gateway
		Timeouts: proxy.Timeouts{
			Gate:    cfg.SMTP.GreetingWait.D(),
			Command: cfg.SMTP.CommandTimeout.D(),
			Block:   cfg.SMTP.DataTimeout.D(),
			Verdict: cfg.SMTP.FilterTimeout.D(),
			Answer:  cfg.Delivery.AnswerTimeout.D(),
			Noop:    cfg.SMTP.NoopInterval.D(),
			Bye:     cfg.SMTP.FinWait.D(),
		},
	}
}

// earlyData says when DATA goes onward before the message is here.
func earlyData(cfg *config.Config) proxy.EarlyData {
	switch cfg.Delivery.EarlyData {
	case "never":
		return proxy.EarlyNever
	case "always":
		return proxy.EarlyAlways
	}
	return proxy.EarlyAuto
}

// clientTLS follows the certificate store of the configuration in force.
func (d *daemon) clientTLS() *tls.Config {
	return cert.Config(func(h *tls.ClientHelloInfo) (*tls.Certificate, error) { return d.certs.Load().Certificate(h) })
}

// reload reads the configuration file again. Either all of it takes effect or none.
func (d *daemon) reload() error {
	if d.retired() {
		d.log.Warn("not reloaded: this process has handed over and finishes what is open")
		return nil
	}
	if d.isReady() { // before that a reload is part of the start
		if err := d.systemd.reloading(); err != nil {
			d.log.Warn("systemd was not told", "err", err)
		}
		defer func() {
			if err := d.systemd.ready(); err != nil {
				d.log.Warn("systemd was not told", "err", err)
			}
		}()
	}
	err := d.reloadFile()
	if err != nil {
		old := *d.cfg.Load()
		old.err = err.Error()
		d.cfg.Store(&old)
		for line := range strings.Lines(err.Error()) {
			d.log.Error("reload refused, the old configuration stays", "err", strings.TrimSpace(line))
		}
	}
	return err
}

// isReady reports whether connections were ever accepted.
func (d *daemon) isReady() bool {
	d.accepting.Lock()
	defer d.accepting.Unlock()
	return len(d.acceptors) > 0
}

func (d *daemon) reloadFile() error {
	d.change.Lock()
	defer d.change.Unlock()
	old := d.cfg.Load()
	cfg, err := config.Load(old.File)
	if err != nil {
		return err
	}
	if _, err := pool.NewSet(definitions(&cfg.Delivery), nil); err != nil {
		return err
	}
	certs, err := newCerts(cfg)
	if err != nil {
		return err
	}
	if err := makeFolder(cfg.SMTP.SpillDir); err != nil {
		return err
	}
	if later := needRestart(old.Config, cfg); len(later) > 0 {
		d.log.Warn("changes that take effect with the next restart only", "keys", strings.Join(later, ", "))
	}
	cs, err := connectors(&cfg.Smarthost)
	if err != nil {
		return err
	}
	relays, err := upstreams(cfg.Spool.Relay)
	if err != nil {
		return err
	}
	r, settings, err := newRoster(d.store, cfg)
	if err != nil {
		return err
	}
	told, err := noticesOf(cfg, d.notices.key)
	if err != nil {
		return err
	}
	rs, err := newRules(cfg, d.store)
	if err != nil {
		return err
	}
	d.pools.configure(cfg)
	pl, err := d.pools.set()
	if err == nil {
		err = d.proxy.Configure(d.proxySettings(cfg, pl))
	}
	if err != nil {
		d.pools.configure(old.Config)
		return err
	}
	if err := d.onward.configure(&cfg.Delivery); err != nil {
		d.log.Warn("onward encryption", "err", err)
	}
	d.policy.SetDefault(defaultSettings(cfg))
	d.dkim.read()
	d.policy.Configure(settings)
	d.plugins.Configure(pluginOptions(cfg.Plugin))
	d.lists.Configure(listOptions(cfg.DNSList))
	d.traps.Configure(cfg.Reports.Traps)
	d.opinionsChanged()
	d.tlsRules.configure(cfg)
	d.mail.configure(&cfg.Spool, relays)
	d.certs.Store(certs)
	d.notices.configure(told)
	d.locals.pools.Store(pl)
	d.cfg.Store(&loaded{Config: cfg, at: time.Now()})
	d.rules.Store(rs)
	d.rulesChanged()
	d.enroll(r)
	d.connectors.Store(&cs)
	d.guard.ShutAfter(cfg.Smarthost.Guesses)
	d.rehouse(&old.Smarthost, &cfg.Smarthost)
	d.domainLogins()
	d.log.Info("configuration reloaded", "users", len(r.all()), "delivery addresses", len(cfg.Delivery.Address))
	return nil
}

// enroll puts a roster in force, in the proxy and in the kernel. d.change is held.
func (d *daemon) enroll(r *roster) {
	d.roster.Store(r)
	d.sources.Replace(r.table)
	c := d.link.client.Load()
	if c == nil || d.retired() {
		return // the helper is told when it is there again
	}
	d.tellHelper(c)
}

// tellHelper tells the helper all that it has to know. What it does not take it is told again. d.change is held.
func (d *daemon) tellHelper(c *control.Client) {
	r := d.rules.Load()
	err := d.link.tell(c, d.allSources(d.roster.Load()), r.allowed(r.destined, time.Now()), d.locks.List())
	d.link.note(err)
	d.locks.Reapply()
	d.admin.look()
	if d.untold.Store(err != nil); err != nil {
		d.rulesChanged()
	}
}

// needRestart names the keys that differ and are read at the start only.
func needRestart(old, cfg *config.Config) (keys []string) {
	for _, k := range []struct {
		name     string
		old, new any
	}{
		{"store.dir", old.Store, cfg.Store},
		{"log", old.Log, cfg.Log},
		{"api", old.API, cfg.API},
		{"template", old.Template, cfg.Template},
		{"intercept.control_socket", old.Intercept.ControlSocket, cfg.Intercept.ControlSocket},
		{"delivery's time-outs", onwardTimeouts(&old.Delivery), onwardTimeouts(&cfg.Delivery)},
		{"delivery.tls_roots", old.Delivery.TLSRoots, cfg.Delivery.TLSRoots},
		{"tls.acme", fmt.Sprint(old.TLS.ACME), fmt.Sprint(cfg.TLS.ACME)},
		{"public", fmt.Sprint(old.Public), fmt.Sprint(cfg.Public)},
		{"dns", fmt.Sprint(old.DNS), fmt.Sprint(cfg.DNS)},
		{"delivery.reuse", old.Delivery.Reuse, cfg.Delivery.Reuse},
		{"spool.dir, min_free and destination_port", fmt.Sprint(old.Spool.Dir, old.Spool.MinFree, old.Spool.Destination), fmt.Sprint(cfg.Spool.Dir, cfg.Spool.MinFree, cfg.Spool.Destination)},
		{"delivery.chunks", old.Delivery.Chunks, cfg.Delivery.Chunks},
		{"smtp.greeting_wait", old.SMTP.GreetingWait, cfg.SMTP.GreetingWait},
	} {
		if k.old != k.new {
			keys = append(keys, k.name)
		}
	}
	return keys
}
