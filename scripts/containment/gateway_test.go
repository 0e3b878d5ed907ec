package containment

import (
	"context"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"sluice/filter"
	"sluice/filter/content"
	"sluice/filter/content/learn"
	"sluice/filter/identity"
	"sluice/filter/limit"
	"sluice/filter/lock"
	"sluice/filter/message"
	"sluice/filter/policy"
	"sluice/intercept/flow"
)

// The gateways that are compared.
const (
	sluice  = "sluice"
	hourly  = "hourly limits" // refuse what the filter finds, and so many messages an hour: the usual practice
	nothing = "nothing"
)

// gateway is the filter with what it decides by, as sluiced puts it together.
type gateway struct {
	kind   string
	w      *world
	oracle *oracle
	pipe   *filter.Pipeline
	locks  *lock.Locks
	table  *policy.Table
	ids    uint64
	mu     sync.Mutex                 // of what follows, while time goes on
	over   map[lock.Scope][]time.Time // when locks began
	freed  map[lock.Scope][]time.Time // when they ended by themselves
}

// nowhere is the kernel and the disk.
type nowhere struct{}

func (nowhere) Block(*lock.Lock) error            { return nil }
func (nowhere) Unblock(uint32) error              { return nil }
func (nowhere) SaveLock(*lock.Lock) error         { return nil }
func (nowhere) SaveUnlocks(lock.Scope, int) error { return nil }
func (nowhere) LoadLocks() ([]lock.Lock, map[lock.Scope]int, error) {
	return nil, nil, nil
}

// oracle is a content filter of stated quality. It judges texts: copies of one have one verdict.
type oracle struct {
	recall, falsely float64
	seed            uint64
	judge           *content.Judge // judges instead, where it is set
}

// finds tells whether the oracle takes a message for spam; where it has one, it notes its probability.
func (o *oracle) finds(m *mail) bool {
	if o.judge != nil {
		op := o.judge.Judge(m.data, content.DefaultThresholds, 2)
		m.odds = op.Probability
		return op.Class.Bad()
	}
	h := (m.text + o.seed) * 0x9E3779B97F4A7C15
	h ^= h >> 29
	h *= 0xBF58476D1CE4E5B9
	h ^= h >> 32
	p := float64(h>>11) / (1 << 53)
	if m.bad {
		return p < o.recall
	}
	return m.misjudged || p < o.falsely
}

// asked is the oracle as a check; the message at hand is given to it beforehand.
type asked struct{ m *mail }

func (a *asked) Check(_ context.Context, _ filter.Phase, m *message.Message, hits []filter.Hit) []filter.Hit {
	m.Found.Likely = uint8(100 * a.m.odds)
	switch {
	case a.m.odds >= content.DefaultThresholds.Unsure && !a.m.found:
		hits = append(hits, filter.Hit{Code: "UNSURE", Score: a.m.odds, Text: "message has much of spam"})
	case a.m.found:
		hits = append(hits, filter.Hit{Code: "SPAM", Class: filter.Spam, Action: filter.Reject, Text: "message looks like spam"})
	}
	return hits
}

func newGateway(kind string, w *world, o *oracle) (*gateway, *asked, error) {
	g := &gateway{kind: kind, w: w, oracle: o, over: map[lock.Scope][]time.Time{}, freed: map[lock.Scope][]time.Time{}}
	s := policy.Default()
	s.Lock.Automatic = kind == sluice
	g.table = policy.NewTable(s)
	a := &asked{}
	book := identity.NewBook(0)
	g.pipe = filter.NewPipeline(
		filter.Step{Name: "identity", Phases: identity.Phases, Check: identity.NewFinder(g.table, book)},
		filter.Step{Name: "rate", Phases: limit.RatePhases, Check: limit.NewRate(limit.NewCounts(0), g.table, nil)},
		filter.Step{Name: "content", Phases: []filter.Phase{filter.Data}, Check: a},
	)
	var err error
	g.locks, err = lock.New(lock.Deps{Settings: g.table, Blocker: nowhere{}, Store: nowhere{}, Events: func(e lock.Event) {
		g.mu.Lock() // locks that end at one moment tell of it side by side
		defer g.mu.Unlock()
		switch {
		case e.Kind == lock.Locked:
			g.over[e.Lock.Scope()] = append(g.over[e.Lock.Scope()], e.At)
		case e.Kind == lock.Unlocked && e.Lock.EndedBy == "":
			g.freed[e.Lock.Scope()] = append(g.freed[e.Lock.Scope()], e.At)
		}
	}})
	return g, a, err
}

