package smtp

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
)

// probeWord begins the argument of a NOOP that asks whether a Sluice gateway is on the way, and its answer.
const probeWord = "sluice-probe"

// ProbeNoop is the command that asks; RFC 5321 4.1.1.9 has every server ignore the argument. The nonce is 16 to 64
// hexadecimal digits.
func ProbeNoop(nonce string) string { return "NOOP " + probeWord + " " + nonce }

// ProbeEcho answers the argument of a NOOP: a word that nobody says who does not know how it is made. ok is false for every
// other argument.
func ProbeEcho(arg []byte) (echo string, ok bool) {
	nonce, found := bytes.CutPrefix(arg, []byte(probeWord+" "))
	if !found || len(nonce) < 16 || len(nonce) > 64 {
		return "", false
	}
	if _, err := hex.Decode(make([]byte, len(nonce)), nonce); err != nil {
		return "", false
	}
	sum := sha256.Sum256(append([]byte(probeWord+" seen "), nonce...))
	return probeWord + " " + hex.EncodeToString(sum[:12]), true
}

// ProbeName is the name with which a probe says EHLO, so that the log of a gateway that only listens has it too. It leads
// nowhere (RFC 2606).
func ProbeName(nonce string) string { return probeWord + "-" + nonce + ".invalid" }
