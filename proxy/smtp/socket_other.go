//go:build !linux

package smtp

const canWritev = false

type iovec struct{}

func (s *socketWork) attempt(uintptr) bool { return true }

func (s *socket) hungUp() bool { return false }
