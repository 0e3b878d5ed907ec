//go:build labtest

package lab

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
)

// series gives each pair so many letters, at one door of the server's, and other ones to each pair and in each part.
func series(kind string, letters [][]byte, each, part int) func(client string) []pairing {
	clients := append(slices.Sorted(maps.Keys(queueing)), agents...)
	first := part * len(clients) * len(foreign()) * each
	return func(client string) []pairing {
		var list []pairing
		nth := slices.Index(clients, client)
		for s := range foreign() {
			p := pairings(client)[4*s+(nth+s)%4]
			for i := range each {
				letter := letters[(first+(nth*len(foreign())+s)*each+i)%len(letters)]
				list = append(list, pairing{fmt.Sprintf("%s.%s%d", p.id, kind, i), p.server, p.door, letter})
			}
		}
		return list
	}
}

// patterned tells test patterns that the content filter refuses, also in base64, wherever in three bytes they begin there.
func patterned(data []byte) bool {
	joined := bytes.ReplaceAll(data, []byte("\r\n"), nil)
	for _, text := range []string{"GTUBE-STANDARD", "EICAR-STANDARD"} {
		if bytes.Contains(data, []byte(text)) {
			return true
		}
		for shift, cut := range []int{0, 2, 3} {
			code := base64.StdEncoding.EncodeToString([]byte("xx"[:shift] + text))
			if bytes.Contains(joined, []byte(code[cut:len(code)-4])) {
				return true
			}
		}
	}
	return false
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
