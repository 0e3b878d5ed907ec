package msglog

import (
	"encoding/binary"
	"math"
	"math/bits"
	"net/netip"
	"strings"
	"sync"

	"sluice/filter"
	"sluice/intercept/flow"
	"sluice/proxy"
)

// A row is a record as it stands in a segment: rowMark, four bytes with the length of what follows, and its fields. A field is
// a byte that names it and a varint: its number, or how many bytes follow as its value. Which of the two, the name tells, so
// that a reader passes over fields that it does not know. A field that is absent has its zero value. row.go reads them.
const (
	rowMark = 1 // earlier versions wrote lines of JSON, which begin with a brace
	rowHead = 5
)

// field names a field. The names stand on the disk: new ones go to the end of their list.
type field byte

// Fields with a value of some bytes.
const (
	fieldID field = iota + 1 // where no ordinal tells it
	fieldClient
	fieldTarget
	fieldName
	fieldPrefix
	fieldHelo
	fieldIdentity
	fieldFrom
	fieldTo // begins a recipient
	fieldToReply
	fieldHit // begins a hit: its check
	fieldHitCode
	fieldHitEnhanced
	fieldHitText
	fieldHitEvidence
	fieldReply
	fieldRemote
	fieldSource
	fieldWay
	fieldSigned
	fieldOutVersion
	fieldOutCipher
	fieldInVersion
	fieldInCipher
	fieldTerms
	fieldTrust
	fieldAsks
	fieldMet
	fieldTicket
	fieldWould
	fieldObstacle
	fieldNote
)

// Fields with a number.
const (
	fieldNumber   field = iota + 0x80 // none has a lower name
	fieldStart                        // nanoseconds since 1970
	fieldDuration                     // microseconds
	fieldStatus
	fieldFlow
	fieldOrdinal // the message's in its flow
	fieldBegan   // microseconds before fieldStart
	fieldUser
	fieldMade
	fieldToCode
	fieldSize
	fieldAction
	fieldClass
	fieldCause // one more than the index
	fieldHitClass
	fieldHitAction
	fieldHitPoints // the bits of the float, in reverse
	fieldHitScore  // in percent
	fieldHitSMTP
	fieldHitOutside
	fieldHitNoLock
	fieldSame // the destination's reply is what the client was told
	fieldUnreadOut
	fieldUnreadIn
	fieldGroup
	fieldForwarded
	fieldLikely // in percent
	fieldShadow
	fieldWaited // microseconds
)

// encoder makes a row of a record, and the keys by which it will be found. Written by hand because the log may cost no more
// than a few microseconds a message.
type encoder struct {
	row  []byte
	keys []uint64
}

var encoders = sync.Pool{New: func() any { return &encoder{} }}

// encode puts first what is of this message alone, then what those of one sender share, and last what most have, so that rows
// are alike in long pieces.
func (e *encoder) encode(r *proxy.Record) {
	e.row, e.keys = append(e.row[:0], rowMark, 0, 0, 0, 0), e.keys[:0]
	if !r.Start.IsZero() {
		e.number(fieldStart, r.Start.UnixNano())
	}
	e.number(fieldDuration, r.Duration.Microseconds())
	e.number(fieldSize, r.Size)
	e.number(fieldWaited, r.Waited.Microseconds())
	e.number(fieldUnreadOut, r.Unread.Out)
	e.number(fieldUnreadIn, r.Unread.In)
	e.number(fieldGroup, int64(r.Group))
	e.flow(r)
	e.text(fieldIdentity, r.Identity)
	e.text(fieldFrom, r.From)
	for i := range r.To {
		e.value(fieldTo, r.To[i].Address)
		e.number(fieldToCode, int64(r.To[i].Code))
		e.text(fieldToReply, r.To[i].Reply)
	}
	e.number(fieldStatus, int64(r.Status))
	e.verdict(&r.Verdict)
	e.text(fieldWay, r.Way)
	e.text(fieldSigned, r.Signed)
	e.text(fieldOutVersion, r.Out.Version)
	e.text(fieldOutCipher, r.Out.Cipher)
	e.text(fieldInVersion, r.In.Version)
	e.text(fieldInCipher, r.In.Cipher)
	e.text(fieldTerms, r.Terms)
	e.text(fieldTrust, r.Asks.Trust)
	e.text(fieldAsks, r.Asks.Policy)
	e.text(fieldMet, r.Asks.Result)
	e.flag(fieldForwarded, r.Forwarded)
	e.number(fieldLikely, int64(r.Likely))
	e.text(fieldTicket, r.Ticket)
	e.flag(fieldShadow, r.Shadow)
	e.text(fieldWould, r.Would)
	e.text(fieldObstacle, string(r.Obstacle))
	e.text(fieldNote, r.Note)
	if r.Remote == r.Reply {
		e.flag(fieldSame, r.Remote != "")
	} else {
		e.text(fieldRemote, r.Remote)
	}
	e.text(fieldReply, r.Reply)
	binary.LittleEndian.PutUint32(e.row[1:], uint32(len(e.row)-rowHead))
	e.addKeys(r)
}

