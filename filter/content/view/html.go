package view

import (
	"bytes"
	"encoding/binary"
	"html"
	"slices"
	"unicode/utf8"
)

// scanner turns HTML into the text that a reader sees. It follows tags only, builds no tree, and passes over each byte
// once; what browsers repair in their own ways it does not try to repair.
type scanner struct {
	v      *View
	hidden []byte // name of the element that hides what is inside of it
	nested int    // how many elements of that name are open inside
	link   int    // index of the open link in v.Links, or -1
	start  int    // where the open link's text starts in v.Text
	full   bool
	name   [16]byte

	attributes attributes // of the tag that is read
}

var blank = []byte{' '}

// read appends the text of src to v. It tells whether there was more than fits.
func (s *scanner) read(v *View, src []byte) (cut bool) {
	*s = scanner{v: v, link: -1}
	v.Text = slices.Grow(v.Text, min(len(src), MaxText)+16)
	for len(src) > 0 && !s.full {
		if src[0] != '<' {
			lt := bytes.IndexByte(src, '<')
			if lt < 0 {
				s.text(src)
				break
			}
			s.text(src[:lt])
			src = src[lt:]
		} else if s.hidden == nil {
			s.full = len(v.Text) >= MaxText
		}
		src = s.markup(src)
	}
	s.closeLink()
	s.attributes = attributes{} // holds on to nothing of the message
	return s.full
}

// markup reads the tag, comment or declaration at the start of src and returns what follows it.
func (s *scanner) markup(src []byte) (rest []byte) {
	switch {
	case len(src) > 1 && tagByte[src[1]] >= 'a':
		return s.open(src)
	case len(src) > 2 && src[1] == '/' && tagByte[src[2]] >= 'a':
		name := s.tagName(src[2:])
		s.close(tagOf(name), name)
		if end := 2 + len(name); end < len(src) && src[end] == '>' {
			return src[end+1:]
		}
		return behind(src, '>')
	case bytes.HasPrefix(src, []byte("<!--")):
		s.v.Shape.Comments++
		if i := bytes.Index(src[4:], []byte("-->")); i >= 0 {
			return src[4+i+3:]
		}
		return nil
	case len(src) > 1 && (src[1] == '!' || src[1] == '?'):
		return behind(src, '>')
	}
	s.text(src[:1])
	return src[1:]
}

func behind(src []byte, c byte) []byte {
	if i := bytes.IndexByte(src, c); i >= 0 {
		return src[i+1:]
	}
	return nil
}

// tagName returns the name at the start of src in lower case, cut at 16 bytes.
func (s *scanner) tagName(src []byte) []byte {
	n := 0
	for n < len(src) && n < len(s.name) {
		c := tagByte[src[n]]
		if c == 0 {
			break
		}
		s.name[n] = c
		n++
	}
	return s.name[:n]
}

// open reads the start tag at the start of src and, where its content is no text, that content too.
func (s *scanner) open(src []byte) (rest []byte) {
	s.v.Shape.Tags++
	name := s.tagName(src[1:])
	t := tagOf(name)
	a := &s.attributes
	*a = attributes{}
	rest = a.read(src[1+len(name):])
	if t&skipped != 0 {
		switch t {
		case tagScript:
			s.v.Shape.Scripts++
		case tagStyle:
			s.v.Shape.Styles++
		}
		return skipElement(rest, name)
	}
	if s.hidden != nil {
		if bytes.Equal(name, s.hidden) && t&void == 0 {
			s.nested++
		}
	} else if t&void == 0 && a.hides() {
		s.v.Shape.Hidden++
		s.hidden, s.nested = bytes.Clone(name), 0
	}
	s.element(t, a)
	return rest
}

// element notes what a start tag says about links and shape.
func (s *scanner) element(t tag, a *attributes) {
	v := s.v
	switch t {
	case tagA:
		s.closeLink()
		if len(a.href) > 0 && a.href[0] != '#' {
			s.link, s.start = len(v.Links), len(v.Text)
			addLink(v, Link{URL: address(a.href), Kind: Anchor})
			if s.link == len(v.Links) {
				s.link = -1
			}
		}
	case tagImage:
		v.Shape.Images++
		if bytes.Contains(a.src, []byte("://")) {
			addLink(v, Link{URL: address(a.src), Kind: Image})
		}
	case tagForm:
		v.Shape.Forms++
		addLink(v, Link{URL: address(a.action), Kind: Form})
	case tagInput, tagArea:
		v.Shape.Inputs++
		if bytes.EqualFold(a.typ, []byte("password")) {
			v.Shape.Passwords++
		}
	case tagTarget, tagTarget | void:
		if u := a.target(); bytes.Contains(u, []byte("://")) {
			addLink(v, Link{URL: address(u), Kind: Other})
		}
	case tagMeta:
		if i := bytes.Index(a.content, []byte("://")); i > 0 && bytes.EqualFold(a.equiv, []byte("refresh")) {
			if j := bytes.IndexByte(a.content[:i], '='); j >= 0 {
				addLink(v, Link{URL: address(a.content[j+1:]), Kind: Other})
			}
		}
	case tagTable:
		v.Shape.Tables++
	case tagCell:
		s.text(blank)
	}
	if t&breaks != 0 {
		s.breakLine()
	}
}

