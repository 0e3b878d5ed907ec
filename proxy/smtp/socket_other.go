//go:build !linux

package smtp

const canWritev = false

func (s *socket) attempt(uintptr) bool { return true }
