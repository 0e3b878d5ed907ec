package main

import (
	"bytes"
	"embed"
	"encoding/base64"
	"fmt"
	"html"
	"math/rand/v2"
	"mime"
	"mime/quotedprintable"
	"net/mail"
	"strings"
)

//go:embed text/*.txt
var texts embed.FS

// template is one kind of made-up mail: header lines and paragraphs with alternatives in braces.
type template struct {
	name  string
	head  map[string]string
	lines []string
	bad   bool
}

// templates reads all of them.
func templates() (all []template, err error) {
	files, err := texts.ReadDir("text")
	if err != nil {
		return nil, err
	}
	for _, f := range files {
		b, err := texts.ReadFile("text/" + f.Name())
		if err != nil {
			return nil, err
		}
		for _, block := range strings.Split("\n"+string(b), "\n== ")[1:] {
			name, rest, _ := strings.Cut(block, "\n")
			t := template{name: name, head: map[string]string{}, bad: strings.HasPrefix(f.Name(), "bad")}
			for _, line := range strings.Split(strings.TrimSpace(rest), "\n") {
				key, value, ok := strings.Cut(line, ": ")
				if ok && len(t.lines) == 0 && (key == "From" || key == "Subject" || key == "List" || key == "Attach" || key == "Style" || key == "ReplyTo") {
					t.head[key] = value
				} else {
					t.lines = append(t.lines, line)
				}
			}
			if t.head["From"] == "" || t.head["Subject"] == "" || len(t.lines) == 0 {
				return nil, fmt.Errorf("template %s in %s lacks a From, a Subject or a text", name, f.Name())
			}
			all = append(all, t)
		}
	}
	return all, nil
}

// writer makes mails of templates. The form of a mail (HTML, style, encoding, footer, fields of the header) is drawn
// without regard to whether it is good or bad, so that a learner cannot tell them apart by it.
type writer struct {
	r     *rand.Rand
	fixed map[string]string // slots that stay the same within a mail
	bad   bool
	relay string // who counts the clicks of the mail, "own" for nobody
}

// newWriter returns a writer that writes the same mails each time.
func newWriter() *writer { return &writer{r: rand.New(rand.NewPCG(1, 2))} }

func (w *writer) pick(s []string) string { return s[w.r.IntN(len(s))] }

// slot returns what stands for {name}.
func (w *writer) slot(name string) string {
	if v, ok := w.fixed[name]; ok {
		return v
	}
	v := w.fresh(name)
	switch name {
	case "firm", "dom", "baddom", "mailhost", "user", "brand", "topic", "prod":
		w.fixed[name] = v
	}
	return v
}

func (w *writer) fresh(name string) string {
	switch name {
	case "d":
		return fmt.Sprint(1 + w.r.IntN(9))
	case "h":
		return fmt.Sprint(8 + w.r.IntN(12))
	case "qty":
		return fmt.Sprint(1 + w.r.IntN(12))
	case "num":
		return fmt.Sprint(100 + w.r.IntN([]int{900, 9000, 900000}[w.r.IntN(3)]))
	case "amt":
		return w.amount()
	case "date":
		return w.date()
	case "trk":
		return fmt.Sprintf("%s%d", strings.ToUpper(w.letters(2)), 100000+w.r.IntN(9000000))
	case "tel":
		return fmt.Sprintf("+%d (%d) %d-%d", 1+w.r.IntN(90), 200+w.r.IntN(700), 100+w.r.IntN(900), 1000+w.r.IntN(9000))
	case "ip":
		return fmt.Sprintf("203.0.113.%d", 1+w.r.IntN(250))
	case "N":
		n := w.pick(slots["n"])
		return strings.ToUpper(n[:1]) + n[1:] + " " + w.pick(slots["last"])
	case "WORD":
		return strings.ToUpper(w.letters(4))
	case "btc":
		return "1" + w.letters(8) + fmt.Sprint(w.r.IntN(9999)) + strings.ToUpper(w.letters(9)) + w.letters(8)
	case "x":
		return w.pick([]string{"info", "noreply", "support", "service", "admin", "contact", "no-reply", w.letters(8), w.pick(slots["n"]) + fmt.Sprint(w.r.IntN(99))})
	case "firm":
		b := w.pick(slots["firmB"])
		if w.r.IntN(2) == 0 {
			return w.pick(slots["firmA"]) + b
		}
		return w.pick(slots["firmA"]) + " " + strings.ToUpper(b[:1]) + b[1:]
	case "dom":
		return strings.ToLower(strings.ReplaceAll(w.slot("firm"), " ", "")) + "." + w.pick(slots["tld"])
	case "host":
		return w.pick(slots["word"]) + fmt.Sprint(w.r.IntN(20)) + "." + strings.ToLower(w.pick(slots["firmA"])+w.pick(slots["firmB"])) + ".net"
	case "mailhost":
		return strings.ToLower(w.pick(slots["firmA"])+w.pick(slots["firmB"])) + "." + w.pick(slots["tld"])
	case "user":
		return w.pick(slots["n"]) + []string{"", "." + strings.ToLower(w.pick(slots["last"])), "@" + w.slot("mailhost")}[w.r.IntN(3)]
	case "baddom":
		return w.badDomain()
	case "web":
		return w.elsewhere()
	}
	if l := slots[name]; l != nil {
		return w.pick(l)
	}
	panic("no such slot: " + name) // a mistake in a template, found by the test
}