func (s *scanner) close(t tag, name []byte) {
	if s.hidden != nil && bytes.Equal(name, s.hidden) {
		if s.nested--; s.nested < 0 {
			s.hidden = nil
		}
	}
	if t == tagA {
		s.closeLink()
	} else if t&breaks != 0 {
		s.breakLine()
	}
}

// closeLink gives the open link the text that it shows.
func (s *scanner) closeLink() {
	if s.link < 0 {
		return
	}
	text := bytes.TrimSpace(s.v.Text[min(s.start, len(s.v.Text)):])
	s.v.Links[s.link].Text = string(text[:min(len(text), 300)])
	s.link = -1
}

// text appends what stands between tags.
func (s *scanner) text(src []byte) {
	v := s.v
	if s.hidden != nil {
		if room := MaxHidden - len(v.Hidden); room > 0 {
			v.Hidden = appendEntities(v.Hidden, src[:min(len(src), room)], MaxHidden)
		}
		return
	}
	v.Text = appendEntities(v.Text, src, MaxText)
	s.full = len(v.Text) >= MaxText
}

// appendEntities appends src with its character references replaced and blanks folded, until dst has most bytes.
func appendEntities(dst, src []byte, most int) []byte {
	n, last := len(dst), byte('\n')
	if n > 0 {
		last = dst[n-1]
	}
	dst = slices.Grow(dst, len(src))
	dst = dst[:cap(dst)]
	for i := 0; i < len(src) && n < most; {
		if len(src)-i >= 8 && n+8 <= most {
			if w := binary.LittleEndian.Uint64(src[i:]); settled(w, last) && !hasAmpersand(w) {
				binary.LittleEndian.PutUint64(dst[n:], w)
				last = byte(w >> 56)
				n += 8
				i += 8
				continue
			}
		}
		for end := min(i+8, len(src)); i < end && n < most; i++ {
			c := src[i]
			if c <= ' ' {
				if last == ' ' || last == '\n' {
					continue
				}
				c = ' '
			} else if c == '&' {
				if all, used := appendEntity(dst[:n], src[i:]); used > 0 {
					i += used - 1
					if n, last = len(all), ' '; n > 0 {
						last = all[n-1]
					}
					dst = slices.Grow(all, len(src)-i) // some references are shorter than what they stand for
					dst = dst[:cap(dst)]
					continue
				}
			}
			dst[n], last = c, c
			n++
		}
	}
	return dst[:n]
}

// hasAmpersand reports whether one of eight bytes is the beginning of a character reference, or seems to be.
func hasAmpersand(w uint64) bool {
	x := w ^ '&'*lows
	return (x-lows)&^x&highs != 0
}

// breakLine begins a new line where there is none yet.
func (s *scanner) breakLine() {
	t := s.v.Text
	switch n := len(t); {
	case s.hidden != nil || n == 0 || t[n-1] == '\n':
	case t[n-1] == ' ':
		t[n-1] = '\n'
	default:
		s.v.Text = append(t, '\n')
	}
}

// appendEntity appends the character that the reference at the start of src stands for; 0 where it is none.
func appendEntity(dst, src []byte) (_ []byte, used int) {
	n := 1
	for n < len(src) && n < 33 && src[n] != ';' {
		if c := src[n]; !isLetter(c) && (c < '0' || c > '9') && c != '#' {
			break
		}
		n++
	}
	if n < len(src) && src[n] == ';' {
		n++
	}
	if n < 3 {
		return dst, 0
	}
	s := referred(src[:n])
	if s == string(src[:n]) {
		return dst, 0
	}
	for _, c := range s {
		switch {
		case c == '\u00a0' || c == '\u2003' || c == '\u2002' || c == '\u2009':
			if len(dst) > 0 && dst[len(dst)-1] != ' ' && dst[len(dst)-1] != '\n' {
				dst = append(dst, ' ')
			}
		case invisible(c): // breaks words for filters only
		default:
			dst = utf8.AppendRune(dst, c)
		}
	}
	return dst, n
}

// referred returns what a character reference stands for.
func referred(reference []byte) string {
	switch string(reference) { // the most usual ones
	case "&nbsp;":
		return "\u00a0"
	case "&amp;":
		return "&"
	}
	return html.UnescapeString(string(reference))
}

// invisible reports whether c takes no room on a screen: soft hyphen, joiners, marks of direction.
func invisible(c rune) bool {
	return c == 0xad || c >= 0x200b && c <= 0x200f || c >= 0x2060 && c <= 0x2064 || c == 0xfeff || c == 0x34f || c >= 0x202a && c <= 0x202e
}

// address returns a URL as a browser would understand it: references replaced, blanks and line ends taken out.
func address(raw []byte) string {
	raw = bytes.TrimSpace(raw[:min(len(raw), 2048)])
	if bytes.IndexByte(raw, '&') >= 0 {
		raw = []byte(html.UnescapeString(string(raw)))
	}
	if controlled(raw) {
		raw = bytes.Map(func(c rune) rune {
			if c == '\r' || c == '\n' || c == '\t' {
				return -1
			}
			return c
		}, raw)
	}
	return string(raw)
}

// controlled reports whether a control character is among raw.
func controlled(raw []byte) bool {
	for _, c := range raw {
		if c < ' ' {
			return true
		}
	}
	return false
}
