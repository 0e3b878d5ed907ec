package control

import (
	"context"
	"errors"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// completeConnect waits until a non-blocking connect that another process started has ended, and takes the file over.
func completeConnect(ctx context.Context, f *os.File) (*net.TCPConn, error) {
	defer f.Close()
	rc, err := f.SyscallConn()
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = f.SetWriteDeadline(time.Unix(1, 0)) }) // fails only once f is closed
	defer stop()
	var result error
	err = rc.Write(func(fd uintptr) bool {
		soerr, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_ERROR)
		if err != nil || soerr != 0 {
			result = err
			if soerr != 0 {
				result = os.NewSyscallError("connect", unix.Errno(soerr))
			}
			return true
		}
		_, err = unix.Getpeername(int(fd))
		return err == nil // ENOTCONN while the handshake is under way
	})
	switch {
	case result != nil:
		return nil, result
	case errors.Is(err, os.ErrDeadlineExceeded) && ctx.Err() != nil:
		return nil, context.Cause(ctx)
	case err != nil:
		return nil, err
	}
	c, err := net.FileConn(f)
	if err != nil {
		return nil, err
	}
	tc, ok := c.(*net.TCPConn)
	if !ok {
		return nil, errors.Join(errors.New("the helper passed a socket that is not TCP"), c.Close())
	}
	return tc, nil
}

// SameSocket reports whether two files are one kernel socket.
func SameSocket(a, b *os.File) bool {
	ca, aok := cookie(a)
	cb, bok := cookie(b)
	return aok && bok && ca == cb
}

func cookie(f *os.File) (v uint64, ok bool) {
	rc, err := f.SyscallConn()
	if err != nil {
		return 0, false
	}
	cerr := rc.Control(func(fd uintptr) { v, err = unix.GetsockoptUint64(int(fd), unix.SOL_SOCKET, unix.SO_COOKIE) })
	return v, cerr == nil && err == nil
}
