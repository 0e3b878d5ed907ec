package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"sluice/cmd/internal/config"
	"sluice/filter"
	"sluice/filter/limit"
	"sluice/intercept/flow"
	"sluice/proxy"
	"sluice/proxy/delivery"
	"sluice/proxy/pool"
	"sluice/proxy/relay"
	"sluice/proxy/smtp"
	"sluice/proxy/spool"
	"sluice/proxy/tlspolicy"
)

// takeoverEvery is how often it is looked whether another process of sluiced has ended and left mail.
const takeoverEvery = 2 * time.Second

// Where an older process hands its queue over, that is looked for more often, and who asks for the queue waits for it a moment.
const (
	comingEvery = 100 * time.Millisecond
	comingWait  = 2 * time.Second
)

// manyDeliveries is where giving memory back is worth the pause.
const manyDeliveries = 50_000

// mailQueue is the spool with the queue that delivers from it.
type mailQueue struct {
	d        *daemon
	dir      string
	dialer   *relay.Dialer
	queue    *delivery.Queue
	callouts *delivery.Callouts
	cancel   context.CancelFunc
	here     chan struct{} // closed once no older process has the queue

	mu    sync.RWMutex // held for reading while something is committed
	spool *spool.Spool // after a hand-over one of its own, which nothing is delivered from here
	gave  bool
	relay atomic.Pointer[[]upstream]
}

// newMailQueue opens the spool. Nothing is delivered before start.
func newMailQueue(d *daemon, cfg *config.Config) (*mailQueue, error) {
	m := &mailQueue{d: d, dir: spoolDir(cfg), here: make(chan struct{})}
	relays, err := upstreams(cfg.Spool.Relay)
	if err != nil {
		return nil, err
	}
	m.relay.Store(&relays)
	m.dialer = relay.NewDialer(relay.Options{Timeouts: onwardTimeouts(&cfg.Delivery), Keep: cfg.Delivery.Reuse.D(), Servers: d.onward.finder, Roots: d.onward.roots, Own: d.link, Leave: d.pools.leave})
	m.queue = delivery.New(delivery.Options{
		Name: cfg.Gateway.Name, Domains: domains{d.onward}, Dialer: m.dialer, Log: m, Senders: m, Upstream: m.upstream, Terms: m.terms,
		Choose: m.choose,
		Sign:   d.signer().sign,
		Self:   d.isLocal, Alarm: m.alarm, Port: cfg.Spool.Destination, Settings: queueSettings(&cfg.Spool),
		Spill: func() (smtp.Spill, error) { return proxy.OpenSpill(d.cfg.Load().SMTP.SpillDir) },
		Panicked: func(id spool.ID, cause any, stack []byte) {
			d.log.Error("a mistake of ours ended a delivery, which is on hold; please report it", "delivery", id, "cause", cause, "stack", string(stack))
		},
	})
	m.callouts = delivery.NewCallouts(m.queue)
	m.spool, err = spool.Open(m.dir, spool.Options{MinFree: uint64(cfg.Spool.MinFree), Arrived: m.queue.Arrived, Alarm: m.alarm, Keep: true})
	if err == nil {
		usual := debug.SetGCPercent(25) // a queue of a million is read into little more than it needs
		_, err = m.takeover()
		debug.SetGCPercent(usual)
	}
	if err != nil {
		return nil, errors.Join(err, m.close())
	}
	m.reportCrashes(m.spool)
	return m, nil
}

// reportCrashes has the runtime note in the spool's folder that this process crashes, should it.
func (m *mailQueue) reportCrashes(s *spool.Spool) {
	f, err := os.OpenFile(filepath.Join(m.dir, s.CrashFile()), os.O_WRONLY|os.O_APPEND, 0)
	if err == nil {
		err = errors.Join(debug.SetCrashOutput(f, debug.CrashOptions{}), f.Close()) // the runtime has a descriptor of its own
	}
	if err != nil {
		m.alarm(fmt.Errorf("could not prepare for a crash: %w; a message that causes one is found out later", err))
	}
}

func (m *mailQueue) alarm(err error) { m.d.log.Error("the spool needs attention", "err", err) }

