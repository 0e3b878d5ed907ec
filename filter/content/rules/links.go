package rules

import (
	"slices"
	"strings"
	"unicode"

	"golang.org/x/net/idna"

	"sluice/filter/content/view"
)

// maxHosts bounds how many hosts of a message are looked at.
const maxHosts = 40

// links looks at where a message leads.
func (c *checker) links() {
	var hosts [maxHosts]string
	n := 0
	for i := range c.v.Links {
		l := &c.v.Links[i]
		if l.Kind != view.Image && len(l.URL) > 10 && (strings.EqualFold(l.URL[:10], "data:text/") || strings.EqualFold(l.URL[:10], "data:appli")) {
			c.fire(&urlCode, l.URL)
			continue
		}
		h := l.Host()
		if h == "" {
			continue
		}
		if l.Kind == view.Anchor {
			c.shown(l, h)
		}
		if slices.Contains(hosts[:n], h) {
			continue
		}
		if n == len(hosts) {
			break
		}
		hosts[n] = h
		n++
		if l.User() {
			c.fire(&urlUser, l.URL)
		}
		c.host(h, l)
	}
}

// host looks at one host that a message leads to.
func (c *checker) host(h string, l *view.Link) {
	if numeric(h) {
		if !private(h) {
			c.fire(&urlNumeric, l.URL)
		}
		return
	}
	reg := registered(h)
	switch {
	case shorteners[reg] && l.Kind != view.Image:
		c.fire(&urlShort, l.URL)
	case l.Kind != view.Image && anyones(h, reg):
		c.fire(&urlFreeHost, l.URL)
	}
	readable := h
	if strings.Contains(h, "xn--") || !ascii(h) {
		if u, err := idna.ToUnicode(h); err == nil {
			readable = strings.ToLower(u)
		}
		if mixed(readable) {
			c.fire(&urlIDN, h+" reads "+readable)
		}
	}
	c.borrowed(readable, reg, l)
}

// borrowed looks for a well-known name in a host that is not of its owner.
func (c *checker) borrowed(h, reg string, l *view.Link) {
	owner, _, _ := strings.Cut(reg, ".")
	if b := known.byLabel[owner]; b != nil {
		return
	}
	start := 0
	for i := 0; i <= len(h); i++ {
		if i < len(h) && h[i] != '.' && h[i] != '-' && h[i] != '_' {
			continue
		}
		token := h[start:i]
		start = i + 1
		if b := known.byLabel[token]; b != nil && !b.owns(h) && l.Kind != view.Image && !knownHosts[reg] {
			c.fire(&urlBrand, h+" carries "+b.name)
		} else if b := known.resembles(token); b != nil && !b.owns(h) {
			c.fire(&urlLookalike, h+" resembles "+b.name)
		}
	}
}

// shown compares the host that a link shows with the one that it leads to.
func (c *checker) shown(l *view.Link, h string) {
	t := strings.TrimSpace(l.Text)
	if len(t) < 6 || strings.IndexByte(t, '.') < 0 || strings.ContainsAny(t, " \n@") {
		return
	}
	t = strings.ToLower(t)
	if !strings.Contains(t, "://") {
		if !strings.HasPrefix(t, "www.") {
			return
		}
		t = "http://" + t
	}
	seen := (&view.Link{URL: t}).Host()
	if seen == "" || !strings.Contains(seen, ".") || registered(seen) == registered(h) || label(seen) == label(h) {
		return
	}
	if tracker(h) {
		return // a sender of bulk mail counts who follows
	}
	c.fire(&urlMismatch, "shows "+seen+", leads to "+h)
}

// tracker reports whether a host counts clicks for others, by its name: such links stand in all bulk mail.
func tracker(h string) bool {
	first, _, _ := strings.Cut(h, ".")
	return counters[strings.TrimRight(first, "0123456789")] || knownHosts[registered(h)]
}

var counters = set("click clicks link links track trk lnk url urls email mail mailing go news newsletter e t r em safelinks ct cl")

