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

// Serving says that this process accepts connections. Every other proxy is told to retire before it returns.
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
	all map[*session]struct{}
}

func (g *generations) join(s *session) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.all == nil {
		g.all = make(map[*session]struct{})
	}
	g.all[s] = struct{}{}
}

func (g *generations) leave(s *session) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.all, s)
}

// tell sends an event to all but its sender, who must have said hello. Who does not take it is cut off.
func (g *generations) tell(from *session, e *Event) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if _, ok := g.all[from]; !ok {
		return Errorf(CodeInvalid, "could not pass this on: only a proxy may speak to proxies; say hello first")
	}
	for s := range g.all {
		if s == from {
			continue
		}
		err := s.conn.SetWriteDeadline(time.Now().Add(eventPatience))
		if err == nil {
			err = send(s.conn, &Reply{V: Version, Event: e}, nil)
		}
		if err != nil {
			from.server.logf("control: process %d cut off: it did not take an event: %v", s.peer.PID, err)
			s.cancel()
		}
	}
	return nil
}
