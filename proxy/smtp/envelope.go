package smtp

import (
	"strconv"
	"strings"
)

// Errors of the arguments of commands.
var (
	errHello        = &ProtocolError{501, Enhanced{5, 5, 4}, "Syntax: EHLO hostname", true}
	errMailSyntax   = &ProtocolError{501, Enhanced{5, 5, 4}, "Syntax: MAIL FROM:<address> [parameters]", true}
	errRcptSyntax   = &ProtocolError{501, Enhanced{5, 5, 4}, "Syntax: RCPT TO:<address> [parameters]", true}
	errBdatSyntax   = &ProtocolError{501, Enhanced{5, 5, 4}, "Syntax: BDAT size [LAST]", true}
	ErrSender       = &ProtocolError{501, Enhanced{5, 1, 7}, "Bad sender address syntax", true}
	ErrRecipient    = &ProtocolError{501, Enhanced{5, 1, 3}, "Bad recipient address syntax", true}
	ErrParam        = &ProtocolError{501, Enhanced{5, 5, 4}, "Malformed or repeated parameter", true}
	ErrUnknownParam = &ProtocolError{555, Enhanced{5, 5, 4}, "Parameter not recognized or not offered", true}
	ErrNoUTF8       = &ProtocolError{553, Enhanced{5, 6, 7}, "Address is not ASCII and SMTPUTF8 is not offered for this destination (RFC 6531 3.5)", true}
	ErrNeedsUTF8    = &ProtocolError{553, Enhanced{5, 6, 7}, "Address is not ASCII and SMTPUTF8 was not requested", true}
)

// BodyKind is the value of BODY= (RFC 6152, RFC 3030).
type BodyKind uint8

// The kinds of body; BodyDefault means that the parameter is absent.
const (
	BodyDefault BodyKind = iota
	Body7Bit
	Body8BitMIME
	BodyBinaryMIME
)

// Notify is the set of NOTIFY= (RFC 3461 4.1); zero means that the parameter is absent.
type Notify uint8

// The members of Notify. NotifyNever stands alone.
const (
	NotifyNever Notify = 1 << iota
	NotifySuccess
	NotifyFailure
	NotifyDelay
)

// Mail is the argument of MAIL.
type Mail struct {
	Path
	Params     Params
	Size       int64 // SIZE=, bytes; -1: absent (RFC 1870)
	Body       BodyKind
	UTF8       bool   // SMTPUTF8 (RFC 6531)
	RequireTLS bool   // RFC 8689
	Ret        string // "", "FULL" or "HDRS" in capitals (RFC 3461 4.3)
	EnvID      string // ENVID=, xtext as written
	Auth       string // AUTH=, xtext as written (RFC 4954 5)
	Unknown    string // first keyword that this package does not know
}

// Rcpt is the argument of RCPT.
type Rcpt struct {
	Path
	Params  Params
	Notify  Notify
	ORcpt   string // ORCPT=, type;xtext as written (RFC 3461 4.2)
	Unknown string // first keyword that this package does not know
}

// ParseMail reads "FROM:<path> parameters". Accepted beyond RFC 5321: blanks behind the colon,
// more than one blank or tabs between parameters, and what Path.Lax lists. The strings of the
// result are parts of arg. Errors are *ProtocolError with the reply: 501 5.5.4 (no FROM:,
// parameters), 501 5.1.7 (ErrSender), 553 5.6.7 (ErrNeedsUTF8). Unknown parameters are kept and
// named in Unknown; see Extensions.CheckMail.
func ParseMail(arg string) (Mail, error) {
	m := Mail{Size: -1}
	rest, ok := cutPrefixFold(arg, "FROM:")
	if !ok {
		return m, errMailSyntax
	}
	if m.Path, rest, ok = parsePath(rest); !ok {
		return m, ErrSender
	}
	if m.Params, ok = parseParams(rest, m.param); !ok {
		return m, ErrParam
	}
	if m.NonASCII && !m.UTF8 {
		return m, ErrNeedsUTF8
	}
	return m, nil
}

// ParseRcpt reads "TO:<path> parameters" as ParseMail does. ErrRecipient is 501 5.1.3. Whether an
// address that is not ASCII is allowed depends on MAIL: see Path.NonASCII.
func ParseRcpt(arg string) (Rcpt, error) {
	var r Rcpt
	rest, ok := cutPrefixFold(arg, "TO:")
	if !ok {
		return r, errRcptSyntax
	}
	if r.Path, rest, ok = parsePath(rest); !ok || r.Null() {
		return r, ErrRecipient
	}
	if r.Params, ok = parseParams(rest, r.param); !ok {
		return r, ErrParam
	}
	return r, nil
}