// knownHosts are those under whose names others' mail leads legitimately.
var knownHosts = set("sendgrid.net mailchimp.com list-manage.com mandrillapp.com amazonses.com awstrack.me sparkpostmail.com hubspotlinks.com hubspotemail.net " +
	"exacttarget.com sfmc-content.com salesforce.com urldefense.com proofpoint.com outlook.com google.com doubleclick.net constantcontact.com rs6.net cmail19.com " +
	"createsend.com klaviyomail.com mailgun.org mjt.lu sendinblue.com brevo.com mlsend.com emltrk.com apple.com microsoft.com github.com youtube.com w3.org schema.org gstatic.com")

var shorteners = set("bit.ly tinyurl.com t.co goo.gl ow.ly is.gd buff.ly cutt.ly rebrand.ly rb.gy shorturl.at t.ly tiny.cc s.id v.gd qrco.de bl.ink shorturl.ac " +
	"lnkd.in adf.ly x.co u.to soo.gd clck.ru shorte.st tr.im bit.do urlz.fr n9.cl acortar.link encurtador.com.br linktr.ee tinyurl2.ru qr.ae surl.li")

// pages are domains under which anybody can put up a page within minutes.
var pages = set("web.app firebaseapp.com pages.dev workers.dev r2.dev netlify.app vercel.app herokuapp.com glitch.me repl.co replit.app github.io gitlab.io weebly.com wixsite.com " +
	"weeblysite.com blogspot.com wordpress.com 000webhostapp.com godaddysites.com myftpupload.com square.site webflow.io framer.website ipfs.io dweb.link cloudfront.net " +
	"azurewebsites.net windows.net azureedge.net azurefd.net cloudapp.net amazonaws.com digitaloceanspaces.com storage.googleapis.com appspot.com duckdns.org ddns.net hopto.org " +
	"zapto.org ngrok.io ngrok-free.app trycloudflare.com surge.sh onrender.com fly.dev typeform.com jotform.com formstack.com translate.goog yolasite.com strikingly.com mystrikingly.com webnode.page tripod.com geocities.com angelfire.com altervista.org bravehost.com freewebhostx.com")

// anyones reports whether the page is one that anybody can put up.
func anyones(h, reg string) bool {
	if pages[reg] || pages[h] {
		return true
	}
	_, parent, _ := strings.Cut(h, ".")
	return pages[parent] || h == "storage.googleapis.com"
}

func set(words string) map[string]bool {
	m := map[string]bool{}
	for _, w := range strings.Fields(words) {
		m[w] = true
	}
	return m
}

// numeric reports whether a browser would read the host as an address, however it is written.
func numeric(h string) bool {
	if h == "" || strings.Contains(h, ":") {
		return h != ""
	}
	last := h[strings.LastIndexByte(h, '.')+1:]
	if last == "" {
		return false
	}
	if strings.HasPrefix(last, "0x") {
		return true
	}
	for i := range len(last) {
		if last[i] < '0' || last[i] > '9' {
			return false
		}
	}
	return true
}

// private reports whether an address of that form leads to the reader's own network.
func private(h string) bool {
	return strings.HasPrefix(h, "10.") || strings.HasPrefix(h, "192.168.") || strings.HasPrefix(h, "127.") || strings.HasPrefix(h, "172.16.") || strings.HasPrefix(h, "fe80:")
}

func ascii(s string) bool {
	for i := range len(s) {
		if s[i] >= 0x80 {
			return false
		}
	}
	return true
}

// mixed reports whether a label has letters of Latin and of another script that looks alike.
func mixed(h string) bool {
	for _, l := range strings.Split(h, ".") {
		latin, other := false, false
		for _, c := range l {
			latin = latin || unicode.Is(unicode.Latin, c)
			other = other || unicode.Is(unicode.Cyrillic, c) || unicode.Is(unicode.Greek, c)
		}
		if latin && other || other && lookalikes.Replace(l) != l && ascii(lookalikes.Replace(l)) {
			return true
		}
	}
	return false
}
