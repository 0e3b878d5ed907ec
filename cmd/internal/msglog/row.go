package msglog

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math"
	"math/bits"
	"strconv"
	"time"
	"unicode/utf8"

	"sluice/filter"
	"sluice/intercept/flow"
	"sluice/proxy"
)

var errRow = errors.New("a record of the message log is damaged")

// cutRow cuts the first row, or line of JSON, off text.
func cutRow(text []byte) (row, rest []byte, err error) {
	end := 0
	switch {
	case len(text) > 0 && text[0] == '{':
		end = bytes.IndexByte(text, '\n') + 1
	case len(text) >= rowHead && text[0] == rowMark:
		end = rowHead + int(binary.LittleEndian.Uint32(text[1:]))
	}
	if end == 0 || end > len(text) {
		return nil, nil, errRow
	}
	return text[:end], text[end:], nil
}

// cutRows appends all rows of text to rows.
func cutRows(rows [][]byte, text []byte) ([][]byte, error) {
	for len(text) > 0 {
		row, rest, err := cutRow(text)
		if err != nil {
			return rows, err
		}
		rows, text = append(rows, row), rest
	}
	return rows, nil
}

// decode makes a record of a row, or of a line of JSON.
func decode(row []byte) (*proxy.Record, error) {
	if len(row) > 0 && row[0] == '{' {
		return decodeLine(row)
	}
	if len(row) < rowHead || row[0] != rowMark {
		return nil, errRow
	}
	d := decoder{Record: &proxy.Record{Verdict: filter.Verdict{Cause: -1}}}
	b := row[rowHead:]
	text := string(b) // all its texts are of one piece
	for at := 0; at < len(b); {
		f := field(b[at])
		n, w := binary.Uvarint(b[at+1:])
		if w <= 0 || f == 0 { // zeros are where the disk never got what was written
			return nil, errRow
		}
		at += 1 + w
		switch {
		case f >= fieldNumber:
			d.number(f, n)
		case n > uint64(len(b)-at):
			return nil, errRow
		default:
			d.value(f, text[at:at+int(n)], b[at:at+int(n)])
			at += int(n)
		}
	}
	if d.same {
		d.Remote = d.Reply
	}
	if d.ordinal != 0 {
		d.ID = d.Flow.ID.String() + "." + strconv.FormatUint(d.ordinal, 10)
	}
	if d.Status >= proxy.Statuses || d.Verdict.Cause >= len(d.Verdict.Hits) {
		return nil, errRow
	}
	return d.Record, d.err
}

// decoder fills a record.
type decoder struct {
	*proxy.Record
	same    bool // fieldSame
	ordinal uint64
	err     error
}

// text is what a field says; bytes that are no UTF-8 become U+FFFD.
func text(s string) string {
	if utf8.ValidString(s) {
		return s
	}
	return string([]rune(s))
}

// value takes a field of some bytes, as text or as they are.
func (d *decoder) value(f field, s string, b []byte) {
	switch f {
	case fieldClient:
		d.read(d.Flow.Client.UnmarshalBinary(b))
		return
	case fieldTarget:
		d.read(d.Flow.Target.UnmarshalBinary(b))
		return
	case fieldPrefix:
		d.read(d.Flow.User.Prefix.UnmarshalBinary(b))
		return
	case fieldSource:
		d.read(d.Source.UnmarshalBinary(b))
		return
	case fieldTo:
		d.To = append(d.To, proxy.Recipient{Address: text(s)})
		return
	case fieldHit:
		d.Verdict.Hits = append(d.Verdict.Hits, filter.Hit{Check: text(s)})
		return
	}
	if to := d.textOf(f); to != nil {
		*to = text(s)
	}
}

func (d *decoder) read(err error) {
	if err != nil {
		d.err = errRow
	}
}

