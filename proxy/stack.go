package proxy

const (
	// sessionStack has a goroutine with all of a message in 8 KiB of stack: it goes 5.8 KiB deep, and the runtime wants nearly 1 KiB
	// for itself. Twice that would be a third of what a session takes that waits for a slow destination.
	sessionStack = 6 << 10
	// openerStack has one that opens a session in 16 KiB, as a TLS handshake goes deeper.
	openerStack = 13 << 10
)

// settleSession has the stack of a goroutine grow at once, at its beginning, to what a session needs. The runtime would
// else double it several times in the midst of the work, and move all that lies on it, which costs a short session some
// microseconds.
//
//go:noinline
func settleSession(touch bool) byte {
	if !touch { // that the frame has the room is all that counts
		return 0
	}
	var room [sessionStack]byte
	return lastOf(room[:])
}

// settleOpener does the same for a goroutine that opens an onward session.
//
//go:noinline
func settleOpener(touch bool) byte {
	if !touch {
		return 0
	}
	var room [openerStack]byte
	return lastOf(room[:])
}

//go:noinline
func lastOf(room []byte) byte { return room[len(room)-1] }
