package proxy

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"sluice/intercept/flow"
	"sluice/proxy/relay"
)

// shadowIdle ends a connection on which neither side has said anything: far beyond the waits of RFC 5321 4.5.3.2.
const shadowIdle = 30 * time.Minute

// What is read at once of a side, at first and once it has much to say.
const (
	shadowBuf     = 4 << 10
	mostShadowBuf = 32 << 10
)

// judgeAhead is how many overheard messages of one session may wait for their verdict before the dialogue waits for it.
const judgeAhead = 16

// shadow lets a client and its destination speak with each other over two connections, byte by byte, and judges what it
// overhears. Neither can tell it from a plain wire; what goes encrypted is not judged.
type shadow struct {
	*session
	far   net.Conn
	out   sync.Mutex // held while the client is written to; taken before mu
	mu    sync.Mutex // guards tap
	tap   tap
	ended atomic.Bool // both connections end in order
	// lockNote is our last reply where a lock ended the session.
	lockNote string
	queue    chan *overheard
	active   atomic.Int64 // unix nanoseconds of the last bytes

	outBytes, inBytes atomic.Int64     // that went by unread, from the client and from the destination
	spend             func(n int) bool // asks for room for n unread bytes; nil: there is no bound
	spentOut          atomic.Bool      // there was none: the session ends
	onlyTLS           bool             // what the client says must begin as TLS does
	noTLS             atomic.Bool      // it did not: the session ends
}

// ServeShadow serves a flow whose mode is shadow on nc to its end and closes nc: nothing is refused, held, signed or
// locked; the log says what would have been done. It ends early when ctx ends.
func (s *Server) ServeShadow(ctx context.Context, nc net.Conn, f *flow.Flow) {
	ss := newSession(s, nc, f)
	ss.shadow = true
	if !s.enterShadow(ss) {
		resetConn(nc)
		ss.ctx.end()
		return
	}
	defer s.leave(ss)
	defer s.survive(ss)
	stop := context.AfterFunc(ctx, ss.kill)
	defer stop()
	w := &shadow{session: ss, queue: make(chan *overheard, judgeAhead)}
	w.tap = tap{room: s.reserve, most: ss.set.BodyMemory, done: func(o *overheard) { w.queue <- o }}
	w.run()
}

// enterShadow lists a session, whatever bounds there are for others: its mail would have gone past us. False when the
// server is stopping.
func (s *Server) enterShadow(ss *session) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.drain.Err() != nil {
		return false
	}
	s.users[ss.flow.User.ID]++
	s.wg.Add(1)
	s.sessions[ss] = struct{}{}
	return true
}

// judge takes one message, and outlives its mistakes: the dialogue must not wait for a verdict that never comes.
func (w *shadow) judge(o *overheard) {
	defer w.srv.survive(w.session)
	w.judgeOverheard(o)
}

func (w *shadow) run() {
	defer w.ctx.end()
	w.user = w.srv.cfg.Policy.Settings(w.flow.User.ID)
	if err := w.reach(); err != nil {
		resetConn(w.client.Conn) // what the destination or the way to it did
		w.note = err.Error()
		w.logEmpty()
		return
	}
	defer context.AfterFunc(&w.ctx, func() { _ = w.far.Close() })() // a second close is harmless
	judged := make(chan struct{})
	go func() {
		defer close(judged)
		for o := range w.queue {
			w.judge(o)
		}
	}()
	w.stage(idle)
	w.pump()
	w.mu.Lock()
	w.tap.close()
	w.mu.Unlock()
	close(w.queue)
	<-judged
	w.last, w.heard, w.note = w.tap.heard, w.tap.heard, w.tap.blind
	w.opaque = w.note != ""
	w.noteEnd()
	if w.sent.Load() == 0 || w.note != "" {
		w.logEmpty()
	}
}

// pump passes bytes in both directions until both have ended, and closes both connections.
func (w *shadow) pump() {
	w.active.Store(time.Now().UnixNano())
	up := make(chan struct{})
	go func() {
		defer close(up)
		defer w.srv.survive(w.session)
		w.copy(&w.client, w.far, w.toServer)
	}()
	w.copy(w.far, w.client.Conn, w.toClient)
	<-up
	w.stage(closing)
	_, _ = w.client.Conn.Close(), w.far.Close() // both directions have ended
}

// noteEnd tells the record what passed unread, and what of ours ended it.
func (w *shadow) noteEnd() {
	w.passed = Unread{Out: w.outBytes.Load(), In: w.inBytes.Load()}
	switch {
	case w.lockNote != "":
		w.last, w.note = w.lockNote, "the user was locked"
	case w.spentOut.Load():
		w.note = spentNote
	case w.noTLS.Load():
		w.note = noTLSNote
	}
}

// reach connects to the destination from the client's address.
func (w *shadow) reach() (err error) {
	target := w.flow.Target.Addr()
	if w.set.Pool.Has(target) || w.set.Local != nil && w.set.Local(target) {
		return errors.New(ownTarget.text)
	}
	w.far, err = w.srv.cfg.Dialer.Connect(&w.ctx, relay.Route{Target: w.flow.Target, Source: w.flow.Client.Addr(), Own: true})
	return err
}