// mail is a message in a client's queue.
type mail struct {
	from      *customer
	identity  string
	data      []byte
	text      uint64 // names its words
	bad       bool
	misjudged bool // the oracle is wrong about it, whatever its quality
	found     bool // the filter finds it bad
	odds      float64
	forwarded bool
	to        string
	born      time.Time
	tries     int
	stopped   bool // a rule of limits or locks stopped it once
}

// What a client hears of a message.
type answer int

const (
	accepted  answer = iota
	later            // 4xx by the destination
	slowed           // 4xx by limits or locks
	refused          // 5xx by the filter
	forbidden        // 5xx by limits or locks
)

// wayOut is how long it takes from the verdict to the final dot, a round trip to the destination.
const wayOut = 40 * time.Millisecond

// hand leads one session with one message, as the proxy does, and tells how it ended once that is known.
func (g *gateway) hand(a *asked, m *mail, end func(answer)) {
	if g.kind == nothing {
		end(g.destination(m))
		return
	}
	g.ids++
	f := &flow.Flow{ID: flow.ID(g.ids), User: flow.User{ID: m.from.id, Name: m.from.name}, Client: netip.AddrPortFrom(m.from.addr, 40000)}
	if g.kind == sluice {
		if _, locked := g.locks.Locked(f.User.ID); locked && !m.bad { // the kernel lets some through, which are told to wait
			end(slowed)
			return
		}
	}
	msg := &message.Message{ID: f.ID.String() + ".1", Flow: f, Helo: m.from.name, Envelope: message.Envelope{From: message.Address(m.identity + "@" + m.from.name)}, Received: time.Now()}
	ctx := context.Background()
	settle := func(n int, v *filter.Verdict) { g.pipe.Settle(msg, filter.Outcome{Accepted: n, Verdict: v}) }
	v := g.pipe.Ask(ctx, filter.Mail, msg)
	if !v.Refused() {
		msg.Rcpt = message.Address(m.to)
		v = g.pipe.Ask(ctx, filter.Rcpt, msg)
	}
	if v.Refused() {
		settle(0, &v)
		end(slowed)
		return
	}
	msg.Envelope.To = []message.Address{msg.Rcpt}
	msg.Data, msg.DataSize = m.data, int64(len(m.data))
	msg.Forwarded = message.PassedOn(msg)
	m.found = g.oracle.finds(m)
	a.m = m
	v = g.pipe.Ask(ctx, filter.Data, msg)
	if g.kind == sluice {
		g.locks.Judged(msg, &v)
	}
	_, locked := g.locks.Locked(f.User.ID)
	switch {
	case v.Refused() && v.Class.Bad():
		settle(0, &v)
		end(refused)
	case locked && g.kind == sluice || v.Refused() && v.Action != filter.Reject:
		settle(0, &v)
		end(slowed)
	case v.Refused():
		settle(0, &v)
		end(forbidden)
	default:
		g.w.after(wayOut, func() {
			r := later
			if _, is := g.locks.Stopped(msg); is && g.kind == sluice {
				r = slowed
			} else {
				r = g.destination(m)
			}
			n := 0
			if r == accepted {
				n = 1
			}
			settle(n, &v)
			end(r)
		})
	}
}

// destination is the MX: one in ten puts off the first try, the others take all.
func (g *gateway) destination(m *mail) answer {
	if m.tries == 1 && m.text%10 == 3 {
		return later
	}
	return accepted
}

// learned is an oracle that is none: the shipped model.
func learned(m *learn.Model) *oracle { return &oracle{judge: content.NewJudge(m)} }

func (o *oracle) String() string {
	if o.judge != nil {
		return "shipped model"
	}
	return fmt.Sprintf("%.2f / %.1f %%", o.recall, 100*o.falsely)
}
