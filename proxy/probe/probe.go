// Package probe makes the words by which a client learns that its SMTP connection came through a Sluice gateway.
package probe

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
)

// word begins the argument of a NOOP that asks whether a Sluice gateway is on the way, and its answer.
const word = "sluice-probe"

// Noop is the command that asks; RFC 5321 4.1.1.9 has every server ignore the argument. The nonce is 16 to 64
// hexadecimal digits.
func Noop(nonce string) string { return "NOOP " + word + " " + nonce }

// Echo answers the argument of a NOOP: a word that nobody says who does not know how it is made. ok is false for every
// other argument.
func Echo(arg []byte) (echo string, ok bool) {
	nonce, found := bytes.CutPrefix(arg, []byte(word+" "))
	if !found || len(nonce) < 16 || len(nonce) > 64 {
		return "", false
	}
	if _, err := hex.Decode(make([]byte, len(nonce)), nonce); err != nil {
		return "", false
	}
	sum := sha256.Sum256(append([]byte(word+" seen "), nonce...))
	return word + " " + hex.EncodeToString(sum[:12]), true
}

// Name is the name with which a probe says EHLO, so that the log of a gateway that only listens has it too. It leads
// nowhere (RFC 2606).
func Name(nonce string) string { return word + "-" + nonce + ".invalid" }
