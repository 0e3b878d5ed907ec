package smtp

import (
	"bytes"
	"strconv"
	"strings"
)

// ExtSet is a set of service extensions.
type ExtSet uint32

// The extensions that are understood.
const (
	ExtPipelining ExtSet = 1 << iota // RFC 2920
	ExtSize                          // RFC 1870
	Ext8BitMIME                      // RFC 6152
	ExtSMTPUTF8                      // RFC 6531
	ExtChunking                      // RFC 3030
	ExtBinaryMIME                    // RFC 3030
	ExtDSN                           // RFC 3461
	ExtEnhanced                      // ENHANCEDSTATUSCODES, RFC 2034
	ExtStartTLS                      // RFC 3207
	ExtAuth                          // RFC 4954
	ExtRequireTLS                    // RFC 8689
	ExtLimits                        // RFC 9422
)

// extNames are in the order in which EHLO lists them.
var extNames = []struct {
	bit  ExtSet
	name string
}{
	{ExtPipelining, "PIPELINING"}, {ExtSize, "SIZE"}, {ExtStartTLS, "STARTTLS"}, {ExtAuth, "AUTH"},
	{ExtEnhanced, "ENHANCEDSTATUSCODES"}, {Ext8BitMIME, "8BITMIME"}, {ExtDSN, "DSN"}, {ExtSMTPUTF8, "SMTPUTF8"},
	{ExtChunking, "CHUNKING"}, {ExtBinaryMIME, "BINARYMIME"}, {ExtRequireTLS, "REQUIRETLS"}, {ExtLimits, "LIMITS"},
}

// Limits are the bounds a server declares with LIMITS (RFC 9422); 0 means none declared.
type Limits struct{ MailMax, RcptMax, RcptDomainMax int }

// Extensions is what a server offers.
type Extensions struct {
	Set    ExtSet
	Size   int64    // largest message in bytes; 0: no fixed maximum declared
	Auth   []string // mechanisms in capitals
	Limits Limits
	Other  []string // keywords not understood, for logs only
}

// Has tells whether all extensions of x are offered.
func (e *Extensions) Has(x ExtSet) bool { return e.Set&x == x }

// mostExtension bounds what is read of one line of a list: what is kept of it is kept for long, for many destinations.
const mostExtension = maxOwnLine

// ParseExtensions reads the reply to EHLO, of which the first line is the greeting (RFC 5321
// 4.1.1.1). A reply that is not 2xx offers nothing.
func ParseExtensions(r *Reply) Extensions {
	var e Extensions
	if r.Class() != 2 {
		return e
	}
	first := true
	r.EachLine(func(text []byte) bool {
		if !first {
			e.add(string(bytes.Trim(text[:min(len(text), mostExtension)], " \t")))
		}
		first = false
		return true
	})
	return e
}

func (e *Extensions) add(line string) {
	const mostOther, longest = 32, 64 // a remote's list is a stranger's input: bounded
	key, args, _ := strings.Cut(line, " ")
	for _, x := range extNames {
		if strings.EqualFold(key, x.name) {
			e.Set |= x.bit
			e.args(x.bit, args)
			return
		}
	}
	if key != "" && len(e.Other) < mostOther {
		e.Other = append(e.Other, strings.Clone(key[:min(len(key), longest)])) // not the line, for as long as this lives
	}
}

func (e *Extensions) args(x ExtSet, args string) {
	switch x {
	case ExtSize:
		if n, ok := parseSize(strings.TrimSpace(args)); ok {
			e.Size = n
		}
	case ExtAuth:
		const most = 16 // with names of 20 letters at most the line stays below 512 bytes
		for w := range strings.FieldsSeq(args) {
			if len(e.Auth) < most && isMechanism(w) {
				e.Auth = append(e.Auth, strings.Clone(strings.ToUpper(w)))
			}
		}
	case ExtLimits:
		for w := range strings.FieldsSeq(args) {
			e.Limits.add(w)
		}
	}
}

// isMechanism checks the name of a SASL mechanism (RFC 4422 3.1).
func isMechanism(s string) bool {
	for i := range len(s) {
		b := s[i]
		if !('a' <= b && b <= 'z' || 'A' <= b && b <= 'Z' || isDigit(b) || b == '-' || b == '_') {
			return false
		}
	}
	return s != "" && len(s) <= 20
}

func (l *Limits) add(word string) {
	key, val, _ := strings.Cut(word, "=")
	n, err := strconv.Atoi(val)
	if err != nil || n <= 0 {
		return
	}
	switch {
	case strings.EqualFold(key, "MAILMAX"):
		l.MailMax = n
	case strings.EqualFold(key, "RCPTMAX"):
		l.RcptMax = n
	case strings.EqualFold(key, "RCPTDOMAINMAX"):
		l.RcptDomainMax = n
	}
}

