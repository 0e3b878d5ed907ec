package control

import (
	"context"
	"sync"
	"time"
)

// Event is what a proxy hears without having asked, from another proxy through the helper.
type Event struct {
	Retire bool   `json:"retire,omitempty"` // another proxy accepts now: accept no more, finish what is open, end
	Note   []byte `json:"note,omitempty"`   // from another proxy; the helper does not look into it
}

const (
	// maxEvents is how many events may wait for a proxy to take them before it loses its connection, and with a new one
	// learns the present state.
	maxEvents = 4096
	// eventPatience is how long a proxy may leave its events unread before it is cut off: others wait for it.
	eventPatience = time.Second
)

// Serving says that this process accepts connections. Every older proxy is told to retire before it returns; where a younger
// one accepts already this one is.
func (c *Client) Serving(ctx context.Context) error {
	_, err := c.do(ctx, &Request{Op: OpServing})
	return err
}

// Tell passes a note of at most MaxNote bytes to every other proxy. It returns once they are sure to get it in time,
// in the order of the calls.
func (c *Client) Tell(ctx context.Context, note []byte) error {
	_, err := c.do(ctx, &Request{Op: OpTell, Note: note})
	return err
}

// Events are what other proxies have said since this one dialed. It is never closed; see Lost.
func (c *Client) Events() <-chan Event { return c.events }

// heard queues an event; an error ends the connection.
func (c *Client) heard(e *Event) error {
	select {
	case c.events <- *e:
		return nil
	default:
		return errMessage
	}
}

// generations are the proxies that are connected: one that accepts, and older ones that finish what they have.
type generations struct {
	mu  sync.Mutex
	all map[*session]*generation
}

// generation is what is known of a proxy.
type generation struct {
	started uint64 // CLOCK_MONOTONIC at its start; 0 when it does not say
	serving bool
}

func (g *generations) join(s *session, started uint64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.all == nil {
		g.all = make(map[*session]*generation)
	}
	g.all[s] = &generation{started: started}
}

func (g *generations) leave(s *session) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.all, s)
}

// serves tells every older proxy to retire, now that this one accepts. Where a younger one accepts already, which an older
// one that has just found the helper again does not know yet, it is this one that is to retire.
func (g *generations) serves(s *session) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	me, ok := g.all[s]
	if !ok {
		return errNotAProxy()
	}
	for o, other := range g.all {
		if other.serving && other.started > me.started {
			s.server.logf("control: process %d accepts, and process %d, which is younger, does: the older one is to retire", s.peer.PID, o.peer.PID)
			g.send(s, &Event{Retire: true})
			return nil
		}
	}
	s.server.logf("control: process %d accepts the connections from now on", s.peer.PID)
	me.serving = true
	for o, other := range g.all {
		if o != s && other.started <= me.started {
			other.serving = false
			g.send(o, &Event{Retire: true})
		}
	}
	return nil
}

// tell sends an event to all but its sender, who must have said hello.
func (g *generations) tell(from *session, e *Event) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if _, ok := g.all[from]; !ok {
		return errNotAProxy()
	}
	for s := range g.all {
		if s != from {
			g.send(s, e)
		}
	}
	return nil
}

func errNotAProxy() error {
	return Errorf(CodeInvalid, "could not pass this on: only a proxy may speak to proxies; say hello first")
}

// send passes an event to one proxy. Who does not take it is cut off. It needs the lock, which keeps the order.
func (g *generations) send(s *session, e *Event) {
	err := s.conn.SetWriteDeadline(time.Now().Add(eventPatience))
	if err == nil {
		err = send(s.conn, &Reply{V: Version, Event: e}, nil)
	}
	if err != nil {
		s.server.logf("control: process %d cut off: it did not take an event: %v", s.peer.PID, err)
		s.cancel()
	}
}
