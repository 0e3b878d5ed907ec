package scanner

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"sync/atomic"
	"time"

	"sluice/filter"
	"sluice/filter/message"
	"sluice/filter/policy"
)

// plugin is one program with its instances.
type plugin struct {
	o         Options
	instances []*instance
	slots     chan struct{}
	turn      atomic.Uint32
	count     counts
}

type counts struct{ asked, objected, failed, deferred, unseen, busy, micros atomic.Uint64 }

var errBusy = errors.New("it is busy with other messages, at_once of them")

func newPlugin(o Options, event func(Event)) *plugin {
	p := &plugin{o: o, slots: make(chan struct{}, o.AtOnce)}
	for _, a := range o.Addresses {
		in := &instance{address: a, client: newClient(&o, a), pause: probePause}
		in.event = func(in *instance, dead bool, err error) {
			event(Event{Plugin: o.Name, Kind: o.Kind, Address: in.address, Dead: dead, Err: err, Then: p.then()})
		}
		p.instances = append(p.instances, in)
	}
	return p
}

func newClient(o *Options, address string) client {
	switch o.Kind {
	case Clamd:
		return &clamd{address, o.Trusted}
	case Rspamd:
		return newRspamd(o, address)
	case Spamd:
		return &spamd{address}
	}
	return &milter{address, o.Class, o.Marks}
}

// then says what happens to mail now.
func (p *plugin) then() string {
	for _, in := range p.instances {
		if s, _ := in.state(); s != Dead {
			return "other instances are asked"
		}
	}
	if p.o.Failure == policy.GoOn || p.o.NoteOnly {
		return "mail goes on without its opinion"
	}
	return "mail is put off with 451 4.3.0, unless a user's setting says otherwise"
}

// opinion is what the plug-in makes of one message, for a user with these settings.
func (p *plugin) opinion(ctx context.Context, m *message.Message, s *policy.Settings) []filter.Hit {
	size := m.DataSize
	if _, readable := m.Reader(size); readable < size || size > p.o.MaxSize {
		return p.large(ctx, m, s, min(readable, p.o.MaxSize))
	}
	return p.judge(ctx, &question{m, size}, s)
}

// large is opinion of a message of which the plug-in can be shown the first bytes only.
func (p *plugin) large(ctx context.Context, m *message.Message, s *policy.Settings, shown int64) []filter.Hit {
	p.count.unseen.Add(1)
	h := p.hit("UNSCANNED", fmt.Sprintf("%d of %d bytes shown", shown, m.DataSize))
	h.Text = "message is too large to be looked at as a whole"
	switch p.o.Oversize {
	case Pass:
		h.Evidence = p.o.Name + ": not shown: it has " + fmt.Sprint(m.DataSize) + " bytes"
		return []filter.Hit{h}
	case Refuse:
		if !p.o.NoteOnly {
			h.Class, h.Action, h.SMTP, h.Enhanced = filter.Policy, filter.Reject, 552, "5.3.4"
		}
		return []filter.Hit{h}
	}
	return append(p.judge(ctx, &question{m, shown}, s), h)
}

func (p *plugin) hit(code, evidence string) filter.Hit {
	return filter.Hit{Code: code, Evidence: p.o.Name + ": " + evidence}
}

func (p *plugin) judge(ctx context.Context, q *question, s *policy.Settings) []filter.Hit {
	hits, err := p.ask(ctx, q)
	switch {
	case errors.Is(err, errTooLarge):
		p.count.unseen.Add(1)
		h := p.hit("UNSCANNED", short(err.Error(), 200))
		h.Text = "message is too large to be looked at"
		if p.o.Oversize == Refuse && !p.o.NoteOnly {
			h.Class, h.Action, h.SMTP, h.Enhanced = filter.Policy, filter.Reject, 552, "5.3.4"
		}
		return []filter.Hit{h}
	case err != nil:
		return []filter.Hit{p.failure(err, s)}
	}
	for i := range hits {
		p.settle(&hits[i], s)
	}
	return hits
}

// settle lets a hit do no more than settings allow.
func (p *plugin) settle(h *filter.Hit, s *policy.Settings) {
	h.Evidence = p.o.Name + ": " + h.Evidence
	h.Weighs, h.AsSet = h.Weighs && !p.o.NoteOnly, true
	if h.Action == filter.None {
		return
	}
	why := ""
	switch {
	case p.o.NoteOnly:
		why = "action of the plug-in is note"
	case p.o.WeighOnly:
		why = "action of the plug-in is weigh"
	case !s.Content.BlockSpam && (h.Class == filter.Spam || h.Class == filter.Phish):
		why = "content.block_spam is off"
	}
	p.count.objected.Add(1)
	if why != "" {
		h.Action, h.SMTP, h.Enhanced = filter.None, 0, ""
		h.Evidence += "; not refused: " + why
	}
}

// failure is the hit that says that the plug-in gave no opinion.
func (p *plugin) failure(err error, s *policy.Settings) filter.Hit {
	p.count.failed.Add(1)
	h := p.hit("UNCHECKED", short(err.Error(), 250))
	h.Text = "message cannot be checked now; please try again later"
	how := s.Content.Failure
	if how == policy.AsPlugin {
		how = p.o.Failure
	}
	if how == policy.GoOn || p.o.NoteOnly {
		h.Evidence += "; gone on without it"
		return h
	}
	p.count.deferred.Add(1)
	h.Class, h.Action, h.SMTP, h.Enhanced = filter.Policy, filter.Defer, 451, "4.3.0"
	return h
}

// ask asks the instances that are alive in turn until one answers.
func (p *plugin) ask(ctx context.Context, q *question) ([]filter.Hit, error) {
	p.count.asked.Add(1)
	began := time.Now()
	within, cancel := context.WithTimeout(ctx, p.o.Timeout)
	defer cancel()
	select {
	case p.slots <- struct{}{}:
		defer func() { <-p.slots }()
	case <-within.Done():
		p.count.busy.Add(1)
		return nil, errBusy
	}
	live := p.live()
	if len(live) == 0 {
		_, err := p.instances[0].state()
		return nil, fmt.Errorf("it is dead: %w", err)
	}
	var errs []error
	for i, in := range live {
		hits, err := in.ask(within, ctx, q, len(live)-i)
		if err == nil || errors.Is(err, errTooLarge) {
			p.count.micros.Add(uint64(time.Since(began).Microseconds()))
			return hits, err
		}
		errs = append(errs, fmt.Errorf("%s: %w", in.address, err))
	}
	return nil, errors.Join(errs...)
}

// live are the instances that may be asked, another one first each time.
func (p *plugin) live() []*instance {
	var live []*instance
	first := int(p.turn.Add(1))
	for i := range p.instances {
		if in := p.instances[(first+i)%len(p.instances)]; in.alive() {
			live = append(live, in)
		}
	}
	return live
}

// ask asks one instance, for its share of the time that is left for so many.
func (in *instance) ask(ctx, caller context.Context, q *question, share int) (hits []filter.Hit, err error) {
	if d, ok := ctx.Deadline(); ok && share > 1 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Until(d)/time.Duration(share))
		defer cancel()
	}
	defer func() {
		if cause := recover(); cause != nil { // protocols of others by libraries of others: one message, not the gateway
			hits, err = nil, fmt.Errorf("a mistake in understanding it: %v at %.300s", cause, debug.Stack())
		}
		switch {
		case err == nil || errors.Is(err, errTooLarge):
			in.answered()
		case !errors.Is(caller.Err(), context.Canceled): // who asked has gone; that is not its fault
			in.failed(err)
		}
	}()
	return in.client.ask(ctx, q)
}
