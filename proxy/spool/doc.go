// Package spool keeps accepted messages on disk until each of their deliveries is settled.
//
// A message with its envelope is one record of an append-only segment; one that is larger than memory allows has its end
// in a file of its own beside it. Whatever becomes of a delivery is another record. Records that come together share one
// sync, and nobody is told that something is kept before that sync returned. What is on disk is the sum of all records:
// their order does not matter, since each state of a delivery has a version and being done is final. So a start after
// any crash reads what is there, repairs nothing, and comes to the same result however often it is interrupted.
//
// A folder may be shared by generations of the program: each writes segments under its own tag and holds a lock on it.
// Whoever finds a tag without a living owner takes its deliveries over.
package spool

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Errors by which a caller decides what its client hears.
var (
	// ErrFull: there is no room on the disk now. 452, and mail may come again later.
	ErrFull = errors.New("the spool's file system is full; make room on it")
	// ErrBad: a write or sync failed, after which nobody knows what the disk holds. 451 until the program is started
	// anew; a sync is never tried twice, since the second success would say nothing about the first's data.
	ErrBad = errors.New("the spool failed to write and takes nothing any more; check the disk, then restart sluiced")
	// ErrClosed: the spool is closed.
	ErrClosed = errors.New("the spool is closed")
	// ErrUnknown: there is no such delivery, or no more.
	ErrUnknown = errors.New("no such delivery in the queue")
	// ErrBusy: somebody has leased the delivery; it is being tried right now.
	ErrBusy = errors.New("the delivery is being tried right now")
	// ErrHeld: the delivery is on hold.
	ErrHeld = errors.New("the delivery is on hold")
	// ErrDamaged: what the disk gives back is not what was written. The delivery is on hold since.
	ErrDamaged = errors.New("the stored message is damaged")
)

// ID names a delivery. High bits are microseconds since 2020, the low twelve the tag of the generation that took the message.
type ID uint64

const tagBits = 12

var epoch = time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC)

// String gives the ID in base 36, which is short enough to be read out over the telephone.
func (id ID) String() string { return strconv.FormatUint(uint64(id), 36) }

// ParseID reads what String wrote.
func ParseID(s string) (ID, error) {
	n, err := strconv.ParseUint(strings.ToLower(s), 36, 64)
	if err != nil || n == 0 {
		return 0, fmt.Errorf("could not read %q as the id of a delivery: it is made of digits and letters, as `sluice queue list` shows it", s)
	}
	return ID(n), nil
}

// tag tells which generation took the message.
func (id ID) tag() uint16 { return uint16(id & (1<<tagBits - 1)) }

// nth is the ID of the nth delivery of the message whose first one is id.
func (id ID) nth(n int) ID { return id + ID(n)<<tagBits }

// perDelivery bounds the recipients of one delivery: which of them are open is kept as bits of one word.
const perDelivery = 64
