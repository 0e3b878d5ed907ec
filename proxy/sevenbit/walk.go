package sevenbit

import (
	"bufio"
	"bytes"
	"io"
	"mime"
	"slices"
	"strings"
	"unicode/utf8"
)

// Bounds of what is taken apart; beyond them a message is unfit.
const (
	mostEntities = 10_000
	mostDepth    = 32
	mostHeader   = 256 << 10 // bytes of one header
	lineRoom     = 64 << 10  // of a longer line the pieces come one by one
)

const encodingField = "Content-Transfer-Encoding"

// visitor is shown a message piece by piece.
type visitor interface {
	header(e *entity) error
	// line is a line, or a piece of one, of the body of an entity without parts; whole when its end is there.
	line(e *entity, text []byte, whole bool) error
	// between is what stands around the parts of e.
	between(e *entity, text []byte) error
	// delimiter is a boundary of e.
	delimiter(e *entity, text []byte) error
	// end is that of an entity without parts.
	end(e *entity) error
}

// entity is a message or a part of one (RFC 2045 2.4).
type entity struct {
	number   int
	up       *entity // what it is a part of
	depth    int
	fields   [][]byte // of its header, with their line ends
	ended    bool     // an empty line ends the header
	media    string   // type/subtype in lower case; "" where none is given
	boundary string   // of a multipart
	encoding string   // in lower case
	mime     bool     // it says MIME-Version
	signed   bool     // a signature covers its header or body
	bounded  bool     // a boundary ended it, to which the line end before it belongs
	strange  string   // why it cannot be changed
}

// top tells whether it is the message itself, or one that it encloses.
func (e *entity) top() bool { return e.up == nil || e.up.media == "message/rfc822" }

// container tells whether its body consists of others.
func (e *entity) container() bool { return e.boundary != "" || e.media == "message/rfc822" }

// covered tells whether a signature covers it.
func (e *entity) covered() error {
	for at := e; at != nil; at = at.up {
		if at.signed {
			return ErrSigned
		}
	}
	return nil
}

// changeable tells why its body cannot be encoded.
func (e *entity) changeable() error {
	if err := e.covered(); err != nil {
		return err
	}
	switch {
	case e.strange != "":
		return unfit("%s", e.strange)
	case e.media == "message/partial", e.media == "message/external-body": // RFC 2046 5.2.2.1, 5.2.3
		return unfit("a part of type %s may not be encoded", e.media)
	}
	switch e.encoding {
	case "", "7bit", "8bit", "binary":
		return nil
	}
	return unfit("it says that it is %s, and is not", e.encoding)
}

// fitting is the encoding for its body.
func (e *entity) fitting() string {
	if kind, _, _ := strings.Cut(e.media, "/"); kind == "" || kind == "text" || kind == "message" {
		return "quoted-printable"
	}
	return "base64"
}

// walker takes a message apart.
type walker struct {
	v      visitor
	number int
	at     *entity // whose header or body the next line belongs to
	head   bool    // in its header
	size   int     // bytes of the header
	out    bool    // around the parts of at
}

// walk shows a message to v.
func walk(r io.Reader, v visitor) error {
	w := &walker{v: v, at: &entity{}, head: true, number: 1}
	in := bufio.NewReaderSize(r, lineRoom)
	start := true
	for {
		line, err := in.ReadSlice('\n')
		if err != nil && err != bufio.ErrBufferFull && err != io.EOF {
			return err
		}
		if len(line) > 0 {
			if werr := w.piece(line, start, err == nil); werr != nil {
				return werr
			}
		}
		start = err == nil
		if err == io.EOF {
			return w.finish()
		}
	}
}

// finish ends what the end of the message ends.
func (w *walker) finish() error {
	if w.head {
		if err := w.begin(); err != nil {
			return err
		}
	}
	if w.out || w.at.container() {
		return nil
	}
	return w.v.end(w.at)
}

// piece takes a line, or a piece of one.
func (w *walker) piece(text []byte, start, whole bool) error {
	if start {
		if owner, last := w.delimits(text); owner != nil {
			return w.delimiter(owner, text, last)
		}
	}
	switch {
	case w.head:
		return w.field(text, start, whole)
	case w.out:
		return w.v.between(w.at, text)
	}
	return w.v.line(w.at, text, whole)
}

