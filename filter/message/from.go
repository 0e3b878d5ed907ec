package message

import (
	"errors"
	"io"
	"mime"
	"net/mail"
	"strings"
	"unicode/utf8"
)

// Errors of Authors.
var (
	ErrNoAuthor   = errors.New("there is no From field")
	ErrTwoAuthors = errors.New("there is more than one From field")
	ErrGarbled    = errors.New("the From field cannot be read")
)

// names reads display names without understanding them: of interest are the addresses.
var names = mail.AddressParser{WordDecoder: &mime.WordDecoder{CharsetReader: func(_ string, r io.Reader) (io.Reader, error) { return r, nil }}}

// unfold takes line ends out of a field (RFC 5322 2.2.3).
var unfold = strings.NewReplacer("\r\n", "", "\n", "")

// Authors are the addresses in the From field of a message that begins with data (RFC 5322 3.6.2). The error is one of those
// above: where two readers could see different authors there is none.
func Authors(data []byte) ([]Address, error) {
	field, _, _, n := Field(data, "From")
	switch {
	case n == 0:
		return nil, ErrNoAuthor
	case n > 1:
		return nil, ErrTwoAuthors
	}
	return Mailboxes(string(field))
}

// Mailboxes are the addresses in the value of a field that lists mailboxes (RFC 5322 3.4), one at least; else the error is
// ErrGarbled. Text in an unknown charset counts as text.
func Mailboxes(field string) ([]Address, error) {
	if !utf8.ValidString(field) {
		b := []byte(field)
		for i, c := range b {
			if c >= 0x80 {
				b[i] = '_'
			}
		}
		field = string(b)
	}
	list, err := names.ParseList(unfold.Replace(field))
	if err != nil || len(list) == 0 {
		return nil, ErrGarbled
	}
	all := make([]Address, len(list))
	for i, a := range list {
		all[i] = Address(a.Address)
	}
	return all, nil
}

// Field is the value of a header field that stands once in a message that begins with data, with where its lines begin and
// end; n counts how often it stands there.
func Field(data []byte, name string) (value []byte, from, to, n int) {
	at := 0
	for len(data[at:]) > 0 && data[at] != '\r' {
		end := at + fieldEnd(data[at:])
		for is, v := range Header(data[at:end]) {
			if strings.EqualFold(string(is), name) {
				value, from, to = v, at, end
				n++
			}
		}
		at = end
	}
	return value, from, to, n
}
