package relay

import (
	"bytes"
	"errors"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"sluice/proxy/smtp"
)

// Small messages go in one chunk (RFC 3030) to who offers CHUNKING: that saves the round trip of DATA. Who offers it without
// knowing it, or stands behind a firewall that does not, would take the lines of the message for commands, and these are a
// stranger's. So the first chunk that a destination gets from us holds nothing but header fields of ours, and is answered
// before there is another; who does not take that one hears DATA, on a new connection, in the same transaction of the client.
const (
	mostChunk = 256 << 10 // a larger message is asked for first: who does not want it has had to take no more in vain
	// firstWait is how long the answer to the first chunk is waited for. Nothing is to be looked at yet.
	firstWait = 30 * time.Second
	// chunkPause is how long somebody who did not take it is not tried again.
	chunkPause = 24 * time.Hour
	mostTakers = 1 << 14 // that are remembered
)

// ErrNoChunk: the destination offers CHUNKING and does not take a chunk. It has not got the message, which may go once more by another
// session (ByData); this one is to be closed.
var ErrNoChunk = errors.New("the destination offers CHUNKING and does not take a chunk")

// What is known of how a destination takes chunks. Anything else is when it did not take one, by Unix seconds.
const (
	untried int64 = 0
	takes   int64 = -1
)

// taker is one destination that offers CHUNKING, shared by its sessions.
type taker struct{ state atomic.Int64 }

// takes tells whether the destination has taken a chunk.
func (t *taker) takes() bool { return t != nil && t.state.Load() == takes }

// refuses tells whether it has not taken one.
func (t *taker) refuses() bool { return t.state.Load() > 0 }

// refused notes that it has not taken one.
func (t *taker) refused(now time.Time) { t.state.Store(now.Unix()) }

// site is what a destination is known by here: behind one address there may be several servers, and a firewall sees
// nothing of what is encrypted.
type site struct {
	target    netip.AddrPort
	name      string
	encrypted bool
}

// takers remembers destinations that offer CHUNKING. It is safe for concurrent use.
type takers struct {
	mu sync.Mutex
	m  map[site]*taker
}

// of gives what is known of a destination.
func (k *takers) of(w site, now time.Time) *taker {
	k.mu.Lock()
	defer k.mu.Unlock()
	t := k.m[w]
	if t == nil {
		if k.m == nil {
			k.m = make(map[site]*taker)
		}
		for old := range k.m { // map order is as good as random
			if len(k.m) < mostTakers {
				break
			}
			delete(k.m, old)
		}
		t = new(taker)
		k.m[w] = t
	}
	if at := t.state.Load(); at > 0 && now.Sub(time.Unix(at, 0)) > chunkPause {
		t.state.CompareAndSwap(at, untried)
	}
	return t
}

// inChunk tells whether small messages go as one chunk.
func (s *Session) inChunk() bool { return s.taker != nil && !s.taker.refuses() }

// ByData has small messages go by DATA from here on.
func (s *Session) ByData() { s.taker = nil }

var lineEnd = []byte("\r\n")

// asChunk tells whether a message goes as one chunk. One that ends within a line gets its end by DATA, as ever.
func (s *Session) asChunk(prefix []byte, body *smtp.Body) bool {
	switch {
	case s.Waits():
		return false
	case s.binary:
		return true
	}
	return s.inChunk() && body.Size() <= mostChunk && !body.Spilled() && bytes.HasSuffix(body.Bytes(), lineEnd) && (s.taker.takes() || len(prefix) > 0)
}

// deliverChunk sends the message as one chunk, or what stands before it as the first of two.
func (s *Session) deliverChunk(prefix []byte, body *smtp.Body, c Client) (*smtp.Reply, error) {
	if f := s.quiet(); f != nil {
		return nil, f
	}
	s.open, s.reset = false, true // a refused chunk leaves the transaction in doubt
	if !s.binary && !s.taker.takes() {
		if r, err := s.firstChunk(prefix); r != nil || err != nil {
			return r, err
		}
		prefix = nil
	}
	s.conn.SetReadTimeout(s.timeouts.Final)
	s.client = c
	err := s.conn.WriteChunkAsking(prefix, body, s.ask)
	s.client = nil
	r, err := s.final(err)
	switch {
	case s.binary:
	case err == nil && unknown(r.Code), err != nil && foreign(err):
		return nil, s.noChunk()
	case err != nil && !errors.Is(err, ErrGone):
		s.taker.state.CompareAndSwap(takes, untried) // what another session has found meanwhile stays
	}
	if err == nil && r.Class() == 2 {
		s.reset = false
	}
	return r, err
}

// firstChunk sends header fields of ours as a chunk that others follow, to see whether the destination knows chunks. Neither a
// reply nor an error: it does. A reply is its answer to the message, for now.
func (s *Session) firstChunk(fields []byte) (*smtp.Reply, error) {
	err := s.conn.WriteFirstChunk(fields)
	if errors.Is(err, smtp.ErrNotCanonical) {
		return nil, failed(err)
	}
	s.conn.SetReadTimeout(min(firstWait, s.timeouts.Command))
	if err == nil {
		err = s.conn.ReadReply(&s.rep)
	}
	switch {
	case errors.Is(err, net.ErrClosed): // it was cut here, which says nothing of the destination
		return nil, failed(err)
	case err != nil || s.rep.Class() == 3 || s.rep.Class() == 5: // a refusal for good may be the command's, whatever its code
		return nil, s.noChunk()
	case s.rep.Code == 421:
		return nil, refusal(&s.rep)
	case s.rep.Class() != 2:
		s.conn.SetReadTimeout(s.timeouts.Command)
		s.conn.SetUntil(time.Time{})
		return &s.rep, nil
	}
	switch f := s.quiet(); { // who answers each line, or twice, would answer the message before it is there
	case f == nil:
		s.taker.state.Store(takes)
		return nil, nil
	case f.Raw != nil, errors.Is(f, net.ErrClosed):
		return nil, f
	}
	return nil, s.noChunk()
}

// noChunk notes that the destination does not take chunks.
func (s *Session) noChunk() error {
	s.taker.refused(time.Now())
	return ErrNoChunk
}

// unknown tells whether a code speaks of the command and not of the message (RFC 5321 4.2.2: syntax, not implemented, bad sequence).
func unknown(code int) bool { return code >= 500 && code <= 504 }

// foreign tells whether the destination gave up in the midst of a chunk with words about the command.
func foreign(err error) bool {
	var f *Failure
	return errors.As(err, &f) && f.Raw != nil && unknown(f.Code)
}
