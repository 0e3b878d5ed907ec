package delivery

import (
	"fmt"
	"strings"
	"testing"

	"sluice/filter/sign"
	"sluice/proxy/smtp"
)

// TestDeliveriesAreSigned in the form in which they leave, where the envelope says so and the destination has room.
func TestDeliveriesAreSigned(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(o *Options) {
		o.Sign = func(as sign.As, body *smtp.Body) ([]byte, string) {
			return fmt.Appendf(nil, "DKIM-Signature: d=%s; s=%s; eight=%t\r\n", as.Domain, as.Selector, body.Has8Bit()), "by " + as.Domain
		}
	})
	w.host("old.example", "127.0.0.2")
	mx := w.serve("127.0.0.2", nil)
	mx.caps = "250 mx"
	w.host("small.example", "127.0.0.3")
	small := w.serve("127.0.0.3", nil)
	small.caps = "250-mx\r\n250 SIZE 3000"
	w.host("new.example", "127.0.0.4")
	modern := w.serve("127.0.0.4", nil)
	const eight = "Subject: x\r\n\r\ngr\xc3\xbc\xc3\x9fe\r\n"
	as := sign.As{Domain: "alice.example", Selector: "s1"}
	for _, c := range []struct {
		to, log, want string
		as            sign.As
		mx            *server
	}{
		{"x@old.example", "by alice.example", "DKIM-Signature: d=alice.example; s=s1; eight=false\r\nSubject: x\r\n", as, mx},
		{"x@new.example", "by alice.example", "DKIM-Signature: d=alice.example; s=s1; eight=true\r\nSubject: x\r\n", as, modern},
		{"x@small.example", "", "Subject: x\r\n", as, small},
		{"x@new.example", "", "Subject: x\r\n", sign.As{}, modern},
	} {
		env := w.mail(c.to)
		env.As = c.as
		w.send(env, eight)
		if r := w.next(); r.Rcpts[0].Fate != Delivered || r.Signed != c.log || r.Envelope.As != c.as {
			t.Errorf("%s: %+v", c.to, r)
		}
		got := c.mx.taken()
		if last := got[len(got)-1]; !strings.HasPrefix(last, c.want) {
			t.Errorf("%s has %q", c.to, last)
		}
	}
}
