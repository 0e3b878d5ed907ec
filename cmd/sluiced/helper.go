package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync/atomic"
	"time"

	"sluice/filter/lock"
	"sluice/intercept/control"
)

// helperPatience is how long one call to the helper may take.
const helperPatience = 10 * time.Second

// setPatience is how long it may take the whole set, of a million sources.
const setPatience = time.Minute

// link is the connection to sluice-intercept, which may be away for a while.
type link struct {
	path     string
	log      *slog.Logger
	prefixes func(user uint32) []netip.Prefix

	client  atomic.Pointer[control.Client] // nil while the helper is away
	problem atomic.Pointer[string]         // why it is away, or what it did not take
	met     atomic.Bool                    // it was there once
}

var errAway = errors.New("sluice-intercept is away; it is tried again, the kernel goes on with what it has")

// dial connects, however long it takes. Every reason why it does not work is logged once.
func (l *link) dial(ctx context.Context, give func() []control.Listener) (*control.Client, *control.Welcome, error) {
	last := ""
	for wait := 50 * time.Millisecond; ; wait = min(2*wait, 2*time.Second) {
		held := give()
		try, cancel := context.WithTimeout(ctx, helperPatience)
		c, w, err := control.Dial(try, l.path, held)
		cancel()
		for _, h := range held {
			_ = h.File.Close() // a copy; the helper has its own by now
		}
		if err == nil {
			l.met.Store(true)
			l.problem.Store(nil)
			return c, w, nil
		}
		var ce *control.Error
		if errors.As(err, &ce) && ce.Code == control.CodeNotReady {
			wait = 100 * time.Millisecond
		}
		if text := err.Error(); text != last {
			last = text
			l.problem.Store(&text)
			l.log.Warn("waiting for sluice-intercept", "err", err)
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return nil, nil, ctx.Err()
		}
	}
}

// connected tells whether the helper is there now.
func (l *link) connected() bool {
	c := l.client.Load()
	if c == nil {
		return false
	}
	select {
	case <-c.Lost():
		return false
	default:
		return true
	}
}

// call runs f with the client, if there is one.
func (l *link) call(f func(ctx context.Context, c *control.Client) error) error {
	c := l.client.Load()
	if c == nil {
		return errAway
	}
	ctx, cancel := context.WithTimeout(context.Background(), helperPatience)
	defer cancel()
	return f(ctx, c)
}

// Block puts a lock into the kernel. Before the helper was ever there it does nothing: the whole set is told then.
func (l *link) Block(lk *lock.Lock) error {
	if !l.met.Load() {
		return nil
	}
	return l.call(func(ctx context.Context, c *control.Client) error { return c.Lock(ctx, l.kernelLock(lk)) })
}

// Unblock takes a user's lock out of the kernel.
func (l *link) Unblock(user uint32) error {
	if !l.met.Load() {
		return nil
	}
	return l.call(func(ctx context.Context, c *control.Client) error { return c.Unlock(ctx, user) })
}

// kernelLock is the lock as the kernel needs it: all prefixes of the user. An end of zero is until a person unlocks.
func (l *link) kernelLock(lk *lock.Lock) control.Lock {
	k := control.Lock{User: lk.User.ID, Prefixes: l.prefixes(lk.User.ID), Until: lk.Until, PerMinute: lk.PerMinute, CutFlows: !lk.KeepPassed}
	if len(k.Prefixes) == 0 {
		k.Prefixes = []netip.Prefix{lk.User.Prefix}
	}
	if len(k.Prefixes) > control.MaxLockPrefixes {
		l.log.Error("a user has more prefixes than a lock can hold; split the user", "user", lk.User.Name, "most", control.MaxLockPrefixes)
		k.Prefixes = k.Prefixes[:control.MaxLockPrefixes]
	}
	return k
}

// DialOwn connects to a destination from a customer's own address.
func (l *link) DialOwn(ctx context.Context, src netip.Addr, dst netip.AddrPort) (net.Conn, error) {
	c := l.client.Load()
	if c == nil {
		return nil, errAway
	}
	return c.Connect(ctx, src, dst)
}

// tell gives the helper everything it has to know of this process: users first, so that locks find them.
func (l *link) tell(c *control.Client, sources []control.Source, exempt []control.Exemption, locks []lock.Lock) error {
	ctx, cancel := context.WithTimeout(context.Background(), setPatience)
	defer cancel()
	if err := c.SetUsers(ctx, sources); err != nil {
		return fmt.Errorf("could not set the users in the kernel: %w", err)
	}
	if err := c.SetExemptions(ctx, exempt); err != nil {
		return fmt.Errorf("could not set the exemptions in the kernel: %w", err)
	}
	ks := make([]control.Lock, len(locks))
	for i := range locks {
		ks[i] = l.kernelLock(&locks[i])
	}
	if err := c.SetLocks(ctx, ks); err != nil {
		return fmt.Errorf("could not set the locks in the kernel: %w", err)
	}
	return nil
}

// note remembers what the helper did not take, for status and doctor.
func (l *link) note(err error) {
	if err == nil {
		l.problem.Store(nil)
		return
	}
	text := err.Error()
	l.problem.Store(&text)
	l.log.Error("sluice-intercept did not take what it was told", "err", err)
}

// complaint is what note or dial remembered.
func (l *link) complaint() string {
	if p := l.problem.Load(); p != nil {
		return *p
	}
	return ""
}