// Intersect gives what can be offered to a client if e is what the destination offers and ours is
// what we can do: the extensions of both, the smaller size and limits, the mechanisms of both
// (all of the destination's if ours has ExtAuth without naming any: the dialogue is passed on).
func (e *Extensions) Intersect(ours *Extensions) Extensions {
	out := Extensions{
		Set:  e.Set & ours.Set,
		Size: least(e.Size, ours.Size),
		Limits: Limits{
			MailMax:       least(e.Limits.MailMax, ours.Limits.MailMax),
			RcptMax:       least(e.Limits.RcptMax, ours.Limits.RcptMax),
			RcptDomainMax: least(e.Limits.RcptDomainMax, ours.Limits.RcptDomainMax),
		},
	}
	for _, m := range e.Auth {
		if out.Has(ExtAuth) && (len(ours.Auth) == 0 || HasFold(ours.Auth, m)) {
			out.Auth = append(out.Auth, m)
		}
	}
	if len(out.Auth) == 0 {
		out.Set &^= ExtAuth
	}
	if !out.Has(ExtChunking) { // RFC 3030 3: BINARYMIME needs CHUNKING
		out.Set &^= ExtBinaryMIME
	}
	return out
}

// HasFold tells whether s is in the list, in any case of letters.
func HasFold(list []string, s string) bool {
	for _, l := range list {
		if strings.EqualFold(l, s) {
			return true
		}
	}
	return false
}

// least gives the smaller of two bounds of which 0 means none.
func least[N int | int64](a, b N) N {
	if a == 0 || (b != 0 && b < a) {
		return b
	}
	return a
}

// AppendReply appends the 250 reply to EHLO: the greeting ("name greets you"), then one line for each extension.
func (e *Extensions) AppendReply(dst []byte, greeting string) []byte {
	lines := make([]string, 1, 1+len(extNames))
	lines[0] = greeting
	for _, x := range extNames {
		if e.Has(x.bit) {
			lines = append(lines, x.name+e.argText(x.bit))
		}
	}
	return AppendReply(dst, 250, Enhanced{}, lines...)
}

func (e *Extensions) argText(x ExtSet) string {
	switch {
	case x == ExtSize && e.Size > 0:
		return " " + strconv.FormatInt(e.Size, 10)
	case x == ExtAuth:
		return " " + strings.Join(e.Auth, " ")
	case x == ExtLimits:
		return e.Limits.text()
	}
	return ""
}

func (l *Limits) text() string {
	s := ""
	for _, f := range []struct {
		name string
		n    int
	}{{"MAILMAX", l.MailMax}, {"RCPTMAX", l.RcptMax}, {"RCPTDOMAINMAX", l.RcptDomainMax}} {
		if f.n > 0 {
			s += " " + f.name + "=" + strconv.Itoa(f.n)
		}
	}
	return s
}

// CheckMail tells whether e, as offered, allows the parameters of m: ErrUnknownParam (555), ErrNoUTF8
// (553) for an address that needs SMTPUTF8, or ErrTooLarge (552) if SIZE= is over the offered size.
//
// BODY=7BIT and BODY=8BITMIME are let pass even where they are not offered, since only the message
// tells whether anything is lost without them: whoever sends it onward looks (RFC 6152 3).
func (e *Extensions) CheckMail(m *Mail) error {
	need := ExtSet(0)
	if m.Size >= 0 {
		need |= ExtSize
	}
	if m.Body == BodyBinaryMIME {
		need |= ExtBinaryMIME
	}
	if m.UTF8 {
		need |= ExtSMTPUTF8
	}
	if m.RequireTLS {
		need |= ExtRequireTLS
	}
	if m.Ret != "" || m.EnvID != "" {
		need |= ExtDSN
	}
	if m.Auth != "" {
		need |= ExtAuth
	}
	switch {
	case m.NonASCII && !e.Has(ExtSMTPUTF8):
		return ErrNoUTF8
	case m.Unknown != "" || !e.Has(need):
		return ErrUnknownParam
	}
	if e.Size > 0 && m.Size > e.Size {
		return ErrTooLarge
	}
	return nil
}

// CheckRcpt does as CheckMail for the parameters of r.
func (e *Extensions) CheckRcpt(r *Rcpt) error {
	if r.Unknown != "" || (r.Notify != 0 || r.ORcpt != "") && !e.Has(ExtDSN) {
		return ErrUnknownParam
	}
	return nil
}
