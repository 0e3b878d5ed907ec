package smtp

import (
	"net/netip"
	"strings"
	"unicode/utf8"
)

// Bounds of addresses. RFC 5321 4.5.3.1 asks servers to take longer local parts than 64 octets
// where they can; rewritten senders (SRS, BATV, VERP) are often longer.
const (
	maxLocal   = 512
	maxDomain  = 255
	maxLabel   = 63
	maxRouting = 1024
)

// Path is a reverse-path or forward-path (RFC 5321 4.1.2). All its strings are parts of the
// argument that was parsed.
type Path struct {
	Raw      string // as the client wrote it, brackets and source route included
	Address  string // Local@Domain; "" is the null sender
	Local    string // as written, a quoted string with its quotes
	Domain   string // name or address literal with its brackets; "" for <> and <postmaster>
	NonASCII bool   // needs SMTPUTF8 (RFC 6531)
	// Lax tells that the path is not by the letter of RFC 5321 but is accepted as large servers
	// accept it: no brackets, dots at an end of the local part or in a row, a longer local part
	// than 64 octets, an underscore in the domain.
	Lax bool
}

// Null tells whether the path is the null sender <>.
func (p *Path) Null() bool { return p.Address == "" }

// Postmaster tells whether the path is <postmaster> without a domain (RFC 5321 4.5.1).
func (p *Path) Postmaster() bool { return p.Domain == "" && strings.EqualFold(p.Local, "postmaster") }

// LocalPart gives the local part without quoting: "a\"b" is a"b.
func (p *Path) LocalPart() string {
	if len(p.Local) < 2 || p.Local[0] != '"' {
		return p.Local
	}
	in := p.Local[1 : len(p.Local)-1]
	if strings.IndexByte(in, '\\') < 0 {
		return in
	}
	out := make([]byte, 0, len(in))
	for i := 0; i < len(in); i++ {
		if in[i] == '\\' && i+1 < len(in) {
			i++
		}
		out = append(out, in[i])
	}
	return string(out)
}

// parsePath reads a path at the start of s and gives what follows it. Nothing but a blank may.
func parsePath(s string) (p Path, rest string, ok bool) {
	in, closed := s, false
	if strings.HasPrefix(in, "<") {
		in, closed = in[1:], true
		if strings.HasPrefix(in, ">") {
			return Path{Raw: s[:2]}, in[1:], startsBlank(in[1:])
		}
		if in, ok = skipRoute(in); !ok {
			return p, s, false
		}
	}
	addr := in
	if p.Local, in, p.Lax, ok = localPart(in); !ok {
		return p, s, false
	}
	if strings.HasPrefix(in, "@") {
		lax := false
		if p.Domain, in, lax, ok = domainPart(in[1:]); !ok {
			return p, s, false
		}
		p.Lax = p.Lax || lax
	} else if !strings.EqualFold(p.Local, "postmaster") {
		return p, s, false
	}
	p.Address = addr[:len(addr)-len(in)]
	if closed {
		if !strings.HasPrefix(in, ">") {
			return p, s, false
		}
		in = in[1:]
	} else {
		p.Lax = true
	}
	p.Raw = s[:len(s)-len(in)]
	p.NonASCII = !isASCII(p.Address)
	return p, in, startsBlank(in) && (!p.NonASCII || utf8.ValidString(p.Address))
}

func startsBlank(s string) bool { return s == "" || s[0] == ' ' || s[0] == '\t' }

func isASCII(s string) bool {
	for i := range len(s) {
		if s[i] >= 0x80 {
			return false
		}
	}
	return true
}

// skipRoute drops a source route "@a,@b:" (RFC 5321 appendix C: ignored, not obeyed).
func skipRoute(s string) (rest string, ok bool) {
	if !strings.HasPrefix(s, "@") {
		return s, true
	}
	start := s
	for {
		_, after, _, ok := domainPart(s[1:])
		if !ok || after == "" || len(start)-len(after) > maxRouting {
			return s, false
		}
		s = after[1:]
		switch {
		case after[0] == ':':
			return s, true
		case after[0] != ',' || !strings.HasPrefix(s, "@"):
			return s, false
		}
	}
}

