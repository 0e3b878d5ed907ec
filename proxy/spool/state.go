package spool

import (
	"slices"
	"time"

	"sluice/proxy/smtp"
)

// State is how far a delivery has come. What changes it is written as a whole.
type State struct {
	Due      time.Time // not tried before
	Attempts int       // tries that ended
	Crashes  int       // tries during which the program crashed
	Kills    int       // tries during which it ended without a word, as by a kill or a loss of power
	Hold     string    // why it is on hold; "": it is not
	Delayed  bool      // the sender was told that it takes long
	Left     uint64    // bit i: recipient i of the delivery is not settled
	Replies  []Reply   // the last answer that each unsettled recipient had, as far as there was one, and each that is Taken
	Last     time.Time // of the last try
	Note     string    // what hindered the last try as a whole
}

// Reply is what a destination said to one recipient.
type Reply struct {
	Rcpt int // index among the delivery's recipients
	Code int
	Enh  smtp.Enhanced
	Text string
	Host string // who said so
	// Final: it is the last word on the recipient, of which the sender has not heard; Expired: after as many tries as there are.
	Final, Expired bool
	// Taken: the destination has the message for the recipient, who is settled, while the try goes on for others (see Progress).
	// Relayed: it will not tell the sender, who asked for that.
	Taken, Relayed bool
}

// Owed tells whether something is final of which the sender has not heard.
func (s *State) Owed() bool {
	return slices.ContainsFunc(s.Replies, func(r Reply) bool { return r.Final })
}

// state is a State of one delivery as it stands in a record.
type state struct {
	id   ID
	ver  uint32 // the highest counts
	done bool   // final, whatever the version
	on   bool   // the lease goes on; it stands in no record
	State
}

// Numbers of the fields of a state. They stand in files: never change or reuse one.
const (
	sID       = 1
	sVer      = 2
	sDone     = 3
	sDue      = 4
	sAttempts = 5
	sCrashes  = 6
	sHold     = 7
	sDelayed  = 8
	sLeft     = 9
	sReply    = 10
	sLast     = 11
	sNote     = 12
	sKills    = 13

	pRcpt    = 1
	pCode    = 2
	pEnh     = 3
	pText    = 4
	pHost    = 5
	pFinal   = 6
	pExpired = 7
	pTaken   = 8
	pRelayed = 9
)

// mostReply bounds what is kept of a stranger's words.
const mostReply = 1000

func (s *state) append(b fields) fields {
	b.num(sID, uint64(s.id))
	b.num(sVer, uint64(s.ver))
	b.flag(sDone, s.done)
	if s.done {
		return b
	}
	b.time(sDue, s.Due)
	b.num(sAttempts, uint64(s.Attempts))
	b.num(sCrashes, uint64(s.Crashes))
	b.num(sKills, uint64(s.Kills))
	b.text(sHold, s.Hold)
	b.flag(sDelayed, s.Delayed)
	b.num(sLeft, s.Left)
	b.time(sLast, s.Last)
	b.text(sNote, cut(s.Note))
	var one fields
	for i := range s.Replies {
		r := &s.Replies[i]
		one = one[:0]
		one.num(pRcpt, uint64(r.Rcpt)+1)
		one.num(pCode, uint64(r.Code))
		one.num(pEnh, uint64(r.Enh[0])<<32|uint64(r.Enh[1])<<16|uint64(r.Enh[2]))
		one.text(pText, cut(r.Text))
		one.text(pHost, r.Host)
		one.flag(pFinal, r.Final)
		one.flag(pExpired, r.Expired)
		one.flag(pTaken, r.Taken)
		one.flag(pRelayed, r.Relayed)
		b.bytes(sReply, one)
	}
	return b
}

func cut(s string) string { return s[:min(len(s), mostReply)] }

func parseState(b []byte) (*state, bool) {
	s := new(state)
	whole := each(b, func(n uint64, f []byte) {
		switch n {
		case sID:
			s.id = ID(num(f))
		case sVer:
			s.ver = uint32(num(f))
		case sDone:
			s.done = true
		case sDue:
			s.Due = moment(f)
		case sAttempts:
			s.Attempts = int(num(f))
		case sCrashes:
			s.Crashes = int(num(f))
		case sKills:
			s.Kills = int(num(f))
		case sHold:
			s.Hold = string(f)
		case sDelayed:
			s.Delayed = true
		case sLeft:
			s.Left = num(f)
		case sLast:
			s.Last = moment(f)
		case sNote:
			s.Note = string(f)
		case sReply:
			s.Replies = append(s.Replies, parseReply(f))
		}
	})
	return s, whole && s.id != 0
}

func parseReply(b []byte) (r Reply) {
	each(b, func(n uint64, f []byte) {
		switch n {
		case pRcpt:
			r.Rcpt = int(num(f)) - 1
		case pCode:
			r.Code = int(num(f))
		case pEnh:
			e := num(f)
			r.Enh = enhanced(e)
		case pText:
			r.Text = string(f)
		case pHost:
			r.Host = string(f)
		case pFinal:
			r.Final = true
		case pExpired:
			r.Expired = true
		case pTaken:
			r.Taken = true
		case pRelayed:
			r.Relayed = true
		}
	})
	return r
}

func enhanced(e uint64) smtp.Enhanced {
	return smtp.Enhanced{uint16(e >> 32), uint16(e >> 16), uint16(e)}
}
