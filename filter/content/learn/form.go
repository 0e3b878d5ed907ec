package learn

import (
	"encoding/binary"
	"math/bits"
	"strings"

	"sluice/filter/content/view"
)

// header adds what the header says beside words: only what a filter of outgoing mail sees and what does not name a host.
func (f *Features) header(v *view.View) {
	for _, name := range []string{"in-reply-to", "references", "list-unsubscribe", "list-id", "x-priority", "importance", "auto-submitted", "x-php-originating-script", "cc", "sender", "organization"} {
		if v.Field(name) != nil {
			f.valued("has", name)
		}
	}
	if m := v.Field("x-mailer"); m != nil {
		f.valued("mailer", mailer(string(m)))
	} else if m := v.Field("user-agent"); m != nil {
		f.valued("agent", mailer(string(m)))
	}
	f.valued("charset", v.Charset)
	f.valued("type", v.Type)
	from := domain(v.From.Addr)
	f.valued("tld", from[strings.LastIndexByte(from, '.')+1:])
	if view.Freemail(from) {
		f.named("free")
	}
	if v.ReplyTo.Addr != "" {
		reply := domain(v.ReplyTo.Addr)
		switch {
		case v.ReplyTo.Addr == v.From.Addr:
			f.valued("reply", "same")
		case reply == from:
			f.valued("reply", "domain")
		case view.Freemail(reply):
			f.valued("reply", "free")
		default:
			f.valued("reply", "other")
		}
	}
	if v.From.Name == "" {
		f.named("noname")
	}
	f.valued("subject", caps(v.Subject))
}

// mailer is the name of a mail program without its version.
func mailer(s string) string {
	i := 0
	for i < len(s) && i < 24 && (s[i] < '0' || s[i] > '9') && s[i] != '(' && s[i] != '/' && s[i] != '[' {
		i++
	}
	return strings.ToLower(strings.TrimSpace(s[:i]))
}

func caps(s []byte) string {
	up, low := letters(s)
	switch {
	case up+low == 0:
		return "none"
	case up > 5 && up > 4*low:
		return "upper"
	case up > low:
		return "mostly"
	case up == 0:
		return "lower"
	}
	return "mixed"
}

// Eight bytes at once: the lowest bit of each, and the highest.
const (
	lows  = 0x0101010101010101
	highs = 0x80 * lows
)

// letters counts the capital letters of ASCII, and the small ones.
func letters(s []byte) (up, low int) {
	for ; len(s) >= 8; s = s[8:] {
		w := binary.LittleEndian.Uint64(s)
		x := (w | 0x20*lows) &^ highs
		all := (x + (0x80-'a')*lows) &^ (x + (0x7f-'z')*lows) &^ w & highs // no byte of x reaches into the next one
		small := bits.OnesCount64(all & (w << 2))                          // bit 0x20 of each comes to its highest
		low += small
		up += bits.OnesCount64(all) - small
	}
	for _, c := range s {
		switch {
		case c >= 'a' && c <= 'z':
			low++
		case c >= 'A' && c <= 'Z':
			up++
		}
	}
	return up, low
}

func bucket(n int) string {
	switch {
	case n <= 0:
		return "0"
	case n == 1:
		return "1"
	case n <= 3:
		return "2-3"
	case n <= 8:
		return "4-8"
	case n <= 20:
		return "9-20"
	}
	return ">20"
}

