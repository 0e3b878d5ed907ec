package view

import "bytes"

// tag is what the name of an element says about it: some that are looked at one by one, and what is true of several.
type tag uint8

// What is true of several elements.
const (
	breaks  tag = 0x80 // they begin a new line
	void    tag = 0x40 // they have no content, so that they cannot hide any
	skipped tag = 0x20 // their content is no text
)

// The elements that are looked at one by one.
const (
	tagA      tag = 1
	tagForm   tag = 2
	tagArea   tag = 3 // of text, or a selection
	tagTarget tag = 4 // all that lead elsewhere beside links and pictures
	tagCell   tag = 5
	tagTable      = 6 | breaks
	tagImage      = 1 | void
	tagInput      = 2 | void
	tagMeta       = 3 | void
	tagScript     = 1 | skipped
	tagStyle      = 2 | skipped
)

// tagOf returns what a name in lower case says; 0 is for those that only stand around text.
func tagOf(name []byte) tag {
	switch string(name) {
	case "a":
		return tagA
	case "img":
		return tagImage
	case "form":
		return tagForm
	case "input":
		return tagInput
	case "textarea", "select":
		return tagArea
	case "iframe", "frame", "object":
		return tagTarget
	case "area", "base", "embed":
		return tagTarget | void
	case "meta":
		return tagMeta
	case "table":
		return tagTable
	case "td", "th":
		return tagCell
	case "script":
		return tagScript
	case "style":
		return tagStyle
	case "noscript", "template", "title", "xml":
		return skipped
	case "br", "hr":
		return breaks | void
	case "link", "col", "source", "wbr":
		return void
	case "p", "div", "tr", "li", "ul", "ol", "h1", "h2", "h3", "h4", "h5", "h6", "blockquote", "center", "pre", "dt", "dd", "option", "article", "section", "footer", "header":
		return breaks
	}
	return 0
}

// tagByte is each byte of a tag's name in lower case, and 0 for others; nameByte tells which bytes go on in an attribute's name.
var tagByte, nameByte = func() (tag [256]byte, name [256]bool) {
	for i := range 256 {
		c := byte(i)
		switch {
		case isLetter(c):
			tag[i] = c | 0x20
		case c >= '0' && c <= '9':
			tag[i] = c
		}
		name[i] = c > ' ' && c != '=' && c != '>' && c != '/'
	}
	return tag, name
}()

// attributes are those of a start tag that matter here.
type attributes struct {
	href, src, action, style, typ, equiv, content []byte
	hidden                                        bool
}

// read reads attributes up to the end of the tag and returns what follows.
func (a *attributes) read(src []byte) (rest []byte) {
	for i := 0; i < len(src); {
		c := src[i]
		if c == '>' {
			return src[i+1:]
		}
		if c <= ' ' || c == '/' || c == '"' || c == '\'' {
			i++
			continue
		}
		start := i
		for i < len(src) && nameByte[src[i]] {
			i++
		}
		name := src[start:i]
		for i < len(src) && src[i] <= ' ' {
			i++
		}
		if i >= len(src) || src[i] != '=' {
			a.set(name, nil)
			if i == start {
				i++
			}
			continue
		}
		i++
		for i < len(src) && src[i] <= ' ' {
			i++
		}
		var value []byte
		value, i = attributeValue(src, i)
		a.set(name, value)
	}
	return nil
}

func attributeValue(src []byte, i int) (value []byte, next int) {
	if i < len(src) && (src[i] == '"' || src[i] == '\'') {
		end := bytes.IndexByte(src[i+1:], src[i])
		if end < 0 {
			return src[i+1:], len(src)
		}
		return src[i+1 : i+1+end], i + end + 2
	}
	start := i
	for i < len(src) && src[i] > ' ' && src[i] != '>' {
		i++
	}
	return src[start:i], i
}

func (a *attributes) set(name, value []byte) {
	var p *[]byte
	switch len(name) {
	case 3:
		if equal(name, "src") {
			p = &a.src
		}
	case 4:
		if equal(name, "href") {
			p = &a.href
		} else if equal(name, "type") {
			p = &a.typ
		}
	case 5:
		if equal(name, "style") {
			p = &a.style
		}
	case 6:
		if equal(name, "action") {
			p = &a.action
		} else if equal(name, "hidden") {
			a.hidden = true
		}
	case 7:
		if equal(name, "content") {
			p = &a.content
		}
	case 10:
		if equal(name, "http-equiv") {
			p = &a.equiv
		}
	}
	if p != nil && *p == nil {
		*p = value
	}
}

// equal compares without regard to case; want is in lower case.
func equal(name []byte, want string) bool {
	if len(name) != len(want) {
		return false
	}
	for i := range len(want) {
		c := name[i]
		if c >= 'A' && c <= 'Z' {
			c |= 0x20
		}
		if c != want[i] {
			return false
		}
	}
	return true
}

func (a *attributes) target() []byte {
	if a.href != nil {
		return a.href
	}
	return a.src
}

// maxStyle is how much of a style attribute is looked at.
const maxStyle = 512

// hides reports whether the element and what is inside of it is not shown.
func (a *attributes) hides() bool {
	if a.hidden {
		return true
	}
	for style := a.style[:min(len(a.style), maxStyle)]; len(style) >= len("opacity:0"); {
		declaration := style
		if i := bytes.IndexByte(style, ';'); i >= 0 {
			declaration, style = style[:i], style[i+1:]
		} else {
			style = nil
		}
		for len(declaration) > 0 && declaration[0] <= ' ' {
			declaration = declaration[1:]
		}
		if len(declaration) == 0 {
			continue
		}
		switch declaration[0] | 0x20 { // with which a property begins that may hide
		case 'd', 'v', 'm', 'f', 'o':
			if hides(declaration) {
				return true
			}
		}
	}
	return false
}

// hides reports whether a declaration of a style hides what it is about. Its beginning tells.
func hides(declaration []byte) bool {
	var room [64]byte
	s := room[:0]
	for _, c := range declaration {
		if c <= ' ' {
			continue
		}
		if c >= 'A' && c <= 'Z' {
			c |= 0x20
		}
		if s = append(s, c); len(s) == len(room) {
			break
		}
	}
	property, value, _ := bytes.Cut(s, []byte{':'})
	switch string(property) {
	case "display":
		return bytes.HasPrefix(value, []byte("none"))
	case "visibility":
		return bytes.HasPrefix(value, []byte("hidden"))
	case "mso-hide":
		return bytes.HasPrefix(value, []byte("all"))
	case "font-size":
		return nought(value) || bytes.HasPrefix(value, []byte("1px")) // a font of one pixel
	case "max-height", "opacity":
		return nought(value)
	}
	return false
}

// nought reports whether a value is a number that is nought.
func nought(value []byte) bool {
	return bytes.HasPrefix(value, []byte{'0'}) && !bytes.ContainsAny(value, "123456789")
}

// skipElement returns what follows the end tag of the element of that name.
func skipElement(src, name []byte) []byte {
	for {
		i := bytes.Index(src, []byte("</"))
		if i < 0 {
			return nil
		}
		src = src[i+2:]
		if len(src) >= len(name) && equal(src[:len(name)], string(name)) {
			return behind(src, '>')
		}
	}
}
