package intercept

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"sluice/bpf"
	"sluice/intercept/attach"
	"sluice/intercept/control"
	"sluice/intercept/ruleset"
)

const (
	saveDelay    = 200 * time.Millisecond // several changes in a row are one write
	handBackWait = 5 * time.Second        // for a listener, before programs are moved to maps that lack it
)

// Engine holds the kernel's state of one gateway.
type Engine struct {
	log      *slog.Logger
	kernel   *attach.Kernel
	data     datapath
	seats    seats
	others   func() error // removes what the ways that are not in use left in the kernel
	adopted  memory       // the same as data, if what an earlier helper left can be read back; else nil
	beat     *control.Heartbeat
	socket   socket
	houses   houses
	quarters quarters
	leaving  leaving
	locks    locks
	bypasses bypasses
	rights   atomic.Bool // those for making and entering a room were given away
	swapped  atomic.Bool // the programs of this process are attached
	journal  *journal
	save     chan struct{} // something on disk is out of date
	port     uint16        // that the socket is bound to

	change  sync.Mutex // one change of tables at a time; a million sources take seconds
	seating sync.Mutex // one change at the interfaces at a time

	mu       sync.RWMutex // guards what follows, for moments only; changed under both
	cfg      *Config
	ceiling  *ceiling
	runtime  *runtimeSet
	exempt   []control.Exemption // what the proxy added to those of the configuration
	inKernel int                 // sources in the kernel's table
	closed   int                 // those of them that are
	local    []netip.Prefix
	ifaces   map[int]attach.Interface // by index
	names    names                    // of all interfaces, for what is bound to them
	problems []string
}

// Open adopts what an earlier helper left pinned, or begins anew, and reads the last applied state. The kernel does not
// change before Run, but for maps that are made.
func Open(cfg *Config, log *slog.Logger) (*Engine, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(cfg.StateDir, 0o700); err != nil {
		return nil, err
	}
	e := &Engine{log: log, cfg: cfg, port: cfg.ListenPort, ceiling: newCeiling(cfg), runtime: new(runtimeSet), save: make(chan struct{}, 1),
		bypasses: bypasses{dir: cfg.StateDir, log: log}, journal: &journal{dir: cfg.StateDir, log: log}}
	e.ceiling.names = &e.names
	if err := e.open(); err != nil {
		return nil, errors.Join(err, e.Close())
	}
	return e, nil
}

func (e *Engine) open() (err error) {
	if e.kernel, err = attach.Open(); err != nil {
		return err
	}
	if err := e.openPath(); err != nil {
		return err
	}
	path, reason := e.seats.Path()
	e.log.Info("data path", "path", path, "reason", reason)
	if e.beat, err = control.OpenHeartbeat(e.data.HeartbeatFile()); err != nil {
		return err
	}
	return e.recall()
}

// Close lets go of everything; the kernel's state stays in force.
func (e *Engine) Close() error {
	var errs []error
	if e.beat != nil {
		errs = append(errs, e.beat.Close())
	}
	errs = append(errs, e.socket.close(), e.houses.close(), e.journal.close())
	e.quarters.close()
	e.leaving.close()
	if e.data != nil {
		errs = append(errs, e.data.Close())
	}
	if e.kernel != nil {
		e.kernel.Close()
	}
	return errors.Join(errs...)
}

// Run brings the kernel to the desired state and keeps it there until the context ends; the state then stays in force.
// It calls ready once everything that can stand stands. serve answers the proxy and may be nil.
func (e *Engine) Run(ctx context.Context, serve func(context.Context) error, ready func()) error {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	watcher, err := attach.Watch(ctx, attach.ManyLinks) // before the first look, so that nothing falls between
	if err != nil {
		return err
	}
	if err := e.prepare(); err != nil {
		return err
	}
	failed := make(chan error, 1)
	if serve != nil {
		wg.Go(func() { failed <- serve(ctx) })
	}
	wg.Go(func() { e.keepSocket(ctx) })
	if e.lost("listeners") || e.lost("heartbeat") {
		e.awaitProxy(ctx)
	}
	if err := e.swap(); err != nil {
		e.log.Error("kernel state is not as desired; it is tried again", "error", err)
	}
	wg.Go(func() { e.keepSaved(ctx) })
	wg.Go(func() { e.watchHeart(ctx) })
	e.dropRights()
	ready()
	return e.keep(ctx, watcher, failed)
}

// prepare does everything but the programs: listening socket, routing, tables.
func (e *Engine) prepare() error {
	e.change.Lock()
	defer e.change.Unlock()
	if err := e.openSocket(); err != nil && !held(err) { // first, since it decides about the routing
		return err
	}
	_ = e.houses.open(e.cfg.Houses) // what a proxy still holds it hands back; keepHouses tells of the rest
	if err := e.applyTables(e.cfg, e.ceiling); err != nil {
		return err
	}
	return e.setGuards() // which programs bring with them when they are attached
}

