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
	switch {
	case equal(name, "href"):
		p = &a.href
	case equal(name, "src"):
		p = &a.src
	case equal(name, "action"):
		p = &a.action
	case equal(name, "style"):
		p = &a.style
	case equal(name, "type"):
		p = &a.typ
	case equal(name, "content"):
		p = &a.content
	case equal(name, "http-equiv"):
		p = &a.equiv
	case equal(name, "hidden"):
		a.hidden = true
		return
	default:
		return
	}
	if *p == nil {
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

// hides reports whether the element and what is inside of it is not shown.
func (a *attributes) hides() bool {
	if a.hidden {
		return true
	}
	if len(a.style) < 8 {
		return false
	}
	var room [512]byte
	s := room[:0]
	for _, c := range a.style[:min(len(a.style), len(room))] {
		if c <= ' ' {
			continue
		}
		if c >= 'A' && c <= 'Z' {
			c |= 0x20
		}
		s = append(s, c)
	}
	return mayHide(s) && (declares(s, "display:", "none") || declares(s, "visibility:", "hidden") || declares(s, "mso-hide:", "all") ||
		zero(s, "font-size:") || zero(s, "max-height:") || zero(s, "opacity:"))
}

// mayHide reports whether a style, folded, has one of the properties that may hide: most have none.
func mayHide(style []byte) bool {
	for {
		for _, property := range [...]string{"display:", "visibility:", "mso-hide:", "font-size:", "max-height:", "opacity:"} {
			if len(style) > 0 && style[0] == property[0] && bytes.HasPrefix(style, []byte(property)) {
				return true
			}
		}
		if style = behind(style, ';'); style == nil {
			return false
		}
	}
}

// declares reports whether style, folded, has that property with a value that starts so.
func declares(style []byte, property, value string) bool {
	for {
		i := bytes.Index(style, []byte(property))
		if i < 0 {
			return false
		}
		whole := i == 0 || style[i-1] == ';'
		style = style[i+len(property):]
		if whole && bytes.HasPrefix(style, []byte(value)) {
			return true
		}
	}
}

// zero reports whether the property has the value nought, or a font of one pixel.
func zero(style []byte, property string) bool {
	if !declares(style, property, "0") && !declares(style, property, "1px") {
		return false
	}
	i := bytes.Index(style, []byte(property)) + len(property)
	for ; i < len(style) && style[i] != ';'; i++ {
		if style[i] >= '1' && style[i] <= '9' {
			return style[i] == '1' && property == "font-size:" && bytes.HasPrefix(style[i:], []byte("1px"))
		}
	}
	return true
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
