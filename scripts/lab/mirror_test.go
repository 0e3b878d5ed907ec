//go:build labtest

package lab

import (
	"strings"
	"testing"
)

// TestTheDestinationIsMirrored: by setting the client is greeted as the destination greets, and by its name; a destination
// that is dead is told at once, and what is ours says so (DEL15).
func TestTheDestinationIsMirrored(t *testing.T) {
	t.Parallel()
	ctx := testContext(t)
	l := ForTest(t, Options{})
	startGatewayWith(t, l, strings.Replace(GatewayConfig, "[smtp]\n", "[smtp]\ngreeting = \"mirror\"\n", 1))
	for range 2 { // asked, and remembered
		nc, err := l.Dial(ctx, "mallory", "", "198.51.100.20:25")
		if err != nil {
			t.Fatal(err)
		}
		c := NewClient(nc)
		for _, s := range []struct{ say, want string }{
			{"", "220 mx.sink.example ESMTP lab"}, {"EHLO mallory.example", "250 mx.sink.example greets mallory.example / "},
			{"WHAT", "500 5.5.1 gw.example: "}, {"QUIT", "221 2.0.0 gw.example: "},
		} {
			r, err := Reply{}, error(nil)
			if s.say == "" {
				r, err = c.Reply()
			} else {
				r, err = c.Cmd(s.say)
			}
			if err != nil || !strings.HasPrefix(r.String(), s.want) {
				t.Fatalf("%q is answered %q, %v; want %q…", s.say, r, err, s.want)
			}
		}
		_ = c.Close() // the gateway waits for it
	}
	nc, err := l.Dial(ctx, "mallory", "", "198.51.100.41:25")
	if err != nil {
		t.Fatal(err)
	}
	c := NewClient(nc)
	if r, err := c.Reply(); err != nil || !strings.HasPrefix(r.String(), "421 4.4.1 gw.example: ") {
		t.Errorf("in the name of a dead destination the client is greeted %q, %v", r, err)
	}
	_ = c.Close()
}
