//go:build !unix

package smtp

func (s *socket) peek() (waiting, known bool, err error) { return false, false, nil }

func (s *socketWork) peekAt(uintptr) {}
