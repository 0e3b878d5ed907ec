package main

import (
	"fmt"
	"strings"
)

// url makes a link as that kind of sender has them.
func (w *writer) url() string {
	if !w.bad {
		return w.goodURL()
	}
	switch w.r.IntN(10) {
	case 0:
		return "https://bit.ly/" + w.letters(7)
	case 1:
		return fmt.Sprintf("https://%s.web.app/%s", w.letters(9), w.letters(5))
	case 2:
		return fmt.Sprintf("http://198.51.100.%d/%s", w.r.IntN(250), w.letters(6))
	case 3:
		return fmt.Sprintf("https://%s/wp-content/%s/%s.php", w.slot("baddom"), w.letters(5), w.pick(list("login index verify secure")))
	case 4, 5: // who sends much has a name of his own, if only for a day
		return fmt.Sprintf("http%s://%s%s/%s", w.pick([]string{"", "s"}), w.pick([]string{"", "www.", "click."}), w.slot("baddom"), w.letters(3+w.r.IntN(20)))
	case 6: // misused, or to look like others
		return w.elsewhere()
	}
	return fmt.Sprintf("http%s://%s/%s", w.pick([]string{"", "s"}), w.badDomain(), w.letters(3+w.r.IntN(20)))
}

// goodURL is the sender's own page, or where a service leads that sends and counts for him.
func (w *writer) goodURL() string {
	page := w.pick(list("orders view c track r p news account docs ls/click e/1 users settings unsubscribe products blog"))
	if w.relay == "" {
		w.relay = "own"
		if w.r.IntN(3) == 0 {
			w.relay = w.pick([]string{"click." + w.letters(4) + "mail.com", "u" + fmt.Sprint(1000+w.r.IntN(9000)) + ".ct." + w.pick(slots["firmA"]) + "send.net", "links." + w.pick(slots["word"]) + "mta.com",
				"trk." + w.pick(slots["word"]) + "letters.io", w.pick(slots["word"]) + ".us" + fmt.Sprint(1+w.r.IntN(20)) + ".list-manage.com", "email." + w.pick(slots["firmA"]) + w.pick(slots["firmB"]) + ".com"})
		}
	}
	if w.relay != "own" {
		return fmt.Sprintf("http%s://%s/%s/%s", w.pick([]string{"", "s", "s"}), strings.ToLower(w.relay), w.pick(list("c ls/click track/click f/a e/c u/0")), w.letters(12+w.r.IntN(40)))
	}
	return fmt.Sprintf("http%s://%s%s/%s/%s", w.pick([]string{"", "s", "s"}), []string{"www.", "", "click.", "email.", "links.", "shop."}[w.r.IntN(6)], w.slot("dom"), page, w.letters(4+w.r.IntN(20)))
}

// elsewhere is a page of others, as people pass them on.
func (w *writer) elsewhere() string {
	firm := strings.ToLower(w.pick(slots["firmA"]) + w.pick(slots["firmB"]))
	switch w.r.IntN(12) {
	case 0:
		return "https://www.youtube.com/watch?v=" + w.letters(11)
	case 1:
		return "https://docs.google.com/document/d/" + w.letters(30) + "/edit"
	case 2:
		return "https://github.com/" + w.pick(slots["word"]) + "/" + w.pick(slots["word"]) + "/issues/" + fmt.Sprint(w.r.IntN(9000))
	case 3:
		return "https://en.wikipedia.org/wiki/" + w.pick(slots["word"])
	case 4:
		return fmt.Sprintf("https://us02web.zoom.us/j/%d", 10000000+w.r.IntN(90000000))
	case 5:
		return fmt.Sprintf("http://lists.%s.org/mailman/listinfo/%s", firm, w.pick(slots["word"]))
	case 6:
		return fmt.Sprintf("http://news.%s.%s/%d/%d/%d.html", firm, w.pick(slots["tld"]), 1+w.r.IntN(12), 1+w.r.IntN(28), 1000+w.r.IntN(900000))
	case 7:
		return fmt.Sprintf("http://www.%s.edu/~%s/%s.html", firm, w.pick(slots["n"]), w.pick(slots["word"]))
	}
	return fmt.Sprintf("http%s://%s%s.%s/%s", w.pick([]string{"", "s"}), w.pick([]string{"", "www."}), firm, w.pick(slots["tld"]), w.pick([]string{"", w.pick(slots["word"]), w.pick(slots["word"]) + ".html", "index.php?id=" + fmt.Sprint(w.r.IntN(999)), "blog/" + w.pick(slots["word"]) + "-" + w.pick(slots["word"])}))
}

// link is the address behind a label: one that begins with a tilde leads elsewhere.
func (w *writer) link(label string) (shown, url string) {
	if shown, ok := strings.CutPrefix(label, "~"); ok {
		return shown, w.elsewhere()
	}
	url = w.url()
	if label == "http link" || label == "" {
		label = url
	}
	return label, url
}
