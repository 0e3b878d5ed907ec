package control

import "fmt"

// maxHeld bounds the entries of all lists that peers have begun or that wait to be answered, a few hundred bytes each at
// most: a proxy that went mad must not take the helper's memory, and an old and a new one may both send a whole table.
const maxHeld = 4 * MaxEntries

// weight is how many entries a request makes the helper keep; a lock's prefixes count.
func (r *Request) weight() int {
	n := len(r.Sources) + len(r.Gone) + len(r.Locks) + len(r.Exemptions)
	for i := range r.Locks {
		n += len(r.Locks[i].Prefixes)
	}
	return n
}

// hold adds a part of a list to what is held, for the session and for all.
func (s *session) hold(whole *Request, size int) error {
	s.entries += size
	whole.held += size
	all := s.server.held.Add(int64(size))
	if s.entries > MaxEntries || all > maxHeld {
		return fmt.Errorf("%w: more than %d entries, or than %d of all peers", errMessage, MaxEntries, maxHeld)
	}
	return nil
}

// release forgets a list that is answered, or whose peer left.
func (s *session) release(whole *Request) {
	s.server.held.Add(-int64(whole.held))
	whole.held = 0
}
