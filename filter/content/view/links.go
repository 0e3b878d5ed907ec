package view

import (
	"bytes"
	"strings"
)

// findLinks notes the links that are written out in text.
func findLinks(v *View, text []byte) {
	for at := 0; at < len(text); {
		i := bytes.IndexByte(text[at:], ':') // rarer than what a search for all three begins with
		if i < 0 {
			break
		}
		if !bytes.HasPrefix(text[at+i:], []byte("://")) {
			at += i + 1
			continue
		}
		start := at + i
		for start > at && isLetter(text[start-1]) && at+i-start < 8 {
			start--
		}
		end := urlEnd(text, at+i+3)
		if start < at+i && end > at+i+3 {
			addLink(v, Link{URL: string(text[start:end])})
		}
		at = end
	}
	for at := 0; at < len(text); {
		i := bytes.Index(text[at:], []byte("www."))
		if i < 0 {
			break
		}
		start := at + i
		end := urlEnd(text, start+4)
		if (start == 0 || !isLetter(text[start-1]) && text[start-1] != '/' && text[start-1] != '.' && text[start-1] != '@') && end > start+6 {
			addLink(v, Link{URL: "http://" + string(text[start:end])})
		}
		at = end
	}
}

// urlEnd returns where the URL ends of which text[at:] is the rest.
func urlEnd(text []byte, at int) int {
	end := at
	for end < len(text) && end-at < 2048 {
		switch c := text[end]; {
		case c <= ' ' || c == '<' || c == '>' || c == '"' || c == '|' || c == '\\' || c == '^' || c == '`' || c == 0x7f:
			return trimURL(text, at, end)
		}
		end++
	}
	return trimURL(text, at, end)
}

// trimURL takes off what belongs to the sentence around the URL.
func trimURL(text []byte, at, end int) int {
	for end > at && strings.IndexByte(".,;:!?)]}'*", text[end-1]) >= 0 {
		end--
	}
	return end
}

func isLetter(c byte) bool { return c|0x20 >= 'a' && c|0x20 <= 'z' }

func addLink(v *View, l Link) {
	if n := len(v.Links); n > 0 {
		if last := &v.Links[n-1]; last.URL == l.URL && last.Text == l.Text && last.Kind == l.Kind {
			return
		}
	}
	if len(v.Links) == MaxLinks {
		v.Cut |= CutLinks
		return
	}
	l.host = l.Host() // several ask for it
	v.Links = append(v.Links, l)
}

// Host returns the host of the URL in lower case, without user, port and a trailing dot; "" where it has none.
func (l *Link) Host() string {
	if l.host != "" {
		return l.host
	}
	_, rest, ok := strings.Cut(l.URL, "://")
	if !ok {
		return ""
	}
	from := 0
authority:
	for i := range len(rest) {
		switch rest[i] {
		case '/', '?', '#', '\\':
			rest = rest[:i]
			break authority
		case '@':
			from = i + 1
		}
	}
	rest = rest[from:]
	if strings.HasPrefix(rest, "[") {
		if i := strings.IndexByte(rest, ']'); i > 0 {
			return strings.ToLower(rest[1:i])
		}
		return ""
	}
	if i := strings.IndexByte(rest, ':'); i >= 0 {
		rest = rest[:i]
	}
	return strings.ToLower(strings.TrimSuffix(rest, "."))
}

// User reports whether the URL has a part before an "@" that passes for the host.
func (l *Link) User() bool {
	_, rest, _ := strings.Cut(l.URL, "://")
	if i := strings.IndexAny(rest, "/?#"); i >= 0 {
		rest = rest[:i]
	}
	return strings.Contains(rest, "@")
}