func (e *encoder) flow(r *proxy.Record) {
	f := &r.Flow
	if n := ordinal(r.ID, f.ID); n > 0 {
		e.number(fieldOrdinal, n)
	} else {
		e.text(fieldID, r.ID)
	}
	e.number(fieldFlow, int64(f.ID))
	if !f.Start.IsZero() {
		e.row = binary.AppendUvarint(append(e.row, byte(fieldBegan)), uint64(r.Start.UnixMicro()-f.Start.UnixMicro()))
	}
	e.addrPort(fieldClient, f.Client)
	e.addrPort(fieldTarget, f.Target)
	e.number(fieldUser, int64(f.User.ID))
	e.text(fieldName, f.User.Name)
	if f.User.Prefix.IsValid() {
		at := e.open(fieldPrefix)
		e.row, _ = f.User.Prefix.AppendBinary(e.row) // it knows no error
		e.close(at)
	}
	e.flag(fieldMade, f.User.Made)
	e.text(fieldHelo, r.Helo)
	if r.Source.IsValid() {
		at := e.open(fieldSource)
		e.row, _ = r.Source.AppendBinary(e.row) // likewise
		e.close(at)
	}
}

// ordinal is the number of a message in its flow, where its id is made of both, as ids of messages are; else 0.
func ordinal(id string, f flow.ID) (n int64) {
	var of uint64
	i := 0
	for ; i < len(id) && id[i] != '.'; i++ {
		c := id[i]
		switch {
		case c-'0' < 10:
			c -= '0'
		case c-'a' < 26:
			c -= 'a' - 10
		default:
			return 0
		}
		of = of*flow.Base + uint64(c)
	}
	if of != uint64(f) || i == 0 || id[0] == '0' || len(id)-i-1 > 9 {
		return 0
	}
	for i++; i < len(id); i++ {
		c := id[i] - '0'
		if c > 9 || n == 0 && c == 0 {
			return 0
		}
		n = 10*n + int64(c)
	}
	return n
}

func (e *encoder) verdict(v *filter.Verdict) {
	e.number(fieldAction, int64(v.Action))
	e.number(fieldClass, int64(v.Class))
	if len(v.Hits) == 0 {
		return
	}
	e.number(fieldCause, int64(v.Cause)+1)
	for i := range v.Hits {
		h := &v.Hits[i]
		e.value(fieldHit, h.Check)
		e.text(fieldHitCode, h.Code)
		e.number(fieldHitClass, int64(h.Class))
		e.number(fieldHitAction, int64(h.Action))
		e.number(fieldHitPoints, int64(bits.Reverse64(math.Float64bits(finite(h.Points)))))
		e.number(fieldHitScore, int64(100*finite(h.Score)))
		e.number(fieldHitSMTP, int64(h.SMTP))
		e.text(fieldHitEnhanced, h.Enhanced)
		e.text(fieldHitText, h.Text)
		e.text(fieldHitEvidence, h.Evidence)
		e.flag(fieldHitOutside, h.Outside)
		e.flag(fieldHitNoLock, h.NoLock)
	}
}

// finite keeps what JSON cannot say out of the log: the API shows records as JSON.
func finite(f float64) float64 {
	if f-f != 0 {
		return 0
	}
	return f
}

// addKeys notes what the record can be found by.
func (e *encoder) addKeys(r *proxy.Record) {
	e.keys = append(e.keys, hashNumber(keyFlow, uint64(r.Flow.ID)), hashNumber(keyUser, uint64(r.Flow.User.ID)),
		hashNumber(keyStatus, uint64(r.Status)))
	if r.Flow.Client.IsValid() {
		e.keys = append(e.keys, hashAddr(keyClient, r.Flow.Client.Addr()), hashNet(r.Flow.Client.Addr()))
	}
	if r.Flow.Target.IsValid() {
		e.keys = append(e.keys, hashAddr(keyTarget, r.Flow.Target.Addr()))
	}
	if h := r.Verdict.Decisive(); h != nil && h.Code != "" {
		e.keys = append(e.keys, hashText(keyCode, h.Code))
	}
	if r.Identity != "" {
		e.keys = append(e.keys, hashText(keyIdentity, r.Identity))
	}
	if r.Group != 0 {
		e.keys = append(e.keys, hashNumber(keyCampaign, r.Group))
	}
	if r.Ticket != "" {
		e.keys = append(e.keys, hashText(keyTicket, r.Ticket))
	}
	if r.From != "" {
		e.keys = append(e.keys, hashText(keySender, r.From), hashText(keySenderDomain, domainOf(r.From)))
	}
	for i := range r.To {
		a := r.To[i].Address
		e.keys = append(e.keys, hashText(keyRecipient, a), hashText(keyRecipientDomain, domainOf(a)))
	}
}

func domainOf(address string) string { return address[strings.LastIndexByte(address, '@')+1:] }

// number writes a field, unless it is 0.
func (e *encoder) number(f field, v int64) {
	if v != 0 {
		e.row = binary.AppendUvarint(append(e.row, byte(f)), uint64(v))
	}
}

func (e *encoder) flag(f field, is bool) {
	if is {
		e.row = append(e.row, byte(f), 1)
	}
}

// text writes a field, unless it is empty.
func (e *encoder) text(f field, s string) {
	if s != "" {
		e.value(f, s)
	}
}

func (e *encoder) value(f field, s string) {
	e.row = append(binary.AppendUvarint(append(e.row, byte(f)), uint64(len(s))), s...)
}

func (e *encoder) addrPort(f field, a netip.AddrPort) {
	if a.IsValid() {
		at := e.open(f)
		e.row, _ = a.AppendBinary(e.row) // it knows no error
		e.close(at)
	}
}

// open begins a field of less than 128 bytes, as addresses are, and close ends it.
func (e *encoder) open(f field) (at int) {
	e.row = append(e.row, byte(f), 0)
	return len(e.row)
}

func (e *encoder) close(at int) { e.row[at-1] = byte(len(e.row) - at) }
