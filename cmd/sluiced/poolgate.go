package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"sluice/cmd/internal/config"
	"sluice/cmd/internal/resolver"
	"sluice/proxy/durable"
	"sluice/proxy/pool"
)

// poolGate watches the delivery addresses, and remembers on disk what is known of them.
type poolGate struct {
	*pool.Gate
	d    *daemon
	file string
	dns  poolNames
	now  chan chan struct{} // a check of all is asked for; closed when it is done
	conf atomic.Pointer[poolConfig]

	slots  pool.Slots
	moves  atomic.Uint64 // addresses that went out or came in
	inUse  atomic.Uint64 // of these, those that are in force
	saving sync.Mutex
}

// savedPools is what is on disk.
type savedPools struct {
	Addresses []pool.Condition `json:"addresses"`
	Sent      []pool.Count     `json:"sent,omitempty"`
}

// poolConfig is what a configuration says of them.
type poolConfig struct {
	defs     []pool.Definition
	prefixes []config.Prefix
	lists    []pool.List
	every    time.Duration
}

const (
	presentEvery  = 5 * time.Second  // between two looks whether addresses are on this host
	inspectWait   = 20 * time.Second // for the DNS to answer about one address
	inspectAtOnce = 8
	slotWait      = 10 * time.Second // for a connection where as many are open as may be
)

// newPoolGate reads what an earlier process knew, and looks which addresses are here.
func newPoolGate(d *daemon, cfg *config.Config) (*poolGate, error) {
	g := &poolGate{d: d, file: filepath.Join(cfg.Store.Dir, "pools.json"), dns: poolNames{dnsBackend(&cfg.DNS)}, now: make(chan chan struct{})}
	var known savedPools
	text, err := os.ReadFile(g.file)
	if err == nil {
		err = json.Unmarshal(text, &known)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("could not read what is known of delivery addresses: %w; remove %s, and suspend again what was suspended", err, g.file)
	}
	g.Gate = pool.NewGate(known.Addresses, g.moved)
	d.authority.Ledger.Restore(known.Sent)
	g.configure(cfg)
	return g, nil
}

// configure takes a configuration, and looks which of its addresses are here.
func (g *poolGate) configure(cfg *config.Config) {
	c := &poolConfig{defs: definitions(&cfg.Delivery), prefixes: cfg.Delivery.Prefixes, every: cfg.Delivery.CheckEvery.D()}
	for i := range cfg.Delivery.List {
		l := &cfg.Delivery.List[i]
		one := pool.List{Zone: l.Zone}
		for _, code := range l.Codes {
			if r, err := l.Range(code); err == nil { // validated
				one.Codes = append(one.Codes, r)
			}
		}
		c.lists = append(c.lists, one)
	}
	g.conf.Store(c)
	terms := pool.Terms{PerHour: cfg.Delivery.PerHour, WarmUp: cfg.Delivery.WarmUp, New: map[netip.Addr]time.Time{}}
	for _, a := range cfg.Delivery.Address {
		if !a.NewSince.IsZero() {
			terms.New[a.Address] = a.NewSince
		}
	}
	g.d.authority.Ledger.Configure(terms)
	g.slots.Configure(cfg.Delivery.PerAddress)
	g.Configure(c.defs, time.Now())
	g.look()
}

// set makes the pools of what is in use, to be put in force.
func (g *poolGate) set() (*pool.Set, error) {
	g.inUse.Store(g.moves.Load())
	return pool.NewSet(g.conf.Load().defs, g.Use)
}

// definitions are the pools of a configuration; an address of weight 0 is known to the helper but sends nothing.
func definitions(d *config.Delivery) (defs []pool.Definition) {
	by, taken := map[netip.Addr]pool.Address{}, map[netip.Addr]bool{}
	for _, a := range d.Address {
		if a.Weight > 0 {
			by[a.Address] = pool.Address{IP: a.Address, Helo: a.Helo, Weight: a.Weight}
		}
	}
	primary := pool.Definition{Name: pool.Primary}
	for _, p := range d.Pool {
		def := pool.Definition{Name: p.Name, Own: p.Own, Users: p.Users, Senders: p.Senders, Class: map[string]pool.Class{"bounce": pool.Bounce, "risk": pool.Risk, "forwarded": pool.Forwarded}[p.Class]}
		for _, a := range p.Addresses {
			taken[a] = true
			def.Addresses = append(def.Addresses, by[a])
		}
		if p.Name == pool.Primary {
			primary.Name = ""
		}
		defs = append(defs, def)
	}
	if primary.Name == "" {
		return defs
	}
	for _, a := range d.Address {
		if a.Weight > 0 && !taken[a.Address] {
			primary.Addresses = append(primary.Addresses, by[a.Address])
		}
	}
	return append(defs, primary)
}

// moved tells that an address went out or came in.
func (g *poolGate) moved(before, after pool.Condition) {
	g.moves.Add(1)
	g.d.repoolSoon()
	if after.Out {
		g.d.log.Warn("a delivery address is not used any more", "address", after.IP, "pools", g.Pools(after.IP), "why", after.Why())
		return
	}
	g.d.log.Info("a delivery address is used again", "address", after.IP, "pools", g.Pools(after.IP), "was", before.Why())
}

// present tells whether an address is this host's: a socket can be bound to it, or its prefix is made local.
func (g *poolGate) present(ip netip.Addr) bool {
	if slices.ContainsFunc(g.conf.Load().prefixes, func(p config.Prefix) bool { return p.Contains(ip) }) {
		return true
	}
	c, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(ip, 0)))
	if err != nil {
		return false
	}
	return c.Close() == nil
}

