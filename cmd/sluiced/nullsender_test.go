package main

import (
	"errors"
	"strings"
	"testing"

	"github.com/emersion/go-smtp"

	"sluice/intercept/control"
)

// TestTheNullSenderHasALimitOfItsOwn: notices of customers' servers are taken at the smarthost until an hour has had its number;
// mail with a sender goes on then, and what was refused is not kept.
func TestTheNullSenderHasALimitOfItsOwn(t *testing.T) {
	t.Parallel()
	config, at, files := opened(t, "trusted = [\"127.0.0.0/8\"]")
	g := newGateway(t, "[limits]\nnull_sender_messages_per_hour = 2\n"+config)
	g.start()
	defer g.end()
	if err := g.daemon.takeHouse(control.HouseName(at[0]), files[0]); err != nil {
		t.Fatal(err)
	}
	c, err := smtp.Dial(at[0].String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for _, m := range []struct {
		from string
		good bool
	}{{"", true}, {"a@anywhere.example", true}, {"", true}, {"", false}, {"a@anywhere.example", true}} {
		err := c.SendMail(m.from, []string{"b@sink.example"}, strings.NewReader(ham))
		var e *smtp.SMTPError
		switch {
		case m.good && err != nil:
			t.Errorf("from <%s>: %v", m.from, err)
		case !m.good && (!errors.As(err, &e) || !strings.Contains(e.Message, "[RATE-NULL]")):
			t.Errorf("one notice too many: %v", err)
		}
		if err := c.Reset(); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(g.kept()); n != 4 {
		t.Errorf("%d messages are kept, want 4", n)
	}
}
