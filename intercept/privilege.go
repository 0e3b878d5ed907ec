package intercept

import (
	"fmt"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// dropRights keeps no right longer than it is needed.
func (e *Engine) dropRights() {
	if e.rights.Load() || e.socket.get() == nil || e.leaving.pending() {
		return
	}
	e.rights.Store(true)
	if err := dropAdmin(); err != nil {
		e.log.Warn("more rights are kept than are needed", "error", err)
	}
}

// dropAdmin gives CAP_SYS_ADMIN away, for good and for all threads: nothing but making and entering the room needs it.
func dropAdmin() error {
	const bit = uint32(1) << unix.CAP_SYS_ADMIN
	head := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&head, &data[0]); err != nil {
		return fmt.Errorf("could not read the capabilities: %w", err)
	}
	if data[0].Permitted&bit == 0 {
		return nil
	}
	data[0].Effective &^= bit
	data[0].Permitted &^= bit
	data[0].Inheritable &^= bit
	_, _, errno := syscall.AllThreadsSyscall(unix.SYS_CAPSET, uintptr(unsafe.Pointer(&head)), uintptr(unsafe.Pointer(&data[0])), 0)
	if errno != 0 {
		return fmt.Errorf("could not give CAP_SYS_ADMIN away: %w", errno)
	}
	return nil
}
