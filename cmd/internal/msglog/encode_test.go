package msglog

import (
	"encoding/json"
	"strings"
	"testing"
)

// TestStrings writes every byte at every place of a word, as JSON reads it again.
func TestStrings(t *testing.T) {
	t.Parallel()
	for c := range 256 {
		for at := range 20 {
			s := strings.Repeat("x", at) + string([]byte{byte(c)}) + strings.Repeat("~ ", 6)
			var got string
			if err := json.Unmarshal(appendString(nil, s), &got); err != nil || got != strings.ToValidUTF8(s, "\ufffd") {
				t.Fatalf("%q: %q, %v", s, got, err)
			}
		}
	}
	long := "<b@sink.example> Ok, plain text of some length"
	if n := plainText(long); len(long)-n >= 8 {
		t.Errorf("of %d plain bytes %d are passed at once", len(long), n)
	}
}
