package quarantine

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"strings"

	"sluice/filter/message"
)

// Fingerprint is the same for each try of one user's server to send the very message to the same recipients. Trace fields
// do not count: each try may add others.
func Fingerprint(user uint32, from string, to []string, header []byte, body io.Reader) (string, error) {
	h := sha256.New()
	fmt.Fprintf(h, "%d\x00%s\x00%s\x00", user, strings.ToLower(from), strings.ToLower(strings.Join(to, "\x00")))
	for name, value := range message.Header(header) {
		if !bytes.EqualFold(name, []byte("received")) {
			fmt.Fprintf(h, "%s\x00%s\x00", bytes.ToLower(name), value)
		}
	}
	if _, err := io.Copy(h, body); err != nil {
		return "", fmt.Errorf("could not read a message for its fingerprint: %w", err)
	}
	return hex.EncodeToString(h.Sum(nil)[:20]), nil
}
