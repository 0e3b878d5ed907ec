package public

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base32"
	"errors"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// KeySize is the length of the key of links in bytes.
const KeySize = 32

// Links makes the addresses of pages that are meant for one person, and reads them again. Nobody else can make one: they
// carry a mark under a key of this gateway.
type Links struct {
	base string
	key  []byte
}

// NewLinks returns links that begin with base, such as "https://mail.provider.example".
func NewLinks(base string, key []byte) *Links {
	return &Links{base: strings.TrimSuffix(base, "/"), key: key}
}

// Errors of links.
var (
	// ErrForged says that a link was not made here, or not copied whole.
	ErrForged = errors.New("the link is not one of ours, or was not copied whole")
	// ErrExpired says that a link's time is over.
	ErrExpired = errors.New("the link's time is over")
)

var letters = base32.NewEncoding("0123456789abcdefghjkmnpqrstvwxyz").WithPadding(base32.NoPadding)

// mark is what only this gateway can write behind a text; n letters of five bits each.
func (l *Links) mark(what, text string, n int) string {
	m := hmac.New(sha256.New, l.key)
	m.Write([]byte(what + "\x00" + text))
	return letters.EncodeToString(m.Sum(nil))[:n]
}

func (l *Links) marked(what, text, mark string, n int) bool {
	return hmac.Equal([]byte(mark), []byte(l.mark(what, text, n)))
}

const (
	shortMark = 10 // 50 bits: it stands in replies, tries are counted, and it shows no more than the reply did
	longMark  = 26 // 130 bits
)

// Page is the page of a code; with a message's id, the one from which its sender may say that it is no spam.
func (l *Links) Page(code, message string) string {
	page := l.base + "/codes/" + url.PathEscape(code)
	if message == "" {
		return page
	}
	return page + "?m=" + url.QueryEscape(message) + "-" + l.mark("message", message, shortMark)
}

// Message reads the message's id in a link.
func (l *Links) Message(m string) (id string, err error) {
	id, mark, _ := cutLast(m, "-")
	if id == "" || !l.marked("message", id, mark, shortMark) {
		return "", ErrForged
	}
	return id, nil
}

// Unlock is the page on which the lock of a ticket can be ended until a time.
func (l *Links) Unlock(ticket string, until time.Time) string {
	text := ticket + "." + strconv.FormatInt(until.Unix(), 36)
	return l.base + "/unlock/" + text + "." + l.mark("unlock", text, longMark)
}

// Ticket reads the ticket in a link to unlock. With ErrExpired it is told, too.
func (l *Links) Ticket(token string, now time.Time) (string, error) {
	text, mark, _ := cutLast(token, ".")
	ticket, end, _ := cutLast(text, ".")
	until, err := strconv.ParseInt(end, 36, 64)
	switch {
	case ticket == "" || !l.marked("unlock", text, mark, longMark) || err != nil:
		return "", ErrForged
	case now.Unix() >= until:
		return ticket, ErrExpired
	}
	return ticket, nil
}

func cutLast(s, sep string) (before, after string, found bool) {
	i := strings.LastIndex(s, sep)
	if i < 0 {
		return "", s, false
	}
	return s[:i], s[i+len(sep):], true
}
