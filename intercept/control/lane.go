package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync"

	"golang.org/x/sys/unix"
)

// lane is a second connection to the helper for what cannot wait: locks. On both sides a thread of its own waits in the
// kernel for the other, so a call is two switches between threads and never waits for a scheduler that has other work, or
// for its poller. One call is under way at a time.
type lane struct {
	mu   sync.Mutex // one call at a time
	next uint64
	buf  []byte

	urgent *urgent // nil: the helper's data path has no place for them

	life sync.Mutex // guards fd; taken after mu where both are
	fd   int        // -1: closed
}

// openLane asks the helper at path for a lane. The error is an *Error with CodeUnknown where it knows none.
func openLane(path string) (*lane, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("could not open a socket: %w", err)
	}
	l := &lane{fd: fd, buf: make([]byte, MaxPacket+1)}
	err = errors.Join(impatient(fd), unix.Connect(fd, &unix.SockaddrUnix{Name: path}))
	if err == nil {
		err = l.begin()
	}
	if err != nil {
		l.close()
		return nil, err
	}
	return l, nil
}

// impatient bounds how long one side waits for the other to read or to answer.
func impatient(fd int) error {
	tv := unix.NsecToTimeval(sendPatience.Nanoseconds())
	return errors.Join(unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &tv), unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv))
}

// begin makes a lane of a connection; this one request is like those of other connections.
func (l *lane) begin() error {
	b, err := json.Marshal(&Request{V: Version, ID: 1, Op: OpLane})
	if err != nil {
		return err
	}
	if err := eachTime(func() error { return unix.Send(l.fd, b, unix.MSG_NOSIGNAL) }); err != nil {
		return laneError(err)
	}
	b, files, err := l.welcome()
	defer closeAll(files)
	if err != nil {
		return err
	}
	rep := new(Reply)
	if err := decode(b, rep); err != nil {
		return err
	}
	if rep.Err != nil {
		return rep.Err
	}
	for i, name := range rep.Names {
		if name == urgentName && i < len(files) {
			l.urgent, err = openUrgent(files[i])
		}
	}
	return err
}

// welcome reads the first answer, which may bring a file.
func (l *lane) welcome() (b []byte, files []*os.File, err error) {
	oob := make([]byte, unix.CmsgSpace(4*4))
	var n, oobn int
	err = eachTime(func() (err error) {
		n, oobn, _, _, err = unix.Recvmsg(l.fd, l.buf, oob, unix.MSG_CMSG_CLOEXEC)
		return err
	})
	if err != nil {
		return nil, nil, laneError(err)
	}
	if files, err = parseFiles(oob[:oobn]); err == nil && n == 0 {
		err = ErrLost
	}
	return l.buf[:n], files, err
}

// do asks and waits for the answer. After an error that is not the helper's refusal the lane is shut.
func (l *lane) do(req *Request) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.next++
	req.ID = l.next
	b, err := l.exchange(appendLane(l.buf[:0], req))
	var id uint64
	var refused *Error
	if err == nil {
		id, refused, err = parseLaneReply(b)
	}
	switch {
	case err != nil:
	case id != req.ID:
		err = errMessage
	case refused != nil:
		return refused
	default:
		return nil
	}
	l.shut()
	return err
}

// exchange sends a packet and returns the one that comes back. It is called with mu held, or before the lane is known:
// only close, which waits for mu, closes the descriptor.
func (l *lane) exchange(b []byte) ([]byte, error) {
	if l.fd < 0 {
		return nil, ErrLost
	}
	if err := eachTime(func() error { return unix.Send(l.fd, b, unix.MSG_NOSIGNAL) }); err != nil {
		return nil, laneError(err)
	}
	n := 0
	if err := eachTime(func() (err error) { n, err = unix.Read(l.fd, l.buf); return err }); err != nil {
		return nil, laneError(err)
	}
	if n == 0 {
		return nil, ErrLost
	}
	return l.buf[:n], nil
}

// eachTime repeats what a signal has interrupted.
func eachTime(f func() error) error {
	for {
		if err := f(); err != unix.EINTR {
			return err
		}
	}
}

func laneError(err error) error {
	if err == unix.EPIPE || err == unix.ECONNRESET || err == unix.ENOTCONN {
		return ErrLost
	}
	return fmt.Errorf("no answer from sluice-intercept: %w", err)
}

// shut ends the connection for both sides; a call that is under way returns.
func (l *lane) shut() {
	l.life.Lock()
	defer l.life.Unlock()
	if l.fd >= 0 {
		_ = unix.Shutdown(l.fd, unix.SHUT_RDWR) // it may be shut
	}
}

// close shuts the lane and frees the descriptor once no call is under way.
func (l *lane) close() {
	l.shut()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.life.Lock()
	defer l.life.Unlock()
	if l.fd >= 0 {
		_ = unix.Close(l.fd) // nothing is lost with it
		l.fd = -1
	}
	l.urgent.close()
}

// lane serves one lane: this goroutine's thread waits for the proxy's, and does nothing else.
func (s *session) lane(ctx context.Context) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	f, err := s.conn.File()
	if err != nil {
		return err
	}
	fd := int(f.Fd()) // waits in the kernel from now on
	done := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(done)
		_ = unix.Shutdown(fd, unix.SHUT_RDWR) // ends the wait
	})
	defer func() {
		if !stop() {
			<-done
		}
		_ = f.Close() // the connection itself is closed by who opened it
	}()
	tv := unix.NsecToTimeval(sendPatience.Nanoseconds())
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &tv); err != nil {
		return err
	}
	buf := make([]byte, MaxPacket+1)
	for {
		n := 0
		if err := eachTime(func() (err error) { n, err = unix.Read(fd, buf); return err }); err != nil {
			return err
		}
		if n == 0 {
			return nil
		}
		b, err := s.inLane(ctx, buf[:n])
		if err != nil {
			return err
		}
		if err := eachTime(func() error { return unix.Send(fd, b, unix.MSG_NOSIGNAL) }); err != nil {
			return err
		}
	}
}

// inLane answers one request of a lane.
func (s *session) inLane(ctx context.Context, b []byte) ([]byte, error) {
	req, err := parseLane(b)
	if err != nil {
		return nil, err
	}
	_, err = s.handle(ctx, req)
	return appendLaneReply(nil, req.ID, asError(err)), nil
}