// delimits finds the multipart whose boundary a line is (RFC 2046 5.1.1).
func (w *walker) delimits(text []byte) (owner *entity, last bool) {
	if !bytes.HasPrefix(text, []byte("--")) {
		return nil, false
	}
	rest := bytes.TrimRight(text[2:], " \t\r\n")
	for e := w.at; e != nil; e = e.up {
		if e.boundary == "" || !bytes.HasPrefix(rest, []byte(e.boundary)) || e == w.at && w.head {
			continue
		}
		switch string(rest[len(e.boundary):]) {
		case "":
			return e, false
		case "--":
			return e, true
		}
	}
	return nil, false
}

// delimiter ends what a boundary ends, and begins the next part unless it is the last.
func (w *walker) delimiter(owner *entity, text []byte, last bool) error {
	if w.at != owner {
		for e := w.at; e != owner; e = e.up {
			e.bounded = true
		}
		if err := w.finish(); err != nil {
			return err
		}
	}
	if err := w.v.delimiter(owner, text); err != nil {
		return err
	}
	w.at, w.out, w.head = owner, true, false
	if last {
		return nil
	}
	return w.enter(owner)
}

// enter begins an entity within another.
func (w *walker) enter(up *entity) error {
	if w.number >= mostEntities || up.depth >= mostDepth {
		return unfit("it has too many parts")
	}
	w.at, w.head, w.out, w.size = &entity{number: w.number, up: up, depth: up.depth + 1}, true, false, 0
	w.number++
	return nil
}

// field takes a line of a header.
func (w *walker) field(text []byte, start, whole bool) error {
	e := w.at
	if start && string(text) == "\r\n" {
		e.ended = true
		return w.begin()
	}
	if w.size += len(text); w.size > mostHeader {
		return unfit("a header is longer than %d bytes", mostHeader)
	}
	if n := len(e.fields); n > 0 && (!start || text[0] == ' ' || text[0] == '\t') {
		e.fields[n-1] = append(e.fields[n-1], text...)
		return nil
	}
	e.fields = append(e.fields, slices.Clone(text))
	return nil
}

// begin reads the header of the entity at hand and goes on with its body.
func (w *walker) begin() error {
	e := w.at
	w.head = false
	e.read()
	if err := w.v.header(e); err != nil {
		return err
	}
	switch {
	case e.boundary != "":
		w.out = true
	case e.media == "message/rfc822" && e.ended:
		if err := w.enter(e); err != nil {
			return err
		}
	}
	return nil
}

// read finds out what the header says.
func (e *entity) read() {
	types, encodings := 0, 0
	if e.up != nil && e.up.media == "multipart/digest" { // RFC 2046 5.1.5
		e.media = "message/rfc822"
	}
	for _, f := range e.fields {
		switch {
		case named(f, "Content-Type"):
			types++
			e.kind(value(f))
		case named(f, encodingField):
			encodings++
			e.encoding, _, _ = strings.Cut(strings.ToLower(value(f)), " ")
		case named(f, "MIME-Version"):
			e.mime = true
		case named(f, "DKIM-Signature"), named(f, "ARC-Message-Signature"):
			e.signed = e.signed || e.up == nil // of an enclosed message nobody verifies one
		}
	}
	if types > 1 || encodings > 1 {
		e.strange = "a part says twice what it is"
	}
	if e.container() && e.encoding != "" && e.encoding != "7bit" && e.encoding != "8bit" && e.encoding != "binary" {
		e.boundary = "" // RFC 2045 6.4 forbids it: whoever reads it sees encoded text
		e.strange = "a part of parts is encoded itself"
		if e.media == "message/rfc822" {
			e.media = "message/encoded"
		}
	}
}

// kind reads a Content-Type.
func (e *entity) kind(text string) {
	media, params, err := mime.ParseMediaType(text)
	if err != nil && media == "" {
		e.media, e.strange = "unknown/unknown", "a part does not say readably what it is"
		return
	}
	e.media = media
	if !strings.HasPrefix(media, "multipart/") {
		e.signed = e.signed || strings.HasSuffix(media, "pkcs7-mime")
		return
	}
	e.signed = e.signed || media == "multipart/signed"
	if e.boundary = strings.TrimRight(params["boundary"], " \t"); e.boundary == "" {
		e.strange = "a part of parts has no boundary"
	}
}

// named tells whether a field has a name.
func named(field []byte, name string) bool {
	n, _, ok := bytes.Cut(field, []byte(":"))
	return ok && strings.EqualFold(strings.TrimRight(string(n), " \t"), name)
}

// value is a field's, unfolded.
func value(field []byte) string {
	_, v, _ := bytes.Cut(field, []byte(":"))
	s := strings.NewReplacer("\r\n", "", "\n", "").Replace(string(v))
	return strings.TrimSpace(s)
}

func utf8ish(text []byte) bool { return utf8.Valid(text) }
