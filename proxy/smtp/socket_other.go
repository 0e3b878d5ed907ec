//go:build !linux

package smtp

const canWritev = false

func (s *socketWork) attempt(uintptr) bool { return true }

func (s *socket) hungUp() bool { return false }
