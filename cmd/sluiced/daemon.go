package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"sluice/cmd/internal/api"
	"sluice/cmd/internal/config"
	"sluice/cmd/internal/inflight"
	"sluice/cmd/internal/msglog"
	"sluice/cmd/internal/public"
	"sluice/cmd/internal/resolver"
	"sluice/cmd/internal/store"
	"sluice/filter"
	"sluice/filter/identity"
	"sluice/filter/limit"
	"sluice/filter/lock"
	"sluice/filter/policy"
	"sluice/filter/reputation"
	"sluice/filter/reputation/trap"
	"sluice/filter/scanner"
	"sluice/filter/sender"
	"sluice/filter/sign"
	"sluice/intercept/control"
	"sluice/intercept/flow"
	"sluice/proxy"
	"sluice/proxy/auth"
	"sluice/proxy/cert"
	"sluice/proxy/cert/acme"
	"sluice/proxy/distrust"
	"sluice/proxy/pool"
	"sluice/proxy/quarantine"
	"sluice/proxy/relay"
)

// options are what tests set.
type options struct {
	log         *slog.Logger
	socket      *os.File                            // accept here instead of asking the helper
	ports       []uint16                            // its port
	local       bool                                // connections to this host's own addresses are mail too
	target      func(netip.AddrPort) netip.AddrPort // where a flow was going; nil leaves it
	ready       func()                              // called when connections are accepted
	undelivered bool                                // what is in the spool stays there
}

// daemon is the whole program; it is made, run once, and closed by the end of the run.
type daemon struct {
	o       options
	log     *slog.Logger
	started time.Time
	systemd supervisor

	store     *store.Store
	messages  *msglog.Log
	tally     *tally
	journal   *inflight.Journal
	counts    *countsFile
	choices   *choicesFile
	school    *schoolFile
	traps     *trap.Traps
	trace     *sign.Tracer
	reports   reports
	campaigns *campaignsFile
	held      *quarantine.Box
	patience  *patienceFile
	habits    *habitsFile
	senders   *sendersFile
	policy    *policy.Table
	locks     *lock.Locks
	queueing  atomic.Bool // the queue stands
	conduct   *keptFile   // what speaks against senders who are not locked
	gate      *limit.Sessions

	identities *identity.Book
	survey     identity.Survey // of what could tell identities
	odds       oddities
	addresses  *sender.Lists
	dns        *resolver.Resolver
	lifts      sync.Map // of user ids: *store.Lift, what holds for a time
	elsewhere  elsewhere
	plugins    *scanner.Plugins
	lists      *reputation.Lists
	checks     *filter.Pipeline // made once: its checks count, and read the policy as it changes
	busy       *filter.Turns    // of what keeps a processor busy, sessions and checks alike
	proxy      *proxy.Server
	api        *api.Server
	link       *link
	locals     *locals
	sources    *flow.Attribution
	ids        *flow.IDs
	made       chan policy.Listed // users made for unknown sources that the kernel has not heard of

	logins         logins
	guard          *auth.Guard
	door           *auth.Door
	savingGuessers sync.Mutex
	acme           *acme.Manager // nil: no authority is asked
	acmeReady      chan struct{} // closed once all ports are open where it looks
	acmeOnce       sync.Once
	connectors     atomic.Pointer[[]connector]
	keeper         keeper
	waiting        *limit.Waiting // in the queue, and on the way into it
	observations   observations
	figures        userFigures
	admin          *adminDoor
	authority      *pool.Authority
	pools          *poolGate
	repool         chan struct{} // other delivery addresses are in use
	tlsRules       *tlsRules
	distrust       *distrust.Ledger
	told           [2]toldBudget // of clients that refuse the certificate
	reporting      chan struct{} // held by the one reader of the whole log
	unenforced     *unenforced
	onward         *onward
	groups         atomic.Pointer[groupsNow]
	dialer         *relay.Dialer
	notices        *notices
	samples        *samples
	public         *public.Server // nil: there are no pages
	publicTLS      *tls.Config    // of the pages; made once, so that a browser's tickets hold
	linking        sync.Mutex     // one unlock by link at a time
	deciding       sync.Mutex     // one appeal at a time
	mail           *mailQueue

	cfg    atomic.Pointer[loaded]
	roster atomic.Pointer[roster]
	rules  atomic.Pointer[rules]
	ruled  chan struct{} // the rules changed
	opined chan struct{} // plug-ins or lists changed
	second atomic.Bool   // another process ran when this one started
	untold atomic.Bool   // the helper did not take all that it was told
	certs  atomic.Pointer[cert.Store]

	audits    sync.WaitGroup // entries of the audit log on their way
	change    sync.Mutex     // one change of users or configuration at a time
	rolling   sync.Mutex     // one step of a roll-out at a time
	accepting sync.Mutex     // guards acceptors
	acceptors []*acceptor
	houses    []*house // of the smarthost
	stopped   bool

	serving    chan struct{} // closed when connections are accepted for the first time
	apiOpen    chan struct{} // closed when the API's socket is this process's
	handedOver chan struct{} // closed when another process accepts instead
	succeeding atomic.Bool   // a successor was started and has not ended
}