// shape adds the form of the body.
func (f *Features) shape(v *view.View) {
	s := &v.Shape
	html, text := false, false
	for _, r := range v.Runs {
		html, text = html || r.HTML, text || !r.HTML
	}
	switch {
	case html && text:
		f.valued("body", "both")
	case html:
		f.valued("body", "html")
	case text:
		f.valued("body", "text")
	default:
		f.valued("body", "none")
	}
	f.valued("images", bucket(s.Images))
	f.valued("links", bucket(len(v.Links)))
	f.valued("files", bucket(len(v.Files)))
	if s.Forms > 0 {
		f.named("form")
	}
	if s.Passwords > 0 {
		f.named("password")
	}
	if s.Scripts > 0 {
		f.named("script")
	}
	if len(v.Hidden) > 200 {
		f.named("hidden")
	}
	if v.Signed {
		f.named("signed")
	}
	f.valued("size", bucket(len(v.Text)/400))
	f.valued("ascii", foreign(v.Text[:min(len(v.Text), 2000)]))
	f.valued("caps", caps(v.Text[:min(len(v.Text), 2000)]))
	for i := range v.Files {
		n := strings.ToLower(v.Files[i].Name)
		f.valued("file", v.Files[i].Type)
		if i := strings.LastIndexByte(n, '.'); i >= 0 {
			f.valued("ext", n[i:])
		}
	}
}

// foreign tells how much of a text is not ASCII: nothing, here and there, as in languages with accents, or most of it.
func foreign(s []byte) string {
	n, all := 0, len(s)
	for ; len(s) >= 8; s = s[8:] {
		n += bits.OnesCount64(binary.LittleEndian.Uint64(s) & highs)
	}
	for _, c := range s {
		n += int(c >> 7)
	}
	switch {
	case n == 0:
		return "all"
	case n*50 < all:
		return "nearly"
	case n*5 < all:
		return "mostly"
	}
	return "hardly"
}

// links adds the form of the links, and the words in them.
func (f *Features) links(v *view.View) {
	if anchored(v) {
		f.valued("linksown", own(v))
	}
	for i := range v.Links {
		if i == 30 {
			return
		}
		l := &v.Links[i]
		host := l.Host()
		if host == "" {
			continue // to a mailbox, or within the message
		}
		f.valued("linktld", host[strings.LastIndexByte(host, '.')+1:])
		if strings.IndexByte("0123456789", host[len(host)-1]) >= 0 {
			f.named("numeric")
		}
		u := l.URL
		if j := strings.Index(u, "://"); j >= 0 {
			u = u[j+3:]
		}
		f.words('u', f.bytes(u[:min(len(u), 100)]), 12)
		if l.Kind == view.Anchor {
			f.words('a', f.bytes(l.Text[:min(len(l.Text), 60)]), 6)
		}
	}
}

// anchored reports whether a link stands behind other words, as in what is sent to many. Where people write to each other,
// links stand in the text, and that they lead elsewhere says nothing.
func anchored(v *view.View) bool {
	for i := range v.Links[:min(len(v.Links), 60)] {
		if v.Links[i].Kind == view.Anchor {
			return true
		}
	}
	return false
}

// own tells how many of the links lead to the sender's own domain or below: who is at home on the web leads there, who
// borrows a name leads elsewhere.
func own(v *view.View) string {
	home := domain(v.From.Addr)
	all, mine := 0, 0
	for i := range v.Links[:min(len(v.Links), 60)] {
		h := v.Links[i].Host()
		if h == "" {
			continue
		}
		if all++; home != "" && related(h, home) {
			mine++
		}
	}
	switch {
	case all == 0:
		return "no links"
	case mine == 0:
		return "none"
	case mine == all:
		return "all"
	}
	return "some"
}

// related reports whether two hosts belong to one organisation, as far as their last labels tell.
func related(a, b string) bool { return a == b || organisation(a) == organisation(b) }

// organisation is the last two labels of a host, three where those are of the form "co.uk".
func organisation(host string) string {
	i := strings.LastIndexByte(host, '.')
	j := strings.LastIndexByte(host[:max(i, 0)], '.')
	if j > 0 && len(host)-i <= 3 && i-j <= 4 {
		j = strings.LastIndexByte(host[:j], '.')
	}
	return host[j+1:]
}

func domain(addr string) string { return addr[strings.LastIndexByte(addr, '@')+1:] }
