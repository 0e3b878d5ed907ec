//go:build !unix

package smtp

import (
	"errors"
	"net"
)

var errNoPeek = errors.New("socket cannot be peeked")

func peek(*net.TCPConn) (int, error) { return 0, errNoPeek }