// localPart reads a dot-string or a quoted string.
func localPart(s string) (local, rest string, lax, ok bool) {
	if strings.HasPrefix(s, `"`) {
		return quotedLocal(s)
	}
	n := 0
	for n < len(s) && (isAtext(s[n]) || s[n] == '.') {
		if s[n] == '.' && (n == 0 || s[n-1] == '.') {
			lax = true
		}
		n++
	}
	if n == 0 || n > maxLocal {
		return "", s, false, false
	}
	lax = lax || s[n-1] == '.' || n > 64
	return s[:n], s[n:], lax, true
}

func quotedLocal(s string) (local, rest string, lax, ok bool) {
	for n := 1; n < len(s) && n < maxLocal; n++ {
		switch b := s[n]; {
		case b == '"':
			return s[:n+1], s[n+1:], n >= 64, true
		case b < ' ' || b == 0x7F:
			return "", s, false, false
		case b == '\\':
			if n++; n == len(s) || s[n] < ' ' || s[n] >= 0x7F {
				return "", s, false, false
			}
		}
	}
	return "", s, false, false
}

// isAtext tells whether b may stand in an atom (RFC 5322 3.2.3, RFC 6531 3.3).
func isAtext(b byte) bool {
	switch {
	case 'a' <= b && b <= 'z', 'A' <= b && b <= 'Z', '0' <= b && b <= '9', b >= 0x80:
		return true
	}
	return b != 0 && strings.IndexByte("!#$%&'*+-/=?^_`{|}~", b) >= 0
}

// domainPart reads a domain name or an address literal.
func domainPart(s string) (domain, rest string, lax, ok bool) {
	if strings.HasPrefix(s, "[") {
		end := strings.IndexByte(s, ']')
		if end < 0 || end > maxDomain || !isLiteral(s[1:end]) {
			return "", s, false, false
		}
		return s[:end+1], s[end+1:], false, true
	}
	n, label := 0, 0
	for ; n < len(s); n++ {
		b := s[n]
		if b == '.' {
			if label == 0 || label > maxLabel || s[n-1] == '-' {
				return "", s, false, false
			}
			label = 0
			continue
		}
		if !isDomainByte(b) || (b == '-' && label == 0) {
			break
		}
		lax = lax || b == '_'
		label++
	}
	if label == 0 || label > maxLabel || n > maxDomain || s[n-1] == '-' {
		return "", s, false, false
	}
	return s[:n], s[n:], lax, true
}

func isDomainByte(b byte) bool {
	return 'a' <= b && b <= 'z' || 'A' <= b && b <= 'Z' || isDigit(b) || b == '-' || b == '_' || b >= 0x80
}

// isLiteral checks the inside of an address literal (RFC 5321 4.1.3).
func isLiteral(s string) bool {
	if len(s) > 5 && strings.EqualFold(s[:5], "IPv6:") {
		a, err := netip.ParseAddr(s[5:])
		return err == nil && a.Is6() && a.Zone() == ""
	}
	if tag, content, found := strings.Cut(s, ":"); found {
		return isKeyword(tag) && !isDigit(tag[0]) && isDcontent(content)
	}
	a, err := netip.ParseAddr(s)
	return err == nil && a.Is4()
}

func isDcontent(s string) bool {
	for i := range len(s) {
		if b := s[i]; b < 33 || b > 126 || b == '[' || b == '\\' || b == ']' {
			return false
		}
	}
	return s != ""
}

// ParseHello gives the name a client gave with HELO, EHLO or LHLO: one word, a domain or an address
// literal in any spelling, without control characters; it may be followed by blanks only. Whether
// it is a real name is policy, since broken ones are common. Error: 501 5.5.4.
func ParseHello(arg string) (name string, err error) {
	name = strings.Trim(arg, " \t")
	if name == "" || len(name) > maxDomain || strings.ContainsAny(name, " \t") {
		return "", errHello
	}
	for i := range len(name) {
		if name[i] < ' ' || name[i] == 0x7F {
			return "", errHello
		}
	}
	if !utf8.ValidString(name) {
		return "", errHello
	}
	return name, nil
}
