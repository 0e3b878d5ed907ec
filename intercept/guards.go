package intercept

import (
	"iter"

	"sluice/bpf"
	"sluice/intercept/control"
)

// guardian are seats whose guards at the uplinks come and go: a program there costs each packet that leaves as much again as
// the one at the customer's interface.
type guardian interface {
	// Guard has them stand, once it returns nil, or takes them away.
	Guard(on bool) error
}

// guarding tells whether there is something to guard: a source that is closed, or a socket of the proxy in the gateway's own
// namespace, whose connections leave by no room. change or mu is held.
func (e *Engine) guarding() bool {
	return e.closed > 0 || e.cfg.Default.Fail == control.Closed || e.ruled()
}

// unguarded tells whether no guards stand, for want of something to guard. Those of nftables, which ask mail alone, always do.
// mu is held.
func (e *Engine) unguarded() bool {
	_, come := e.seats.(guardian)
	return come && !e.guarding()
}

// guard has the guards stand before the kernel hears of something that is closed.
func (e *Engine) guard(closed bool) error {
	if g, ok := e.seats.(guardian); ok && closed {
		return g.Guard(true)
	}
	return nil
}

// keepGuards takes the guards away where nothing is left to guard.
func (e *Engine) keepGuards() error {
	e.change.Lock()
	defer e.change.Unlock()
	return e.setGuards()
}

// setGuards needs change.
func (e *Engine) setGuards() error {
	if g, ok := e.seats.(guardian); ok {
		return g.Guard(e.guarding())
	}
	return nil
}

// closedAmong counts the sources that are closed.
func closedAmong(sources iter.Seq[bpf.Source]) (n int) {
	for s := range sources {
		if s.Fail == bpf.FailClosed {
			n++
		}
	}
	return n
}