// plan returns the routing that cfg needs now.
func (e *Engine) plan(cfg *Config) ruleset.Plan {
	if e.ruled() {
		return cfg.Plan()
	}
	return cfg.Plan().WithRoom()
}

// applyTables brings routing and tables to cfg. Old rules go only after the data path has left their marks.
func (e *Engine) applyTables(cfg *Config, ce *ceiling) error {
	plan := e.plan(cfg)
	if _, _, err := e.kernel.ApplyRouting(plan, false); err != nil {
		return err
	}
	if err := e.fill(cfg, ce); err != nil {
		return err
	}
	if err := e.commit(); err != nil {
		return err
	}
	if !e.swapped.Load() { // programs that another process left are attached, perhaps with other marks; see swap
		return nil
	}
	_, conflicts, err := e.kernel.ApplyRouting(plan, true)
	if err != nil {
		return err
	}
	e.note(append(conflicts, attach.CheckSysctls(plan)...))
	return nil
}

// note logs problems that are new.
func (e *Engine) note(problems []string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, p := range problems {
		if !slices.Contains(e.problems, p) {
			e.log.Warn(p)
		}
	}
	e.problems = problems
}

// fill writes the tables, strictness first: who is local and whose address is ours, then modes.
func (e *Engine) fill(cfg *Config, ce *ceiling) error {
	if err := e.fillLocal(); err != nil {
		return err
	}
	if _, err := e.data.ReplaceDelivery(cfg.ours()); err != nil {
		return err
	}
	// A source that goes from the table to the default must not meet the old default, if that was looser.
	want, err := e.withPorts(cfg)
	if err != nil {
		return err
	}
	strict, was := want, e.data.Default()
	strict.Default.Mode, strict.Default.Fail = max(strict.Default.Mode, was.Mode), max(strict.Default.Fail, was.Fail)
	if err := e.guard(strict.Default.Fail == bpf.FailClosed); err != nil {
		return err
	}
	if err := e.data.SetConfig(strict); err != nil {
		return err
	}
	if err := e.fillSources(ce, e.runtime); err != nil {
		return err
	}
	if err := e.fillExemptions(ce, e.exempt); err != nil {
		return err
	}
	return e.data.SetConfig(want)
}

func (e *Engine) fillLocal() error {
	local, err := e.kernel.Local()
	if err != nil {
		return err
	}
	if slices.Equal(local, e.local) {
		return nil
	}
	if _, err := e.data.ReplaceLocal(local); err != nil {
		return err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.local = local
	return nil
}

// Reconcile looks at the kernel and mends what is not as desired. It costs little when nothing is to do.
func (e *Engine) Reconcile() error {
	if !e.swapped.Load() {
		return e.swap()
	}
	e.dropRights()
	e.keepHouses()
	var left error
	if !e.leaving.over() {
		left = e.others()
	}
	if err := errors.Join(left, e.keepQuarters(), e.reconcileRouting(), e.keepGuards()); err != nil {
		return err
	}
	return e.attach()
}

func (e *Engine) reconcileRouting() error {
	e.change.Lock()
	defer e.change.Unlock()
	plan := e.plan(e.cfg)
	changes, conflicts, err := e.kernel.ApplyRouting(plan, true)
	if err != nil {
		return err
	}
	if changes > 0 {
		e.log.Warn("rules or routes of ours were missing and are back", "changes", changes)
	}
	e.note(append(conflicts, attach.CheckSysctls(plan)...))
	return e.fillLocal()
}

// Reload brings another configuration into force. After an error that names a setting nothing has changed.
func (e *Engine) Reload(cfg *Config) error {
	if err := cfg.Validate(); err != nil {
		return err
	}
	if err := e.reload(cfg); err != nil {
		return err
	}
	return e.attach()
}

func (e *Engine) reload(cfg *Config) error {
	e.change.Lock()
	defer e.change.Unlock()
	if key := e.cfg.restartOnly(cfg); key != "" {
		return fmt.Errorf("%s changed, which needs a restart of sluice-intercept", key)
	}
	ce := newCeiling(cfg)
	ce.names = &e.names
	if err := e.applyTables(cfg, ce); err != nil {
		return errors.Join(err, e.applyTables(e.cfg, e.ceiling))
	}
	e.mu.Lock()
	e.cfg, e.ceiling = cfg, ce
	e.mu.Unlock()
	e.keepHouses()
	return e.socket.shut(e.port, cfg.ports())
}
