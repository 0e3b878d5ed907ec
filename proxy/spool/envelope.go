package spool

import (
	"net/netip"
	"strings"
	"time"

	"sluice/filter/sign"
	"sluice/proxy/smtp"
)

// Envelope is what is known of a message beside its bytes.
type Envelope struct {
	Message  string     // its id in the message log
	User     uint32     // who answers for it; 0: the gateway itself
	UserName string     // as it was then
	Identity string     // the finer sender inside the user: mailbox, AUTH name; may be ""
	Client   netip.Addr // where it came from; may be invalid
	Received time.Time

	From       string // reverse-path without brackets; "" is the null sender
	UTF8       bool   // SMTPUTF8 (RFC 6531)
	RequireTLS bool   // RFC 8689
	Body       smtp.BodyKind
	Ret        string // "", FULL or HDRS (RFC 3461 4.3)
	EnvID      string // xtext as written

	// Class tells pools and limits apart: "" is ordinary mail, ClassNotice a notice of ours.
	Class string
	// Campaign names the message of which this is a copy, as its campaign does where there is one; may be "".
	Campaign string
	// Verified: it is known that mail to From reaches whoever sent this, so that notices may go there.
	Verified bool
	// As is who signs the message when it is delivered; zero: nobody.
	As sign.As

	Rcpts []Rcpt
}

// ClassNotice is the class of notices of ours, which nobody's limits count.
const ClassNotice = "notice"

// Rcpt is one recipient.
type Rcpt struct {
	Address string
	Notify  smtp.Notify // RFC 3461 4.1
	ORcpt   string      // type;xtext as written (RFC 3461 4.2)
}

// Domain is what follows the last @ in lower case; "" where there is none.
func Domain(address string) string {
	return strings.ToLower(address[strings.LastIndexByte(address, '@')+1:])
}

// Domain is the recipient's.
func (r *Rcpt) Domain() string {
	if !strings.Contains(r.Address, "@") {
		return ""
	}
	return Domain(r.Address)
}

// Numbers of the fields of an envelope. They stand in files: never change or reuse one.
const (
	fMessage    = 1
	fUser       = 2
	fUserName   = 3
	fIdentity   = 4
	fClient     = 5
	fReceived   = 6
	fFrom       = 7
	fUTF8       = 8
	fRequireTLS = 9
	fBody       = 10
	fRet        = 11
	fEnvID      = 12
	fClass      = 13
	fVerified   = 14
	fRcpt       = 15 // one for each recipient, in order
	fPart       = 16 // one for each delivery, in order: how many of the recipients, then its domain
	fFirst      = 17 // ID of the first delivery
	fMove       = 18 // how often the entry was written anew
	fSize       = 19 // bytes of the message
	fTail       = 20 // of these, in a file of their own
	fFacts      = 21
	fState      = 22 // state of a delivery that is written in one go with the entry
	fLive       = 23 // in an entry written anew: a delivery that is open
	fTailID     = 24
	fCampaign   = 25
	fAsDomain   = 26
	fAsSelector = 27

	rAddress = 1
	rNotify  = 2
	rORcpt   = 3
)

// entry is the record of a message.
type entry struct {
	first  ID
	move   uint32
	env    Envelope
	parts  []part
	size   int64 // of the message
	tail   int64 // of these, in a file
	tailID ID    // which names it
	facts  smtp.Facts
	states []*state // settled in one go with it, and in an entry written anew, of its own deliveries
	live   []ID     // in an entry written anew
}

// part is one delivery of a message: some of the recipients in order, all of one domain.
type part struct {
	domain string
	count  int
}

// split sorts the recipients by domain, and makes parts of them.
func split(rcpts []Rcpt) ([]Rcpt, []part) {
	if len(rcpts) == 1 {
		return rcpts, []part{{rcpts[0].Domain(), 1}}
	}
	order := make([]string, 0, 4)
	by := make(map[string][]Rcpt, 4)
	for _, r := range rcpts {
		d := r.Domain()
		if by[d] == nil {
			order = append(order, d)
		}
		by[d] = append(by[d], r)
	}
	sorted, parts := make([]Rcpt, 0, len(rcpts)), make([]part, 0, len(order))
	for _, d := range order {
		sorted = append(sorted, by[d]...)
		for n := len(by[d]); n > 0; n -= perDelivery {
			parts = append(parts, part{d, min(n, perDelivery)})
		}
	}
	return sorted, parts
}

