// Package park waits for input on idle connections that have neither a goroutine nor a buffer meanwhile.
package park

import (
	"sync/atomic"
	"syscall"
	"time"
)

// Sleeper is who waits in a Place. Resume is called in a goroutine of its own, once for each successful Park.
type Sleeper interface {
	Resume()
}

// Place is where one connection waits. It belongs to whoever leads the connection; only Wake may be called by others.
type Place struct {
	Who Sleeper
	Raw syscall.RawConn // of the socket

	lot    *Lot
	fd     int32
	parked atomic.Bool
	until  int64 // unix nanoseconds
}

// Overdue tells, to one who was resumed, whether the moment given to Park has passed.
func (p *Place) Overdue(now time.Time) bool { return p.until != 0 && now.UnixNano() >= p.until }

// claim takes the Place out of the lot; only one caller succeeds.
func (p *Place) claim() bool { return p.parked.CompareAndSwap(true, false) }
