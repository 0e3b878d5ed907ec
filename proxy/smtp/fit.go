package smtp

// mostFit is the largest memory that a body is moved into: to copy more would cost a message more than the room is worth.
const mostFit = size32K

// Fit moves a body that is whole into as little memory as it needs, with the room before it, and tells whether it did: then
// Bytes is another slice. It is for one that is held while somebody is waited for, since it was read into more. What
// Bytes gave before is not valid any more.
func (b *Body) Fit() bool {
	start := cap(b.all) - cap(b.mem)
	n := start + len(b.mem) + b.term
	if n > mostFit || b.term == 0 { // without its end there was no room left
		return false
	}
	all := getBuf(n)
	if len(all) >= len(b.all) {
		putBuf(all)
		return false
	}
	copy(all[start:], b.all[start:n])
	b.giveBack(len(b.all) - len(all))
	putBuf(b.all)
	b.all, b.mem = all, all[start:start+len(b.mem)]
	return true
}
