package control

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

const (
	maxConns     = 24              // an old and a new proxy with their lanes, observers, and spare
	maxPending   = 64              // requests of one connection that are being answered
	sendPatience = 5 * time.Second // a peer that does not read its replies is cut off
)

// Peer is the process at the other end, as the kernel knows it.
type Peer struct {
	PID int
	UID uint32
}

// Handler answers requests. Lists arrive whole. The files of a hello are the handler's to close; files in a reply stay
// the handler's unless it sets CloseFiles. An error that is not an *Error is reported as CodeFailed.
type Handler interface {
	Handle(ctx context.Context, peer Peer, req *Request) (*Reply, error)
}

// Listen opens the control socket at path for the owner and the group gid, mode 0660, replacing a dead one.
func Listen(path string, gid int) (*net.UnixListener, error) {
	if err := removeDead(path); err != nil {
		return nil, err
	}
	old := unix.Umask(0o177) // nobody else may come in before the mode is set
	l, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: path, Net: "unixpacket"})
	unix.Umask(old)
	if err != nil {
		return nil, fmt.Errorf("could not open the control socket %s: %w; does its folder exist?", path, err)
	}
	if err := errors.Join(chgrp(path, gid), os.Chmod(path, 0o660)); err != nil {
		return nil, errors.Join(fmt.Errorf("could not give the control socket %s to group %d: %w", path, gid, err), l.Close())
	}
	return l, nil
}

// chgrp changes the group only if it is another one: a helper that already runs in it needs no capability for that.
func chgrp(path string, gid int) error {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return err
	}
	if int(st.Gid) == gid {
		return nil
	}
	return os.Chown(path, -1, gid)
}

// removeDead removes a socket file that nobody listens on.
func removeDead(path string) error {
	fi, err := os.Lstat(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("could not look at the control socket %s: %w", path, err)
	}
	if fi.Mode()&os.ModeSocket == 0 {
		return fmt.Errorf("could not open the control socket %s: another kind of file stands there; remove it", path)
	}
	c, err := net.Dial("unixpacket", path)
	if err == nil {
		return errors.Join(fmt.Errorf("could not open the control socket %s: another sluice-intercept serves it; stop that one first", path), c.Close())
	}
	return os.Remove(path)
}

// Server serves one control socket.
type Server struct {
	Handler Handler
	Allow   func(Peer) bool                  // who may speak; nil is root only
	Logf    func(format string, args ...any) // peers that were cut off or took over; nil is silent

	generations generations
	held        atomic.Int64 // entries of unanswered lists
}

// Serve answers until the context ends or the listener fails, then waits for its connections to end.
func (s *Server) Serve(ctx context.Context, l *net.UnixListener) error {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	defer context.AfterFunc(ctx, func() { _ = l.Close() })() // a second close is harmless
	slots := make(chan struct{}, maxConns)
	for {
		c, err := l.AcceptUnix()
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("could not accept on the control socket: %w", err)
		}
		select {
		case slots <- struct{}{}:
		default:
			s.logf("control: more than %d connections, one refused", maxConns)
			_ = c.Close()
			continue
		}
		wg.Add(1)
		go func() {
			defer wg.Done()
			defer func() { <-slots }()
			s.conn(ctx, c)
		}()
	}
}

func (s *Server) logf(format string, args ...any) {
	if s.Logf != nil {
		s.Logf(format, args...)
	}
}

// conn serves one peer until it leaves or breaks a rule.
func (s *Server) conn(ctx context.Context, c *net.UnixConn) {
	ctx, cancel := context.WithCancel(ctx)
	sess := &session{server: s, conn: c, cancel: cancel, lists: make(map[uint64]*Request), slots: make(chan struct{}, maxPending)}
	defer sess.pending.Wait()
	defer s.generations.leave(sess)
	defer cancel()
	defer context.AfterFunc(ctx, func() { _ = c.Close() })()
	defer c.Close()
	var err error
	if sess.peer, err = peerOf(c); err != nil {
		s.logf("control: peer without credentials: %v", err)
		return
	}
	if !s.allowed(sess.peer) {
		s.logf("control: process %d of user %d may not speak here", sess.peer.PID, sess.peer.UID)
		return
	}
	if err := sess.run(ctx); err != nil && ctx.Err() == nil {
		s.logf("control: process %d of user %d cut off: %v", sess.peer.PID, sess.peer.UID, err)
	}
}

func (s *Server) allowed(p Peer) bool {
	if s.Allow == nil {
		return p.UID == 0
	}
	return s.Allow(p)
}

func peerOf(c *net.UnixConn) (Peer, error) {
	rc, err := c.SyscallConn()
	if err != nil {
		return Peer{}, err
	}
	var cred *unix.Ucred
	cerr := rc.Control(func(fd uintptr) { cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) })
	if err := errors.Join(cerr, err); err != nil {
		return Peer{}, err
	}
	return Peer{PID: int(cred.Pid), UID: cred.Uid}, nil
}
