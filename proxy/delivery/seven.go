package delivery

import (
	"errors"
	"fmt"

	"sluice/proxy/relay"
	"sluice/proxy/sevenbit"
	"sluice/proxy/smtp"
	"sluice/proxy/spool"
)

// fit gives the message as the destination can take it, or why it cannot (DEL3).
func (t *try) fit(c *relay.Caps, body *smtp.Body) (*smtp.Body, spool.Reply, bool) {
	if r, ok := t.unfit(c, body); !ok {
		return nil, r, false
	}
	if body.Has8Bit() && body.Canonical() && !c.Has(smtp.Ext8BitMIME) {
		r, ok := t.lower(body)
		if !ok {
			return nil, r, false
		}
		body = t.low
		t.res.Note = "sent in 7 bits, since the destination takes no 8BITMIME"
	}
	if c.Size > 0 && body.Size() > c.Size {
		return nil, ours(552, smtp.Enhanced{5, 3, 4}, fmt.Sprintf("the message has %d bytes, and the destination takes %d", body.Size(), c.Size)), false
	}
	return body, spool.Reply{}, true
}

// lower makes the message one of 7 bits (RFC 6152 3). The try keeps it for its other ways.
func (t *try) lower(body *smtp.Body) (spool.Reply, bool) {
	if t.low != nil {
		return spool.Reply{}, true
	}
	low := smtp.NewBody(&smtp.DataOptions{OpenSpill: t.q.o.Spill})
	err := sevenbit.Convert(appender{low}, body, body.Size())
	if err == nil {
		err = low.Finish()
	}
	if err == nil {
		t.low = low
		return spool.Reply{}, true
	}
	low.Release()
	const cannot = "the destination takes 7-bit text alone, and the message cannot be converted: "
	if errors.Is(err, sevenbit.ErrSigned) || errors.Is(err, sevenbit.ErrUnfit) {
		return ours(554, smtp.Enhanced{5, 6, 3}, cannot+err.Error()), false
	}
	return ours(451, smtp.Enhanced{4, 3, 0}, cannot+err.Error()), false
}

// appender fills a body.
type appender struct{ *smtp.Body }

func (a appender) Write(p []byte) (int, error) {
	if err := a.Append(p); err != nil {
		return 0, err
	}
	return len(p), nil
}