// choose says from where a delivery leaves: by the same pools as intercepted mail.
func (m *mailQueue) choose(l *delivery.Mail, to netip.Addr) (pool.Decision, bool) {
	set := m.d.locals.pools.Load()
	if set == nil || set.Empty() {
		return pool.Decision{}, true
	}
	sender, name := spool.Domain(l.From), ""
	if u := m.d.roster.Load().user(l.User); u != nil {
		name = u.Name
	}
	p := set.For(name, sender)
	if own := poolOf(set, l.Class, sender); own != nil {
		p = own
	}
	d := m.d.authority.Decide(context.Background(), p, m.d.choices.choices, &pool.Question{
		Key: pool.Key{User: l.User, Sender: sender, Recipient: l.Domain}, To: to, At: time.Now(),
	})
	switch {
	case !d.Own:
		return d, true
	case p.Own() && l.Client.IsValid() && l.Client.Is4() == to.Unmap().Is4():
		d.Address = pool.Address{IP: l.Client, Helo: m.d.cfg.Load().Gateway.Name}
		return d, true
	}
	return pool.Decision{}, to.IsLoopback() && !p.Own()
}

// Classes of envelopes whose mail leaves through a pool of its own, where there is one.
const (
	classRisk      = "risk"
	classForwarded = "forwarded"
)

// poolOf is the pool of a class of envelopes; nil: they leave as other mail.
func poolOf(set *pool.Set, class, sender string) *pool.Pool {
	switch class {
	case classRisk:
		return set.Risky()
	case classForwarded:
		return set.Forwarded(sender)
	}
	return nil
}

// takeover takes what processes left that have ended.
func (m *mailQueue) takeover() (*spool.Report, error) {
	r, err := m.spool.Takeover()
	if err != nil {
		return nil, fmt.Errorf("could not read the spool: %w", err)
	}
	if r.Generations > 0 {
		m.d.log.Info("took mail over from processes that have ended", "deliveries", r.Deliveries, "interrupted", len(r.Interrupted), "torn records", r.Torn)
	}
	if r.Deliveries > manyDeliveries {
		debug.FreeOSMemory() // what reading them took is not needed again
	}
	for _, d := range r.Interrupted {
		m.d.log.Warn("a delivery's fate is unknown: sluiced ended while it was being tried; it is tried again, and may arrive twice", "delivery", d.ID, "id", d.Message, "to", d.To)
	}
	for _, id := range r.SetAside {
		m.d.log.Error("a delivery is on hold: sluiced crashed or ended too often while it was being tried; look at it with `sluice queue show`", "delivery", id)
	}
	return r, nil
}

// start delivers until stop.
func (m *mailQueue) start() {
	ctx, cancel := context.WithCancel(context.Background())
	m.cancel = cancel
	m.queue.Start(ctx, m.spool)
}

// keep looks for what other processes leave, until ctx ends or this one has handed over.
func (m *mailQueue) keep(ctx context.Context) {
	t := time.NewTicker(comingEvery)
	defer t.Stop()
	coming := true
	came := func() {
		coming = false
		close(m.here)
		t.Reset(takeoverEvery)
	}
	if !m.d.second.Load() {
		came()
	}
	for {
		select {
		case <-t.C:
			r, err := m.takeover()
			if err != nil {
				m.alarm(err)
			} else if coming && (r.Generations > 0 || r.Living == 0) {
				came()
			}
		case <-m.d.handedOver:
			m.yield(ctx)
			return
		case <-ctx.Done():
			return
		}
	}
}

// await waits a moment for the queue where an older process is about to hand it over.
func (m *mailQueue) await(ctx context.Context) error {
	t := time.NewTimer(comingWait)
	defer t.Stop()
	select {
	case <-m.here:
		return nil
	case <-t.C:
		return comingQueue
	case <-ctx.Done():
		return ctx.Err()
	}
}

// yield gives the queue to the process that took over, as soon as no try is under way; what sessions of this process still
// take goes into a spool of its own, which that process finds when this one ends.
func (m *mailQueue) yield(ctx context.Context) {
	m.stop(ctx, oldSessions)
	next, err := spool.Open(m.dir, spool.Options{MinFree: uint64(m.d.cfg.Load().Spool.MinFree), Alarm: m.alarm, Keep: true})
	if err != nil {
		m.alarm(err)
		return
	}
	m.mu.Lock()
	old := m.spool
	m.spool, m.gave = next, true
	m.mu.Unlock()
	m.reportCrashes(next)
	if err := old.Close(); err != nil {
		m.alarm(err)
	}
	m.d.log.Info("handed the queue over")
}

// stop begins no more tries and waits for those that are under way.
func (m *mailQueue) stop(ctx context.Context, patience time.Duration) {
	if m.cancel == nil {
		return
	}
	m.cancel()
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	m.queue.Stop(ctx)
}

func (m *mailQueue) close() error {
	if m.spool == nil {
		return nil
	}
	m.dialer.Close()
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.spool.Close()
}

