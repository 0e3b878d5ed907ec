package message

import (
	"bytes"
	"net/netip"
	"strings"
)

// PassedOn tells whether a message bears the marks of one that came to its sender from outside and is only forwarded
// (ATT10): an envelope sender rewritten for that (SRS), fields that forwarders and mailboxes add, or a Received field by
// which a stranger handed it in without logging in. Anybody can write such fields: it excuses, and proves nothing.
func PassedOn(m *Message) bool {
	if m.Envelope.From.Rewritten() {
		return true
	}
	if m.Fields.Looked {
		if m.Fields.Passed {
			return true
		}
		if !m.Fields.Traced {
			return false
		}
	}
	var client netip.Addr
	if m.Flow != nil {
		client = m.Flow.Client.Addr().Unmap()
	}
	for name, value := range Header(m.Data) {
		switch {
		case passes(name):
			return true
		case is(name, "Received") && fromOutside(value, client):
			return true
		}
	}
	return false
}

// Rewritten tells whether a forwarder made the address out of the sender's (SRS).
func (a Address) Rewritten() bool {
	return len(a) > 5 && (strings.EqualFold(string(a[:5]), "SRS0=") || strings.EqualFold(string(a[:5]), "SRS1="))
}

func is(name []byte, want string) bool {
	return len(name) == len(want) && bytes.EqualFold(name, []byte(want))
}

// fromOutside tells whether a Received field names a public address other than the client's, whose mail was taken without
// a login (RFC 3848: protocols with an A stand for one).
func fromOutside(value []byte, client netip.Addr) bool {
	from, by, ok := cutWord(value, "by")
	if !ok || len(from) < 5 || !is(from[:5], "from ") {
		return false
	}
	if _, with, ok := cutWord(by, "with"); ok {
		protocol, _, _ := bytes.Cut(bytes.TrimLeft(with, " \t\r\n"), []byte(" "))
		if p := strings.ToUpper(strings.TrimRight(string(protocol), ";\r\n\t")); strings.HasSuffix(p, "SMTPA") || strings.HasSuffix(p, "SMTPSA") || p == "HTTP" {
			return false
		}
	}
	for {
		_, rest, ok := bytes.Cut(from, []byte("["))
		if !ok {
			return false
		}
		text, after, ok := bytes.Cut(rest, []byte("]"))
		if !ok {
			return false
		}
		a, err := netip.ParseAddr(strings.TrimPrefix(string(text), "IPv6:"))
		if a = a.Unmap(); err == nil && a.IsGlobalUnicast() && !a.IsPrivate() && a != client {
			return true
		}
		from = after
	}
}

// cutWord cuts a field at a word outside of comments.
func cutWord(value []byte, word string) (before, after []byte, found bool) {
	depth := 0
	for i, c := range value {
		switch c {
		case '(':
			depth++
		case ')':
			depth = max(0, depth-1)
		case ' ', '\t', '\n':
			end := i + 1 + len(word)
			if depth == 0 && end < len(value) && bytes.EqualFold(value[i+1:end], []byte(word)) && (value[end] == ' ' || value[end] == '\t' || value[end] == '\r') {
				return value[:i], value[end+1:], true
			}
		}
	}
	return value, nil, false
}
