package filter

import (
	"context"
	"slices"

	"sluice/filter/message"
)

// Pipeline holds the checks in the order in which they are asked. It is immutable and safe for concurrent use.
type Pipeline struct {
	byPhase    [phases][]Step
	settlers   []Settler
	identifier Identifier // nil: nobody has identities
	excuser    Excuser    // nil: every check is asked
}

// NewPipeline returns the pipeline that asks the steps in their order. Cheap checks belong first.
func NewPipeline(steps ...Step) *Pipeline {
	p := &Pipeline{}
	for _, s := range steps {
		for _, ph := range s.Phases {
			p.byPhase[ph] = append(p.byPhase[ph], s)
		}
		c := s.Check
		if w, ok := c.(interface{ Unwrap() Check }); ok { // what a check is besides is asked of itself
			c = w.Unwrap()
		}
		if st, ok := c.(Settler); ok {
			p.settlers = append(p.settlers, st)
		}
		if id, ok := c.(Identifier); ok {
			p.identifier = id
		}
		if x, ok := c.(Excuser); ok {
			p.excuser = x
		}
	}
	return p
}

// Ask runs the checks of phase ph over m. Before the end of data the first refusal decides, since nothing further can
// change the answer; at data every check is heard, so that the log explains the whole verdict.
func (p *Pipeline) Ask(ctx context.Context, ph Phase, m *message.Message) Verdict {
	if p.identifier != nil && (ph == Mail || ph >= Data) {
		m.Identity, m.Told = p.identifier.Identify(ph, m)
	}
	var excused []string
	if p.excuser != nil && ph >= Mail {
		excused = p.excuser.Excuses(ph, m)
	}
	var hits []Hit
	for i := range p.byPhase[ph] {
		s := &p.byPhase[ph][i]
		if len(excused) > 0 && slices.Contains(excused, s.Name) {
			continue
		}
		n := len(hits)
		hits = s.Check.Check(ctx, ph, m, hits)
		for j := n; j < len(hits); j++ {
			hits[j].Check = s.Name
			if ph != Data && hits[j].Action != None {
				return Judge(hits)
			}
		}
	}
	return Judge(hits)
}

// Settle tells the checks that reserved something how the transaction of m ended.
func (p *Pipeline) Settle(m *message.Message, o Outcome) {
	for _, s := range p.settlers {
		s.Settle(m, o)
	}
}

// Judge makes one verdict of hits: the worst class that asks for a refusal decides, among equals the stronger action,
// among those the first. An opinion with action None may raise the class but refuses nothing.
func Judge(hits []Hit) Verdict {
	v := Verdict{Hits: hits, Cause: -1}
	for i := range hits {
		h := &hits[i]
		v.Class = max(v.Class, h.Class)
		if h.Action == None {
			continue
		}
		d := v.Decisive()
		if d == nil || h.Class > d.Class || (h.Class == d.Class && h.Action.Stronger(d.Action)) {
			v.Cause, v.Action = i, h.Action
		}
	}
	return v
}
