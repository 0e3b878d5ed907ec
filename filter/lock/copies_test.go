package lock

import (
	"fmt"
	"testing"

	"sluice/filter"
	"sluice/filter/message"
)

// TestCopiesOfOneMessageCountOnce: a newsletter that is taken for spam locks nobody, though each copy is made for one
// recipient; one that a list or its links speak against, too, does.
func TestCopiesOfOneMessageCountOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	send := func(user uint32, i int, h filter.Hit) {
		m := mail(user, fmt.Sprintf("Dear reader %d", i))
		m.Envelope.To = []message.Address{message.Address(fmt.Sprintf("r%d@sink.example", i))}
		v := filter.Judge([]filter.Hit{h})
		w.keeper.Judged(m, &v)
	}
	copies := filter.Hit{Code: "SPAM", Class: filter.Spam, Action: filter.Reject, Group: 77}
	for i := range 500 {
		send(1, i, copies)
	}
	if w.locked(1) {
		t.Error("one misjudged newsletter locked its sender")
	}
	for i := range 4 {
		other := copies
		other.Group = uint64(100 + i)
		send(1, i, other)
	}
	if !w.locked(1) {
		t.Error("five different messages did not lock")
	}
	copies.Outside = true
	for i := range 4 {
		send(2, i, copies)
		send(2, i, copies) // tried again
	}
	if w.locked(2) {
		t.Error("four copies, each tried twice, locked")
	}
	send(2, 5, copies)
	if !w.locked(2) {
		t.Error("five copies against which links speak did not lock")
	}
}