// loaded is a configuration with what became of the last attempt to replace it.
type loaded struct {
	*config.Config
	at  time.Time
	err string // why the last reload was refused
}

// newDaemon opens everything that does not need the helper. What it opened is closed again when it fails.
func newDaemon(cfg *config.Config, o options) (_ *daemon, err error) {
	d := &daemon{o: o, log: o.log, started: time.Now(), systemd: newSupervisor(), ids: flow.NewIDs(time.Now()), identities: identity.NewBook(0), made: make(chan policy.Listed, control.MaxPutUsers),
		ruled: make(chan struct{}, 1), repool: make(chan struct{}, 1), opined: make(chan struct{}, 1), serving: make(chan struct{}), apiOpen: make(chan struct{}), handedOver: make(chan struct{}), reporting: make(chan struct{}, 1)}
	d.cfg.Store(&loaded{Config: cfg, at: time.Now()})
	defer func() {
		if err != nil {
			err = errors.Join(err, d.closeFiles())
		}
	}()
	if err := d.openFiles(cfg); err != nil {
		return nil, err
	}
	if err := d.loadIdentities(); err != nil {
		return nil, err
	}
	r, settings, err := newRoster(d.store, cfg)
	if err != nil {
		return nil, err
	}
	d.roster.Store(r)
	rs, err := newRules(cfg, d.store)
	if err != nil {
		return nil, err
	}
	d.rules.Store(rs)
	sts := stsFile(filepath.Join(cfg.Store.Dir, "mta-sts.json"))
	if d.onward, err = newOnward(cfg, sts, func(err error) { d.log.Warn("onward encryption", "err", err) }); err != nil {
		return nil, err
	}
	d.tally.asked = &d.onward.asked
	if err := d.openTLS(cfg); err != nil {
		return nil, err
	}
	d.policy = policy.NewTable(defaultSettings(cfg))
	d.policy.Configure(settings)
	d.addresses = sender.NewLists(d.policy)
	if err := d.loadSettings(); err != nil {
		return nil, err
	}
	d.plugins = scanner.New(d.policy, d.pluginEvent)
	d.plugins.Configure(pluginOptions(cfg.Plugin))
	d.lists = d.newLists()
	d.lists.Configure(listOptions(cfg.DNSList))
	d.traps = trap.New(d.trapped)
	d.traps.Configure(cfg.Reports.Traps)
	d.sources = flow.NewAttribution(r.table, flow.Template{V4: cfg.Template.IPv4, V6: cfg.Template.IPv6}, d.maker(cfg))
	if err := d.listInflight(cfg, r); err != nil {
		return nil, err
	}
	d.link = &link{path: cfg.Intercept.ControlSocket, log: d.log, prefixes: func(u uint32) []netip.Prefix { return d.roster.Load().prefixes(u) }}
	d.locals = &locals{log: d.log}
	dns := resolver.New(resolver.Options{Backend: dnsBackend(&cfg.DNS)})
	d.dns = dns
	d.authority, d.admin = newAuthority(dns), newAdminDoor(dns)
	if err := d.openDoor(); err != nil {
		return nil, err
	}
	d.domainLogins()
	d.locals.refresh()
	if d.notices, err = openNotices(d, cfg); err != nil {
		return nil, err
	}
	if d.public, err = newPublic(d, cfg); err != nil {
		return nil, err
	}
	d.locks, err = lock.New(lock.Deps{Settings: settingsOf{d.policy}, Blocker: d.link, Store: d.store, Events: d.lockEvent})
	if err != nil {
		return nil, err
	}
	if d.conduct, err = openConduct(cfg.Store.Dir, d.locks); err != nil {
		if d.conduct.files[0] == nil {
			return nil, fmt.Errorf("could not open what is known of senders: %w; it must belong to the user that runs sluiced", err)
		}
		d.log.Error("could not restore what speaks against senders; they begin anew", "err", err)
	}
	if d.unenforced, err = newUnenforced(d.policy, d.pipeline, d.wouldLock); err != nil {
		return nil, err
	}
	d.keeper = keeper{d}
	d.waiting = limit.NewWaiting(func(user uint32) int { return d.mail.waiting(user) })
	d.tally.learn = d.learn
	if err := d.makeProxy(cfg); err != nil {
		return nil, err
	}
	if d.mail, err = newMailQueue(d, cfg); err != nil {
		return nil, err
	}
	return d, nil
}