// commit takes a message: prefix, header lines of ours that stand before it, may be nil.
func (m *mailQueue) commit(env *spool.Envelope, prefix []byte, body *smtp.Body) ([]spool.ID, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	d, err := m.spool.Create()
	if err != nil {
		return nil, err
	}
	defer d.Abort()
	return d.Commit(env, prefix, body)
}

// create begins a message in the spool that it returns.
func (m *mailQueue) create() (*spool.Draft, *spool.Spool, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	d, err := m.spool.Create()
	return d, m.spool, err
}

// waiting tells how many messages of a user are in the queue. After a hand-over it is those that this process still took.
func (m *mailQueue) waiting(user uint32) int {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.spool.Waiting(user)
}

// NoticeTo sends notices to senders that are known to be those who sent it, else to the user's contact.
func (m *mailQueue) NoticeTo(e *spool.Envelope) (string, bool) {
	if e.Verified {
		return e.From, true
	}
	if u := m.d.roster.Load().user(e.User); u != nil && strings.Contains(u.Contact, "@") {
		return u.Contact, true
	}
	return "", false
}

// terms are the operator's for a connection.
func (m *mailQueue) terms(ctx context.Context, user uint32, target netip.AddrPort, domain string) (*tlspolicy.Policy, error) {
	return m.d.onward.Terms(ctx, m.d.policy.Settings(user), target, domain)
}

// domains asks for mail exchangers and addresses.
type domains struct{ o *onward }

func (d domains) Domain(ctx context.Context, name string) (*tlspolicy.Domain, error) {
	return d.o.finder.Domain(ctx, name)
}

func (d domains) Addresses(ctx context.Context, host string) ([]netip.Addr, error) {
	a, err := d.o.dns.Look(ctx, host, tlspolicy.Addresses)
	return a.Addrs, err
}

// Tried puts the result of a try into the message log.
func (m *mailQueue) Tried(r *delivery.Result) {
	e := r.Envelope
	rec := &proxy.Record{
		ID: e.Message, Start: r.At, Duration: r.Took, From: e.From, Size: r.Size, Source: r.Source, Note: r.Note, Signed: r.Signed, Status: tried(r),
		Flow:    flow.Flow{Client: netip.AddrPortFrom(e.Client, 0), Target: r.Target, User: flow.User{ID: e.User, Name: e.UserName}, Start: r.At},
		Verdict: filter.Verdict{Cause: -1},
	}
	if !e.Client.IsValid() {
		rec.Flow.Client = netip.AddrPort{}
	}
	if r.Leg != nil {
		rec.Out = proxy.TLSOf(r.Leg.State)
	}
	for _, o := range r.Rcpts {
		text := delivery.TextOf(&o.Reply)
		rec.To = append(rec.To, proxy.Recipient{Address: o.Rcpt.Address, Code: o.Reply.Code, Reply: text, Behind: o.Behind})
		if o.Reply.Host != "" {
			rec.Remote = strconv.Itoa(o.Reply.Code) + " " + text
		}
	}
	if r.Notice != 0 {
		rec.Note = strings.TrimPrefix(rec.Note+"; notice "+r.Notice.String(), "; ")
	}
	if rec.Status == proxy.Delivered {
		m.d.authority.Sent(r.Source, spool.Domain(r.Rcpts[0].Rcpt.Address), r.At)
	}
	if e.User != 0 {
		failed, invalid := undelivered(r.Rcpts)
		limit.Undelivered(m.d.toldCounts(), e.User, failed, invalid)
	}
	m.d.tally.Put(rec)
	m.d.log.LogAttrs(context.Background(), slog.LevelDebug, "tried", slog.String("delivery", r.Delivery.String()), slog.String("host", r.Host), slog.Int("tries", r.Tries))
}

// undelivered counts recipients whom nothing reaches: those that are not there, and the others.
func undelivered(rcpts []delivery.Outcome) (failed, invalid int) {
	for _, o := range rcpts {
		if o.Fate != delivery.Failed && o.Fate != delivery.Expired {
			continue
		}
		if unknown(o.Reply.Code, delivery.TextOf(&o.Reply), o.Behind) {
			invalid++
		} else {
			failed = 1 // one message, however many recipients
		}
	}
	return failed, invalid
}

// tried is the status of a try: of several recipients that which is furthest from done.
func tried(r *delivery.Result) proxy.Status {
	if r.Ambiguous {
		return proxy.Ambiguous
	}
	status := proxy.Delivered
	for _, o := range r.Rcpts {
		switch o.Fate {
		case delivery.Deferred:
			return proxy.Deferred
		case delivery.Failed, delivery.Expired:
			status = proxy.Refused
		}
	}
	return status
}