// look sees which addresses are on this host.
func (g *poolGate) look() {
	for _, c := range g.List() {
		g.lookAt(c.IP)
	}
}

func (g *poolGate) lookAt(ip netip.Addr) {
	var faults []pool.Fault
	if !g.present(ip) {
		faults = []pool.Fault{{Kind: pool.Absent, Text: fmt.Sprintf("%v is not on this host, nor inside delivery.prefixes; add it, or its prefix", ip)}}
	}
	g.Found(ip, []pool.FaultKind{pool.Absent}, faults, "", time.Now())
}

// leave is asked before each connection from a delivery address: one that was taken from the host sends nothing, and no
// other sends in its place.
func (g *poolGate) leave(ctx context.Context, source netip.Addr, target netip.AddrPort) (func(), error) {
	c, ok := g.Get(source)
	if ok && !c.Out && !g.present(source) {
		g.lookAt(source)
		c, _ = g.Get(source)
	}
	if ok && c.Out {
		return nil, errors.New(c.Why())
	}
	ctx, cancel := context.WithTimeout(ctx, slotWait)
	defer cancel()
	return g.slots.Enter(ctx, source, target.Addr())
}

// inspect checks one address by the DNS. An address of the loopback interface has no names.
func (g *poolGate) inspect(ctx context.Context, a pool.Address) {
	if a.IP.IsLoopback() {
		g.Found(a.IP, []pool.FaultKind{pool.Name, pool.Listed}, nil, "", time.Now())
		return
	}
	ctx, cancel := context.WithTimeout(ctx, inspectWait)
	defer cancel()
	kinds, faults, unsure := pool.Inspect(ctx, g.dns, a, g.conf.Load().lists)
	g.Found(a.IP, kinds, faults, unsure, time.Now())
}

// inspectAll checks all addresses, or one.
func (g *poolGate) inspectAll(ctx context.Context, only netip.Addr) {
	var work sync.WaitGroup
	slots, seen := make(chan struct{}, inspectAtOnce), map[netip.Addr]bool{}
	for _, d := range g.conf.Load().defs {
		for _, a := range d.Addresses {
			if seen[a.IP] || only.IsValid() && a.IP != only {
				continue
			}
			seen[a.IP] = true
			work.Go(func() {
				slots <- struct{}{}
				defer func() { <-slots }()
				g.lookAt(a.IP)
				g.inspect(ctx, a)
			})
		}
	}
	work.Wait()
}

// check has all addresses, or one, checked now.
func (g *poolGate) check(ctx context.Context, only netip.Addr) error {
	g.inspectAll(ctx, only)
	return g.save()
}

// save writes what is known.
func (g *poolGate) save() error {
	g.saving.Lock()
	defer g.saving.Unlock()
	text, err := json.Marshal(savedPools{g.List(), g.d.authority.Ledger.Counts()})
	if err != nil {
		return err
	}
	return durable.WriteFile(g.file, text, 0o600)
}

// keepPools watches the delivery addresses until ctx ends.
func (d *daemon) keepPools(ctx context.Context) {
	g := d.pools
	every := time.NewTimer(0)
	here, save := time.NewTicker(presentEvery), time.NewTicker(savedEvery)
	defer save.Stop()
	defer every.Stop()
	defer here.Stop()
	for {
		select {
		case <-ctx.Done():
			if !d.retired() {
				_ = g.save() // what is not there is counted anew
			}
			return
		case <-save.C:
			if d.authority.Ledger.Bounds() && !d.retired() {
				_ = g.save() // the next check says why it cannot be
			}
		case <-here.C:
			g.look()
		case <-every.C:
			g.inspectAll(ctx, netip.Addr{})
			if d.retired() {
				continue
			}
			if err := g.save(); err != nil {
				d.log.Warn("could not save what is known of delivery addresses", "err", err)
			}
			p := g.conf.Load().every
			every.Reset(p - p/8 + rand.N(p/4+1))
		}
	}
}

// keepUsing puts in force what the gate decides, at once, until ctx ends.
func (d *daemon) keepUsing(ctx context.Context) {
	for {
		select {
		case <-d.repool:
			d.usePools()
		case <-ctx.Done():
			return
		}
	}
}

// repoolSoon has the pools made anew.
func (d *daemon) repoolSoon() {
	select {
	case d.repool <- struct{}{}:
	default:
	}
}

// usePools puts the addresses in force that are in use.
func (d *daemon) usePools() {
	d.change.Lock()
	defer d.change.Unlock()
	if d.pools.inUse.Load() == d.pools.moves.Load() {
		return
	}
	set, err := d.pools.set()
	if err == nil {
		err = d.proxy.Configure(d.proxySettings(d.cfg.Load().Config, set))
	}
	if err != nil { // both were good before
		d.log.Error("could not put the delivery addresses in force", "err", err)
		return
	}
	d.locals.pools.Store(set)
}

// poolNames asks the DNS about names; what the DNS does not have is no error.
type poolNames struct{ resolver.Backend }

// Pointers are the names of an address.
func (n poolNames) Pointers(ctx context.Context, ip netip.Addr) ([]string, error) {
	names, err := n.LookupAddr(ctx, ip.String())
	if resolver.NotFound(err) {
		return nil, nil
	}
	return names, err
}

// Addresses are those of a name.
func (n poolNames) Addresses(ctx context.Context, name string) (out []netip.Addr, err error) {
	as, err := n.LookupIPAddr(ctx, strings.TrimSuffix(name, ".")+".")
	if resolver.NotFound(err) {
		return nil, nil
	}
	for _, a := range as {
		if ip, ok := netip.AddrFromSlice(a.IP); ok {
			out = append(out, ip.Unmap())
		}
	}
	return out, err
}
