// Package content looks into messages for what marks them as bad whoever sends them.
package content

import (
	"bytes"
	"context"
	"fmt"

	"sluice/filter"
	"sluice/filter/message"
)

// Phases are the phases at which the checks of this package are asked.
var Phases = []filter.Phase{filter.Data, filter.Part}

// mark is a text that stands for a kind of bad mail.
type mark struct {
	code   string
	class  filter.Class
	text   []byte
	offset int  // where rare stands first in text, not at its beginning
	before byte // what stands before it
	says   string
}

// rare is a byte that is rare in mail and stands in every mark, so that one search at memory speed finds all (a search for more
// bytes falls back to a slow one after a few near misses).
const rare = '*'

// Marks finds the two agreed test texts, GTUBE for spam and EICAR for viruses, as they stand in the message and inside
// parts that are encoded in base64 or quoted-printable. Safe for concurrent use.
type Marks struct{ marks [2]mark }

// NewMarks returns the check.
func NewMarks() *Marks {
	return &Marks{marks: [...]mark{
		newMark("GTUBE", filter.Spam, "XJS*C4JDBQADN1.NSBN3*2IDNEN", "*GTUBE-STANDARD-ANTI-UBE-TEST-EMAIL*C.34X",
			"message contains the test text for spam (GTUBE)"),
		// In two pieces so that no virus scanner takes this program for a virus.
		newMark("EICAR", filter.Virus, `X5O!P%@AP[4\PZX54(P^)7CC)7}`, `$EICAR-STANDARD-ANTIVIRUS-TEST-FILE!$H+H*`,
			"message contains the test text for viruses (EICAR)"),
	}}
}

func newMark(code string, class filter.Class, head, tail, says string) mark {
	text := []byte(head + tail)
	offset := bytes.IndexByte(text, rare)
	return mark{code, class, text, offset, text[offset-1], says}
}

// Check implements filter.Check in phase data.
func (c *Marks) Check(_ context.Context, p filter.Phase, m *message.Message, hits []filter.Hit) []filter.Hit {
	if p < filter.Data {
		return hits
	}
	found := uint(0) // bit i: mark i was found
	hits, found = c.search(m.Data, found, "as sent", 0, hits)
	all := encoded(m.Data)
	for found != 1<<len(c.marks)-1 {
		part, ok := all.next()
		if !ok {
			break
		}
		hits, found = c.search(part.text, found, part.encoding, part.start, hits)
		part.done()
	}
	return hits
}

// search looks for the marks that were not found yet in text, which begins at byte start of the message.
func (c *Marks) search(text []byte, found uint, how string, start int, hits []filter.Hit) ([]filter.Hit, uint) {
	at, new := c.find(text, found)
	for i := range c.marks {
		if k := &c.marks[i]; new&(1<<i) != 0 {
			hits = append(hits, filter.Hit{
				Code: k.code, Class: k.class, Action: filter.Reject, Points: 1, SMTP: 550, Enhanced: "5.7.1", Text: k.says,
				Evidence: fmt.Sprintf("%s, byte %d of the part at byte %d (%s)", k.code, at[i], start, how),
			})
		}
	}
	return hits, found | new
}

// find returns where each of the marks that were not found yet stands in text first.
func (c *Marks) find(text []byte, found uint) (at [2]int, new uint) {
	for from := 0; from < len(text); from++ {
		i := bytes.IndexByte(text[from:], rare)
		if i < 0 {
			break
		}
		from += i
		if from == 0 {
			continue
		}
		for j := range c.marks {
			k := &c.marks[j]
			if text[from-1] == k.before && (found|new)&(1<<j) == 0 && from >= k.offset && bytes.HasPrefix(text[from-k.offset:], k.text) {
				at[j], new = from-k.offset, new|1<<j
			}
		}
	}
	return at, new
}
