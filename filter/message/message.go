// Package message describes what a check may see of a mail: the flow it came by, its envelope, header and body.
package message

import (
	"bytes"
	"io"
	"time"

	"sluice/intercept/flow"
)

// Address is a mailbox as it stood between the angle brackets of MAIL or RCPT: empty for the null reverse-path.
type Address string

// Domain returns the part after the last "@", or "" where there is none.
func (a Address) Domain() string {
	for i := len(a) - 1; i >= 0; i-- {
		if a[i] == '@' {
			return string(a[i+1:])
		}
	}
	return ""
}

// Envelope is what MAIL and RCPT said, in order.
type Envelope struct {
	From     Address
	FromSize int64     // SIZE= of MAIL in bytes (RFC 1870), 0 where not declared
	To       []Address // the recipients that were accepted so far
	SMTPUTF8 bool
	Body8Bit bool // BODY=8BITMIME was declared (RFC 6152)
}

// Message is one mail on its way through the phases. Fields fill up as the dialogue goes on: a check of phase connect
// sees Flow only. Nothing in it may be kept by a check after it returned, nor changed, but for what the content filter leaves to
// the checks behind it, and what is reserved for it.
type Message struct {
	ID       string // <flow id>.<n>, the id of the transaction in log and replies
	Flow     *flow.Flow
	Helo     string
	Login    string // who logged in at the smarthost; "" where nobody did
	Identity string // the finer sender inside the user (ATT4), "" where none is told; known from phase mail or data on
	Told     string // the header field that told it, where that is not to be sent on; else ""
	TLS      bool   // the client leg is encrypted
	HandedIn bool   // at a smarthost: once it is accepted it waits in the queue
	Envelope Envelope
	Rcpt     Address     // the recipient being asked about, in phase rcpt
	Data     []byte      // header and body, dots unstuffed, lines ending in CRLF; nil before phase data
	DataSize int64       // bytes of the whole message; larger than len(Data) when the rest was spilled to disk
	Whole    io.ReaderAt // all DataSize bytes of it, where Data is only the beginning; nil where there is no more than Data
	Received time.Time

	Fields   Fields   // of the header in Data, where somebody has looked
	Found    Found    // in phase data, behind the content filter
	Reserved Reserved // from phase rcpt on

	Forwarded bool // it came from elsewhere and is only passed on (ATT10): before phase data as far as the envelope sender shows it, then see PassedOn
}

// Found is what the content filter leaves to the checks behind it.
type Found struct {
	Odds   float64 // logarithm of the odds that the content is bad; 0 where nobody looked
	Phish  bool    // what speaks against it speaks of phishing
	Group  uint64  // the same for all copies of a message; 0 where nothing is known of copies
	Passes string  // why nothing that was learnt may stop it; "" where it may
	Likely uint8   // how likely it is bad, in percent, where that may stop it; else 0
}

// Reserved is what the check of limits holds for a message until it is settled. It belongs to that check alone, and stands
// here so that it need not be looked for.
type Reserved struct {
	Messages, Recipients int    // of its user's hour
	Waits                uint32 // the user whose place in the queue it has; 0: none
	More                 any    // of other counts; nil: nothing
}

// Reader reads the first most bytes of the message, in phase data; size is how many there are to read.
func (m *Message) Reader(most int64) (r io.Reader, size int64) {
	if size = min(int64(len(m.Data)), most); size == most || m.Whole == nil || m.DataSize <= size {
		return bytes.NewReader(m.Data[:size]), size
	}
	size = min(m.DataSize, most)
	return io.NewSectionReader(m.Whole, 0, size), size
}
