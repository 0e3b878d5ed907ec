package relay

import (
	"errors"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// leaveFrom readies a socket to leave from a delivery address: the prefix is routed to the host without being
// configured on it (FREEBIND), and the port is chosen at connect, so that 28,000 connections per address *and
// destination* are possible, not per address (BIND_ADDRESS_NO_PORT).
func leaveFrom(network, _ string, c syscall.RawConn) error {
	var err error
	ctl := c.Control(func(fd uintptr) {
		err = unix.SetsockoptInt(int(fd), unix.SOL_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1)
		if strings.HasSuffix(network, "6") {
			err = errors.Join(err, unix.SetsockoptInt(int(fd), unix.SOL_IPV6, unix.IPV6_FREEBIND, 1))
		} else {
			err = errors.Join(err, unix.SetsockoptInt(int(fd), unix.SOL_IP, unix.IP_FREEBIND, 1))
		}
	})
	return errors.Join(ctl, err)
}
