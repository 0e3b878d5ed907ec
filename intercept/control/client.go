package control

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// Client is the proxy's connection to the helper. Its methods are safe for concurrent use.
type Client struct {
	conn   *net.UnixConn
	lost   chan struct{}
	events chan Event
	lane   atomic.Pointer[lane] // nil: there is none, and locks go the way of the rest

	mu      sync.Mutex
	next    uint64
	waiting map[uint64]*call
	err     error // set once the connection has ended
}

// call collects the replies to one request; done is closed when the last one is there.
type call struct {
	reply *Reply
	done  chan struct{}
}

// Dial connects to the helper at path, gives it copies of the listeners that this process holds from an earlier helper
// (their files stay the caller's), and returns the helper's welcome. The error is an *Error with CodeNotReady while the
// helper waits for another proxy to hand the listener back.
func Dial(ctx context.Context, path string, give []Listener) (*Client, *Welcome, error) {
	return dial(ctx, path, give, started)
}

// started is when this process began: the younger of two proxies is the one that takes over.
var started = Monotonic()

func dial(ctx context.Context, path string, give []Listener, started uint64) (*Client, *Welcome, error) {
	c, err := Reach(ctx, path)
	if err != nil {
		return nil, nil, err
	}
	w, err := c.hello(ctx, give, started)
	if err != nil {
		return nil, nil, errors.Join(err, c.Close())
	}
	if l, err := openLane(path); err == nil { // an older helper knows none; all else shows on the connection itself
		c.lane.Store(l)
	}
	return c, w, nil
}

// Reach connects to the helper at path without a word, as the operator's command does; only a proxy needs Dial.
func Reach(ctx context.Context, path string) (*Client, error) {
	var d net.Dialer
	nc, err := d.DialContext(ctx, "unixpacket", path)
	if err != nil {
		return nil, fmt.Errorf("could not reach sluice-intercept at %s: %w; is it running, and may this user open the socket?", path, err)
	}
	c := &Client{conn: nc.(*net.UnixConn), lost: make(chan struct{}), events: make(chan Event, maxEvents), waiting: make(map[uint64]*call)}
	go c.read()
	return c, nil
}

func (c *Client) hello(ctx context.Context, give []Listener, started uint64) (*Welcome, error) {
	req := &Request{Op: OpHello, Started: started}
	for _, l := range give {
		req.Names = append(req.Names, l.Name)
		req.Files = append(req.Files, l.File)
	}
	rep, err := c.do(ctx, req)
	if errors.Is(err, ErrLost) {
		return nil, errors.New("sluice-intercept hung up before its welcome; is this process's user the one its configuration names?")
	}
	if err != nil {
		return nil, err
	}
	w := rep.Welcome
	if w == nil || len(rep.Names) != len(rep.Files) {
		closeAll(rep.Files)
		return nil, fmt.Errorf("%w: a welcome with %d names and %d files", errMessage, len(rep.Names), len(rep.Files))
	}
	for i, name := range rep.Names {
		if name != heartbeatName {
			w.Listeners = append(w.Listeners, Listener{Name: name, File: rep.Files[i]})
			continue
		}
		w.Heartbeat, err = OpenHeartbeat(rep.Files[i])
		if cerr := rep.Files[i].Close(); err != nil || cerr != nil {
			closeAll(rep.Files)
			return nil, errors.Join(err, cerr)
		}
	}
	return w, nil
}

// parts sends a list in several packets under one id and waits for the one reply.
func (c *Client) parts(ctx context.Context, next func() *Request) error {
	id, w, err := c.register()
	if err != nil {
		return err
	}
	for more := true; more; {
		req := next()
		more = req.More
		req.V, req.ID = Version, id
		if err := send(c.conn, req, nil); err != nil {
			c.forget(id)
			return c.sendError(err)
		}
	}
	_, err = c.wait(ctx, id, w)
	return err
}