// maker makes users for unknown sources, or refuses to. The kernel hears of them a moment later, for its counters.
func (d *daemon) maker(cfg *config.Config) flow.Maker {
	if cfg.Template.Unknown == "refuse" {
		return nil
	}
	return func(p netip.Prefix) (flow.User, error) {
		u, err := d.store.MakeUser(p)
		if err != nil {
			d.log.Error("could not make a user for an unknown source", "source", p, "err", err)
			return u, err
		}
		select {
		case d.made <- policy.Listed{ID: u.ID, Prefixes: []netip.Prefix{p}}:
		default: // it is told with the next whole set
		}
		return u, nil
	}
}

// lockEvent tells what happened to a lock to the journal and the audit log. It is called in the way of mail.
func (d *daemon) lockEvent(e lock.Event) {
	l := &e.Lock
	switch e.Kind {
	case lock.Failed:
		d.log.Error("kernel or disk did not take a lock; it holds in memory and is tried again", "user", l.User.Name, "ticket", l.Ticket, "err", e.Err)
		return
	case lock.Brake:
		d.log.Error("a check locked too many users within a short time; it locks nobody for now and still refuses", "check", l.Check, "next", l.User.Name,
			"remedy", "look at `sluice locks`; `sluice undo --check "+l.Check+" --since TIME` lifts them all")
	case lock.Alarm:
		d.log.Warn("a user sends bad mail and is not locked by itself", "user", l.User.Name, "identity", l.Identity, "code", l.Code, "reason", l.Reason)
	default:
		d.log.Warn("lock "+e.Kind.String(), "user", l.User.Name, "identity", l.Identity, "ticket", l.Ticket, "code", l.Code, "reason", l.Reason, "until", l.Until, "by", l.By)
	}
	act := store.Act{At: e.At, Who: "sluiced", What: "lock " + e.Kind.String(), Subject: l.Name(), Detail: l.Ticket + " " + l.Code + " " + l.Reason}
	switch {
	case e.Who != "":
		act.Who = e.Who
	case l.EndedBy != "":
		act.Who = l.EndedBy
	case e.Kind == lock.Locked && l.By != "":
		act.Who = l.By
	}
	if e.Kind == lock.Locked || e.Kind == lock.Unlocked {
		d.tellOthers(note{Lock: l})
	}
	d.lockedQueue(&e)
	d.notices.heard(e)
	if e.Kind == lock.Locked {
		d.audits.Go(func() { d.keepEvidence(l) })
	}
	if e.Kind == lock.Locked && l.Identity == "" {
		d.proxy.Locked(l.User.ID)
	}
	d.audits.Go(func() {
		if err := d.store.Audit(act); err != nil {
			d.log.Error("could not write the audit log", "act", act.What, "user", act.Subject, "err", err)
		}
	})
}