// copy passes one side's bytes on to the other as they come. pass does it, or ends the connection; what ended it is
// passed on, too.
func (w *shadow) copy(from, to net.Conn, pass func([]byte) (bool, error)) {
	buf := make([]byte, shadowBuf)
	for {
		if err := from.SetReadDeadline(time.Now().Add(shadowIdle)); err != nil {
			resetConn(to)
			return
		}
		n, err := from.Read(buf)
		if n > 0 {
			w.active.Store(time.Now().UnixNano())
			on, err := pass(buf[:n])
			if err != nil {
				w.abort(from, to)
				return
			}
			if !on || w.stopped() {
				w.hangUp()
				return
			}
			if n == len(buf) && n < mostShadowBuf { // there is more to come: idle ones cost little
				buf = make([]byte, mostShadowBuf)
			}
		}
		switch {
		case err == nil:
		case w.ended.Load():
			return
		case errors.Is(err, os.ErrDeadlineExceeded) && time.Since(time.Unix(0, w.active.Load())) < shadowIdle:
		case errors.Is(err, errWoken):
			w.tellLocked()
			w.hangUp()
			return
		case errors.Is(err, os.ErrDeadlineExceeded):
			w.hangUp()
			return
		case isEOF(err):
			closeWrite(to)
			return
		default:
			resetConn(to)
			return
		}
	}
}

// hangUp ends both connections in order.
func (w *shadow) hangUp() {
	w.ended.Store(true)
	_, _ = w.client.Conn.Close(), w.far.Close() // they end either way
}

// abort ends both connections as one that broke.
func (w *shadow) abort(from, to net.Conn) {
	if w.ended.Load() {
		return
	}
	resetConn(from)
	resetConn(to)
}

// toServer passes the client's bytes on. A locked user's stop where no message hangs in the air: none whose end the
// destination has and whose answer the client has not.
func (w *shadow) toServer(p []byte) (on bool, err error) {
	w.mu.Lock()
	settled := w.tap.settled()
	if settled && w.locked() {
		w.mu.Unlock()
		w.tellLocked()
		return false, nil
	}
	w.tap.fromClient(p)
	on = w.restage() && !(settled && !w.tap.settled() && w.doomed.Load()) // cut right before the end of the message
	on = on && w.sealed(p) && w.meter(&w.outBytes, len(p))
	w.mu.Unlock()
	if on {
		_, err = w.far.Write(p)
	}
	return on, err
}

// toClient passes the destination's bytes on.
func (w *shadow) toClient(p []byte) (on bool, err error) {
	w.out.Lock()
	defer w.out.Unlock()
	w.mu.Lock()
	w.tap.fromServer(p)
	on = w.restage()
	room := w.meter(&w.inBytes, len(p))
	w.mu.Unlock()
	if !room {
		return false, nil
	}
	if !on { // ended between two messages: whatever this is, it is no answer
		return !w.locked(), nil
	}
	if _, err = w.client.Conn.Write(p); err == nil && w.locked() {
		w.client.end()
	}
	return true, err
}

// tlsHandshake is the first byte of a TLS connection (RFC 8446 5.1).
const tlsHandshake = 22

// sealed tells whether what the client says may go on unread: mail in plain text behind STARTTLS may not, even where the
// destination would take it. w.mu is held.
func (w *shadow) sealed(p []byte) bool {
	if w.onlyTLS && w.outBytes.Load() == 0 && p[0] != tlsHandshake {
		w.noTLS.Store(true)
		return false
	}
	return true
}

// meter counts bytes that nobody reads; false when there is no room for them. w.mu is held.
func (w *shadow) meter(count *atomic.Int64, n int) bool {
	if w.tap.blind == "" {
		return true
	}
	if w.spend != nil && !w.spend(n) {
		w.spentOut.Store(true)
		return false
	}
	count.Add(int64(n))
	return true
}

// restage marks the session as one that may be ended, or not; false when it was ended just now.
func (w *shadow) restage() bool {
	if name := w.tap.helo; name != w.helo {
		w.helo = name
		w.name.Store(&name)
	}
	to := idle
	switch {
	case w.tap.blind != "":
		w.secure.Store(true)
		to = unread
	case !w.tap.settled():
		to = dotted
	case w.tap.open():
		to = envelope
	}
	for {
		now := w.client.stage.Load()
		if now == woken || now == closing {
			return false
		}
		if w.client.stage.CompareAndSwap(now, to) {
			return true
		}
	}
}

// stopped tells whether the server stops and nothing is open here.
func (w *shadow) stopped() bool {
	return w.srv.drain.Err() != nil && w.client.stage.Load() == idle
}

func isEOF(err error) bool { return errors.Is(err, io.EOF) }

// discard reads what still comes, to the peer's end or the connection's deadline: a reset would overtake the last reply.
func discard(c net.Conn) {
	_, _ = io.Copy(io.Discard, io.LimitReader(c, 1<<20)) // it ends either way
}

// closeWrite passes the end of one direction on.
func closeWrite(c net.Conn) {
	if w, ok := c.(interface{ CloseWrite() error }); ok {
		_ = w.CloseWrite() // the peer may be gone
		return
	}
	_ = c.Close()
}

// resetConn ends a connection with a RST.
func resetConn(c net.Conn) {
	switch r := c.(type) {
	case interface{ Reset() error }:
		_ = r.Reset() // it is gone in any case
		return
	case interface{ SetLinger(int) error }:
		_ = r.SetLinger(0)
	}
	_ = c.Close()
}