// ParseBDAT reads "size [LAST]" (RFC 3030 2).
func ParseBDAT(arg string) (size int64, last bool, err error) {
	word, rest, _ := strings.Cut(arg, " ")
	size, ok := parseSize(word)
	rest = strings.Trim(rest, " \t")
	last = strings.EqualFold(rest, "LAST")
	if !ok || (rest != "" && !last) {
		return 0, false, errBdatSyntax
	}
	return size, last, nil
}

func cutPrefixFold(s, prefix string) (string, bool) {
	if len(s) < len(prefix) || !strings.EqualFold(s[:len(prefix)], prefix) {
		return s, false
	}
	return strings.TrimLeft(s[len(prefix):], " \t"), true
}

// parseSize reads up to 20 digits (RFC 1870 3); what does not fit becomes the largest number.
func parseSize(s string) (int64, bool) {
	if s == "" || len(s) > 20 {
		return 0, false
	}
	for i := range len(s) {
		if !isDigit(s[i]) {
			return 0, false
		}
	}
	n, err := strconv.ParseInt(s, 10, 64)
	return n, err == nil || n > 0
}

// param takes one parameter of MAIL and tells whether it is well-formed and the first of its name.
func (m *Mail) param(key, val string, hasVal bool) bool {
	switch {
	case strings.EqualFold(key, "SIZE"):
		n, ok := parseSize(val)
		ok = ok && m.Size < 0
		m.Size = n
		return ok
	case strings.EqualFold(key, "BODY"):
		first := m.Body == BodyDefault
		switch {
		case strings.EqualFold(val, "7BIT"):
			m.Body = Body7Bit
		case strings.EqualFold(val, "8BITMIME"):
			m.Body = Body8BitMIME
		case strings.EqualFold(val, "BINARYMIME"):
			m.Body = BodyBinaryMIME
		default:
			return false
		}
		return first
	case strings.EqualFold(key, "SMTPUTF8"):
		return once(&m.UTF8) && !hasVal
	case strings.EqualFold(key, "REQUIRETLS"):
		return once(&m.RequireTLS) && !hasVal
	case strings.EqualFold(key, "RET"):
		return m.Ret == "" && m.setRet(val)
	case strings.EqualFold(key, "ENVID"):
		return setXtext(&m.EnvID, val, 100)
	case strings.EqualFold(key, "AUTH"):
		return setXtext(&m.Auth, val, 500)
	}
	if m.Unknown == "" {
		m.Unknown = key
	}
	return true
}

func (m *Mail) setRet(val string) bool {
	switch {
	case strings.EqualFold(val, "FULL"):
		m.Ret = "FULL"
	case strings.EqualFold(val, "HDRS"):
		m.Ret = "HDRS"
	}
	return m.Ret != ""
}

func (r *Rcpt) param(key, val string, _ bool) bool {
	switch {
	case strings.EqualFold(key, "NOTIFY"):
		return r.Notify == 0 && r.setNotify(val)
	case strings.EqualFold(key, "ORCPT"):
		kind, addr, ok := strings.Cut(val, ";")
		return ok && isKeyword(kind) && addr != "" && setXtext(&r.ORcpt, val, 500)
	}
	if r.Unknown == "" {
		r.Unknown = key
	}
	return true
}

func (r *Rcpt) setNotify(val string) bool {
	for val != "" {
		word, rest, more := strings.Cut(val, ",")
		switch {
		case strings.EqualFold(word, "NEVER"):
			r.Notify |= NotifyNever
		case strings.EqualFold(word, "SUCCESS"):
			r.Notify |= NotifySuccess
		case strings.EqualFold(word, "FAILURE"):
			r.Notify |= NotifyFailure
		case strings.EqualFold(word, "DELAY"):
			r.Notify |= NotifyDelay
		default:
			return false
		}
		if more && rest == "" {
			return false
		}
		val = rest
	}
	return r.Notify != 0 && (r.Notify&NotifyNever == 0 || r.Notify == NotifyNever)
}

func once(b *bool) bool {
	first := !*b
	*b = true
	return first
}

// setXtext stores a value given for the first time; RFC 3461 4 says what xtext is, but values
// that are not quite that are passed on: the destination is the one to judge them.
func setXtext(to *string, val string, most int) bool {
	if *to != "" || val == "" || len(val) > most {
		return false
	}
	*to = val
	return true
}