// textOf is where a text belongs; nil where no field is known by that name.
func (d *decoder) textOf(f field) *string {
	switch f {
	case fieldID:
		return &d.ID
	case fieldName:
		return &d.Flow.User.Name
	case fieldHelo:
		return &d.Helo
	case fieldIdentity:
		return &d.Identity
	case fieldFrom:
		return &d.From
	case fieldToReply:
		return &d.recipient().Reply
	case fieldHitCode:
		return &d.hit().Code
	case fieldHitEnhanced:
		return &d.hit().Enhanced
	case fieldHitText:
		return &d.hit().Text
	case fieldHitEvidence:
		return &d.hit().Evidence
	case fieldReply:
		return &d.Reply
	case fieldRemote:
		return &d.Remote
	case fieldWay:
		return &d.Way
	case fieldSigned:
		return &d.Signed
	case fieldOutVersion:
		return &d.Out.Version
	case fieldOutCipher:
		return &d.Out.Cipher
	case fieldInVersion:
		return &d.In.Version
	case fieldInCipher:
		return &d.In.Cipher
	case fieldTerms:
		return &d.Terms
	case fieldTrust:
		return &d.Asks.Trust
	case fieldAsks:
		return &d.Asks.Policy
	case fieldMet:
		return &d.Asks.Result
	case fieldTicket:
		return &d.Ticket
	case fieldWould:
		return &d.Would
	case fieldObstacle:
		return (*string)(&d.Obstacle)
	case fieldNote:
		return &d.Note
	}
	return nil
}

// recipient is the last one that was begun.
func (d *decoder) recipient() *proxy.Recipient {
	if len(d.To) == 0 {
		d.err = errRow
		return &proxy.Recipient{}
	}
	return &d.To[len(d.To)-1]
}

// hit is the last one that was begun.
func (d *decoder) hit() *filter.Hit {
	if len(d.Verdict.Hits) == 0 {
		d.err = errRow
		return &filter.Hit{}
	}
	return &d.Verdict.Hits[len(d.Verdict.Hits)-1]
}

// number takes a field with a number.
func (d *decoder) number(f field, n uint64) {
	switch f {
	case fieldStart:
		d.Start = time.Unix(0, int64(n)).UTC()
	case fieldDuration:
		d.Duration = time.Duration(n) * time.Microsecond
	case fieldStatus:
		d.Status = proxy.Status(min(n, uint64(proxy.Statuses)))
	case fieldFlow:
		d.Flow.ID = flow.ID(n)
	case fieldOrdinal:
		d.ordinal = n
	case fieldBegan:
		d.Flow.Start = time.UnixMicro(d.Start.UnixMicro() - int64(n)).UTC()
	case fieldUser:
		d.Flow.User.ID = uint32(n)
	case fieldMade:
		d.Flow.User.Made = n != 0
	case fieldToCode:
		d.recipient().Code = int(n)
	case fieldSize:
		d.Size = int64(n)
	case fieldAction:
		d.Verdict.Action = filter.Action(n)
	case fieldClass:
		d.Verdict.Class = filter.Class(n)
	case fieldCause:
		d.Verdict.Cause = int(n) - 1
	case fieldHitClass:
		d.hit().Class = filter.Class(n)
	case fieldHitAction:
		d.hit().Action = filter.Action(n)
	case fieldHitPoints:
		d.hit().Points = finite(math.Float64frombits(bits.Reverse64(n)))
	case fieldHitScore:
		d.hit().Score = float64(int64(n)) / 100
	case fieldHitSMTP:
		d.hit().SMTP = int(n)
	case fieldHitOutside:
		d.hit().Outside = n != 0
	case fieldHitNoLock:
		d.hit().NoLock = n != 0
	case fieldSame:
		d.same = n != 0
	case fieldUnreadOut:
		d.Unread.Out = int64(n)
	case fieldUnreadIn:
		d.Unread.In = int64(n)
	case fieldGroup:
		d.Group = n
	case fieldForwarded:
		d.Forwarded = n != 0
	case fieldLikely:
		d.Likely = uint8(n)
	case fieldShadow:
		d.Shadow = n != 0
	case fieldWaited:
		d.Waited = time.Duration(n) * time.Microsecond
	}
}
