package main

import (
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"sluice/proxy/pool"
)

// locals knows the gateway's own addresses, which are no destination of a customer's mail.
type locals struct {
	log   *slog.Logger
	set   atomic.Pointer[map[netip.Addr]bool]
	pools atomic.Pointer[pool.Set]

	mu    sync.Mutex
	fixed []netip.Addr // what the helper said
	last  time.Time
}

// localsAge is how long the host's addresses are believed unchanged.
const localsAge = 30 * time.Second

// has reports whether a is the gateway's own.
func (l *locals) has(a netip.Addr) bool {
	if p := l.pools.Load(); p != nil && p.Primary().Has(a) {
		return true
	}
	set := l.set.Load()
	return set != nil && (*set)[a]
}

// helper takes the addresses that the helper knows.
func (l *locals) helper(as []netip.Addr) {
	l.mu.Lock()
	l.fixed, l.last = as, time.Time{}
	l.mu.Unlock()
	l.refresh()
}

// refresh looks at the host's interfaces again when the last look was long ago.
func (l *locals) refresh() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if time.Since(l.last) < localsAge {
		return
	}
	l.last = time.Now()
	set := map[netip.Addr]bool{}
	for _, a := range l.fixed {
		set[a] = true
	}
	host, err := net.InterfaceAddrs()
	if err != nil {
		l.log.Warn("could not list the host's addresses; going on with those that sluice-intercept told", "err", err)
	}
	for _, a := range host {
		if n, ok := a.(*net.IPNet); ok {
			if ip, ok := netip.AddrFromSlice(n.IP); ok {
				set[ip.Unmap()] = true
			}
		}
	}
	l.set.Store(&set)
}
