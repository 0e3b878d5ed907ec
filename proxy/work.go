package proxy

import (
	"sync"
	"time"

	"sluice/filter"
	"sluice/filter/sign"
	"sluice/proxy/pool"
	"sluice/proxy/relay"
	"sluice/proxy/smtp"
)

// work is what a session has only while a goroutine leads it: most sessions wait for a command most of the time.
type work struct {
	tx      transaction
	next    smtp.Command // a command read ahead
	nextErr error        // of it
	data    smtp.DataOptions
	body    smtp.Body
	stream  streaming
	hopRoom sign.Hop
	trace   []byte      // room for the trace field
	dkim    signs       // who signs the message at hand
	lately  pool.Recent // where from the last mail left
	taken   relay.Route // the way that it took
	known   comparison  // of the onward leg
	asked   time.Time   // when the message at hand went to the destination
	verdict filter.Verdict
	ending  ending
	lines   lines
	fed     time.Time // when the client last got what was ready, while a batch of recipients is answered
}

var works = sync.Pool{New: func() any { return new(work) }}

// takeUp gives the session room to work in, unless it has some.
func (s *session) takeUp() {
	if s.work == nil {
		s.work = works.Get().(*work)
	}
}

// layDown gives the room back where no transaction is open. What was in it is gone.
func (s *session) layDown() {
	if w := s.work; w != nil && !w.tx.open {
		s.work = nil
		*w = work{}
		works.Put(w)
	}
}
