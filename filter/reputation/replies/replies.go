// Package replies says what destinations mean by their replies, by rules that are data.
package replies

import (
	_ "embed"
	"fmt"
	"strings"
	"sync"
)

// Class is what a destination means by a reply that refuses (REP3).
type Class uint8

// The classes.
const (
	Other     Class = iota // says nothing about sender or recipient
	Temporary              // something at the destination
	Unknown                // there is no such recipient, or no such domain
	Quota                  // the recipient's mailbox is full
	Spam                   // the message is taken for spam
	Blocked                // the address that it came from is on a list, or has a bad name
	Rate                   // too much, too fast
	Greylist               // not yet: the same again later will do
	Policy                 // a rule of the destination: authentication, relaying, content
	classes
)

var classNames = [...]string{"other", "temporary", "unknown", "quota", "spam", "blocked", "rate", "greylist", "policy"}

// String returns the class's name as it stands in rules, log and API.
func (c Class) String() string {
	if c >= classes {
		return "?"
	}
	return classNames[c]
}

// At is what a reply answers. The same words mean another thing elsewhere: who knows "no such user" only once he has read the
// whole message took the recipient before.
type At uint8

// The places.
const (
	Anywhere  At = iota // it is not known
	Greeting            // the connection, or EHLO
	Sender              // MAIL
	Recipient           // RCPT
	Message             // the message behind DATA
)

var atNames = map[string]At{"greeting": Greeting, "sender": Sender, "recipient": Recipient, "message": Message}

// rule fits a reply by what it answers, status code and words.
type rule struct {
	class  Class
	at     At       // Anywhere: whatever it answers
	status []string // prefixes of the enhanced status code; nil: any
	words  [][]word // one of these lists must fit whole; nil: none is needed
}

type word struct {
	text string
	not  bool
}

// Replies classifies replies by rules that are data. Safe for concurrent use.
type Replies struct{ rules []rule }

//go:embed replies.rules
var shippedRules string

// Shipped returns the rules that the program brings.
var Shipped = sync.OnceValue(func() *Replies {
	r, err := ParseReplies(shippedRules)
	if err != nil {
		panic(err) // the file is part of the program, and a test reads it
	}
	return r
})

// ParseReplies reads rules, one a line: class [at place] | status codes | words. The error names the line.
func ParseReplies(text string) (*Replies, error) {
	r := &Replies{}
	for n, line := range strings.Split(text, "\n") {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		parts := strings.Split(line, "|")
		if len(parts) != 3 {
			return nil, fmt.Errorf("line %d of the rules for replies has %d parts, want 3: class | status codes | words", n+1, len(parts))
		}
		name, place, placed := strings.Cut(strings.TrimSpace(parts[0]), " at ")
		c, ok := parseClass(name)
		if !ok {
			return nil, fmt.Errorf("line %d of the rules for replies: class %q is unknown; use one of %s", n+1, name, strings.Join(classNames[:], ", "))
		}
		u := rule{class: c, at: atNames[place]}
		if placed && u.at == Anywhere {
			return nil, fmt.Errorf("line %d of the rules for replies: place %q is unknown; use one of greeting, sender, recipient, message", n+1, place)
		}
		if s := strings.TrimSpace(parts[1]); s != "-" {
			u.status = strings.Fields(s)
		}
		if s := strings.TrimSpace(parts[2]); s != "-" {
			u.words = parseWords(s)
		}
		r.rules = append(r.rules, u)
	}
	return r, nil
}

func parseClass(name string) (Class, bool) {
	for i, n := range classNames {
		if n == name {
			return Class(i), true
		}
	}
	return 0, false
}

func parseWords(s string) (all [][]word) {
	for alternative := range strings.SplitSeq(s, " / ") {
		var list []word
		for w := range strings.SplitSeq(alternative, " & ") {
			w = strings.ToLower(strings.TrimSpace(w))
			not := strings.HasPrefix(w, "! ")
			list = append(list, word{strings.TrimPrefix(w, "! "), not})
		}
		all = append(all, list)
	}
	return all
}

// Classify returns the class of a reply to what stands at: its code, and its text with or without the enhanced status code
// (RFC 3463) in front, the lines of a longer one joined.
func (r *Replies) Classify(at At, code int, text string) Class {
	if code < 400 || code > 599 {
		return Other
	}
	text = strings.ToLower(text)
	status := statusOf(code, text)
	for i := range r.rules {
		u := &r.rules[i]
		if u.at != Anywhere && u.at != at || u.class == Unknown && len(status) > 2 && status[1:4] == ".7." {
			continue
		}
		if u.fits(status, text) {
			return u.class
		}
	}
	if code < 500 {
		return Temporary
	}
	return Other
}

// statusOf finds the enhanced status code of a reply, wherever it stands; "4." or "5." where there is none.
func statusOf(code int, text string) string {
	class := byte('0' + code/100)
	for i := 0; i+4 < len(text); i++ {
		if text[i] != class || text[i+1] != '.' || i > 0 && (digit(text[i-1]) || text[i-1] == '.') {
			continue
		}
		end := i + 2
		for end < len(text) && (digit(text[end]) || text[end] == '.') {
			end++
		}
		status := strings.TrimRight(text[i:end], ".")
		if strings.Count(status, ".") == 2 && len(status) <= 9 {
			return status
		}
	}
	return string(class) + "."
}

func digit(c byte) bool { return c >= '0' && c <= '9' }

func (u *rule) fits(status, text string) bool {
	if u.status != nil {
		ok := false
		for _, s := range u.status {
			ok = ok || status == s || strings.HasSuffix(s, ".") && strings.HasPrefix(status, s)
		}
		if !ok {
			return false
		}
	}
	if u.words == nil {
		return true
	}
next:
	for _, list := range u.words {
		for _, w := range list {
			if strings.Contains(text, w.text) == w.not {
				continue next
			}
		}
		return true
	}
	return false
}
