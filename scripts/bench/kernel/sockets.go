package kernel

import (
	"errors"
	"fmt"
	"runtime"
	"unsafe"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

const (
	streamPort = 443
	mss        = 1448
	atOnce     = 32      // datagrams in one system call
	window     = 1 << 23 // room for what the receiver has not taken; the sender must never wait for it
	long       = 10      // seconds: no call takes longer
	handful    = 1 << 18 // the receiver is not woken for fewer bytes: no customer's server is on the gateway
)

// connect makes the sockets of a flood. Of TCP whose every segment is a packet the sender never hears of a device that cuts.
func (s *streamGate) connect(f flood) (e ends, err error) {
	to := &unix.SockaddrInet4{Addr: prefix32(nowhere).Addr().As4(), Port: streamPort}
	if f.payload > 0 {
		e.to = -1
		e.from, err = s.dial(unix.SOCK_DGRAM, to)
		return e, err
	}
	to.Addr = server4.As4()
	most := uint32(65535)
	if f.single {
		most = 1
	}
	err = s.client.run(func() error {
		dev, err := netlink.LinkByName("c0")
		if err == nil {
			err = netlink.LinkSetGSOMaxSegs(dev, int(most))
		}
		return err
	})
	if err != nil {
		return e, fmt.Errorf("could not have %d segments in a packet: %w", most, err)
	}
	var l int
	err = s.server.run(func() (err error) {
		if l, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0); err != nil {
			return err
		}
		return errors.Join(unix.SetsockoptInt(l, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1),
			unix.SetsockoptInt(l, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, window), unix.Bind(l, to), unix.Listen(l, 1))
	})
	defer unix.Close(l)
	if err != nil {
		return e, err
	}
	if e.from, err = s.dial(unix.SOCK_STREAM, to); err != nil {
		return e, err
	}
	err = s.server.run(func() (err error) {
		e.to, _, err = unix.Accept4(l, unix.SOCK_CLOEXEC)
		return errors.Join(err, patient(e.to))
	})
	s.closers = append(s.closers, func() error { return unix.Close(e.to) })
	return e, err
}

func (s *streamGate) dial(kind int, to unix.Sockaddr) (fd int, err error) {
	err = s.client.run(func() (err error) {
		if fd, err = unix.Socket(unix.AF_INET, kind|unix.SOCK_CLOEXEC, 0); err != nil {
			return err
		}
		s.closers = append(s.closers, func() error { return unix.Close(fd) })
		return errors.Join(patient(fd), unix.Bind(fd, &unix.SockaddrInet4{Addr: prefix32(takenClient).Addr().As4()}), unix.Connect(fd, to))
	})
	return fd, err
}

// patient bounds how long a call waits.
func patient(fd int) error {
	return errors.Join(unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &unix.Timeval{Sec: long}),
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: long}))
}

// send sends about so many packets and returns how many bytes they carried, once they have arrived.
func (s *streamGate) send(f flood, e ends, packets int) (bytes uint64, err error) {
	if f.payload > 0 {
		err := s.client.run(func() error { return sendDatagrams(e.from, f.payload, packets) })
		return uint64(f.payload * packets), err
	}
	bytes = uint64(packets) * mss
	if !f.single {
		bytes *= 1 << 16 / mss // what a large packet holds at most
	}
	bytes = (bytes + handful - 1) / handful * handful
	got := make(chan error, 1)
	go func() { got <- s.server.run(func() error { return discard(e.to, bytes) }) }()
	return bytes, errors.Join(s.client.run(func() error { return pour(e.from, bytes) }), <-got)
}

// pour writes n bytes.
func pour(fd int, n uint64) error {
	block := make([]byte, 1<<17)
	for n > 0 {
		sent, err := unix.Write(fd, block[:min(n, uint64(len(block)))])
		if err != nil && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("could not send: %w", err)
		}
		n -= uint64(max(sent, 0))
	}
	return nil
}

// discard takes n bytes without looking at them, which tcp(7) does for MSG_TRUNC. It waits by poll(2): a call that had taken some and
// waited for more would be woken by as many again only.
func discard(fd int, n uint64) error {
	block := make([]byte, handful)
	ready := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	for n > 0 {
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVLOWAT, int(min(n, handful))); err != nil {
			return err
		}
		if some, err := unix.Poll(ready, long*1000); err != nil && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("could not wait: %w", err)
		} else if some == 0 && err == nil {
			return fmt.Errorf("could not receive: %d bytes did not come within %d s", n, long)
		}
		got, _, err := unix.Recvfrom(fd, block[:min(n, handful)], unix.MSG_TRUNC|unix.MSG_DONTWAIT)
		switch {
		case errors.Is(err, unix.EINTR), errors.Is(err, unix.EAGAIN):
		case err != nil:
			return fmt.Errorf("could not receive: %w", err)
		case got == 0:
			return errors.New("could not receive: the connection ended")
		}
		n -= uint64(max(got, 0))
	}
	return nil
}

// datagram is struct mmsghdr.
type datagram struct {
	header unix.Msghdr
	sent   uint32
	_      [4]byte
}

func sendDatagrams(fd, size, n int) error {
	payload := make([]byte, size)
	part := unix.Iovec{Base: &payload[0]}
	part.SetLen(size)
	list := make([]datagram, atOnce)
	for i := range list {
		list[i].header.Iov = &part
		list[i].header.SetIovlen(1)
	}
	for n > 0 {
		done, _, e := unix.Syscall6(unix.SYS_SENDMMSG, uintptr(fd), uintptr(unsafe.Pointer(&list[0])), uintptr(min(n, atOnce)), 0, 0, 0)
		if e != 0 && e != unix.EINTR {
			return fmt.Errorf("could not send: %w", e)
		}
		if e == 0 {
			n -= int(done)
		}
	}
	runtime.KeepAlive(payload)
	return nil
}
