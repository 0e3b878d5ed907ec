package control

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// session is one peer's connection on the helper's side.
type session struct {
	server  *Server
	conn    *net.UnixConn
	cancel  context.CancelFunc
	peer    Peer
	lists   map[uint64]*Request // lists of which parts are still to come
	entries int                 // in all of them
	slots   chan struct{}
	pending sync.WaitGroup
}

// run reads requests. Short ones are answered in order and at once; lists and what may wait have a goroutine of their
// own, so that a lock never waits behind a million prefixes.
func (s *session) run(ctx context.Context) error {
	defer func() {
		for _, unfinished := range s.lists {
			s.release(unfinished)
		}
	}()
	buf, oob := make([]byte, MaxPacket+1), make([]byte, unix.CmsgSpace(MaxFiles*4))
	for {
		b, files, err := receive(s.conn, buf, oob)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		req, err := s.request(b, files)
		if err != nil {
			closeAll(files)
			s.explain(err)
			return err
		}
		if req == nil {
			continue
		}
		switch req.Op {
		case OpLane:
			if err := s.answer(ctx, req); err != nil {
				return err
			}
			return s.lane(ctx)
		case OpLock, OpUnlock, OpConnect, OpServing, OpTell:
			if err := s.answer(ctx, req); err != nil {
				return err
			}
		default:
			s.slots <- struct{}{} // back-pressure on a peer that asks faster than it is answered
			s.pending.Add(1)
			go s.later(ctx, req)
		}
	}
}

// request decodes a packet; it returns nil while further parts of a list are to come.
func (s *session) request(b []byte, files []*os.File) (*Request, error) {
	req, err := decodeRequest(b)
	if err != nil {
		return nil, err
	}
	if req.refused != nil && len(files) > 0 {
		closeAll(files)
		files = nil
	}
	if len(files) != len(req.Names) || (len(files) > 0 && req.Op != OpHello) {
		return nil, fmt.Errorf("%w: %d files beside %d names in %s", errMessage, len(files), len(req.Names), req.Op)
	}
	req.Files = files
	if !req.Op.list() {
		return req, nil
	}
	whole, size := s.lists[req.ID], req.weight()
	switch {
	case whole == nil && len(s.lists) >= 4:
		return nil, fmt.Errorf("%w: more than 4 unfinished lists", errMessage)
	case whole == nil:
		whole = req
	case whole.Op != req.Op:
		return nil, fmt.Errorf("%w: list changes from %s to %s", errMessage, whole.Op, req.Op)
	default:
		whole.refused = cmp.Or(whole.refused, req.refused)
		whole.Sources = append(whole.Sources, req.Sources...)
		whole.Locks = append(whole.Locks, req.Locks...)
		whole.Exemptions = append(whole.Exemptions, req.Exemptions...)
	}
	s.lists[req.ID] = whole
	if err := s.hold(whole, size); err != nil {
		return nil, err
	}
	if req.More {
		return nil, nil
	}
	delete(s.lists, req.ID)
	s.entries -= whole.held
	return whole, nil
}

func (s *session) later(ctx context.Context, req *Request) {
	defer s.pending.Done()
	defer func() { <-s.slots }()
	defer s.release(req)
	if err := s.answer(ctx, req); err != nil {
		s.cancel() // run then ends, too
	}
}

// handle asks the handler, but for what proxies have to say to each other.
func (s *session) handle(ctx context.Context, req *Request) (*Reply, error) {
	if req.refused != nil {
		return nil, req.refused
	}
	switch req.Op {
	case OpServing:
		return nil, s.server.generations.serves(s)
	case OpTell:
		return nil, s.server.generations.tell(s, &Event{Note: req.Note})
	case OpHello:
		s.server.generations.join(s, req.Started) // before the welcome, so that no event after it is missed
	}
	return s.server.Handler.Handle(ctx, s.peer, req)
}

// explain tells a peer of another version why it is cut off.
func (s *session) explain(err error) {
	if v, ok := errors.AsType[*versionError](err); ok && s.conn.SetWriteDeadline(time.Now().Add(sendPatience)) == nil {
		_ = send(s.conn, &Reply{V: Version, ID: v.id, Err: Errorf(CodeVersion, "sluice-intercept does not speak %v", v)}, nil) // it goes either way
	}
}

// answer asks the handler and sends its reply.
func (s *session) answer(ctx context.Context, req *Request) error {
	rep, err := s.handle(ctx, req)
	if rep == nil || err != nil {
		rep = &Reply{Err: asError(err)}
	}
	if rep.CloseFiles {
		defer closeAll(rep.Files)
	}
	rep.V, rep.ID = Version, req.ID
	if err := s.conn.SetWriteDeadline(time.Now().Add(sendPatience)); err != nil {
		return err
	}
	const part = 100 // users of at most 600 bytes each
	for len(rep.Users) > part {
		head := &Reply{V: Version, ID: req.ID, More: true, Users: rep.Users[:part]}
		if err := send(s.conn, head, nil); err != nil {
			return err
		}
		rep.Users = rep.Users[part:]
	}
	err = send(s.conn, rep, rep.Files)
	if errors.Is(err, errSize) { // the peer must not lose its connection for having asked
		err = send(s.conn, &Reply{V: Version, ID: req.ID, Err: asError(err)}, nil)
	}
	return err
}

func asError(err error) *Error {
	var e *Error
	switch {
	case err == nil:
		return nil
	case errors.As(err, &e):
		return e
	}
	return &Error{Code: CodeFailed, Text: err.Error()}
}
