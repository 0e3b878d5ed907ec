package trap

import (
	"context"
	"testing"

	"sluice/filter"
	"sluice/filter/message"
)

func TestTraps(t *testing.T) {
	t.Parallel()
	taught := 0
	tr := New(func(*message.Message) { taught++ })
	hits := func(to ...message.Address) []filter.Hit {
		m := message.Message{Data: []byte("x"), Envelope: message.Envelope{To: to}}
		return tr.Check(context.Background(), filter.Data, &m, nil)
	}
	if h := hits("old@box.example"); len(h) != 0 {
		t.Errorf("without traps: %+v", h)
	}
	tr.Configure([]string{"Old@box.example", "@trap.example", "third.example"})
	for to, want := range map[message.Address]bool{"OLD@BOX.example": true, "new@box.example": false, "x@Trap.example": true, "x@sub.trap.example": false,
		"anybody@third.example": true, "third.example": true, "": false} {
		before := taught
		h := hits("friend@sink.example", to)
		if got := len(h) == 1 && h[0].Code == Code && h[0].Action == filter.Reject; got != want || taught-before != len(h) {
			t.Errorf("to %q: %+v, %d taught", to, h, taught-before)
		}
	}
	before, m := taught, message.Message{Data: []byte("x"), Envelope: message.Envelope{To: []message.Address{"x@trap.example"}}}
	if h := tr.Check(context.Background(), filter.Part, &m, nil); len(h) != 1 || taught != before {
		t.Errorf("of the beginning of a message: %+v, %d taught", h, taught-before)
	}
	tr.Configure(nil)
	if h := hits("old@box.example"); len(h) != 0 {
		t.Errorf("traps taken away: %+v", h)
	}
}
