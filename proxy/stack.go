package proxy

// sessionStack is about as much stack as a session with a message needs, beyond what it begins with.
const sessionStack = 13 << 10

// settleStack has the stack of a goroutine grow at once, at its beginning, to what it will need. The runtime would else
// double it three times in the midst of the work, and move all that lies on it, which costs a short session some
// microseconds.
//
//go:noinline
func settleStack(touch bool) byte {
	if !touch { // that the frame has the room is all that counts
		return 0
	}
	var room [sessionStack]byte
	return lastOf(&room)
}

//go:noinline
func lastOf(room *[sessionStack]byte) byte { return room[len(room)-1] }