// urgent takes the lane, where there is one; its patience is its own then. What a broken lane leaves open is asked again,
// which does no harm to locks.
func (c *Client) urgent(ctx context.Context, req *Request) error {
	if l := c.lane.Load(); l != nil && ctx.Err() == nil {
		err := l.do(req)
		if _, refused := errors.AsType[*Error](err); err == nil || refused {
			return err
		}
		c.leaveLane()
	}
	_, err := c.do(ctx, req)
	return err
}

func (c *Client) leaveLane() {
	if l := c.lane.Swap(nil); l != nil {
		l.close()
	}
}

// Lost is closed when the connection to the helper has ended.
func (c *Client) Lost() <-chan struct{} { return c.lost }

// Close ends the connection. What the kernel holds stays in force.
func (c *Client) Close() error {
	err := c.conn.Close()
	<-c.lost
	c.leaveLane()
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

func (c *Client) do(ctx context.Context, req *Request) (*Reply, error) {
	id, w, err := c.register()
	if err != nil {
		return nil, err
	}
	req.V, req.ID = Version, id
	if err := send(c.conn, req, req.Files); err != nil {
		c.forget(id)
		return nil, c.sendError(err)
	}
	return c.wait(ctx, id, w)
}

// sendError tells a broken connection from a message that could not be sent.
func (c *Client) sendError(err error) error {
	if errors.Is(err, unix.EPIPE) || errors.Is(err, unix.ECONNRESET) || errors.Is(err, net.ErrClosed) {
		return ErrLost
	}
	return err
}

func (c *Client) register() (uint64, *call, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return 0, nil, c.err
	}
	c.next++
	w := &call{done: make(chan struct{})}
	c.waiting[c.next] = w
	return c.next, w, nil
}

func (c *Client) forget(id uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.waiting, id)
}

func (c *Client) wait(ctx context.Context, id uint64, w *call) (*Reply, error) {
	select {
	case <-w.done:
	case <-ctx.Done():
		c.forget(id)
		select {
		case <-w.done: // it came after all: its files must not be lost
		default:
			return nil, fmt.Errorf("no answer from sluice-intercept: %w", context.Cause(ctx))
		}
	}
	switch {
	case w.reply == nil:
		c.mu.Lock()
		defer c.mu.Unlock()
		return nil, c.err
	case w.reply.Err != nil:
		return nil, w.reply.Err
	}
	return w.reply, nil
}

// read takes replies until the connection ends.
func (c *Client) read() {
	buf, oob := make([]byte, MaxPacket+1), make([]byte, unix.CmsgSpace(MaxFiles*4))
	for {
		b, files, err := receive(c.conn, buf, oob)
		if err == nil {
			err = c.take(b, files)
		}
		if err != nil {
			c.end(err)
			return
		}
	}
}

func (c *Client) take(b []byte, files []*os.File) error {
	rep := new(Reply)
	if err := decode(b, rep); err != nil {
		closeAll(files)
		return err
	}
	if rep.V != Version {
		closeAll(files)
		return Errorf(CodeVersion, "sluice-intercept speaks %v", &versionError{theirs: rep.V})
	}
	rep.Files = files
	if rep.Event != nil {
		return c.heard(rep.Event)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	w, ok := c.waiting[rep.ID]
	if !ok { // the caller has given up
		closeAll(files)
		return nil
	}
	if w.reply != nil {
		if len(w.reply.Users)+len(rep.Users) > MaxEntries {
			closeAll(files)
			return errMessage
		}
		rep.Users = append(w.reply.Users, rep.Users...)
	}
	w.reply = rep
	if !rep.More {
		delete(c.waiting, rep.ID)
		close(w.done)
	}
	return nil
}

func (c *Client) end(why error) {
	_ = c.conn.Close() // it is gone already, or the peer broke the rules
	if l := c.lane.Load(); l != nil {
		l.shut()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.err = ErrLost
	if e, ok := errors.AsType[*Error](why); ok {
		c.err = e
	}
	for id, w := range c.waiting {
		delete(c.waiting, id)
		w.reply = nil
		close(w.done)
	}
	close(c.lost)
}
