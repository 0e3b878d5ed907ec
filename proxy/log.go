package proxy

import (
	"crypto/tls"
	"fmt"
	"strings"
	"time"

	"sluice/filter"
)

// ending is how a transaction ended.
type ending struct {
	status   Status
	accepted int // recipients the client was told 250 for at the end of data
	verdict  filter.Verdict
	ticket   string
	note     string
	size     int64
	lost     bool // the session was lost before an answer
	failed   int  // 1: the destination refused the message for good
}

// finish ends the open transaction: what was reserved is settled, the destination forgets it, the record is written.
func (s *session) finish(e ending) {
	t := &s.tx
	t.open = false
	s.dropParts()
	s.dropDraft()
	if s.remote != nil {
		s.remote.Abandon()
		if s.remote.Streams() {
			e.note = joined(e.note, begunInVain)
		}
		if s.remote.Waits() {
			defer s.breakOff() // the record tells of the session, too
		}
	}
	r := t.rec
	switch v := &r.Verdict; {
	case len(v.Hits) == 0 || e.verdict.Refused():
		*v = e.verdict
	default: // a recipient was refused, and later nothing, whatever was said
		v.Hits, v.Class = append(v.Hits, e.verdict.Hits...), max(v.Class, e.verdict.Class)
	}
	if len(r.Verdict.Hits) == 0 {
		r.Verdict.Cause = -1
	}
	if s.flow.User.ID != 0 { // of nobody's mail nothing was reserved
		s.set.Pipeline.Settle(&t.msg, filter.Outcome{Accepted: e.accepted, Verdict: &r.Verdict, Lost: e.lost, Invalid: t.invalid, Failed: e.failed})
	}
	if t.tried > 0 {
		s.manner.mailed()
	}
	if more := t.refused - mostRefused; more > 0 {
		e.note = joined(e.note, fmt.Sprintf("%d more recipients were refused", more))
	}
	s.log(&e)
}

// log writes the record of the transaction, but for the verdict, which is there.
func (s *session) log(e *ending) {
	r := s.tx.rec
	if e.size > 0 {
		r.Size = e.size
	}
	r.Duration = time.Since(r.Start)
	r.Identity = s.tx.msg.Identity
	r.Status, r.Ticket, r.Note, r.Waited = e.status, e.ticket, e.note, s.waited
	r.Reply, r.Remote = s.last, s.heard
	if s.conn.Encrypted() {
		r.In = tlsOf(s.conn.TLS())
	}
	if r.Note == "" {
		r.Note = s.withheld
	}
	if s.remote != nil && r.Out.Version == "" {
		r.Out = s.outLeg()
	}
	if p := s.tx.terms; p != nil {
		r.Terms = p.Level.String() + " (" + p.Source.String() + ")"
	}
	s.report()
	s.heard = ""
	s.tx.rec = nil
	s.srv.cfg.Log.Put(r)
}

// outLeg describes the onward leg.
func (s *session) outLeg() TLS {
	if !s.remote.Encrypted() { // the state of one is large
		return TLS{}
	}
	return tlsOf(s.remote.TLS())
}

// logEmpty writes the record of a session that never became a message (LOG1).
func (s *session) logEmpty() {
	r := &Record{
		ID: s.flow.ID.String(), Flow: *s.flow, Start: s.flow.Start, Duration: time.Since(s.flow.Start), Helo: s.helo,
		Status: NoMessage, Reply: s.last, Remote: s.heard, Ticket: s.ticket, Note: s.note, In: tlsOf(s.conn.TLS()), Shadow: s.shadow,
		Waited: s.waited, Obstacle: s.block,
	}
	if s.opaque {
		r.In.Version = Opaque
		r.Unread = s.passed
		r.Source = s.flow.Client.Addr()
	}
	if r.Note == "" {
		r.Note = s.withheld
	}
	r.Verdict.Cause = -1
	s.srv.cfg.Log.Put(r)
}

// TLSOf describes a leg by the state of its connection; nil is plain text.
func TLSOf(st *tls.ConnectionState) TLS {
	if st == nil {
		return TLS{}
	}
	return tlsOf(*st, true)
}

// tlsOf describes a leg.
func tlsOf(st tls.ConnectionState, encrypted bool) TLS {
	if !encrypted {
		return TLS{}
	}
	return TLS{Version: strings.ReplaceAll(tls.VersionName(st.Version), " ", ""), Cipher: tls.CipherSuiteName(st.CipherSuite)}
}
