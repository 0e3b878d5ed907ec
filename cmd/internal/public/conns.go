package public

import (
	"net"
	"sync"
)

// handed is a listener of connections that somebody else has accepted.
type handed struct {
	ch     chan net.Conn
	room   chan struct{}
	closed chan struct{}
	once   sync.Once
}

func newHanded(most int) *handed {
	return &handed{ch: make(chan net.Conn), room: make(chan struct{}, most), closed: make(chan struct{})}
}

// hand takes a connection; done is called when it is closed. Where there are too many it is closed at once.
func (h *handed) hand(c net.Conn, done func()) {
	select {
	case h.room <- struct{}{}:
	default:
		_ = c.Close()
		done()
		return
	}
	t := &told{Conn: c, done: func() { <-h.room; done() }}
	select {
	case h.ch <- t:
	case <-h.closed:
		_ = t.Close()
	}
}

// Accept implements net.Listener.
func (h *handed) Accept() (net.Conn, error) {
	select {
	case c := <-h.ch:
		return c, nil
	case <-h.closed:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (h *handed) Close() error {
	h.once.Do(func() { close(h.closed) })
	return nil
}

// Addr implements net.Listener.
func (h *handed) Addr() net.Addr { return &net.TCPAddr{} }

// told is a connection whose end somebody hears of.
type told struct {
	net.Conn
	done func()
	once sync.Once
}

// Close implements net.Conn.
func (t *told) Close() error {
	err := t.Conn.Close()
	t.once.Do(t.done)
	return err
}
