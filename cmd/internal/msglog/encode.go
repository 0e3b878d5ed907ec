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

// row is a row that is being made.
type row []byte

var encoders = sync.Pool{New: func() any { return &encoder{} }}

// encode puts first what is of this message alone, then what those of one sender share, and last what most have, so that rows
// are alike in long pieces.
func (e *encoder) encode(r *proxy.Record) {
	b := append(row(e.row[:0]), rowMark, 0, 0, 0, 0)
	if !r.Start.IsZero() {
		b = b.tagged(fieldStart, uint64(r.Start.UnixNano()))
	}
	b = b.number(fieldDuration, r.Duration.Microseconds())
	b = b.number(fieldSize, r.Size)
	b = b.number(fieldWaited, r.Waited.Microseconds())
	b = b.number(fieldUnreadOut, r.Unread.Out)
	b = b.number(fieldUnreadIn, r.Unread.In)
	b = b.number(fieldGroup, int64(r.Group))
	b = b.flow(r)
	b = b.text(fieldIdentity, r.Identity)
	b = b.text(fieldFrom, r.From)
	for i := range r.To {
		b = b.value(fieldTo, r.To[i].Address)
		b = b.number(fieldToCode, int64(r.To[i].Code))
		b = b.text(fieldToReply, r.To[i].Reply)
	}
	b = b.number(fieldStatus, int64(r.Status))
	b = b.verdict(&r.Verdict)
	b = b.text(fieldWay, r.Way)
	b = b.text(fieldSigned, r.Signed)
	b = b.text(fieldOutVersion, r.Out.Version)
	b = b.text(fieldOutCipher, r.Out.Cipher)
	b = b.text(fieldInVersion, r.In.Version)
	b = b.text(fieldInCipher, r.In.Cipher)
	b = b.text(fieldTerms, r.Terms)
	b = b.text(fieldTrust, r.Asks.Trust)
	b = b.text(fieldAsks, r.Asks.Policy)
	b = b.text(fieldMet, r.Asks.Result)
	b = b.flag(fieldForwarded, r.Forwarded)
	b = b.number(fieldLikely, int64(r.Likely))
	b = b.text(fieldTicket, r.Ticket)
	b = b.flag(fieldShadow, r.Shadow)
	b = b.text(fieldWould, r.Would)
	b = b.text(fieldObstacle, string(r.Obstacle))
	b = b.text(fieldNote, r.Note)
	if r.Remote == r.Reply {
		b = b.flag(fieldSame, r.Remote != "")
	} else {
		b = b.text(fieldRemote, r.Remote)
	}
	b = b.text(fieldReply, r.Reply)
	binary.LittleEndian.PutUint32(b[1:], uint32(len(b)-rowHead))
	e.row, e.keys = b, e.keys[:0]
	e.addKeys(r)
}