func (w *writer) badDomain() string {
	switch w.r.IntN(4) {
	case 0: // a site that was broken into
		return strings.ToLower(w.pick(slots["firmA"])+w.pick(slots["firmB"])) + "." + w.pick(slots["tld"])
	case 1:
		return w.pick(slots["badA"]) + "-" + w.pick(slots["badA"]) + "." + w.pick(slots["badtld"])
	case 2:
		return w.letters(5+w.r.IntN(7)) + "." + w.pick(slots["badtld"])
	}
	return w.pick(slots["word"]) + w.pick(slots["badB"]) + "." + w.pick(slots["badtld"])
}

func (w *writer) letters(n int) string {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte('a' + w.r.IntN(26))
	}
	return string(b)
}

func (w *writer) amount() string {
	n := w.r.IntN([]int{100, 1000, 20000}[w.r.IntN(3)]) + 1
	switch w.r.IntN(5) {
	case 0:
		return fmt.Sprintf("€%d.%02d", n, w.r.IntN(100))
	case 1:
		return fmt.Sprintf("%d,%02d EUR", n, w.r.IntN(100))
	case 2:
		return fmt.Sprintf("£%d.%02d", n, w.r.IntN(100))
	}
	return fmt.Sprintf("$%d.%02d", n, w.r.IntN(100))
}

func (w *writer) date() string {
	m, day, year := w.pick(slots["month"]), 1+w.r.IntN(28), 1999+w.r.IntN(28)
	switch w.r.IntN(4) {
	case 0:
		return fmt.Sprintf("%d %s %d", day, m, year)
	case 1:
		return fmt.Sprintf("%s %d, %d", m[:3], day, year)
	case 2:
		return fmt.Sprintf("%02d.%02d.%d", day, 1+w.r.IntN(12), year)
	}
	return fmt.Sprintf("%s %d", m, day)
}

// expand replaces alternatives and slots, innermost first.
func (w *writer) expand(s string) string {
	for {
		end := strings.IndexByte(s, '}')
		if end < 0 {
			return s
		}
		open := strings.LastIndexByte(s[:end], '{')
		if open < 0 {
			return s
		}
		in := s[open+1 : end]
		var v string
		switch {
		case in == "#":
			v = "#"
		case strings.Contains(in, "|"):
			v = w.pick(strings.Split(in, "|"))
		default:
			v = w.slotOr(in)
		}
		s = s[:open] + v + s[end+1:]
	}
}

// slotOr is the slot of that name, or the text itself where a nested alternative left only a text.
func (w *writer) slotOr(in string) string {
	if slots[in] == nil && !made[in] {
		return in
	}
	return w.slot(in)
}

var made = func() map[string]bool {
	m := map[string]bool{}
	for _, s := range list("d h qty num amt date trk tel ip N WORD btc x firm dom host mailhost user baddom web") {
		m[s] = true
	}
	return m
}()

// mail writes one mail of t.
func (w *writer) mail(t *template) []byte {
	w.fixed, w.bad, w.relay = map[string]string{}, t.bad, ""
	from, subject := w.expand(t.head["From"]), w.expand(t.head["Subject"])
	var paras []string
	for _, l := range t.lines {
		paras = append(paras, w.expand(l))
	}
	var b bytes.Buffer
	name, addr, _ := strings.Cut(from, "<")
	addr = strings.ToLower(strings.ReplaceAll(strings.TrimSuffix(addr, ">"), " ", ""))
	fmt.Fprintf(&b, "From: %s\r\n", (&mail.Address{Name: strings.TrimSpace(name), Address: addr}).String())
	fmt.Fprintf(&b, "To: rcpt-%s@example.net\r\nSubject: %s\r\n", w.letters(8), mime.QEncoding.Encode("utf-8", strings.TrimSpace(subject)))
	fmt.Fprintf(&b, "Date: Mon, %d %s %d %02d:%02d:00 +0000\r\n", 1+w.r.IntN(28), w.pick(slots["month"])[:3], 2003+w.r.IntN(24), w.r.IntN(24), w.r.IntN(60))
	fmt.Fprintf(&b, "Message-ID: <%s@%s>\r\nMIME-Version: 1.0\r\n", w.letters(16), addr[strings.LastIndexByte(addr, '@')+1:])
	if t.head["ReplyTo"] != "" && w.r.IntN(2) == 0 {
		fmt.Fprintf(&b, "Reply-To: %s\r\n", w.expand(t.head["ReplyTo"]))
	} else if w.r.IntN(5) == 0 {
		fmt.Fprintf(&b, "Reply-To: %s\r\n", addr)
	}
	if t.head["List"] != "" || w.r.IntN(5) == 0 {
		fmt.Fprintf(&b, "List-Unsubscribe: <https://%s/u/%s>\r\n", addr[strings.LastIndexByte(addr, '@')+1:], w.letters(12))
	}
	if m := w.r.IntN(12); m < 4 {
		fmt.Fprintf(&b, "X-Mailer: %s\r\n", []string{"Microsoft Outlook 16.0", "Apple Mail (2.3654)", "PHPMailer 6.5.0", "Nodemailer (6.9)"}[m])
	}
	w.body(&b, t, paras)
	return b.Bytes()
}

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
			if shown, url := w.link(label); shown != url {
				return shown + ": " + url
			} else {
				return url
			}
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
