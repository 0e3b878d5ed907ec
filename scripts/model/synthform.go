package main

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"html"
	"mime/quotedprintable"
	"strings"
)

// body writes the MIME structure.
func (w *writer) body(b *bytes.Buffer, t *template, paras []string) {
	style := w.r.IntN(10)
	if t.head["Style"] == "text" {
		style = 0
	}
	attach := t.head["Attach"]
	if attach != "" && w.r.IntN(3) > 0 {
		fmt.Fprint(b, "Content-Type: multipart/mixed; boundary=\"=_mixed\"\r\n\r\n--=_mixed\r\n")
		w.alternatives(b, paras, style)
		w.file(b, attach)
		fmt.Fprint(b, "\r\n--=_mixed--\r\n")
		return
	}
	w.alternatives(b, paras, style)
}

func (w *writer) alternatives(b *bytes.Buffer, paras []string, style int) {
	switch {
	case style < 3:
		w.part(b, "text/plain", w.plain(paras))
	case style < 6:
		w.part(b, "text/html", w.html(paras))
	default:
		fmt.Fprint(b, "Content-Type: multipart/alternative; boundary=\"=_alt\"\r\n\r\n--=_alt\r\n")
		w.part(b, "text/plain", w.plain(paras))
		fmt.Fprint(b, "\r\n--=_alt\r\n")
		w.part(b, "text/html", w.html(paras))
		fmt.Fprint(b, "\r\n--=_alt--\r\n")
	}
}

func (w *writer) part(b *bytes.Buffer, kind, text string) {
	fmt.Fprintf(b, "Content-Type: %s; charset=utf-8\r\n", kind)
	switch w.r.IntN(3) {
	case 0:
		fmt.Fprint(b, "Content-Transfer-Encoding: 8bit\r\n\r\n"+text)
	case 1:
		fmt.Fprint(b, "Content-Transfer-Encoding: quoted-printable\r\n\r\n")
		q := quotedprintable.NewWriter(b)
		_, _ = q.Write([]byte(text)) // a buffer takes everything
		_ = q.Close()
	default:
		fmt.Fprint(b, "Content-Transfer-Encoding: base64\r\n\r\n")
		e := base64.StdEncoding.EncodeToString([]byte(text))
		for len(e) > 76 {
			fmt.Fprint(b, e[:76]+"\r\n")
			e = e[76:]
		}
		fmt.Fprint(b, e)
	}
}

func (w *writer) file(b *bytes.Buffer, kind string) {
	name, t, head := "document-"+w.letters(4)+".pdf", "application/pdf", "%PDF-1.4\n"
	if kind == "evil" {
		switch w.r.IntN(4) {
		case 0:
			name, t, head = "order_"+w.letters(4)+".html", "text/html", "<html><form action=x><input type=password>"
		case 1:
			name, t, head = "PO_"+w.letters(4)+".zip", "application/zip", "PK\x03\x04"
		case 2:
			name, t, head = "scan_"+w.letters(4)+".docm", "application/vnd.ms-word", "PK\x03\x04"
		}
	}
	fmt.Fprintf(b, "\r\n--=_mixed\r\nContent-Type: %s; name=%q\r\nContent-Disposition: attachment; filename=%q\r\nContent-Transfer-Encoding: base64\r\n\r\n%s",
		t, name, name, base64.StdEncoding.EncodeToString([]byte(head)))
}

// plain writes paragraphs as plain text, links in angle brackets.
func (w *writer) plain(paras []string) string {
	var b strings.Builder
	for _, p := range paras {
		text := w.links(p, func(label string) string {
			shown, url := w.link(label)
			if shown == url {
				return url
			}
			return shown + ": " + url
		})
		for _, l := range wrap(text, 72) {
			b.WriteString(l + "\r\n")
		}
		b.WriteString("\r\n")
	}
	return b.String()
}

// links replaces [[x]] and [x] by what link makes of x.
func (w *writer) links(p string, link func(string) string) string {
	for {
		open := strings.IndexByte(p, '[')
		end := strings.IndexByte(p, ']')
		if open < 0 || end < open {
			return p
		}
		after := strings.TrimPrefix(p[end+1:], "]")
		p = p[:open] + link(strings.TrimLeft(p[open:end], "[")) + after
	}
}

func wrap(s string, n int) (lines []string) {
	for len(s) > n {
		i := strings.LastIndexByte(s[:n], ' ')
		if i <= 0 {
			break
		}
		lines = append(lines, s[:i])
		s = s[i+1:]
	}
	return append(lines, s)
}

// html writes paragraphs in one of several forms.
func (w *writer) html(paras []string) string {
	colour := fmt.Sprintf("#%06x", w.r.IntN(1<<24))
	var b strings.Builder
	rich := w.r.IntN(3) > 0
	if rich {
		fmt.Fprintf(&b, "<!DOCTYPE html><html><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\"><style>body{margin:0;font-family:Arial}.b{color:%s}</style></head><body style=\"background:#f4f4f4\">"+
			"<table width=\"100%%\" cellpadding=\"0\" cellspacing=\"0\"><tr><td align=\"center\"><table width=\"600\" style=\"background:#fff\">", colour)
		if w.r.IntN(2) == 0 {
			fmt.Fprintf(&b, "<tr><td><img src=\"https://%s/%s.png\" width=\"120\" alt=\"\"></td></tr>", w.linkHost(), w.letters(5))
		}
	} else {
		b.WriteString("<html><body>")
	}
	for _, p := range paras {
		inner := w.links(html.EscapeString(p), func(label string) string {
			shown, url := w.link(label)
			return fmt.Sprintf("<a href=\"%s\" style=\"background:%s;color:#fff;padding:12px 20px\">%s</a>", url, colour, shown)
		})
		if rich {
			fmt.Fprintf(&b, "<tr><td style=\"padding:16px 24px;font-size:15px;line-height:1.5\">%s</td></tr>\r\n", inner)
		} else {
			fmt.Fprintf(&b, "<p>%s</p>\r\n", inner)
		}
	}
	if rich {
		fmt.Fprintf(&b, "</table></td></tr></table>")
		if w.r.IntN(2) == 0 {
			fmt.Fprintf(&b, "<img src=\"https://%s/o/%s.gif\" width=\"1\" height=\"1\">", w.linkHost(), w.letters(12))
		}
	}
	return b.String() + "</body></html>"
}

func (w *writer) linkHost() string {
	if w.bad {
		return w.slot("baddom")
	}
	return w.slot("dom")
}