func (b row) flow(r *proxy.Record) row {
	f := &r.Flow
	if n := ordinal(r.ID, f.ID); n > 0 {
		b = b.number(fieldOrdinal, n)
	} else {
		b = b.text(fieldID, r.ID)
	}
	b = b.number(fieldFlow, int64(f.ID))
	if !f.Start.IsZero() {
		b = b.tagged(fieldBegan, uint64(r.Start.UnixMicro()-f.Start.UnixMicro()))
	}
	b = b.addrPort(fieldClient, f.Client)
	b = b.addrPort(fieldTarget, f.Target)
	b = b.number(fieldUser, int64(f.User.ID))
	b = b.text(fieldName, f.User.Name)
	if f.User.Prefix.IsValid() {
		b = append(b, byte(fieldPrefix), 0)
		at := len(b)
		b, _ = f.User.Prefix.AppendBinary(b) // it knows no error
		b[at-1] = byte(len(b) - at)
	}
	b = b.flag(fieldMade, f.User.Made)
	b = b.text(fieldHelo, r.Helo)
	if r.Source.IsValid() {
		b = append(b, byte(fieldSource), 0)
		at := len(b)
		b, _ = r.Source.AppendBinary(b) // likewise
		b[at-1] = byte(len(b) - at)
	}
	return b
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
		if of >= math.MaxUint64/flow.Base { // it would begin anew, and be another flow's
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

func (b row) verdict(v *filter.Verdict) row {
	b = b.number(fieldAction, int64(v.Action))
	b = b.number(fieldClass, int64(v.Class))
	if len(v.Hits) == 0 {
		return b
	}
	b = b.number(fieldCause, int64(v.Cause)+1)
	for i := range v.Hits {
		h := &v.Hits[i]
		b = b.value(fieldHit, h.Check)
		b = b.text(fieldHitCode, h.Code)
		b = b.number(fieldHitClass, int64(h.Class))
		b = b.number(fieldHitAction, int64(h.Action))
		b = b.number(fieldHitPoints, int64(bits.Reverse64(math.Float64bits(finite(h.Points)))))
		b = b.number(fieldHitScore, int64(100*finite(h.Score)+1e-9)) // 0.57 is 57
		b = b.number(fieldHitSMTP, int64(h.SMTP))
		b = b.text(fieldHitEnhanced, h.Enhanced)
		b = b.text(fieldHitText, h.Text)
		b = b.text(fieldHitEvidence, h.Evidence)
		b = b.flag(fieldHitOutside, h.Outside)
		b = b.flag(fieldHitNoLock, h.NoLock)
	}
	return b
}

// finite keeps what JSON cannot say out of the log: the API shows records as JSON.
func finite(f float64) float64 {
	if f-f != 0 {
		return 0
	}
	return f
}

// addKeys notes what the record can be found by. Texts of strangers count as they are read.
func (e *encoder) addKeys(r *proxy.Record) {
	k := e.keys
	k = append(k, hashNumber(keyFlow, uint64(r.Flow.ID)), hashNumber(keyUser, uint64(r.Flow.User.ID)),
		hashNumber(keyStatus, uint64(r.Status)))
	if r.Flow.Client.IsValid() {
		k = append(k, hashAddr(keyClient, r.Flow.Client.Addr()), hashNet(r.Flow.Client.Addr()))
	}
	if r.Flow.Target.IsValid() {
		k = append(k, hashAddr(keyTarget, r.Flow.Target.Addr()))
	}
	if h := r.Verdict.Decisive(); h != nil && h.Code != "" {
		k = append(k, hashText(keyCode, h.Code))
	}
	if r.Identity != "" {
		k = append(k, hashText(keyIdentity, text(r.Identity)))
	}
	if r.Group != 0 {
		k = append(k, hashNumber(keyCampaign, r.Group))
	}
	if r.Ticket != "" {
		k = append(k, hashText(keyTicket, r.Ticket))
	}
	if r.From != "" {
		whole, domain := hashAddress(keySender, keySenderDomain, text(r.From))
		k = append(k, whole, domain)
	}
	for i := range r.To {
		whole, domain := hashAddress(keyRecipient, keyRecipientDomain, text(r.To[i].Address))
		k = append(k, whole, domain)
	}
	e.keys = k
}

func domainOf(address string) string { return address[strings.LastIndexByte(address, '@')+1:] }

// number writes a field, unless it is 0.
func (b row) number(f field, v int64) row {
	if v == 0 {
		return b
	}
	return b.tagged(f, uint64(v))
}

// tagged is not inlined, like value: with a hundred sessions no code is in the caches, and what is there once is read once.
//
//go:noinline
func (b row) tagged(f field, v uint64) row { return binary.AppendUvarint(append(b, byte(f)), v) }

func (b row) flag(f field, is bool) row {
	if !is {
		return b
	}
	return append(b, byte(f), 1)
}

// text writes a field, unless it is empty.
func (b row) text(f field, s string) row {
	if s == "" {
		return b
	}
	return b.value(f, s)
}

//go:noinline
func (b row) value(f field, s string) row {
	if len(s) < 0x80 {
		b = append(b, byte(f), byte(len(s)))
	} else {
		b = b.tagged(f, uint64(len(s)))
	}
	return append(b, s...)
}

func (b row) addrPort(f field, a netip.AddrPort) row {
	if !a.IsValid() {
		return b
	}
	b = append(b, byte(f), 0)
	at := len(b)
	b, _ = a.AppendBinary(b) // it knows no error
	b[at-1] = byte(len(b) - at)
	return b
}
