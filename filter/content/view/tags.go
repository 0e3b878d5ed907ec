package view

import "bytes"

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
		for i < len(src) && src[i] > ' ' && src[i] != '=' && src[i] != '>' && (src[i] != '/' || i == start) {
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

// void reports whether elements of that name have no content, so that they cannot hide any.
func void(name []byte) bool {
	switch string(name) {
	case "img", "br", "hr", "input", "meta", "link", "area", "base", "col", "embed", "source", "wbr":
		return true
	}
	return false
}

// breaks reports whether elements of that name begin a new line.
func breaks(name string) bool {
	switch name {
	case "p", "br", "div", "tr", "table", "li", "ul", "ol", "h1", "h2", "h3", "h4", "h5", "h6", "hr", "blockquote", "center", "pre", "dt", "dd", "option", "article", "section", "footer", "header":
		return true
	}
	return false
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
