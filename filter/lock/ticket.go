package lock

import "crypto/rand"

// alphabet is Crockford's base 32: no letter in it can be heard or read as another.
const alphabet = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"

// newTicket returns a ticket of 40 random bits in two groups of four, so that it can be read out over the telephone and
// neither guessed nor met twice.
func newTicket() string {
	var b [8]byte
	rand.Read(b[:])
	t := make([]byte, 0, 9)
	for i, c := range b {
		if i == 4 {
			t = append(t, '-')
		}
		t = append(t, alphabet[c&31])
	}
	return string(t)
}