// Run serves until ctx ends, then lets transactions finish.
func (d *daemon) Run(ctx context.Context) error {
	cfg := d.cfg.Load()
	l, err := d.listenAPI()
	if err != nil {
		return errors.Join(err, d.closeFiles())
	}
	d.api = api.NewServer(d.backend(), d.log)
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	apiDone := make(chan error, 1)
	go func() {
		err := d.serveAPI(ctx, l)
		if err != nil {
			cancel(err)
		}
		apiDone <- err
	}()
	d.log.Info("started", "version", version, "gateway", cfg.Gateway.Name, "config", cfg.File, "users", len(d.roster.Load().all()), "locks", len(d.locks.List()))

	var background sync.WaitGroup
	if d.o.socket != nil {
		if err := d.take(d.o.socket, &control.Welcome{Ports: d.o.ports}); err != nil {
			d.log.Error("could not accept", "err", err)
		}
	} else {
		background.Go(func() { d.keepHelper(ctx) })
	}
	background.Go(func() { d.housekeeping(ctx) })
	background.Go(func() { d.enlist(ctx) })
	background.Go(func() { d.keepRules(ctx) })
	background.Go(func() { d.keepAdmin(ctx) })
	background.Go(func() { d.keepOnward(ctx) })
	background.Go(func() { d.keepIdentities(ctx) })
	background.Go(func() { d.keepKept(ctx, &d.counts.keptFile, "limits begin anew after a restart") })
	background.Go(func() {
		d.keepKept(ctx, &d.school.keptFile, "the learned content filter has to prove itself anew after a restart")
	})
	background.Go(func() { d.keepLessons(ctx) })
	background.Go(func() { d.keepReports(ctx) })
	background.Go(func() { d.keepOpinions(ctx) })
	background.Go(func() { d.keepQuarantine(ctx) })
	background.Go(func() { d.judgeAgain(ctx) })
	background.Go(func() {
		d.keepKept(ctx, &d.campaigns.keptFile, "what was held as a campaign passes after a restart")
	})
	background.Go(func() {
		d.keepKept(ctx, &d.patience.keptFile, "what was put off to be judged again waits once more after a restart")
	})
	background.Go(func() { d.keepKept(ctx, &d.habits.keptFile, "what senders usually do is learnt anew after a restart") })
	background.Go(func() {
		d.keepKept(ctx, &d.senders.keptFile, "senders that were found in users' mail are found anew after a restart")
	})
	background.Go(func() { d.keepKept(ctx, d.conduct, "who has come near a lock begins anew after a restart") })
	background.Go(func() { d.keepKept(ctx, &d.choices.keptFile, "some mail leaves from another address after a restart") })
	background.Go(func() { d.keepTLS(ctx) })
	background.Go(func() { d.keepACME(ctx) })
	background.Go(func() { d.keepPools(ctx) })
	background.Go(func() { d.keepUsing(ctx) })
	background.Go(func() { keepMemory(ctx) })
	background.Go(func() { d.keepPublic(ctx) })
	background.Go(func() { d.countVerdicts(ctx) })
	background.Go(func() { d.notices.keep(ctx) })
	background.Go(func() { d.takeObserved(ctx) })
	if !d.o.undelivered {
		d.mail.start()
		d.queueing.Store(true)
		if err := d.mail.matchLocks(); err != nil {
			d.log.Error("could not hold what locked senders have in the queue", "err", err)
		}
	}
	background.Go(func() { d.mail.keep(ctx) })
	var apiClosed error
	select {
	case <-ctx.Done():
	case <-d.handedOver:
		apiClosed = d.api.Close()
		d.finish(ctx)
	}
	d.drain()
	d.mail.stop(context.Background(), d.cfg.Load().SMTP.Drain.D())
	cancel(nil)
	background.Wait()
	return errors.Join(apiClosed, d.api.Close(), <-apiDone, d.closeFiles())
}

// housekeeping follows changes of the host's addresses.
func (d *daemon) housekeeping(ctx context.Context) {
	t := time.NewTicker(localsAge)
	defer t.Stop()
	for {
		select {
		case <-t.C:
			d.locals.refresh()
		case <-ctx.Done():
			return
		}
	}
}

// watchdog returns what tells systemd, often enough, that the accept loop runs.
func (d *daemon) watchdog() func() {
	if d.systemd.watchdog == 0 {
		return nil
	}
	var last time.Time
	return func() {
		if time.Since(last) >= d.systemd.watchdog/2 {
			last = time.Now()
			_ = d.systemd.alive() // systemd says itself what it misses
		}
	}
}

// serve leads one session, and calls done when it has ended.
func (d *daemon) serve(c *flow.Conn, done func()) {
	f := c.Attributed()
	if d.o.target != nil {
		other := *f
		other.Target, f = d.o.target(f.Target), &other
	}
	if d.shadowed(f) {
		defer done()
		d.proxy.ServeShadow(context.Background(), c, f)
		return
	}
	d.proxy.ServeConn(context.Background(), c, f, done)
}

func (d *daemon) full() bool { return d.proxy.Sessions() >= d.cfg.Load().SMTP.Sessions }

// drain is the planned end: connections wait in the kernel from now on, transactions finish, other sessions hear 421.
func (d *daemon) drain() {
	cfg := d.cfg.Load()
	acceptors := d.announce(cfg)
	ctx, cancel := context.WithTimeout(context.Background(), cfg.SMTP.Drain.D())
	defer cancel()
	if err := d.proxy.Shutdown(ctx); err != nil {
		d.log.Warn("some transactions did not finish in time; their clients will try again", "err", err)
	}
	d.handBack()
	d.closeListeners(acceptors)
	d.closeHouses()
}

// announce stops accepting and has the kernel let connections wait. After a hand-over there is nothing of the kind to do.
func (d *daemon) announce(cfg *loaded) []*acceptor {
	d.accepting.Lock()
	defer d.accepting.Unlock()
	if d.retired() {
		d.log.Info("ending after the hand-over", "sessions", d.proxy.Sessions())
		return nil
	}
	d.stopped = true
	_ = d.systemd.stopping() // it sent the signal: it knows
	d.log.Info("stopping: new connections wait in the kernel", "sessions", d.proxy.Sessions(), "at most", cfg.SMTP.Drain)
	for _, h := range d.houses {
		h.stop()
	}
	for _, a := range d.acceptors {
		a.stop()
		if h := a.beat.Load(); h != nil {
			h.AnnounceRestart(control.MaxRestart)
		}
	}
	return d.acceptors
}
