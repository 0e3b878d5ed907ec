package proxy

import (
	"errors"

	"sluice/proxy/smtp"
)

// mostKept is what bodies leave free of a large file system, and one part in twenty of a small one: log and store may
// stand on the same one, and must be able to write when strangers send large messages on many connections.
const mostKept = 1 << 30

// boundedSpill takes no more once the file system is nearly full.
type boundedSpill struct {
	smtp.Spill
	room func() bool
}

var errNoRoom = errors.New("the file system for large messages is nearly full")

// Write writes p whole, or nothing where there is no room.
func (s boundedSpill) Write(p []byte) (int, error) {
	if !s.room() {
		return 0, errNoRoom
	}
	return s.Spill.Write(p)
}

// spillTo opens files in dir for as long as its file system has room.
func spillTo(dir string, room func() bool) (smtp.Spill, error) {
	f, err := OpenSpill(dir)
	if err != nil {
		return nil, err
	}
	return boundedSpill{f, room}, nil
}
