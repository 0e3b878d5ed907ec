package view

import (
	"bytes"
	"strings"

	"sluice/filter/content/transfer"
)

// part reads one part: body is what follows its header.
func (r *Reader) part(h *header, body []byte, depth int) {
	v := &r.v
	if v.Parts++; v.Parts > MaxParts {
		v.Cut |= CutParts
		return
	}
	if depth > MaxDepth {
		v.Cut |= CutDepth
		return
	}
	t := h.mediaType()
	name := r.fileName(h)
	attached := len(h.disposition) >= 10 && strings.EqualFold(string(h.disposition[:10]), "attachment")
	switch {
	case strings.HasPrefix(t, "multipart/"):
		if t == "multipart/signed" || t == "multipart/encrypted" {
			v.Signed = true
		}
		if b := param(h.contentType, "boundary"); b != "" && r.multipart(b, body, depth) {
			return
		}
		r.text(h, body, false) // no boundary in it: readers show it as it is
	case t == "message/rfc822" || t == "message/global":
		inner := partHeader(body)
		r.part(&inner, body[inner.end:], depth+1)
	case t == "text/html" || t == "application/xhtml+xml":
		if attached || isWebPage(name) && depth > 0 && len(v.Runs) > 0 {
			r.file(h, t, name, body) // opened with a browser, not shown by the mail program
			return
		}
		r.text(h, body, true)
	case strings.HasPrefix(t, "text/") && !attached && name == "" && t != "text/calendar":
		r.text(h, body, false)
	case strings.HasPrefix(t, "message/") && !attached && t != "message/partial":
		r.text(h, body, false) // delivery-status and the like
	default:
		if strings.HasSuffix(t, "pgp-signature") || strings.HasSuffix(t, "pkcs7-mime") || strings.HasSuffix(t, "pkcs7-signature") {
			v.Signed = true
		}
		r.file(h, t, name, body)
	}
}

func isWebPage(name string) bool {
	n := strings.ToLower(name)
	return strings.HasSuffix(n, ".htm") || strings.HasSuffix(n, ".html") || strings.HasSuffix(n, ".shtml") || strings.HasSuffix(n, ".xhtml")
}

// multipart reads the parts of body (RFC 2046 5.1). False means that the boundary never stood there.
func (r *Reader) multipart(boundary string, body []byte, depth int) bool {
	sep := []byte("--" + strings.TrimRight(boundary, " \t"))
	at, found := r.boundary(body, sep, 0)
	for found {
		if r.v.Parts > MaxParts {
			r.v.Cut |= CutParts
			return true
		}
		rest := body[at+len(sep):]
		if bytes.HasPrefix(rest, []byte("--")) {
			return true
		}
		start := lineEnd(body, at)
		at, found = r.boundary(body, sep, start)
		end := at
		if !found {
			end = len(body)
		}
		child := bytes.TrimSuffix(bytes.TrimSuffix(body[start:end], []byte("\n")), []byte("\r"))
		inner := partHeader(child)
		r.part(&inner, child[inner.end:], depth+1)
		if !found {
			return true
		}
	}
	return false
}

// boundary finds the next line of body at or behind from that starts with sep. Each byte that it looks at counts, so that
// parts inside parts cost no more than maxScan.
func (r *Reader) boundary(body, sep []byte, from int) (at int, found bool) {
	for from < len(body) {
		if r.scanned >= maxScan {
			r.v.Cut |= CutBytes
			return 0, false
		}
		if bytes.HasPrefix(body[from:], sep) {
			return from, true
		}
		next := lineEnd(body, from)
		r.scanned += next - from + 8 // a line has a price of its own
		from = next
	}
	return 0, false
}

// untransfer takes the transfer encoding off body, which it reads no further than most bytes.
func (r *Reader) untransfer(h *header, body []byte, most int) (raw []byte, cut bool) {
	if len(body) > most {
		body, cut = body[:most], true
	}
	enc := strings.ToLower(string(h.encoding))
	switch {
	case strings.Contains(enc, "base64"):
		r.raw = transfer.AppendBase64(r.raw[:0], body)
	case strings.Contains(enc, "quoted-printable"):
		r.raw = transfer.AppendQuoted(r.raw[:0], body)
	default:
		return body, cut
	}
	return r.raw, cut
}

// text reads a part that a mail program shows.
func (r *Reader) text(h *header, body []byte, html bool) {
	v := &r.v
	raw, cut := r.untransfer(h, body, MaxDecoded-r.decoded)
	r.decoded += min(len(body), MaxDecoded-r.decoded)
	charset := param(h.contentType, "charset")
	if v.Charset == "" {
		v.Charset = strings.ToLower(charset[:min(len(charset), 40)])
	}
	if !plain(raw) || stateful(charset) {
		r.conv = toUTF8(r.conv[:0], raw, charset)
		raw = r.conv
	}
	start := len(v.Text)
	if html {
		v.Shape.RawBytes += len(raw)
		cut = r.html.read(v, raw) || cut
	} else {
		cut = r.plain(raw) || cut
	}
	if cut {
		v.Cut |= CutBytes
	}
	if len(v.Text) > start {
		v.Runs = append(v.Runs, Run{start, len(v.Text), html})
		if v.Text[len(v.Text)-1] != '\n' {
			v.Text = append(v.Text, '\n')
		}
	}
}

// plain appends plain text, blanks folded, and its links. It tells whether there was more than fits.
func (r *Reader) plain(raw []byte) (cut bool) {
	v := &r.v
	start := len(v.Text)
	v.Text, cut = appendFolded(v.Text, raw)
	findLinks(v, v.Text[start:])
	return cut
}

// file notes an attachment with the beginning of its content.
func (r *Reader) file(h *header, t, name string, body []byte) {
	v := &r.v
	if len(v.Files) == MaxFiles {
		v.Cut |= CutFiles
		return
	}
	f := File{Name: name, Type: t}
	if most := maxFile - r.filed; wanted(t, name) && most > 0 {
		head, cut := r.untransfer(h, body, most)
		r.filed += min(len(body), most)
		f.Head, f.Cut = bytes.Clone(head), cut
	} else {
		head, _ := r.untransfer(h, body, 64)
		f.Head, f.Cut = bytes.Clone(head), true
	}
	v.Files = append(v.Files, f)
}

// wanted reports whether a look into a file of that kind tells anything: pictures, sound and films do not.
func wanted(t, name string) bool {
	for _, kind := range []string{"image/", "audio/", "video/", "font/"} {
		if strings.HasPrefix(t, kind) {
			return strings.HasPrefix(t, "image/svg") || strings.HasSuffix(strings.ToLower(name), ".svg")
		}
	}
	return true
}
