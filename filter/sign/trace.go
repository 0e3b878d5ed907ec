package sign

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"sluice/filter/message"
	"sluice/intercept/flow"
)

// Tracer writes the trace field that the gateway puts on top of a mail, and knows its own fields again. It is safe for
// concurrent use.
//
// The field's id is one block, encrypted so that it says nothing to strangers: the flow and the number of the
// transaction, by which the gateway finds the origin (ATT9), and a keyed hash of user and recipient. That hash, not
// the mere presence of a field of ours, tells a loop: a customer's forward of a mail that another customer sent
// through the same gateway carries our field too, but is no loop.
type Tracer struct {
	block cipher.Block
	key   [32]byte
	last  atomic.Pointer[dated]
}

// KeySize is the least length of a Tracer's key in bytes.
const KeySize = 32

// idLen is the length of an id in characters: base 32 of 16 bytes.
const idLen = 26

// digits are those of RFC 4648 base32hex in lower case: none of them needs quoting in a header field.
const digits = "0123456789abcdefghijklmnopqrstuv"

// NewTracer returns the Tracer of key, of at least KeySize bytes. Gateways that share a key know each other's fields.
func NewTracer(key []byte) (*Tracer, error) {
	if len(key) < KeySize {
		return nil, fmt.Errorf("could not use the trace key: it has %d bytes; give at least %d random ones", len(key), KeySize)
	}
	t := &Tracer{key: sha256.Sum256(append([]byte("sluice trace hash\x00"), key...))}
	enc := sha256.Sum256(append([]byte("sluice trace block\x00"), key...))
	var err error
	t.block, err = aes.NewCipher(enc[:])
	return t, err
}

// Hop is what one trace field says (RFC 5321 4.4).
type Hop struct {
	Flow      flow.ID
	N         int // number of the transaction within the flow
	User      uint32
	Helo      string
	Client    netip.Addr
	By        string // gateway name
	ESMTP     bool   // the client said EHLO
	TLS       bool   // the client leg is encrypted
	Auth      bool   // the client logged in
	UTF8      bool   // SMTPUTF8 was declared (RFC 6531)
	Recipient string // the first recipient
	Time      time.Time
}

// AppendReceived appends the trace field for h to dst.
func (t *Tracer) AppendReceived(dst []byte, h *Hop) []byte {
	dst = append(dst, "Received: from "...)
	dst = appendWord(dst, h.Helo, h.UTF8)
	dst = append(dst, " (["...)
	if h.Client.Is6() {
		dst = append(dst, "IPv6:"...)
	}
	dst = h.Client.AppendTo(dst)
	dst = append(dst, "])\r\n\tby "...)
	dst = append(dst, h.By...)
	dst = append(dst, " with "...)
	dst = append(dst, with(h)...)
	dst = append(dst, " id "...)
	dst = t.appendID(dst, h)
	dst = append(dst, ";\r\n\t"...)
	dst = append(dst, t.date(h.Time)...)
	return append(dst, "\r\n"...)
}

// dated is a second in words.
type dated struct {
	second int64
	zone   *time.Location
	text   string
}

// date writes a date by RFC 5322 3.3. The last second's words are kept: on a busy gateway many messages share them.
func (t *Tracer) date(at time.Time) string {
	if d := t.last.Load(); d != nil && d.second == at.Unix() && d.zone == at.Location() {
		return d.text
	}
	d := &dated{at.Unix(), at.Location(), at.Format("Mon, 2 Jan 2006 15:04:05 -0700")}
	t.last.Store(d)
	return d.text
}

// with is the keyword of RFC 3848, RFC 6531 4.3.
func with(h *Hop) string {
	switch {
	case h.UTF8 && h.TLS && h.Auth:
		return "UTF8SMTPSA"
	case h.ESMTP && h.TLS && h.Auth:
		return "ESMTPSA"
	case h.UTF8 && h.TLS:
		return "UTF8SMTPS"
	case h.UTF8:
		return "UTF8SMTP"
	case h.ESMTP && h.TLS:
		return "ESMTPS"
	case h.ESMTP:
		return "ESMTP"
	}
	return "SMTP"
}

// appendWord appends a client's HELO name; what is neither a domain nor an address literal becomes "unknown", since a
// parenthesis or quote of a stranger could change the meaning of the field. Without SMTPUTF8 the header must stay ASCII.
func appendWord(dst []byte, name string, utf8 bool) []byte {
	if name == "" || len(name) > 255 {
		return append(dst, "unknown"...)
	}
	for i := range len(name) {
		switch c := name[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c >= 0x80 && utf8:
		case strings.IndexByte("-._:[]", c) >= 0:
		default:
			return append(dst, "unknown"...)
		}
	}
	return append(dst, name...)
}

