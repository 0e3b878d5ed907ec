package smtp

import "strings"

// Params is the parameter part of MAIL or RCPT in the order given: "" or " KEY=VALUE KEY", each
// parameter with one blank before it.
type Params string

// Wire gives the parameters as they follow the path in a command: "" or text that begins with a blank.
func (p Params) Wire() string { return string(p) }

// Each calls f with each parameter until f gives false.
func (p Params) Each(f func(key, val string) bool) {
	for s := string(p); s != ""; {
		word, rest, _ := strings.Cut(s[1:], " ")
		if key, val, _ := strings.Cut(word, "="); !f(key, val) {
			return
		}
		if rest == "" {
			return
		}
		s = s[1+len(word):]
	}
}

// Get gives the value of the parameter key, in any case of letters.
func (p Params) Get(key string) (val string, ok bool) {
	p.Each(func(k, v string) bool {
		if strings.EqualFold(k, key) {
			val, ok = v, true
		}
		return !ok
	})
	return val, ok
}

// Without gives the parameters but those named; it allocates only if there are such.
func (p Params) Without(keys ...string) Params {
	var out []byte
	drop := func(key string) bool {
		for _, k := range keys {
			if strings.EqualFold(k, key) {
				return true
			}
		}
		return false
	}
	found := false
	p.Each(func(k, _ string) bool { found = found || drop(k); return !found })
	if !found {
		return p
	}
	for word := range strings.FieldsSeq(string(p)) {
		if key, _, _ := strings.Cut(word, "="); !drop(key) {
			out = append(append(out, ' '), word...)
		}
	}
	return Params(out)
}

// parseParams checks each parameter and hands it to take; false means that one is malformed.
func parseParams(s string, take func(key, val string, hasVal bool) bool) (Params, bool) {
	s = strings.TrimRight(s, " \t")
	if strings.Contains(s, "  ") || strings.IndexByte(s, '\t') >= 0 {
		s = " " + strings.Join(strings.FieldsFunc(s, func(r rune) bool { return r == ' ' || r == '\t' }), " ")
	}
	for in := s; in != ""; {
		word, _, _ := strings.Cut(in[1:], " ")
		in = in[1+len(word):]
		key, val, hasVal := strings.Cut(word, "=")
		if !isKeyword(key) || hasVal && !isValue(val) || !take(key, val, hasVal) {
			return "", false
		}
	}
	return Params(s), true
}

// isKeyword: esmtp-keyword of RFC 5321 4.1.2.
func isKeyword(s string) bool {
	for i := range len(s) {
		b := s[i]
		if !('a' <= b && b <= 'z' || 'A' <= b && b <= 'Z' || isDigit(b) || b == '-' && i > 0) {
			return false
		}
	}
	return s != ""
}

// isValue: esmtp-value, and "=" inside it, which is met in practice.
func isValue(s string) bool {
	for i := range len(s) {
		if b := s[i]; b <= ' ' || b == 0x7F {
			return false
		}
	}
	return s != ""
}
