package msglog

import (
	"encoding/binary"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"sluice/filter"
	"sluice/filter/campaign"
	"sluice/proxy"
)

// encoder makes a line of JSON of a record, and the keys by which it will be found. Written by hand because the log may
// cost no more than a few microseconds a message; line.go reads the same names.
type encoder struct {
	line []byte
	keys []uint64
}

var encoders = sync.Pool{New: func() any { return &encoder{} }}

func (e *encoder) encode(r *proxy.Record) {
	e.line, e.keys = append(e.line[:0], '{'), e.keys[:0]
	e.text("id", r.ID)
	e.name("start")
	e.line = append(e.line, '"')
	e.line = r.Start.UTC().AppendFormat(e.line, time.RFC3339Nano)
	e.line = append(e.line, '"')
	e.number("us", r.Duration.Microseconds())
	e.text("status", r.Status.String())
	e.flow(r)
	e.text("helo", r.Helo)
	e.text("identity", r.Identity)
	e.text("from", r.From)
	e.recipients(r.To)
	e.number("size", r.Size)
	e.verdict(&r.Verdict)
	e.text("reply", r.Reply)
	e.text("remote", r.Remote)
	if r.Source.IsValid() {
		e.name("source")
		e.line = append(r.Source.AppendTo(append(e.line, '"')), '"')
	}
	e.text("way", r.Way)
	e.text("signed", r.Signed)
	e.tls("out", r.Out)
	e.tls("in", r.In)
	e.text("terms", r.Terms)
	e.text("trust", r.Asks.Trust)
	e.text("asks", r.Asks.Policy)
	e.text("met", r.Asks.Result)
	e.number("unread_out", r.Unread.Out)
	e.number("unread_in", r.Unread.In)
	if r.Group != 0 {
		e.text("campaign", campaign.ID(r.Group))
	}
	e.flag("forwarded", r.Forwarded)
	e.number("likely", int64(r.Likely))
	e.text("ticket", r.Ticket)
	e.flag("shadow", r.Shadow)
	e.text("would", r.Would)
	e.number("waited", r.Waited.Microseconds())
	e.text("obstacle", string(r.Obstacle))
	e.text("note", r.Note)
	e.line = append(e.line, '}', '\n')
	e.addKeys(r)
}

func (e *encoder) flow(r *proxy.Record) {
	f := &r.Flow
	e.name("flow")
	e.line = append(strconv.AppendUint(append(e.line, '"'), uint64(f.ID), 36), '"')
	if !f.Start.IsZero() {
		e.number("began", f.Start.UnixMicro())
	}
	e.addrPort("client", f.Client)
	e.addrPort("target", f.Target)
	e.number("user", int64(f.User.ID))
	e.text("name", f.User.Name)
	if f.User.Prefix.IsValid() {
		e.name("prefix")
		e.line = append(f.User.Prefix.AppendTo(append(e.line, '"')), '"')
	}
	if f.User.Made {
		e.name("made")
		e.line = append(e.line, "true"...)
	}
}

func (e *encoder) recipients(to []proxy.Recipient) {
	if len(to) == 0 {
		return
	}
	e.name("to")
	e.line = append(e.line, '[')
	for i := range to {
		e.open()
		e.text("a", to[i].Address)
		e.number("c", int64(to[i].Code))
		e.text("r", to[i].Reply)
		e.line = append(e.line, '}')
	}
	e.line = append(e.line, ']')
}

func (e *encoder) verdict(v *filter.Verdict) {
	e.number("action", int64(v.Action))
	e.number("class", int64(v.Class))
	if len(v.Hits) == 0 {
		return
	}
	if v.Cause >= 0 {
		e.number("cause", int64(v.Cause)+1)
	}
	e.name("hits")
	e.line = append(e.line, '[')
	for i := range v.Hits {
		h := &v.Hits[i]
		e.open()
		e.text("check", h.Check)
		e.text("code", h.Code)
		e.number("class", int64(h.Class))
		e.number("action", int64(h.Action))
		if h.Points != 0 {
			e.name("points")
			e.line = strconv.AppendFloat(e.line, finite(h.Points), 'g', -1, 64)
		}
		e.number("score", int64(100*finite(h.Score)))
		e.number("smtp", int64(h.SMTP))
		e.text("enhanced", h.Enhanced)
		e.text("text", h.Text)
		e.text("evidence", h.Evidence)
		e.flag("outside", h.Outside)
		e.flag("nolock", h.NoLock)
		e.line = append(e.line, '}')
	}
	e.line = append(e.line, ']')
}

// finite keeps what JSON cannot say out of the log.
func finite(f float64) float64 {
	if f-f != 0 {
		return 0
	}
	return f
}

func (e *encoder) tls(name string, t proxy.TLS) {
	if t == (proxy.TLS{}) {
		return
	}
	e.name(name)
	e.line = append(e.line, '{')
	e.text("v", t.Version)
	e.text("c", t.Cipher)
	e.line = append(e.line, '}')
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

// open begins an object in a list.
func (e *encoder) open() {
	if e.line[len(e.line)-1] == '}' {
		e.line = append(e.line, ',')
	}
	e.line = append(e.line, '{')
}

// name begins a member of an object.
func (e *encoder) name(n string) {
	if e.line[len(e.line)-1] != '{' {
		e.line = append(e.line, ',')
	}
	e.line = append(append(append(e.line, '"'), n...), '"', ':')
}

// number writes a member, unless it is 0.
func (e *encoder) number(n string, v int64) {
	if v != 0 {
		e.name(n)
		e.line = strconv.AppendInt(e.line, v, 10)
	}
}

func (e *encoder) flag(n string, is bool) {
	if is {
		e.number(n, 1)
	}
}

func (e *encoder) addrPort(n string, a netip.AddrPort) {
	if a.IsValid() {
		e.name(n)
		e.line = append(a.AppendTo(append(e.line, '"')), '"')
	}
}

// text writes a member, unless it is empty.
func (e *encoder) text(n, s string) {
	if s != "" {
		e.name(n)
		e.line = appendString(e.line, s)
	}
}

// plainText is how many bytes of s are known to stand in a JSON string as they are: eight at a time are looked at.
func plainText(s string) (n int) {
	const each, high = 0x0101010101010101, 0x8080808080808080
	for ; len(s)-n >= 8; n += 8 {
		w := binary.LittleEndian.Uint64([]byte(s[n : n+8]))
		quote, back := w^each*'"', w^each*'\\'
		// The highest bit of a byte is set where it is above 127, and, by a borrow, where it is below ' ' or 0.
		if (w|(w-each*' ')|(quote-each)|(back-each))&high != 0 {
			return n
		}
	}
	return n
}

// appendString appends s as a JSON string. Bytes that are no UTF-8 become U+FFFD.
func appendString(b []byte, s string) []byte {
	const hex = "0123456789abcdef"
	b = append(b, '"')
	from := 0
	for i := plainText(s); i < len(s); {
		c := s[i]
		if c >= ' ' && c != '"' && c != '\\' && c < utf8.RuneSelf {
			i++
			continue
		}
		if c >= utf8.RuneSelf {
			r, n := utf8.DecodeRuneInString(s[i:])
			if r != utf8.RuneError || n != 1 {
				i += n
				continue
			}
			b = append(append(b, s[from:i]...), `\ufffd`...)
		} else if c >= ' ' {
			b = append(append(b, s[from:i]...), '\\', c)
		} else {
			b = append(append(b, s[from:i]...), '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
		}
		i++
		from = i
	}
	return append(append(b, s[from:]...), '"')
}
