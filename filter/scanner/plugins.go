package scanner

import (
	"context"
	"reflect"
	"sync"
	"sync/atomic"

	"sluice/filter"
	"sluice/filter/message"
	"sluice/filter/policy"
)

// Plugins is the check that asks all plug-ins at once, behind all cheaper checks. Safe for concurrent use.
type Plugins struct {
	settings policy.Resolver
	event    func(Event)
	list     atomic.Pointer[[]*plugin] // nil: none are configured
}

// New returns the check without plug-ins; event hears of those that die and come back, and must not block.
func New(settings policy.Resolver, event func(Event)) *Plugins {
	return &Plugins{settings: settings, event: event}
}

// Configure puts plug-ins in force. Those that are the same as before keep what is known of them.
func (ps *Plugins) Configure(all []Options) {
	old := ps.list.Load()
	if len(all) == 0 {
		ps.list.Store(nil)
		return
	}
	list := make([]*plugin, 0, len(all))
	for _, o := range all {
		var p *plugin
		if old != nil {
			for _, had := range *old {
				if reflect.DeepEqual(had.o, o) {
					p = had
				}
			}
		}
		if p == nil {
			p = newPlugin(o, ps.event)
		}
		list = append(list, p)
	}
	ps.list.Store(&list)
}

// Check implements filter.Check in phase data. What is refused as a virus already no scanner is asked about, and what is
// refused as bad only virus scanners are.
func (ps *Plugins) Check(ctx context.Context, ph filter.Phase, m *message.Message, hits []filter.Hit) []filter.Hit {
	list := ps.list.Load()
	if list == nil || ph != filter.Data || len(m.Data) == 0 { // of what was only observed there may be no text
		return hits
	}
	s := ps.settings.Settings(m.Flow.User.ID)
	worst := filter.Clean
	for i := range hits {
		if hits[i].Action == filter.Reject {
			worst = max(worst, hits[i].Class)
		}
	}
	var ask []*plugin
	for _, p := range *list {
		if s != nil && worst != filter.Virus && (!worst.Bad() || p.o.Kind == Clamd) {
			ask = append(ask, p)
		}
	}
	if len(ask) == 1 {
		return append(hits, ask[0].opinion(ctx, m, s)...)
	}
	said := make([][]filter.Hit, len(ask))
	var all sync.WaitGroup
	for i, p := range ask {
		all.Go(func() { said[i] = p.opinion(ctx, m, s) })
	}
	all.Wait()
	for _, h := range said {
		hits = append(hits, h...)
	}
	return hits
}

// Look pings the instances of which nothing was heard lately; it returns when all have answered or had their time.
func (ps *Plugins) Look(ctx context.Context) {
	list := ps.list.Load()
	if list == nil {
		return
	}
	var all sync.WaitGroup
	for _, p := range *list {
		for _, in := range p.instances {
			all.Go(func() { in.look(ctx) })
		}
	}
	all.Wait()
}

// Figures are one plug-in's counts since start.
type Figures struct {
	Name      string
	Kind      Kind
	Asked     uint64 // messages
	Objected  uint64 // of them, those it objected to
	Failed    uint64 // without an opinion
	Deferred  uint64 // of them, those put off
	Unseen    uint64 // too large to be shown as a whole
	Busy      uint64 // without an opinion because it was busy with others
	Micros    uint64 // mean time of an answer
	Then      string // what happens to mail while no instance answers
	Instances []Instance
}

// Instance is how one address of a plug-in is.
type Instance struct {
	Address string
	State   State
	Err     error
}

// Figures returns those of all plug-ins; none where none are configured.
func (ps *Plugins) Figures() []Figures {
	list := ps.list.Load()
	if list == nil {
		return nil
	}
	all := make([]Figures, 0, len(*list))
	for _, p := range *list {
		c := &p.count
		f := Figures{Name: p.o.Name, Kind: p.o.Kind, Asked: c.asked.Load(), Objected: c.objected.Load(), Failed: c.failed.Load(),
			Deferred: c.deferred.Load(), Unseen: c.unseen.Load(), Busy: c.busy.Load(), Then: p.then()}
		if n := f.Asked - min(f.Asked, f.Failed); n > 0 {
			f.Micros = c.micros.Load() / n
		}
		for _, in := range p.instances {
			state, err := in.state()
			f.Instances = append(f.Instances, Instance{in.address, state, err})
		}
		all = append(all, f)
	}
	return all
}
