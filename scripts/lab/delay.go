package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// Delay makes the internet far away: packets for port 25 that come from the
// gateway pass through a TUN device and wait there. It stands in for netem,
// which not every kernel has.
type Delay struct {
	tun  *os.File
	wait atomic.Int64
	line chan held
	done chan struct{}
}

// held is a packet on its way.
type held struct {
	packet []byte
	due    time.Time
}

const (
	farDevice = "far0"
	farTable  = "77"
	farQueue  = 1 << 14 // packets on their way at once
)

// Delay puts a delaying device into the internet's way in. Set tells the time.
func (l *Lab) Delay(ctx context.Context) (*Delay, error) {
	d := &Delay{line: make(chan held, farQueue), done: make(chan struct{})}
	if err := l.In(HostInternet, d.open); err != nil {
		return nil, fmt.Errorf("could not make the internet distant: %w", err)
	}
	l.onClose(d)
	// What a socket is found for before routing would not be forwarded to the device; and it comes back by another way.
	if err := l.sysctl(HostInternet, []string{
		"ipv4/ip_early_demux=0", "ipv4/tcp_early_demux=0", "ipv4/conf/all/rp_filter=0", "ipv4/conf/" + farDevice + "/rp_filter=0", "ipv4/conf/gw0/rp_filter=0",
	}); err != nil {
		return nil, err
	}
	lines := []string{"link set " + farDevice + " up"}
	for _, f := range []string{"", "-6 "} {
		lines = append(lines,
			f+"route add default dev "+farDevice+" table "+farTable,
			// Before `local`, which decides first otherwise; only what comes from the gateway goes this way.
			f+"rule add pref 10 lookup local", f+"rule del pref 0",
			f+"rule add pref 5 iif gw0 ipproto tcp dport 25 lookup "+farTable)
	}
	for _, line := range lines {
		if err := l.ip6or4(ctx, line); err != nil {
			return nil, err
		}
	}
	go d.read()
	go d.write()
	return d, nil
}

// ip6or4 runs one line of ip, which may begin with a family.
func (l *Lab) ip6or4(ctx context.Context, line string) error {
	args := append([]string{"ip"}, strings.Fields(line)...)
	_, err := l.must(ctx, HostInternet, Command{Args: args})
	return err
}

func (d *Delay) open() error {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	req, err := unix.NewIfreq(farDevice)
	if err == nil {
		req.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
		err = unix.IoctlIfreq(fd, unix.TUNSETIFF, req)
	}
	if err != nil {
		return errors.Join(err, unix.Close(fd))
	}
	d.tun = os.NewFile(uintptr(fd), farDevice)
	return nil
}

// Set makes packets wait from now on; the way back takes no time, so a round
// trip is that much longer.
func (d *Delay) Set(wait time.Duration) { d.wait.Store(int64(wait)) }

// Close removes the device.
func (d *Delay) Close() error {
	err := d.tun.Close()
	<-d.done
	return err
}

func (d *Delay) read() {
	defer close(d.line)
	buf := make([]byte, 65536)
	for {
		n, err := d.tun.Read(buf)
		if err != nil {
			return // closed
		}
		h := held{append([]byte(nil), buf[:n]...), time.Now().Add(time.Duration(d.wait.Load()))}
		select {
		case d.line <- h:
		default: // as any full queue does
		}
	}
}

func (d *Delay) write() {
	defer close(d.done)
	for h := range d.line {
		if wait := time.Until(h.due); wait > 0 {
			time.Sleep(wait)
		}
		_, _ = d.tun.Write(h.packet) // what a device that is down loses is lost, as elsewhere
	}
}
