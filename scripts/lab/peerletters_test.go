//go:build labtest

package lab

import (
	"bytes"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
)

// TestForeignPeersKeepBytes sends odd and real messages by every client to every server, with and without the gateway
// between them, and compares what arrived: what a client or a server changes by itself it changes both times. With
// SLUICE_FIDELITY=all each pair carries a hundred, else three.
func TestForeignPeersKeepBytes(t *testing.T) {
	t.Parallel()
	each := 3
	if os.Getenv("SLUICE_FIDELITY") == "all" {
		each = 100
	}
	letters := peerLetters(t)
	seen := meetTwice(t, unjudged, func(client string) []pairing {
		var list []pairing
		// Pairs of one door each, other letters for each.
		nth := slices.Index(agents, client)
		if nth < 0 {
			nth = len(agents) + len(client)
		}
		for s := range foreign() {
			p := pairings(client)[4*s+(nth+s)%4]
			for i := range each {
				p.letter = letters[((nth*len(foreign())+s)*each+i)%len(letters)]
				list = append(list, pairing{fmt.Sprintf("%s.%d", p.id, i), p.server, p.door, p.letter})
			}
		}
		return list
	})
	if want := 2 * each * 7 * 6 * 2 / 3; len(seen[0].lines) < want {
		t.Errorf("only %d facts were compared, not %d", len(seen[0].lines), want)
	}
}

// patterned tells test patterns that the content filter refuses.
func patterned(data []byte) bool {
	return bytes.Contains(data, []byte("GTUBE")) || bytes.Contains(data, []byte("EICAR"))
}

// peerLetters are what every client can be given: without NUL and bare CR, which the gateway refuses and others do not,
// and without what the content filter is there for. At lines beyond RFC 5321's length some cut, some refuse, some hang up.
func peerLetters(t *testing.T) [][]byte {
	var all [][]byte
	ham := corpusHam(t)
	for _, m := range append(torture(), corpus(t, map[string]int{"mail": 16, "mime": 1, "dsn": 2})...) {
		if _, name, ok := strings.Cut(m.name, "/"); ok && len(ham) > 0 && strings.HasPrefix(name, "d0") && !ham[name] {
			continue
		}
		want, refused := canonical(m.data)
		if !refused && !patterned(want) && len(want) > 0 && !slices.ContainsFunc(bytes.Split(want, []byte("\r\n")), func(l []byte) bool { return len(l) > 998 }) {
			all = append(all, want)
		}
	}
	return all
}
