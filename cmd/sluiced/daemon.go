package main

import (
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
	alarmed    pluginAlarms
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
	dkim           *dkimKeys
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
	backing   sync.Mutex     // one backup at a time
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
	d.alarmed.path = filepath.Join(cfg.Store.Dir, "plugins.json")
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
	d.dns, d.dkim = dns, openDKIM(dkimDir(cfg), d.log)
	d.authority, d.admin = newAuthority(dns), newAdminDoor(dns)
	if err := d.openDoor(); err != nil {
		return nil, err
	}
	d.domainLogins()
	d.locals.refresh()
	if d.notices, err = openNotices(d, cfg); err != nil {
		return nil, err
	}
	d.dkim.hear(d.notices.keyAlarm)
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
