// Package feedback reads what others report about mail: the Abuse Reporting Format (RFC 5965), and forwards that have the
// message attached, as some feedback loops send them.
package feedback

import (
	"bytes"
	"encoding/base64"
	"errors"
	"io"
	"mime"
	"mime/multipart"
	"mime/quotedprintable"
	"net/mail"
	"net/netip"
	"net/textproto"
	"strings"
)

// Kind is what a report takes the message for (RFC 5965 3.1, 7.3; RFC 6430).
type Kind string

// The kinds. What a report calls otherwise is Other.
const (
	Abuse   Kind = "abuse"
	Fraud   Kind = "fraud"
	Virus   Kind = "virus"
	NotSpam Kind = "not-spam"
	OptOut  Kind = "opt-out" // and whatever else says nothing against the sender
	Other   Kind = "other"
)

// Complains reports whether the kind speaks against whoever sent the message.
func (k Kind) Complains() bool { return k == Abuse || k == Fraud || k == Virus || k == Other }

// The bounds of what is read.
const (
	MaxSize  = 16 << 20 // bytes of a report
	maxDepth = 4        // parts inside parts
	maxParts = 64
	maxLine  = 998 // bytes of a field that is kept
)

// Report is one report.
type Report struct {
	Kind     Kind
	Reporter string     // domain of who sent it, in lower case; "" where it names none
	Agent    string     // the program that made it, as it calls itself
	Source   netip.Addr // from which address the message came; not valid where it does not say
	Original []byte     // the message, or its header
	Whole    bool       // Original has the body, too
}

// Read reads a report. The error says what it lacks, and what to do.
func Read(data []byte) (*Report, error) {
	if len(data) > MaxSize {
		return nil, errors.New("the report has more than 16 MiB; send the message that it is about without what is attached")
	}
	m, err := mail.ReadMessage(bytes.NewReader(data))
	if err != nil {
		return nil, errors.New("it is no mail: its header ends nowhere; give the report as it came")
	}
	r := &reader{report: Report{Kind: Abuse, Reporter: reporter(m.Header)}}
	r.part(textproto.MIMEHeader(m.Header), m.Body, 0)
	if r.report.Original == nil {
		return nil, errors.New("it is no report: no message and no header of one is attached; give a report by RFC 5965, or a mail with the message attached")
	}
	return &r.report, nil
}

// reporter is the domain of a report's sender.
func reporter(h mail.Header) string {
	from, err := (&mail.AddressParser{}).Parse(h.Get("From"))
	if err != nil {
		return ""
	}
	return strings.ToLower(from.Address[strings.LastIndexByte(from.Address, '@')+1:])
}

// reader walks over a report's parts.
type reader struct {
	report Report
	parts  int
}

// part looks at one part, and at those inside of it until the message is found.
func (r *reader) part(h textproto.MIMEHeader, body io.Reader, depth int) {
	if r.parts++; r.parts > maxParts || depth > maxDepth {
		return
	}
	kind, params, err := mime.ParseMediaType(h.Get("Content-Type"))
	if err != nil && kind == "" {
		return
	}
	switch {
	case strings.HasPrefix(kind, "multipart/") && params["boundary"] != "":
		parts := multipart.NewReader(body, params["boundary"])
		for {
			p, err := parts.NextRawPart()
			if err != nil { // the end, or no part any more
				return
			}
			r.part(p.Header, p, depth+1)
			_ = p.Close() // what is left of it is skipped
		}
	case kind == "message/feedback-report":
		r.fields(decoded(h, body))
	case kind == "message/rfc822" || kind == "message/global":
		r.keep(decoded(h, body), true)
	case kind == "text/rfc822-headers" || kind == "message/rfc822-headers" || kind == "message/global-headers":
		r.keep(decoded(h, body), false)
	}
}

// keep takes the first message that is attached; a header only where there is no message.
func (r *reader) keep(body io.Reader, whole bool) {
	if r.report.Original != nil && (r.report.Whole || !whole) {
		return
	}
	b, err := io.ReadAll(io.LimitReader(body, MaxSize))
	if err != nil && len(b) == 0 || len(bytes.TrimSpace(b)) == 0 {
		return
	}
	r.report.Original, r.report.Whole = bytes.TrimLeft(b, "\r\n"), whole
}

// fields reads the machine-readable part (RFC 5965 3).
func (r *reader) fields(body io.Reader) {
	b, err := io.ReadAll(io.LimitReader(body, 64<<10))
	if err != nil {
		return
	}
	m, err := mail.ReadMessage(bytes.NewReader(append(bytes.TrimLeft(b, "\r\n"), "\r\n\r\n"...)))
	if err != nil {
		return
	}
	field := func(name string) string {
		v := strings.TrimSpace(m.Header.Get(name))
		return v[:min(len(v), maxLine)]
	}
	r.report.Agent = field("User-Agent")
	if a, err := netip.ParseAddr(strings.Trim(field("Source-IP"), "[]")); err == nil {
		r.report.Source = a.Unmap()
	}
	switch k := Kind(strings.ToLower(field("Feedback-Type"))); k {
	case Abuse, Fraud, Virus, NotSpam, OptOut:
		r.report.Kind = k
	case "opt-out-list", "dismiss", "auth-failure": // the last by RFC 6591
		r.report.Kind = OptOut
	default:
		r.report.Kind = Other
	}
}

// decoded takes the transfer encoding off, which a message should not have and some have.
func decoded(h textproto.MIMEHeader, body io.Reader) io.Reader {
	switch strings.ToLower(strings.TrimSpace(h.Get("Content-Transfer-Encoding"))) {
	case "base64":
		return base64.NewDecoder(base64.StdEncoding, body)
	case "quoted-printable":
		return quotedprintable.NewReader(body)
	}
	return body
}
