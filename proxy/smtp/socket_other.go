//go:build !linux

package smtp

const (
	canWritev = false
	canRead   = false
)

type iovec struct{}

func (s *sending) attempt(uintptr) bool { return true }

func (s *socketWork) receive(uintptr) bool { return true }

func (s *socket) hungUp() bool { return false }
