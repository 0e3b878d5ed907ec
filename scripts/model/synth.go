package main

import (
	"bytes"
	"embed"
	"fmt"
	"math/rand/v2"
	"mime"
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
