package lab

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Capture records packets of an interface into a pcap file.
//
// It is a packet socket of our own, not a tcpdump: a tcpdump that is told to
// stop leaves what still waits in its buffer unread, and a test that proves
// that no packet passed would prove nothing.
type Capture struct {
	path   string
	socket *os.File
	raw    syscall.RawConn
	done   chan struct{}

	mu    sync.Mutex
	file  *os.File
	out   *bufio.Writer
	frame []byte
	oob   []byte
	err   error
}

// captureBuffer is the kernel's queue for one capture, in bytes.
const captureBuffer = 64 << 20

// Capture records the packets on an interface of host that match a filter of
// pcap-filter(7), both directions. Packets count from the moment it returns.
func (l *Lab) Capture(ctx context.Context, host, iface, filter string) (*Capture, error) {
	c, err := l.capture(ctx, host, iface, filter)
	if err != nil {
		return nil, fmt.Errorf("could not capture on %s of %s: %w", iface, host, err)
	}
	return c, nil
}

func (l *Lab) capture(ctx context.Context, host, iface, filter string) (*Capture, error) {
	program, err := l.compile(ctx, host, filter)
	if err != nil {
		return nil, err
	}
	c := &Capture{
		path:  filepath.Join(l.dir, "capture", fmt.Sprintf("%s-%s-%d.pcap", host, iface, logSerial.Add(1))),
		done:  make(chan struct{}),
		frame: make([]byte, 256<<10),
		oob:   make([]byte, 256),
	}
	if c.file, err = os.Create(c.path); err != nil {
		return nil, err
	}
	c.out = bufio.NewWriterSize(c.file, 256<<10)
	if err := binary.Write(c.out, binary.LittleEndian, pcapHeader()); err != nil {
		return nil, errors.Join(err, c.file.Close())
	}
	if err := l.In(host, func() error { return c.open(iface, program) }); err != nil {
		return nil, errors.Join(err, c.file.Close())
	}
	l.onClose(c)
	go c.record()
	return c, nil
}

// compile turns a filter expression into the kernel's program; tcpdump does it.
func (l *Lab) compile(ctx context.Context, host, filter string) ([]unix.SockFilter, error) {
	text, err := l.must(ctx, host, Command{Args: []string{"tcpdump", "-y", "EN10MB", "-s", "262144", "-ddd", filter}})
	if err != nil {
		return nil, err
	}
	lines := strings.Split(strings.TrimSpace(text), "\n")
	var program []unix.SockFilter
	for _, line := range lines[1:] { // the first is their number
		f := strings.Fields(line)
		if len(f) != 4 {
			return nil, fmt.Errorf("tcpdump's program has the line %q", line)
		}
		var n [4]uint64
		for i := range f {
			if n[i], err = strconv.ParseUint(f[i], 10, 32); err != nil {
				return nil, err
			}
		}
		program = append(program, unix.SockFilter{Code: uint16(n[0]), Jt: uint8(n[1]), Jf: uint8(n[2]), K: uint32(n[3])})
	}
	return program, nil
}

// open runs on a thread inside the host's namespace.
func (c *Capture) open(iface string, program []unix.SockFilter) error {
	dev, err := net.InterfaceByName(iface)
	if err != nil {
		return err
	}
	// Protocol 0: nothing arrives before the filter is in place and bind says so.
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return err
	}
	c.socket = os.NewFile(uintptr(fd), "capture "+iface)
	if c.raw, err = c.socket.SyscallConn(); err != nil {
		return err
	}
	if len(program) > math.MaxUint16 {
		return errors.New("the filter is too long")
	}
	prog := unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]}
	return errors.Join(
		unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &prog),
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, captureBuffer),
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1),
		unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: bigEndian16(unix.ETH_P_ALL), Ifindex: dev.Index}),
	)
}

// bigEndian16 is htons.
func bigEndian16(v uint16) uint16 {
	return binary.NativeEndian.Uint16([]byte{byte(v >> 8), byte(v)})
}

func pcapHeader() any {
	return struct {
		Magic        uint32 // times in nanoseconds
		Major, Minor uint16
		Zone, Sig    uint32
		Snap, Link   uint32
	}{0xa1b23c4d, 2, 4, 0, 0, 262144, 1}
}

// record reads until Stop sets a deadline in the past.
func (c *Capture) record() {
	defer close(c.done)
	// The error is that deadline, or that the socket was closed.
	_ = c.raw.Read(func(fd uintptr) bool {
		c.drain(int(fd))
		return false
	})
}

// drain reads all that waits in the socket.
func (c *Capture) drain(fd int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for {
		n, oobn, _, _, err := unix.Recvmsg(fd, c.frame, c.oob, 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			if !errors.Is(err, unix.EAGAIN) && c.err == nil {
				c.err = err
			}
			return
		}
		at := stamp(c.oob[:oobn])
		head := [4]uint32{uint32(at.Sec), uint32(at.Nsec), uint32(n), uint32(n)}
		err = binary.Write(c.out, binary.LittleEndian, head)
		if err == nil {
			_, err = c.out.Write(c.frame[:n])
		}
		if err != nil && c.err == nil {
			c.err = err
		}
	}
}

// stamp is the kernel's time of arrival.
func stamp(oob []byte) unix.Timespec {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err == nil {
		for _, m := range messages {
			if m.Header.Level == unix.SOL_SOCKET && m.Header.Type == unix.SCM_TIMESTAMPNS && len(m.Data) >= int(unsafe.Sizeof(unix.Timespec{})) {
				return *(*unix.Timespec)(unsafe.Pointer(&m.Data[0]))
			}
		}
	}
	return unix.NsecToTimespec(time.Now().UnixNano())
}

// Path of the capture file.
func (c *Capture) Path() string { return c.path }

// Packets are those seen until now; the capture goes on.
func (c *Capture) Packets() (Packets, error) {
	if err := c.sync(); err != nil {
		return nil, err
	}
	return ReadCapture(c.path)
}

// sync writes all packets that have arrived to the file. It fails when the
// kernel dropped some, as a count would then mean nothing.
func (c *Capture) sync() error {
	var lost uint32
	var failed error
	if err := c.raw.Control(func(fd uintptr) {
		c.drain(int(fd))
		stats, err := unix.GetsockoptTpacketStats(int(fd), unix.SOL_PACKET, unix.PACKET_STATISTICS)
		if err != nil {
			failed = err
			return
		}
		lost = stats.Drops
	}); err != nil {
		return fmt.Errorf("could not end the capture: %w", err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if lost > 0 {
		c.err = errors.Join(c.err, fmt.Errorf("%d packets were lost", lost))
	}
	if err := errors.Join(failed, c.err, c.out.Flush()); err != nil {
		return fmt.Errorf("could not trust capture %s: %w", c.path, err)
	}
	return nil
}

// Stop ends the capture and reads it.
func (c *Capture) Stop() (Packets, error) {
	packets, err := c.Packets()
	return packets, errors.Join(err, c.Close())
}

// Close ends the capture; its file stays with the lab.
func (c *Capture) Close() error {
	if err := c.socket.SetReadDeadline(time.Now()); err != nil {
		return nil // closed before
	}
	<-c.done
	return errors.Join(c.socket.Close(), c.out.Flush(), c.file.Close())
}
