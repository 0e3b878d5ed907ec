package delivery

import (
	"sluice/filter/sign"
	"sluice/proxy/relay"
	"sluice/proxy/smtp"
)

// signs tells whether the message is to be signed, and the destination has room for that.
func (t *try) signs(c *relay.Caps, body *smtp.Body) bool {
	return t.q.o.Sign != nil && t.l.Envelope.As.Domain != "" && (c.Size == 0 || body.Size()+sign.Room <= c.Size)
}

// size is how large the message may be as it leaves.
func (t *try) size(c *relay.Caps, body *smtp.Body) int64 {
	if t.signs(c, body) {
		return body.Size() + sign.Room
	}
	return body.Size()
}

// signatures are the fields to be put before the message as it leaves: in the form that the destination takes, by the keys of now.
func (t *try) signatures(c *relay.Caps, body *smtp.Body) (fields []byte) {
	if t.signs(c, body) {
		fields, t.res.Signed = t.q.o.Sign(t.l.Envelope.As, body)
	}
	return fields
}
