// Package view takes a message apart into what its recipient would see: decoded text, links, file names and the form of
// it all, in bounded time and memory whatever the message holds.
package view

import "bytes"

// The bounds. What lies beyond them is not looked at, and Cut says so.
const (
	MaxDepth   = 12        // parts inside parts
	MaxParts   = 128       // parts of a message
	MaxDecoded = 256 << 10 // bytes of text parts that are decoded
	MaxText    = 64 << 10  // bytes of visible text
	MaxHidden  = 8 << 10   // bytes of text that HTML hides
	MaxLinks   = 200
	MaxFiles   = 64
	maxScan    = 16 << 20 // bytes that are searched for boundaries, every level counted
	maxFields  = 200      // header fields
	maxField   = 4 << 10  // bytes of one field that are decoded
	maxName    = 256      // bytes of a field's name: what has a longer one is passed over
	maxFile    = 512 << 10
)

// Limits says which bounds a message went beyond.
type Limits uint8

// The limits.
const (
	CutDepth Limits = 1 << iota
	CutParts
	CutBytes
	CutLinks
	CutFiles
)

// String lists the limits by name.
func (l Limits) String() string {
	var s []byte
	for i, name := range []string{"depth", "parts", "bytes", "links", "files"} {
		if l&(1<<i) != 0 {
			s = append(append(s, name...), ' ')
		}
	}
	return string(bytes.TrimSpace(s))
}

// Field is a header field of the whole message, its value unfolded and its encoded words (RFC 2047) decoded.
type Field struct {
	Name  string // in lower case
	Value []byte // UTF-8
}

// Mailbox is the first address of a From or Reply-To field.
type Mailbox struct {
	Name string // the display name, UTF-8
	Addr string // in lower case; "" where there is none
}

// Run is the text of one part: Text[Start:End].
type Run struct {
	Start, End int
	HTML       bool
}

// Link is an address that a reader could follow.
type Link struct {
	URL  string // as written, entities decoded
	Text string // what the reader sees in its place, "" where that is the URL itself
	Kind LinkKind
	host string // where it was found already
}

// LinkKind says where a link stands.
type LinkKind uint8

// The kinds of links.
const (
	InText LinkKind = iota // written out in plain text
	Anchor                 // <a href>
	Image                  // <img src>
	Form                   // <form action>
	Other                  // base, area, meta refresh, iframe
)

// File is an attachment, or an inline file.
type File struct {
	Name string // UTF-8, without folders; "" where it has none
	Type string // declared media type in lower case
	Head []byte // the first bytes of it, decoded, at most 512 KiB
	Cut  bool   // there is more of it than Head
}

// Shape counts what the HTML of a message is made of.
type Shape struct {
	Tags, Tables, Images, Forms, Inputs, Passwords, Scripts, Styles, Hidden, Comments int
	RawBytes                                                                          int // HTML before it became text
}

// View is one message taken apart. It is valid until the Reader reads the next one.
type View struct {
	Fields  []Field
	Subject []byte
	From    Mailbox
	ReplyTo Mailbox
	Text    []byte // visible text of all text parts, UTF-8, blanks folded
	Runs    []Run
	Hidden  []byte // text that HTML hides from the reader
	Links   []Link
	Files   []File
	Shape   Shape
	Charset string // of the first text part, "" where none is named
	Parts   int
	Signed  bool // multipart/signed or encrypted, S/MIME, PGP
	Type    string
	Cut     Limits
}

// Reader takes messages apart one after the other; its memory is used again. Not safe for concurrent use.
type Reader struct {
	v       View
	head    []byte // the values of the fields
	raw     []byte // a part with its transfer encoding taken off
	conv    []byte // the same in UTF-8
	decoded int    // bytes of text parts so far
	filed   int    // bytes of files so far
	scanned int    // bytes searched for boundaries so far
	html    scanner
}

// Read takes data apart: a whole message, or its beginning, with line ends of either kind.
func (r *Reader) Read(data []byte) *View {
	v := &r.v
	*v = View{Fields: v.Fields[:0], Text: v.Text[:0], Runs: v.Runs[:0], Hidden: v.Hidden[:0], Links: v.Links[:0], Files: v.Files[:0]}
	r.head, r.decoded, r.filed, r.scanned = r.head[:0], 0, 0, 0
	head := r.topHeader(data)
	v.Type = head.mediaType()
	r.part(&head, data[head.end:], 0)
	return v
}

// Field returns the value of the first field of that lower-case name, or nil.
func (v *View) Field(name string) []byte {
	for i := range v.Fields {
		if v.Fields[i].Name == name {
			return v.Fields[i].Value
		}
	}
	return nil
}
