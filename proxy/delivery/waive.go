package delivery

import (
	"bytes"
	"strings"
)

// waivesTLS tells whether a message's sender asks that what its recipient's domain publishes about encryption (DANE,
// MTA-STS) is not insisted on: one field "TLS-Required: No" (RFC 8689 5).
func waivesTLS(header []byte) bool {
	n, no := 0, false
	for line := range bytes.Lines(header) {
		name, value, ok := bytes.Cut(line, []byte(":"))
		if !ok || len(name) == 0 || name[0] == ' ' || name[0] == '\t' || !strings.EqualFold(string(bytes.TrimRight(name, " \t")), "TLS-Required") {
			continue
		}
		n++
		no = strings.EqualFold(string(bytes.TrimSpace(value)), "No")
	}
	return n == 1 && no
}