func (e *entry) append(b fields) fields {
	v := &e.env
	b.num(fFirst, uint64(e.first))
	b.num(fMove, uint64(e.move))
	b.num(fSize, uint64(e.size))
	b.num(fTail, uint64(e.tail))
	b.num(fTailID, uint64(e.tailID))
	b.bytes(fFacts, appendFacts(nil, &e.facts))
	b.text(fMessage, v.Message)
	b.num(fUser, uint64(v.User))
	b.text(fUserName, v.UserName)
	b.text(fIdentity, v.Identity)
	if v.Client.IsValid() {
		b.bytes(fClient, v.Client.AsSlice())
	}
	b.time(fReceived, v.Received)
	b.text(fFrom, v.From)
	b.flag(fUTF8, v.UTF8)
	b.flag(fRequireTLS, v.RequireTLS)
	b.num(fBody, uint64(v.Body))
	b.text(fRet, v.Ret)
	b.text(fEnvID, v.EnvID)
	b.text(fClass, v.Class)
	b.flag(fVerified, v.Verified)
	b.text(fCampaign, v.Campaign)
	b.text(fAsDomain, v.As.Domain)
	b.text(fAsSelector, v.As.Selector)
	var one fields
	for i := range v.Rcpts {
		r := &v.Rcpts[i]
		one = one[:0]
		one.text(rAddress, r.Address)
		one.num(rNotify, uint64(r.Notify))
		one.text(rORcpt, r.ORcpt)
		b.bytes(fRcpt, one)
	}
	for _, p := range e.parts {
		b.bytes(fPart, append([]byte{byte(p.count)}, p.domain...))
	}
	for _, id := range e.live {
		b.num(fLive, uint64(id))
	}
	for _, s := range e.states {
		b.bytes(fState, s.append(nil))
	}
	return b
}

// parseEntry reads the fields of an entry; false where they are none.
func parseEntry(b []byte) (*entry, bool) {
	e := new(entry)
	v, ok := &e.env, true
	whole := each(b, func(n uint64, f []byte) {
		switch n {
		case fFirst:
			e.first = ID(num(f))
		case fMove:
			e.move = uint32(num(f))
		case fSize:
			e.size = int64(num(f))
		case fTail:
			e.tail = int64(num(f))
		case fTailID:
			e.tailID = ID(num(f))
		case fFacts:
			e.facts = parseFacts(f)
		case fMessage:
			v.Message = string(f)
		case fUser:
			v.User = uint32(num(f))
		case fUserName:
			v.UserName = string(f)
		case fIdentity:
			v.Identity = string(f)
		case fClient:
			v.Client, _ = netip.AddrFromSlice(f)
		case fReceived:
			v.Received = moment(f)
		case fFrom:
			v.From = string(f)
		case fUTF8:
			v.UTF8 = true
		case fRequireTLS:
			v.RequireTLS = true
		case fBody:
			v.Body = smtp.BodyKind(num(f))
		case fRet:
			v.Ret = string(f)
		case fEnvID:
			v.EnvID = string(f)
		case fClass:
			v.Class = string(f)
		case fCampaign:
			v.Campaign = string(f)
		case fAsDomain:
			v.As.Domain = string(f)
		case fAsSelector:
			v.As.Selector = string(f)
		case fVerified:
			v.Verified = true
		case fRcpt:
			v.Rcpts = append(v.Rcpts, parseRcpt(f))
		case fPart:
			if len(f) > 0 {
				e.parts = append(e.parts, part{string(f[1:]), int(f[0])})
			}
		case fLive:
			e.live = append(e.live, ID(num(f)))
		case fState:
			s, good := parseState(f)
			ok = ok && good
			e.states = append(e.states, s)
		}
	})
	return e, whole && ok && e.sound()
}

// sound tells whether the numbers agree with each other.
func (e *entry) sound() bool {
	n := 0
	for _, p := range e.parts {
		if p.count < 1 || p.count > perDelivery {
			return false
		}
		n += p.count
	}
	return e.first != 0 && n == len(e.env.Rcpts) && n > 0 && e.size >= 0 && e.tail >= 0 && e.tail <= e.size
}

// hold has all deliveries of a new entry on hold.
func (e *entry) hold(why string) {
	for i := range e.parts {
		e.states = append(e.states, &state{id: e.first.nth(i), ver: 1, State: State{Due: e.env.Received, Hold: why, Left: e.parts[i].all()}})
	}
}

// all has a bit set for each recipient.
func (p part) all() uint64 { return 1<<uint(p.count) - 1 }

// rcpts are those of delivery number n.
func (e *entry) rcpts(n int) []Rcpt {
	from := 0
	for _, p := range e.parts[:n] {
		from += p.count
	}
	return e.env.Rcpts[from : from+e.parts[n].count]
}

func parseRcpt(b []byte) (r Rcpt) {
	each(b, func(n uint64, f []byte) {
		switch n {
		case rAddress:
			r.Address = string(f)
		case rNotify:
			r.Notify = smtp.Notify(num(f))
		case rORcpt:
			r.ORcpt = string(f)
		}
	})
	return r
}

func appendFacts(b fields, f *smtp.Facts) fields {
	b.num(1, uint64(f.Header))
	b.num(2, uint64(f.Longest))
	b.num(3, uint64(f.Lines))
	b.num(4, uint64(f.Dots))
	b.flag(5, f.EightBit)
	b.flag(6, f.BareLF)
	b.flag(7, f.Binary)
	return b
}

func parseFacts(b []byte) (f smtp.Facts) {
	each(b, func(n uint64, v []byte) {
		switch n {
		case 1:
			f.Header = int64(num(v))
		case 2:
			f.Longest = int64(num(v))
		case 3:
			f.Lines = int(num(v))
		case 4:
			f.Dots = int(num(v))
		case 5:
			f.EightBit = true
		case 6:
			f.BareLF = true
		case 7:
			f.Binary = true
		}
	})
	return f
}