// appendID appends the encrypted id of h. It encrypts in dst's own room: what is given to a cipher.Block escapes.
func (t *Tracer) appendID(dst []byte, h *Hop) []byte {
	at := len(dst)
	dst = binary.BigEndian.AppendUint64(dst, uint64(h.Flow))
	dst = binary.BigEndian.AppendUint16(dst, uint16(h.N))
	tag := t.tag(h.User, h.Recipient)
	dst = append(dst, tag[:]...)
	b := dst[at:]
	t.block.Encrypt(b, b)
	hi, lo := binary.BigEndian.Uint64(b[:8]), binary.BigEndian.Uint64(b[8:])
	dst = dst[:at]
	for range idLen {
		dst = append(dst, digits[hi>>59])
		hi, lo = hi<<5|lo>>59, lo<<5
	}
	return dst
}

// open decrypts an id; false when s cannot be one.
func (t *Tracer) open(s []byte) (b [aes.BlockSize]byte, ok bool) {
	if len(s) != idLen {
		return b, false
	}
	var hi, lo uint64
	for i, c := range s {
		d := strings.IndexByte(digits, c)
		if d < 0 {
			return b, false
		}
		if i < idLen-1 {
			hi, lo = hi<<5|lo>>59, lo<<5|uint64(d)
			continue
		}
		hi, lo = hi<<3|lo>>61, lo<<3|uint64(d)>>2 // the last digit carries three bits of the block
	}
	binary.BigEndian.PutUint64(b[:8], hi)
	binary.BigEndian.PutUint64(b[8:], lo)
	t.block.Decrypt(b[:], b[:])
	return b, true
}

// tag is the keyed hash of user and recipient.
func (t *Tracer) tag(user uint32, rcpt string) (tag [6]byte) {
	var room [256]byte
	b := append(room[:0], t.key[:]...)
	b = binary.BigEndian.AppendUint32(b, user)
	for i := range len(rcpt) {
		c := rcpt[i]
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		b = append(b, c)
	}
	sum := sha256.Sum256(b)
	copy(tag[:], sum[:])
	return tag
}

// Origin returns the flow and the number of the transaction that id names. An id that is not ours gives a flow that no
// log knows.
func (t *Tracer) Origin(id string) (f flow.ID, n int, ok bool) {
	b, ok := t.open([]byte(id))
	if !ok {
		return 0, 0, false
	}
	return flow.ID(binary.BigEndian.Uint64(b[:8])), int(binary.BigEndian.Uint16(b[8:10])), true
}

// Hops counts the Received fields in header, and tells whether one of them is ours for the same user and one of the
// recipients: the mail is going round. It stops behind the field after the first most.
func (t *Tracer) Hops(header []byte, user uint32, rcpts []message.Address, most int) (n int, loop bool) {
	for name, value := range message.Header(header) {
		if len(name) != len("Received") || !bytes.EqualFold(name, []byte("Received")) {
			continue
		}
		if n++; n > most {
			break
		}
		if loop {
			continue
		}
		if b, ok := t.open(idOf(value)); ok {
			for _, r := range rcpts {
				tag := t.tag(user, string(r))
				loop = loop || bytes.Equal(tag[:], b[10:])
			}
		}
	}
	return n, loop
}

// idOf returns the word behind the word "id" in the value of a Received field, which a relay may have folded anew.
func idOf(value []byte) []byte {
	for {
		i := bytes.Index(value, []byte("id"))
		if i < 0 {
			return nil
		}
		before, after := value[:i], value[i+2:]
		value = after
		if len(before) == 0 || len(after) == 0 || !blank(before[len(before)-1]) || !blank(after[0]) {
			continue
		}
		after = bytes.TrimLeft(after, " \t\r\n")
		for n, c := range after {
			if c == ';' || blank(c) {
				return after[:n]
			}
		}
		return after
	}
}

func blank(c byte) bool { return c == ' ' || c == '\t' || c == '\r' || c == '\n' }

// ID returns the id that h's field carries, for logs.
func (t *Tracer) ID(h *Hop) string { return string(t.appendID(make([]byte, 0, idLen), h)) }

// String hides the key from logs.
func (t *Tracer) String() string {
	return "tracer with a key of " + strconv.Itoa(len(t.key)) + " bytes"
}
