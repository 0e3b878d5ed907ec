//go:build !linux

package park

import (
	"errors"
	"time"
)

// Lot is nothing here: every connection keeps its goroutine.
type Lot struct{}

// New tells that there is no Lot on this system.
func New() (*Lot, error) { return nil, errors.ErrUnsupported }

// Close does nothing.
func (*Lot) Close() error { return nil }

// Parked returns 0.
func (*Lot) Parked() int { return 0 }

// Park never parks.
func (*Lot) Park(*Place, time.Time) bool { return false }

// Wake does nothing: nobody waits.
func (*Place) Wake() {}
