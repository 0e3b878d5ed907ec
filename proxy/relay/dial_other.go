//go:build !linux

package relay

import "syscall"

// leaveFrom does nothing here: only Linux has addresses that are routed but not configured.
func leaveFrom(string, string, syscall.RawConn) error { return nil }
