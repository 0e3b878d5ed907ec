package content

import (
	"bytes"
	"sync"

	"sluice/filter/content/transfer"
)

// most bounds how much of a message is decoded: content checks read its first 256 KiB.
const most = 256 << 10

// part is a decoded part of a message. Its text is valid until done.
type part struct {
	text     []byte
	encoding string // "base64" or "quoted-printable"
	start    int    // where its encoded text begins in the message
	buf      *[]byte
}

func (p part) done() { buffers.Put(p.buf) }

// buffers lends the room for decoded text, which never outgrows what is decoded.
var buffers = sync.Pool{New: func() any { b := make([]byte, 0, 32<<10); return &b }}

// parts walks over the encoded parts of a message. It does not follow the MIME structure, which in bad mail is often
// broken in ways that every reader repairs differently: wherever a Content-Transfer-Encoding field stands at the start of
// a line, what follows the next empty line is decoded, up to the next such field.
type parts struct {
	data  []byte
	field int // where the next field starts, or -1
}

func encoded(data []byte) parts {
	data = data[:min(len(data), most)]
	return parts{data, nextField(data, 0)}
}

// next returns the next part decoded; false at the end.
func (p *parts) next() (part, bool) {
	for p.field >= 0 {
		value, body := fieldAt(p.data, p.field)
		p.field = nextField(p.data, body)
		end := p.field
		if end < 0 {
			end = len(p.data)
		}
		if decode, name := decoder(value); decode != nil {
			buf := buffers.Get().(*[]byte)
			*buf = decode((*buf)[:0], p.data[body:end])
			return part{*buf, name, body, buf}, true
		}
	}
	return part{}, false
}

var fieldName = []byte("content-transfer-encoding:")

// hyphen is where the first one stands in fieldName.
const hyphen = len("content")

// nextField returns where the next Content-Transfer-Encoding field at or behind from starts, or -1. from is the start of
// a line.
func nextField(data []byte, from int) int {
	for at := from + hyphen; at < len(data); at++ { // there are fewer hyphens than lines in most of what is sent
		i := bytes.IndexByte(data[at:], '-')
		if i < 0 {
			return -1
		}
		at += i
		start := at - hyphen
		if end := start + len(fieldName); end <= len(data) && (start == from || data[start-1] == '\n') && bytes.EqualFold(data[start:end], fieldName) {
			return start
		}
	}
	return -1
}

// fieldAt returns the value of the field that starts at field, folding left in, and where the text of its part begins.
func fieldAt(data []byte, field int) (value []byte, body int) {
	end := field
	for {
		nl := bytes.IndexByte(data[end:], '\n')
		if nl < 0 {
			return data[field+len(fieldName):], len(data)
		}
		end += nl + 1
		if end == len(data) || data[end] != ' ' && data[end] != '\t' {
			break
		}
	}
	value = data[field+len(fieldName) : end]
	for body = end; body < len(data); {
		nl := bytes.IndexByte(data[body:], '\n')
		if nl < 0 {
			return value, len(data)
		}
		line := data[body : body+nl+1]
		body += nl + 1
		if len(line) == 1 || len(line) == 2 && line[0] == '\r' {
			return value, body
		}
	}
	return value, len(data)
}

// decoder returns what decodes the encoding that a field's value names, or nil.
func decoder(value []byte) (decode func(dst, src []byte) []byte, name string) {
	var room [200]byte
	value = room[:copy(room[:], value)]
	for i, c := range value {
		if c >= 'A' && c <= 'Z' {
			value[i] = c | 0x20
		}
	}
	switch {
	case bytes.Contains(value, []byte("base64")):
		return transfer.AppendBase64, "base64"
	case bytes.Contains(value, []byte("quoted-printable")):
		return transfer.AppendQuoted, "quoted-printable"
	}
	return nil, ""
}

// notBase64 is what base64Values holds for bytes outside the alphabet.
